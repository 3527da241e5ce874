package signedurl_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/sse"
)

// BenchmarkHandlerGet gets objects over a real connection, from a plain bucket and
// from an encrypted one.
func BenchmarkHandlerGet(b *testing.B) {
	for _, tc := range []struct {
		name   string
		size   int
		ranges string
		want   int64
	}{
		{"1KiB", 1 << 10, "", 1 << 10},
		{"64MiB", 64 << 20, "", 64 << 20},
		{"4KiBof64MiB", 64 << 20, "bytes=33333333-33337428", 4096},
	} {
		for _, encrypted := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/encrypted=%v", tc.name, encrypted), func(b *testing.B) {
				var bed *bed
				if encrypted {
					bed = newEncrypted(b, "encrypted", blobtest.NewMem(b), sse.NewManaged(blobtest.NewRing(b)), nil)
				} else {
					bed = newBed(b, "plain", blobtest.NewMem(b), nil)
				}
				bed.write(b, "k", make([]byte, tc.size), &gcblob.WriterOptions{ContentType: "a/b"})
				u := bed.url(b, "k", "GET", "")
				client := bed.server.Client()
				buf := make([]byte, 256<<10)
				b.SetBytes(tc.want)
				b.ReportAllocs()
				for b.Loop() {
					req, err := http.NewRequest("GET", u, nil)
					require.NoError(b, err)
					if tc.ranges != "" {
						req.Header.Set("Range", tc.ranges)
					}
					resp, err := client.Do(req)
					require.NoError(b, err)
					n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
					require.NoError(b, err)
					require.Equal(b, tc.want, n)
					require.NoError(b, resp.Body.Close())
					<-bed.done
				}
			})
		}
	}
}

// BenchmarkHandlerPut puts objects over a real connection.
func BenchmarkHandlerPut(b *testing.B) {
	const size = 64 << 20
	for _, encrypted := range []bool{false, true} {
		b.Run(fmt.Sprintf("64MiB/encrypted=%v", encrypted), func(b *testing.B) {
			var bed *bed
			if encrypted {
				bed = newEncrypted(b, "encrypted", blobtest.NewMem(b), sse.NewManaged(blobtest.NewRing(b)), nil)
			} else {
				bed = newBed(b, "plain", blobtest.NewMem(b), nil)
			}
			u := bed.url(b, "k", "PUT", "a/b")
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequest("PUT", u, io.LimitReader(zeros{}, size))
				require.NoError(b, err)
				req.ContentLength = size
				req.Header.Set("Content-Type", "a/b")
				resp, err := bed.server.Client().Do(req)
				require.NoError(b, err)
				require.Equal(b, 200, resp.StatusCode)
				require.NoError(b, resp.Body.Close())
				<-bed.done
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var _ blob.URLSigner = (*signedurl.Signer)(nil)
