package sseotel_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// TestKeyOperations: key operations are counted by mode, operation, outcome and code.
func TestKeyOperations(t *testing.T) {
	f := newFleet(t)
	f.doEverything(t)
	count := func(labels ...string) string {
		return f.value("blobseal_key_operation_duration_seconds_count", labels...)
	}
	s3 := `blobseal_mode="SSE-S3"`
	require.Equal(t, "2", count(s3, `operation="encrypt"`, `outcome="success"`))
	require.Equal(t, "3", count(s3, `operation="decrypt"`, `outcome="success"`))
	require.Equal(t, "1", count(s3, `operation="rewrap"`, `outcome="success"`))
	require.Equal(t, "1", count(s3, `operation="decrypt"`, `error_type="WrongKey"`, `outcome="refused"`))
	sseKMS := `blobseal_mode="SSE-KMS"`
	require.Equal(t, "1", count(sseKMS, `operation="decrypt"`, `error_type="Disabled"`, `outcome="refused"`))
	require.Equal(t, "1", count(sseKMS, `operation="encrypt"`, `error_type="NotRecorded"`, `outcome="failed"`))
	require.Equal(t, "1", count(sseKMS, `operation="encrypt"`, `error_type="Canceled"`, `outcome="canceled"`))
	require.Equal(t, "1", f.value("blobseal_kms_operation_duration_seconds_count", `operation="Authorize"`, `error_type="Disabled"`))
	require.Equal(t, "1", f.value("blobseal_audit_records_total", `outcome="failed"`))
}

// TestStreams: bytes and objects are counted by mode and direction, failures by code.
func TestStreams(t *testing.T) {
	f := newFleet(t)
	f.doEverything(t)
	s3 := `blobseal_mode="SSE-S3"`
	require.Equal(t, "4", f.value("blobseal_plaintext_io_bytes_total", s3, `direction="encrypt"`))
	require.Equal(t, "4", f.value("blobseal_plaintext_io_bytes_total", s3, `direction="decrypt"`))
	require.Equal(t, "1", f.value("blobseal_objects_total", s3, `direction="encrypt"`))
	require.Equal(t, "1", f.value("blobseal_objects_total", s3, `direction="decrypt"`))
	require.Equal(t, "1", f.value("blobseal_stream_failures_total", s3, `direction="decrypt"`, `error_type="Corrupt"`))
	require.Equal(t, "1", f.value("blobseal_stream_failures_total", s3, `direction="encrypt"`, `error_type="IO"`))
}

// TestCacheMetrics: hits and misses are those of the cache.
func TestCacheMetrics(t *testing.T) {
	f := newFleet(t)
	object := seal(t, f.kms, []byte("meow"))
	for range 4 {
		_, err := open(t.Context(), f.kms, object)
		require.NoError(t, err)
	}
	require.Equal(t, "3", f.value("blobseal_kms_cache_uses_total", `result="hit"`))
	require.Equal(t, "2", f.value("blobseal_kms_cache_uses_total", `result="miss"`))
	require.Equal(t, "0", f.value("blobseal_kms_cache_uses_total", `result="stale"`))
	require.Equal(t, "2", f.value("blobseal_kms_cache_entries"))
	require.Equal(t, "3", f.value("blobseal_kms_operation_duration_seconds_count", `operation="Decrypt"`, `cached="true"`))
}

// TestRingMetrics: the ring's ages grow, and rotations, refreshes and their failures are
// counted.
func TestRingMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store := newBed(t), new(faultyStore)
		ring := newRing(t, store)
		stop := b.ObserveRing("photos", ring)
		own := `blobseal_ring="photos"`
		time.Sleep(time.Hour)
		require.Equal(t, "3600", b.value("blobseal_ring_primary_age_seconds", own))
		require.Equal(t, "3600", b.value("blobseal_ring_refresh_age_seconds", own))
		require.Equal(t, "7.776e+06", b.value("blobseal_ring_period_seconds", own))

		old := ring.Versions()[0].ID
		_, err := ring.Rotate(t.Context())
		require.NoError(t, err)
		_, err = ring.SetState(t.Context(), old, keyring.Disabled)
		require.NoError(t, err)
		require.Equal(t, "0", b.value("blobseal_ring_primary_age_seconds"))
		require.Equal(t, "0", b.value("blobseal_ring_refresh_age_seconds"))
		require.Equal(t, "1", b.value("blobseal_ring_versions", `state="enabled"`))
		require.Equal(t, "1", b.value("blobseal_ring_versions", `state="disabled"`))
		require.Equal(t, "0", b.value("blobseal_ring_versions", `state="destroyed"`))

		store.fail(errBroken)
		require.Error(t, ring.Refresh(t.Context()))
		_, err = ring.Rotate(t.Context())
		require.Error(t, err)
		require.Equal(t, "1", b.value("blobseal_ring_refreshes_total", `outcome="failed"`))
		require.Equal(t, "1", b.value("blobseal_ring_rotations_total", `outcome="failed"`))
		require.Equal(t, "1", b.value("blobseal_ring_rotations_total", `outcome="success"`))

		stop()
		require.Empty(t, b.value("blobseal_ring_primary_age_seconds"))
	})
}

// TestServiceMetrics: the embedded key service is observed as a ring is.
func TestServiceMetrics(t *testing.T) {
	b, service := newBed(t), newKeyService(t)
	defer b.ObserveService("keys", service.Service)()
	_, err := service.RotateKey(t.Context(), service.key)
	require.NoError(t, err)
	require.Equal(t, "1", b.value("blobseal_localkms_rotations_total", `blobseal_service="keys"`, `outcome="success"`))
	require.NotEmpty(t, b.value("blobseal_localkms_refresh_age_seconds"))
	require.NotEmpty(t, b.value("blobseal_localkms_refreshes_total", `outcome="success"`))
}

// TestJobMetrics: a job's progress shows while it runs, and its end is counted.
func TestJobMetrics(t *testing.T) {
	f := newFleet(t)
	during := 0
	f.runJob(t, func() {
		during++
		require.Equal(t, "3", f.value("blobseal_job_objects", `job="rewrap photos"`, `outcome="done"`))
		require.Equal(t, "0", f.value("blobseal_job_objects", `outcome="failed"`))
		require.NotEqual(t, "0", f.value("blobseal_job_bytes"))
		require.Equal(t, "1", f.value("blobseal_job_active"))
		require.NotEmpty(t, f.value("blobseal_job_progress_age_seconds"))
	})
	require.Equal(t, 1, during)
	require.Empty(t, f.value("blobseal_job_active"))
	require.Equal(t, "1", f.value("blobseal_job_runs_total", `outcome="success"`))
	f.StartJob("encrypt photos").End(errors.New("3 objects are undone"))
	require.Equal(t, "1", f.value("blobseal_job_runs_total", `job="encrypt photos"`, `outcome="failed"`))
	f.StartJob("check photos").End(context.Canceled)
	require.Equal(t, "1", f.value("blobseal_job_runs_total", `job="check photos"`, `outcome="canceled"`))
}

// TestMetricsOfOneName: what is observed twice under one name does not break a scrape.
func TestMetricsOfOneName(t *testing.T) {
	b := newBed(t)
	b.ObserveRing("photos", newRing(t, keyring.NewMemStore()))
	b.ObserveRing("photos", newRing(t, keyring.NewMemStore()))
	require.NotEmpty(t, b.value("blobseal_ring_primary_age_seconds"))
}

// TestDefaultProviders: without options, the global providers count, which do nothing
// until they are set.
func TestDefaultProviders(t *testing.T) {
	tel, err := sseotel.New()
	require.NoError(t, err)
	ring := newRing(t, keyring.NewMemStore())
	defer tel.ObserveRing("photos", ring)()
	tel.ObserveRing("nothing", nil)()
	tel.ObserveCache("nothing", nil)()
	tel.ObserveService("nothing", nil)()
	_, err = sseotel.New(sseotel.WithMeterProvider(sdkmetric.NewMeterProvider()))
	require.NoError(t, err)
}

// TestCountsAreExact: operations that several goroutines do while metrics are collected
// are all counted, once. No spans are sampled, so durations wait for each other.
func TestCountsAreExact(t *testing.T) {
	f := newFleet(t, sseotel.WithTracerProvider(noop.NewTracerProvider()))
	env, err := sse.ReadEnvelope(bytes.NewReader(seal(t, f.managed, nil)))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := f.managed.Encrypt(t.Context(), cat); err != nil {
					t.Error(err)
				}
				if _, err := f.managed.Decrypt(t.Context(), cat, env); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		f.scrape()
	}
	wg.Wait()
	require.Equal(t, "201", f.value("blobseal_key_operation_duration_seconds_count", `operation="encrypt"`))
	require.Equal(t, "200", f.value("blobseal_key_operation_duration_seconds_count", `operation="decrypt"`))
}
