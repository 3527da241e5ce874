package s3gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

// TestThroughput compares a gateway with the bare engine: eight clients over TLS, in
// turns. It runs with BLOBSEAL_STRESS=1m, and only reports.
func TestThroughput(t *testing.T) {
	if os.Getenv("BLOBSEAL_STRESS") == "" {
		t.Skip("set BLOBSEAL_STRESS=1m to measure")
	}
	bare := newSetup(t)
	bare.Bare = true
	plain, sealed := bare.start(t).client(t), newSetup(t).start(t).client(t)
	newBucket(t, sealed)
	_, err := plain.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	for _, load := range []struct{ size, requests, rounds, keys int }{{4 << 10, 100, 4, 100}, {64 << 20, 8, 4, 8}, {1 << 30, 8, 2, 4}} {
		content := text(load.size)
		put := func(c *s3.Client, key string) error {
			_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(content)})
			return err
		}
		get := func(c *s3.Client, key string) error {
			out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key})
			if err != nil {
				return err
			}
			defer out.Body.Close()
			_, err = io.Copy(io.Discard, out.Body)
			return err
		}
		for _, op := range []struct {
			name string
			do   func(*s3.Client, string) error
		}{{"PUT", put}, {"GET", get}} {
			var took [2][]time.Duration
			var total [2]time.Duration
			for range load.rounds {
				for i, c := range []*s3.Client{plain, sealed} {
					times, whole := timeCalls(t, load.requests, func(i int) error { return op.do(c, fmt.Sprintf("k/%d", i%load.keys)) })
					took[i], total[i] = append(took[i], times...), total[i]+whole
				}
			}
			t.Logf("%s of %d bytes: %.2f of the bare engine's throughput; p50 %v and %v, p99 %v and %v", op.name, load.size,
				total[0].Seconds()/total[1].Seconds(), quantile(took[0], 0.5), quantile(took[1], 0.5), quantile(took[0], 0.99), quantile(took[1], 0.99))
		}
	}
}

// timeCalls calls do count times, by eight clients, and returns how long each took.
func timeCalls(t *testing.T, count int, do func(i int) error) (times []time.Duration, whole time.Duration) {
	var clients sync.WaitGroup
	var mu sync.Mutex
	begin := time.Now()
	for client := range 8 {
		clients.Go(func() {
			for i := client; i < count; i += 8 {
				start := time.Now()
				err := do(i)
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				times = append(times, time.Since(start))
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	return times, time.Since(begin)
}

func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))].Round(time.Millisecond)
}
