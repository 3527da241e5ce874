package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// TestSDKRetries: a request that failed after its body was sent is sent again with the
// same bytes, although the source cannot be read again.
func TestSDKRetries(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, size := range []int{1024, 17 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := startFake(t)
			bucket := s.newBucket(t)
			flaky := &flaky{base: s.base, sent: map[string][][]byte{}}
			bare := s3.New(s.client(nil).Options(), func(o *s3.Options) {
				o.HTTPClient = &http.Client{Transport: flaky}
				o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
					o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
				})
			})
			client, err := awss3.New(bare, sse.NewManaged(keyringtest.NewRing(t, nil)), nil)
			require.NoError(t, err)
			data := content(size)
			source := &once{r: bytes.NewReader(data)}
			_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("o"), Body: source})
			require.NoError(t, err)
			require.Equal(t, int64(size), source.n, "the source was read twice")
			attempts := 0
			for request, bodies := range flaky.sent {
				require.Len(t, bodies, 2, request)
				require.True(t, bytes.Equal(bodies[0], bodies[1]), request)
				attempts += len(bodies)
			}
			require.GreaterOrEqual(t, attempts, 2)
			out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("o")})
			require.NoError(t, err)
			defer out.Body.Close()
			got, err := io.ReadAll(out.Body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
		})
	}
}

// once is a source that can seek but counts the bytes that are read, so that a test notices
// a second read.
type once struct {
	r *bytes.Reader
	n int64
}

func (o *once) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	o.n += int64(n)
	return n, err
}

func (o *once) Seek(offset int64, whence int) (int64, error) { return o.r.Seek(offset, whence) }

// flaky reads the body of each write, and answers the first attempt with 503.
type flaky struct {
	base http.RoundTripper
	mu   sync.Mutex
	sent map[string][][]byte // by URL
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut {
		return f.base.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	name := r.URL.String()
	first := len(f.sent[name]) == 0
	f.sent[name] = append(f.sent[name], body)
	f.mu.Unlock()
	if first {
		return &http.Response{
			StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Header: http.Header{}, Request: r,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}, nil
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return f.base.RoundTrip(r)
}

// TestSDKLarge: large objects are written in parts, and can be read.
func TestSDKLarge(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		c := newSDK(t, s, w, nil, nil)
		data := content(17<<20 + 5)
		multipart := []string{"CompleteMultipartUpload", "CreateMultipartUpload", "UploadPart", "UploadPart", "UploadPart"}
		for name, write := range map[string]func(body io.Reader) error{
			"PutObject": func(body io.Reader) error {
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("PutObject"), Body: body, ContentLength: aws.Int64(int64(len(data))), Metadata: map[string]string{"owner": "me"}})
				return err
			},
			"UploadObject": func(body io.Reader) error {
				out, err := c.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &c.bucket, Key: aws.String("UploadObject"), Body: body, Metadata: map[string]string{"owner": "me"}})
				if err == nil && *out.ContentLength != int64(len(data)) {
					return fmt.Errorf("length is %d", *out.ContentLength)
				}
				return err
			},
		} {
			w.take()
			require.NoError(t, write(io.MultiReader(bytes.NewReader(data))), name)
			require.Equal(t, multipart, ops(w.take()), name)
			requireObject(t, c, name, data)
			head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &name})
			require.NoError(t, err)
			require.Equal(t, map[string]string{"owner": "me"}, head.Metadata)
			require.Equal(t, int64(len(data)), *head.ContentLength)
			w.take()
			_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &c.bucket, Key: aws.String("copy"), CopySource: aws.String(c.bucket + "/" + name)})
			require.NoError(t, err)
			require.Equal(t, append([]string{multipart[0], multipart[1], "GetObject"}, multipart[2:]...), ops(w.take()))
			requireObject(t, c, "copy", data)
		}
		boom := errors.New("boom")
		w.take()
		_, err := c.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &c.bucket, Key: aws.String("torn"), Body: io.MultiReader(bytes.NewReader(data), failing{boom})})
		require.ErrorIs(t, err, boom)
		require.Contains(t, ops(w.take()), "AbortMultipartUpload")
		_, err = c.get(ctx, "torn", "")
		require.ErrorAs(t, err, new(*s3types.NoSuchKey))

		cancelled, cancel := context.WithCancel(ctx)
		stop := readerFunc(func([]byte) (int, error) { cancel(); return 0, cancelled.Err() })
		_, err = c.UploadObject(cancelled, &transfermanager.UploadObjectInput{Bucket: &c.bucket, Key: aws.String("torn"), Body: io.MultiReader(bytes.NewReader(data), stop)})
		require.ErrorIs(t, err, context.Canceled)
		require.Contains(t, ops(w.take()), "AbortMultipartUpload", "its parts stay in the store")
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestSDKSourceFails: a source that fails stores nothing, whatever its error wraps.
func TestSDKSourceFails(t *testing.T) {
	ctx := context.Background()
	s := startFake(t)
	c := newSDK(t, s, nil, nil, nil)
	for _, err := range []error{errors.New("boom"), io.ErrUnexpectedEOF, fmt.Errorf("torn: %w", io.EOF)} {
		_, got := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Body: io.MultiReader(bytes.NewReader(content(100)), failing{err})})
		require.ErrorIs(t, got, err)
		_, got = c.get(ctx, "o", "")
		require.ErrorAs(t, got, new(*s3types.NoSuchKey))
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestSDKParts: the parts of an upload, read by number, make up the plaintext.
func TestSDKParts(t *testing.T) {
	ctx := context.Background()
	s := startVersity(t) // gofakes3 takes no part numbers
	c := newSDK(t, s, nil, nil, nil)
	data := content(17<<20 + 5)
	_, err := c.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Body: bytes.NewReader(data)})
	require.NoError(t, err)
	var got []byte
	for number := int32(1); number <= 3; number++ {
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("o"), PartNumber: &number})
		require.NoError(t, err)
		part, err := io.ReadAll(out.Body)
		require.NoError(t, err)
		require.NoError(t, out.Body.Close())
		require.Equal(t, int32(3), aws.ToInt32(out.PartsCount))
		require.Equal(t, fmt.Sprintf("bytes %d-%d/%d", len(got), len(got)+len(part)-1, len(data)), *out.ContentRange)
		got = append(got, part...)
	}
	require.True(t, bytes.Equal(data, got))
}
