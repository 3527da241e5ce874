package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// TestBoundedPool: any number of readers can share a pool of few connections. They never
// deadlock, in whichever way they read.
func TestBoundedPool(t *testing.T) {
	const size = 12*16384 + 77
	const readers, reads = 20, 5
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i * 7 / 5)
	}
	ways := []struct {
		name string
		read func(ctx context.Context, b *blob.Bucket, key string) error
	}{
		{"whole", func(ctx context.Context, b *blob.Bucket, key string) error {
			got, err := b.ReadAll(ctx, key)
			if err == nil && !bytes.Equal(got, p) {
				err = fmt.Errorf("read %d wrong bytes", len(got))
			}
			return err
		}},
		{"short range", readSlice(p, func() (int64, int64) { return rand.Int64N(size - 4096), 4096 })},
		{"long range", readSlice(p, func() (int64, int64) { return rand.Int64N(16384), size - 2*16384 })},
		{"to the end", readSlice(p, func() (int64, int64) { return rand.Int64N(size), -1 })},
		{"attributes", func(ctx context.Context, b *blob.Bucket, key string) error {
			_, err := b.Attributes(ctx, key)
			return err
		}},
		{"list", func(ctx context.Context, b *blob.Bucket, key string) error {
			_, err := b.List(nil).Next(ctx)
			return err
		}},
		{"copy", func(ctx context.Context, b *blob.Bucket, key string) error {
			return b.Copy(ctx, fmt.Sprintf("copy of %s/%d", key, rand.Int()), key, nil)
		}},
	}
	for _, connections := range []int{1, 3} {
		for _, way := range ways {
			for _, key := range []string{"sealed", "plain", "parts"} {
				t.Run(fmt.Sprintf("%d connections/%s/%s", connections, way.name, key), func(t *testing.T) {
					inner, cipher, b := openBounded(t, connections)
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					require.NoError(t, b.WriteAll(ctx, "sealed", p, nil))
					require.NoError(t, inner.WriteAll(ctx, "plain", p, nil))
					putParts(t, inner, "parts", cipher, p, 10*16384, 2*16384+77)

					errs := make(chan error, readers)
					var group sync.WaitGroup
					for range readers {
						group.Go(func() {
							for range reads {
								if err := way.read(ctx, b, key); err != nil {
									errs <- err
									return
								}
							}
						})
					}
					group.Wait()
					close(errs)
					for err := range errs {
						require.NoError(t, err, "within a minute")
					}
				})
			}
		}
	}
}

// openBounded returns a bucket whose requests share a few connections, and the bucket and
// the cipher under it.
func openBounded(t *testing.T, connections int) (inner *gcblob.Bucket, cipher sse.Cipher, b *blob.Bucket) {
	s := startFake(t)
	s.base.(*http.Transport).MaxConnsPerHost = connections
	inner = s.open(t, s.newBucket(t), nil)
	cipher = sse.NewManaged(keyringtest.NewRing(t, nil))
	return inner, cipher, encrypted(t, inner, cipher, &blob.Options{AllowPlain: true})
}

// readSlice returns a read of the part of p that pick chooses.
func readSlice(p []byte, pick func() (off, n int64)) func(context.Context, *blob.Bucket, string) error {
	return func(ctx context.Context, b *blob.Bucket, key string) error {
		off, n := pick()
		r, err := b.NewRangeReader(ctx, key, off, n, nil)
		if err != nil {
			return err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		want := p[off:]
		if n >= 0 {
			want = want[:n]
		}
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("read %d wrong bytes", len(got))
		}
		return err
	}
}

// TestJobsOnABoundedPool: the workers of a job share one connection.
func TestJobsOnABoundedPool(t *testing.T) {
	inner, cipher, b := openBounded(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 30 {
		bucket := []*gcblob.Bucket{b.Bucket, inner}[i%2]
		require.NoError(t, bucket.WriteAll(ctx, fmt.Sprint(i), make([]byte, i*10_000), nil))
	}
	for i := range 10 {
		putParts(t, inner, fmt.Sprint("parts", i), cipher, make([]byte, i*30_000+1), i*30_000+1)
	}
	encrypted, err := jobs.EncryptExisting(ctx, b, nil)
	require.NoError(t, err)
	require.EqualValues(t, 15, encrypted.Done)
	rewrapped, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true})
	require.NoError(t, err)
	require.EqualValues(t, 40, rewrapped.Done)
	for _, depth := range []jobs.Depth{jobs.CheckEnvelopes, jobs.CheckLengths, jobs.CheckBodies} {
		for finding, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: depth}) {
			require.NoError(t, err, "within a minute")
			require.NoError(t, finding.Err)
		}
	}
}
