package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// TestSDKReadAcrossAReplacement: an object that is replaced between the requests of a
// range is read again from the start.
func TestSDKReadAcrossAReplacement(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		for nth := range 3 { // the request before which it is replaced
			t.Run(fmt.Sprint(nth), func(t *testing.T) {
				w := new(wire)
				cipher := modes[0].cipher(t)
				c := newSDK(t, s, w, cipher, nil)
				theirs := encrypted(t, s.open(t, c.bucket, nil), cipher, nil)
				require.NoError(t, c.put(ctx, "o", content(4*chunk)))
				after := text(4 * chunk)
				replaced := w.beforeRequest(nth, func() error { return theirs.WriteAll(ctx, "o", after, nil) })
				got, err := c.get(ctx, "o", fmt.Sprintf("bytes=%d-%d", chunk, chunk+49))
				require.NoError(t, err)
				require.NoError(t, replaced(), "it was not replaced")
				require.Equal(t, after[chunk:][:50], got)
			})
		}
	})
}

// TestSDKDamage: no byte of a damaged or truncated object is returned.
func TestSDKDamage(t *testing.T) {
	ctx := context.Background()
	s := startFake(t)
	c := newSDK(t, s, nil, nil, nil)
	data := content(2*chunk + 50)
	require.NoError(t, c.put(ctx, "o", data))
	out, err := c.bare.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
	require.NoError(t, err)
	whole, err := io.ReadAll(out.Body)
	require.NoError(t, err)
	require.NoError(t, out.Body.Close())
	store := func(p []byte) {
		_, err := c.bare.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Body: bytes.NewReader(p), Metadata: out.Metadata})
		require.NoError(t, err)
	}
	for _, length := range []int{len(whole) - 1, envelope + 2*sealedChunk, envelope + sealedChunk + 16, envelope, 100, 3, 0} {
		store(whole[:length])
		got, err := c.get(ctx, "o", "")
		require.Error(t, err, length)
		require.LessOrEqual(t, len(got), max(0, (length-envelope)/sealedChunk*chunk), "%d", length)
		for _, rng := range []string{"bytes=0-9", "bytes=-9", fmt.Sprintf("bytes=%d-%d", chunk, chunk+5), fmt.Sprintf("bytes=%d-", 3*chunk)} {
			got, err = c.get(ctx, "o", rng)
			require.Error(t, err, "%s of %d bytes", rng, length)
			require.Less(t, len(got), 9)
		}
	}
	for _, at := range []int{9, 200, envelope - 1, envelope, envelope + sealedChunk, len(whole) - 1} {
		store(append(append(bytes.Clone(whole[:at]), whole[at]^1), whole[at+1:]...))
		got, err := c.get(ctx, "o", "")
		require.Error(t, err, at)
		require.Less(t, len(got), len(data))
	}
	// An object in another's place.
	store(whole)
	_, err = c.bare.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &c.bucket, Key: aws.String("moved"), CopySource: aws.String(c.bucket + "/o")})
	require.NoError(t, err)
	_, err = c.get(ctx, "moved", "")
	require.ErrorIs(t, err, sse.ErrKey)
	// An object that lost its metadata, and one that has only that.
	_, err = c.bare.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Body: bytes.NewReader(whole)})
	require.NoError(t, err)
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
	require.NoError(t, err)
	require.Equal(t, int64(len(data)), *head.ContentLength)
	lax, err := awss3.New(c.bare, modes[0].cipher(t), &awss3.Options{AllowPlain: true})
	require.NoError(t, err)
	store([]byte("plain"))
	for _, rng := range []string{"", "bytes=0-1"} {
		_, err = sdk{lax, c.bare, c.bucket}.get(ctx, "o", rng)
		require.ErrorIs(t, err, stored.ErrDamaged)
	}
}

// TestSDKOnOneConnection: readers of all kinds share a pool of one connection.
func TestSDKOnOneConnection(t *testing.T) {
	s := startFake(t)
	s.base.(*http.Transport).MaxConnsPerHost = 1
	c := newSDK(t, s, nil, nil, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	data := content(600_000)
	require.NoError(t, c.put(ctx, "o", data))
	reads := []func() error{
		func() error { _, err := c.get(ctx, "o", ""); return err },
		func() error { _, err := c.get(ctx, "o", "bytes=20000-20099"); return err },
		func() error { _, err := c.get(ctx, "o", "bytes=1-500000"); return err },
		func() error { _, err := c.get(ctx, "o", "bytes=-300000"); return err },
		func() error {
			r, err := c.Open(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
			if err != nil {
				return err
			}
			got, err := io.ReadAll(r)
			if err == nil && !bytes.Equal(data, got) {
				err = fmt.Errorf("read %d wrong bytes", len(got))
			}
			return err
		},
		func() error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &c.bucket, Key: aws.String("copy"), CopySource: aws.String(c.bucket + "/o")})
			return err
		},
	}
	errs := make(chan error, 4*len(reads))
	var group sync.WaitGroup
	for range 4 {
		for _, read := range reads {
			group.Go(func() { errs <- read() })
		}
	}
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err, "within a minute")
	}
}

// TestSDKReadsComposite: objects that were uploaded in parts with sse.StartMultipart read
// like others.
func TestSDKReadsComposite(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		cipher := modes[0].cipher(t)
		c := newSDK(t, s, w, cipher, nil)
		data := content(3*chunk + 77)
		_, whole := ssetest.SealParts(t, cipher, sse.Object{Bucket: bucketName, Key: "o"}, &sse.TrailerOptions{EnvelopeSize: envelope}, data[:chunk+5], data[chunk+5:])
		_, err := c.bare.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Body: bytes.NewReader(whole)})
		require.NoError(t, err)
		for rng, want := range map[string][]byte{
			"": data, "bytes=0-9": data[:10], "bytes=-100": data[len(data)-100:], "bytes=16000-33000": data[16000:33001], "bytes=20000-": data[20000:],
		} {
			w.take()
			got, err := c.get(ctx, "o", rng)
			require.NoError(t, err, rng)
			require.True(t, bytes.Equal(want, got), rng)
			require.LessOrEqual(t, len(w.take()), 4, rng)
		}
		head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
		require.NoError(t, err)
		require.Equal(t, int64(len(data)), *head.ContentLength)
		r, err := c.Open(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &c.bucket, Key: aws.String("copy"), CopySource: aws.String(c.bucket + "/o")})
		require.NoError(t, err)
		requireObject(t, c, "copy", data)
		b := encrypted(t, s.open(t, c.bucket, nil), cipher, nil)
		requireObject(t, b, "copy", data)
	})
}
