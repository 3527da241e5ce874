package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// The age of what a server knows at which it is unhealthy. Rings are refreshed every
// minute, and go on sealing and opening. A key service is refreshed every second, and
// refuses everything after a minute: see localkms.Options.MaxStaleness.
const (
	staleRing    = 5 * time.Minute
	staleService = 45 * time.Second
)

// healthWait is how long a store may take to answer a health check.
const healthWait = 5 * time.Second

// status tells monitoring how a server is.
type status struct {
	bucket   *bucket
	keys     []*keys.Keys
	registry *prometheus.Registry
	provider *metric.MeterProvider
	stopping atomic.Bool
}

// newStatus makes the status of a server, to whose telemetry keys report that are opened
// from then on.
func newStatus(c *console.Console) (*status, error) {
	s := &status{registry: prometheus.NewRegistry()}
	reader, err := exporter.New(exporter.WithRegisterer(s.registry))
	if err != nil {
		return nil, err
	}
	s.provider = metric.NewMeterProvider(metric.WithReader(reader))
	c.Telemetry, err = sseotel.New(sseotel.WithMeterProvider(s.provider))
	return s, err
}

// observe has keys report what they do.
func (s *status) observe(telemetry *sseotel.Telemetry, all []*keys.Keys) {
	s.keys = all
	for _, k := range all {
		k.Cipher = telemetry.Cipher(k.Cipher)
		if k.Ring != nil {
			telemetry.ObserveRing(k.RingPath, k.Ring)
		}
		if k.Service != nil {
			k.Service.Observe(telemetry)
		}
	}
}

// runKeys refreshes and rotates rings and key services until stop is called.
func runKeys(ctx context.Context, all []*keys.Keys) (stop func()) {
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	for _, k := range all {
		switch { // Run returns the error of ctx
		case k.Ring != nil:
			running.Go(func() { _ = k.Ring.Run(ctx) })
		case k.Service != nil:
			running.Go(func() { _ = k.Service.Run(ctx) })
		}
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// health returns an error if requests are likely to fail.
func (s *status) health(ctx context.Context) error {
	if s.stopping.Load() {
		return errors.New("stopping")
	}
	for _, k := range s.keys {
		what, refreshed, limit := "ring", time.Now(), staleRing
		switch {
		case k.Ring != nil:
			refreshed = k.Ring.Stats().Refreshed
		case k.Service != nil:
			what, refreshed, limit = "key service", k.Service.Refreshed(), staleService
		}
		if age := time.Since(refreshed); age > limit {
			return fmt.Errorf("%s not refreshed for %v", what, age.Round(time.Second))
		}
	}
	if dir := s.bucket.dir; dir != "" && !message.IsDirectory(dir) { // which package fileblob does not look at
		return errors.New("the bucket's directory is missing")
	}
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	switch there, err := s.bucket.Inner().IsAccessible(ctx); {
	case err != nil:
		return errors.New("the store does not answer")
	case !there:
		return errors.New("the bucket is not accessible")
	}
	return nil
}

// handler answers /healthz and /metrics.
func (s *status) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := s.health(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

// serve answers on an address until stop is called.
func (s *status) serve(address string, logger *slog.Logger) (stop func(), shown string, err error) {
	listener, err := listen("--status-listen", address)
	if err != nil {
		return nil, "", err
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // until it is closed
	}()
	return func() {
		server.Close()
		<-done
		_ = s.provider.Shutdown(context.Background())
	}, listener.Addr().String(), nil
}
