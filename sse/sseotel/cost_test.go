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

// BenchmarkCost measures what metrics add to an encryption in SSE-S3. It encrypts one
// object after the other, with and without metrics in turn, so that the noise of the
// machine hits both alike. Since some work is done once for 32 operations, it adds up 32
// of each kind, and compares the medians of the sums. The result is the ratio of the
// medians, less one, in percent.
//
//	go test ./sse/sseotel -run '^$' -bench Cost -benchtime 1000x
func BenchmarkCost(b *testing.B) {
	plain := sse.Cipher(sse.NewManaged(newRing(b, keyring.NewMemStore())))
	absent, err := sseotel.New(sseotel.WithMeterProvider(metricnoop.NewMeterProvider()), sseotel.WithTracerProvider(tracenoop.NewTracerProvider()))
	require.NoError(b, err)
	real := newBed(b, sseotel.WithTracerProvider(tracenoop.NewTracerProvider()))
	traced := newBed(b)
	for _, size := range []struct {
		name  string
		bytes int
	}{{"1KiB", 1 << 10}, {"64KiB", 64 << 10}} {
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
				var took [2][]time.Duration
				for range b.N {
					var sums [2]time.Duration
					for i := range 32 {
						for turn := range 2 {
							which := (i + turn) % 2
							sums[which] += encryptOnce(b, []sse.Cipher{plain, with.cipher}[which], data)
						}
					}
					took[0], took[1] = append(took[0], sums[0]), append(took[1], sums[1])
					traced.spans.Reset()
				}
				slices.Sort(took[0])
				slices.Sort(took[1])
				without, with := took[0][b.N/2], took[1][b.N/2]
				b.ReportMetric(100*(float64(with)/float64(without)-1), "%cost")
				b.ReportMetric(float64(without)/32, "ns-without")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func encryptOnce(b *testing.B, c sse.Cipher, data []byte) time.Duration {
	start := time.Now()
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
	return time.Since(start)
}
