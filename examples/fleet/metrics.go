package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/blobseal/blobseal/sse/sseotel"
)

// metricsEnv names a directory. If it is set, a replica serves its metrics on a free port
// of this machine, and writes the address to a file there, named after it.
const metricsEnv = "BLOBSEAL_FLEET_METRICS"

// newTelemetry returns telemetry that Prometheus can scrape, or, without metricsEnv,
// telemetry that does nothing.
func newTelemetry() (*sseotel.Telemetry, error) {
	dir := os.Getenv(metricsEnv)
	if dir == "" {
		return sseotel.New()
	}
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go http.Serve(listener, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	name := filepath.Join(dir, filepath.Base(listener.Addr().String()))
	if err := os.WriteFile(name, []byte(listener.Addr().String()), 0o600); err != nil {
		return nil, err
	}
	return sseotel.New(sseotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))))
}
