package s3test

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

// TestSDKUploadIsParallel: a part is sent while another one still waits for its answer.
func TestSDKUploadIsParallel(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := new(wire)
	c := newSDK(t, startFake(t), w, nil, nil)
	meet := meeting(ctx, 3)
	w.observe(func(r *request) {
		if r.op == "UploadPart" && meet() != nil {
			t.Error("three parts were not sent at once within a minute")
		}
	})
	_, err := c.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: &c.bucket, Key: aws.String("o"), Body: io.LimitReader(zeros{}, 20<<20),
	})
	require.NoError(t, err)
}

// BenchmarkSDKUpload compares uploads with those of the bare transfer manager, to a server
// that discards them and to one that keeps files. It reports the throughput as a fraction of
// the bare one. BLOBSEAL_UPLOAD_SIZE is the object's size in bytes. For a gigabyte in one run:
//
//	BLOBSEAL_UPLOAD_SIZE=1073741824 go test -run '^$' -bench SDKUpload -benchtime 3x
func BenchmarkSDKUpload(b *testing.B) {
	size := int64(32 << 20)
	if text := os.Getenv("BLOBSEAL_UPLOAD_SIZE"); text != "" {
		var err error
		size, err = strconv.ParseInt(text, 10, 64)
		require.NoError(b, err)
	}
	ctx := context.Background()
	for _, start := range []func(testing.TB) *server{startSink, startVersity} {
		s := start(b)
		c := newSDK(b, s, nil, nil, nil)
		bare := transfermanager.New(c.bare)
		type uploader func(context.Context, *transfermanager.UploadObjectInput, ...func(*transfermanager.Options)) (*transfermanager.UploadObjectOutput, error)
		once := func(upload uploader) time.Duration {
			key := aws.String(rand.Text())
			begin := time.Now()
			_, err := upload(ctx, &transfermanager.UploadObjectInput{Bucket: &c.bucket, Key: key, Body: io.LimitReader(zeros{}, size)})
			require.NoError(b, err)
			took := time.Since(begin)
			_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &c.bucket, Key: key})
			require.NoError(b, err)
			return took
		}
		b.Run(s.name, func(b *testing.B) {
			b.SetBytes(2 * size)
			var plain, sealed time.Duration
			for b.Loop() { // in turns, since the machine's speed varies
				plain += once(bare.UploadObject)
				sealed += once(c.UploadObject)
			}
			b.ReportMetric(plain.Seconds()/sealed.Seconds(), "of-bare")
		})
	}
}

// startSink starts a server that discards uploads.
func startSink(t testing.TB) *server {
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("ETag", `"etag"`)
		switch {
		case r.URL.Query().Has("uploads"):
			io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>")
		case r.Method == http.MethodPost:
			io.WriteString(w, "<CompleteMultipartUploadResult><ETag>etag</ETag></CompleteMultipartUploadResult>")
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(fake.Close)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	return &server{name: "sink", endpoint: fake.URL, base: base}
}
