package sseotel_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// bed is a Telemetry with the real exporter of Prometheus and a recorder of spans.
type bed struct {
	*sseotel.Telemetry
	t        testing.TB
	registry *prometheus.Registry
	meters   *sdkmetric.MeterProvider
	tracers  *sdktrace.TracerProvider
	spans    *tracetest.InMemoryExporter
}

func newBed(t testing.TB, opts ...sseotel.Option) *bed {
	b := &bed{t: t, registry: prometheus.NewRegistry(), spans: tracetest.NewInMemoryExporter()}
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(b.registry))
	require.NoError(t, err)
	b.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	b.tracers = sdktrace.NewTracerProvider(sdktrace.WithSyncer(b.spans))
	opts = append([]sseotel.Option{sseotel.WithMeterProvider(b.meters), sseotel.WithTracerProvider(b.tracers)}, opts...)
	b.Telemetry, err = sseotel.New(opts...)
	require.NoError(t, err)
	return b
}

// scrape returns what Prometheus would get.
func (b *bed) scrape() string {
	b.t.Helper()
	reply := httptest.NewRecorder()
	promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).
		ServeHTTP(reply, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(b.t, 200, reply.Code, reply.Body.String())
	return reply.Body.String()
}

// value returns the value of the one series whose name is name and whose labels
// include labels, such as `blobseal_mode="SSE-S3"`, or "" if there is none.
func (b *bed) value(name string, labels ...string) string {
	b.t.Helper()
	found, text := "", b.scrape()
lines:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name+"{")
		if !ok {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue lines
			}
		}
		require.Empty(b.t, found, "several series %s%v in:\n%s", name, labels, text)
		found = strings.TrimSpace(rest[strings.LastIndex(rest, "}")+1:])
	}
	return found
}

func keyRoot(t testing.TB) keyring.Root {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{0xb5}, 32))
	require.NoError(t, err)
	return root
}

var quiet = slog.New(slog.DiscardHandler)

func newRing(t testing.TB, store keyring.Store) *keyring.Ring {
	ring, err := keyring.Create(t.Context(), store, keyRoot(t), &keyring.Options{Logger: quiet})
	require.NoError(t, err)
	return ring
}

// keyService is a localkms service with one key.
type keyService struct {
	*localkms.Service
	*localkms.Client
	key string
}

func newKeyService(t testing.TB) *keyService { return newKeyServiceIn(t, keyring.NewMemStore()) }

func newKeyServiceIn(t testing.TB, store keyring.Store) *keyService {
	service, err := localkms.Create(t.Context(), store, keyRoot(t), &localkms.Options{
		Logger: quiet, RefreshInterval: 20 * time.Second, // simulated hours take few loads
	})
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	info, err := client.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	return &keyService{service, client, info.ID}
}

var errBroken = errors.New("broken on purpose")

// faultyStore fails while it is broken.
type faultyStore struct {
	keyringtest.Store
	faults
	swaps faults // of writes alone
}

func (s *faultyStore) Load(ctx context.Context) ([]byte, string, error) {
	if err := s.err(); err != nil {
		return nil, "", err
	}
	return s.Store.Load(ctx)
}

func (s *faultyStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := errors.Join(s.err(), s.swaps.err()); err != nil {
		return "", err
	}
	return s.Store.Swap(ctx, version, data)
}

// trail is a sink that fails while it is broken.
type trail struct{ faults }

func (s *trail) Write(context.Context, audit.Record) error { return s.err() }

// faultyClient is a key service that fails while it is broken.
type faultyClient struct {
	kms.Client
	faults
}

func (c *faultyClient) Unwrap() kms.Client { return c.Client }

func (c *faultyClient) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	if err := c.err(); err != nil {
		return nil, kms.CallError(ctx, kms.OpGenerateDataKey, keyID, kms.ErrUnavailable, err)
	}
	return c.Client.GenerateDataKey(ctx, keyID, ec)
}

// faults are what fails now.
type faults struct {
	mu     sync.Mutex
	broken error
}

func (f *faults) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

func (f *faults) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

var cat = sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}

// seal returns plain as an object in the self-contained form.
func seal(t testing.TB, enc sse.Encrypter, plain []byte) []byte {
	t.Helper()
	return ssetest.Seal(t, enc, cat, plain, nil)
}

// open returns the plaintext of an object.
func open(ctx context.Context, dec sse.Decrypter, object []byte) ([]byte, error) {
	return ssetest.Open(ctx, dec, cat, object)
}
