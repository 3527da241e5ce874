package sseotel_test

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// BenchmarkCost measures what metrics add to an encryption in SSE-S3. Each round
// times batches of both kinds in turn, so that the noise of the machine hits both.
// The result is the median over all rounds of the ratio, less one, in percent.
//
//	go test ./sse/sseotel -run '^$' -bench Cost -benchtime 1000x
func BenchmarkCost(b *testing.B) {
	plain := sse.Cipher(sse.NewManaged(newRing(b, keyring.NewMemStore())))
	absent, err := sseotel.New(sseotel.WithMeterProvider(metricnoop.NewMeterProvider()), sseotel.WithTracerProvider(tracenoop.NewTracerProvider()))
	require.NoError(b, err)
	real := newBed(b, sseotel.WithTracerProvider(tracenoop.NewTracerProvider()))
	traced := newBed(b)
	for _, size := range []struct {
		name         string
		bytes, batch int
	}{{"1KiB", 1 << 10, 100}, {"64KiB", 64 << 10, 40}} {
		data := make([]byte, size.bytes)
		for _, with := range []struct {
			name   string
			cipher sse.Cipher
		}{
			{"metrics", real.Cipher(plain)},
			{"metrics+traces", traced.Cipher(plain)},
			{"no-provider", absent.Cipher(plain)},
			{"itself", plain}, // how noisy the machine is
		} {
			b.Run(size.name+"/"+with.name, func(b *testing.B) {
				ratios := make([]float64, 0, b.N)
				for i := range b.N {
					var took [2]time.Duration
					for turn := range 2 {
						which := (i + turn) % 2
						took[which] = encryptBatch(b, []sse.Cipher{plain, with.cipher}[which], data, size.batch)
					}
					ratios = append(ratios, float64(took[1])/float64(took[0]))
					traced.spans.Reset()
				}
				slices.Sort(ratios)
				b.ReportMetric(100*(ratios[len(ratios)/2]-1), "%cost")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func encryptBatch(b *testing.B, c sse.Cipher, data []byte, n int) time.Duration {
	start := time.Now()
	for range n {
		w, err := sse.NewWriter(b.Context(), io.Discard, c, cat, nil)
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}
