package signedurl_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/sse"
)

// patience is how long a test waits for what happens sooner.
const patience = 2 * time.Minute

// dial opens a connection to the server of a URL and sends the head of a request.
func dial(t *testing.T, method, signed string, header ...string) net.Conn {
	u, err := url.Parse(signed)
	require.NoError(t, err)
	conn, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", method, u.RequestURI(), u.Host, strings.Join(header, "\r\n"))
	require.NoError(t, err)
	return conn
}

// TestRefusedUploadsLetGo: a client with a bad URL that announces a body and does
// not send it gets its response at once, and does not keep the connection.
func TestRefusedUploadsLetGo(t *testing.T) {
	b := newBed(t, "plain", blobtest.NewMem(t), nil)
	for _, length := range []string{"Content-Length: 1000", "Content-Length: 5000000000", "Transfer-Encoding: chunked"} {
		t.Run(length, func(t *testing.T) {
			t.Parallel() // each waits for the server to close its connection
			conn := dial(t, "PUT", b.url(t, "k", "GET", ""), length)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			require.Equal(t, 403, resp.StatusCode)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			_, err = r.ReadByte()
			require.ErrorIs(t, err, io.EOF, "wait for the server to close the connection")
		})
	}
}

// TestStalledUploadIsCut: an upload ends if no more of it arrives, and stores
// nothing. One that is slow goes on.
func TestStalledUploadIsCut(t *testing.T) {
	b := newBed(t, "encrypted", blobtest.NewBucket(t, blobtest.NewMem(t), nil).Bucket, &signedurl.HandlerOptions{IdleTimeout: 100 * time.Millisecond})
	for _, sent := range []int{0, 1, 100_000} {
		t.Run(fmt.Sprint(sent), func(t *testing.T) {
			conn := dial(t, "PUT", b.url(t, "k", "PUT", ""), "Content-Length: 200000")
			_, err := conn.Write(make([]byte, sent))
			require.NoError(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, 408, resp.StatusCode)
			require.Equal(t, "RequestTimeout", resp.Header.Get(signedurl.ErrorCodeHeader))
			<-b.done
			require.False(t, b.has(t, "k"))
		})
	}
}

// TestSlowUploadGoesOn: the timeout is for each piece, and not for the whole.
func TestSlowUploadGoesOn(t *testing.T) {
	for wait, status := range map[time.Duration]int{
		signedurl.DefaultIdleTimeout - 1: 200,
		signedurl.DefaultIdleTimeout + 1: 408,
	} {
		t.Run(wait.String(), func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				base, err := url.Parse("http://photos.example/shared")
				require.NoError(t, err)
				signer := newSigner(t, base.String(), secretOf(1), nil)
				signed, err := signer.Sign(&signedurl.Permit{Method: "PUT", Key: "k", Expires: time.Now().Add(time.Hour)})
				require.NoError(t, err)
				req := httptest.NewRequestWithContext(t.Context(), "PUT", signed.String(), io.LimitReader(server, 5))
				req.ContentLength = 5
				var sender sync.WaitGroup
				sender.Go(func() {
					for range 5 {
						time.Sleep(wait)
						if _, err := client.Write([]byte("x")); err != nil {
							return // cut
						}
					}
				})
				w := &deadlineRecorder{httptest.NewRecorder(), server}
				signedurl.NewHandler(blobtest.NewMem(t), signer, nil).ServeHTTP(w, req)
				server.Close()
				sender.Wait()
				require.Equal(t, status, w.Code)
			})
		})
	}
}

// deadlineRecorder is a ResponseWriter whose read deadlines are those of conn.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (r *deadlineRecorder) SetReadDeadline(at time.Time) error { return r.conn.SetReadDeadline(at) }

// TestClientThatDoesNotReadIsCut: its handler returns, and the object's reader is
// closed.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	s := newScript(nil)
	s.content = make([]byte, 64<<20) // more than the system keeps for a connection
	b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{IdleTimeout: 100 * time.Millisecond})
	dial(t, "GET", b.url(t, "k", "GET", ""))
	select {
	case <-b.done:
	case <-time.After(patience):
		t.Fatal("wait for the handler to cut a client that does not read")
	}
	_, _, readers := s.state()
	require.Zero(t, readers)
	require.NotContains(t, b.log.String(), "level=ERROR")
}

// TestTruncatedObjectsHaveNoEnd: of an object that was cut in the store, at a
// place where it could end, no response says that a range lies beyond its end, nor
// gives one that reaches its end.
func TestTruncatedObjectsHaveNoEnd(t *testing.T) {
	const stored = 16400
	for _, skip := range []bool{false, true} {
		b := newBed(t, "encrypted", blobtest.NewMem(t), nil)
		inner := b.inner
		bucket := blobtest.NewBucketWith(t, inner, sse.NewManaged(blobtest.NewRing(t)), &blob.Options{SkipLengthCheck: skip})
		b = newBed(t, "encrypted", bucket.Bucket, nil)
		b.write(t, "k", pattern(160_000), nil)
		raw, err := inner.ReadAll(t.Context(), "k")
		require.NoError(t, err)
		attrs, err := inner.Attributes(t.Context(), "k")
		require.NoError(t, err)
		head := len(raw) - 9*stored - (160_000 - 9*16384 + 16)
		cut := append(bytes.Clone(raw[:head+2*stored]), raw[len(raw)-16:]...) // a chunk of no bytes, by its size
		require.NoError(t, inner.WriteAll(t.Context(), "k", cut, &gcblob.WriterOptions{Metadata: attrs.Metadata, ContentType: "a/b"}))
		u := b.url(t, "k", "GET", "")
		for _, ranges := range []string{"bytes=100000-", "bytes=32768-", "bytes=32768-32768", "bytes=x", "bytes=32767-", "bytes=32767-99999", "bytes=-1", "bytes=-99999999"} {
			for _, method := range []string{"GET", "HEAD"} {
				if method == "HEAD" && (strings.Contains(ranges, "=-") || strings.Contains(ranges, "32767")) {
					continue // HEAD proves nothing
				}
				got := b.do(t, method, u, nil, "Range", ranges)
				require.True(t, got.status == 500 || got.broken, "%s %s, skip=%v: %d", method, ranges, skip, got.status)
			}
		}
	}
}

// TestPermitsAreHonoured: what a URL binds besides its method and type.
func TestPermitsAreHonoured(t *testing.T) {
	for _, b := range newBeds(t, &signedurl.HandlerOptions{MaxSize: 1000}) {
		t.Run(b.name, func(t *testing.T) {
			signed := func(p signedurl.Permit) string {
				p.Key, p.Expires = "k", b.clock.now().Add(time.Hour)
				u, err := b.signer.Sign(&p)
				require.NoError(t, err)
				return u.String()
			}
			for limit, sizes := range map[int64]map[int]int{10: {10: 200, 11: 413}, 2000: {1000: 200, 1001: 413}} {
				for size, status := range sizes {
					u := signed(signedurl.Permit{Method: "PUT", MaxSize: limit})
					require.Equal(t, status, b.do(t, "PUT", u, bytes.NewReader(make([]byte, size))).status)
					require.Equal(t, status, b.do(t, "PUT", u, io.MultiReader(bytes.NewReader(make([]byte, size)))).status)
				}
			}
			b.write(t, "k", []byte("a,b"), &gcblob.WriterOptions{ContentType: "text/plain", ContentDisposition: "inline", CacheControl: "no-store"})
			got := b.do(t, "GET", signed(signedurl.Permit{
				ResponseContentType: "text/csv", ResponseContentDisposition: `attachment; filename="x.csv"`, ResponseCacheControl: "max-age=60",
			}), nil)
			require.Equal(t, "text/csv", got.header["Content-Type"])
			require.Equal(t, `attachment; filename="x.csv"`, got.header["Content-Disposition"])
			require.Equal(t, "max-age=60, no-transform", got.header["Cache-Control"])

			ifMatch := signed(signedurl.Permit{IfMatch: got.header["Etag"]})
			require.Equal(t, 200, b.do(t, "GET", ifMatch, nil).status)
			require.Equal(t, 412, b.do(t, "GET", ifMatch, nil, "If-Match", `"x"`).status)
			b.write(t, "k", []byte("another"), nil)
			require.Equal(t, 412, b.do(t, "GET", ifMatch, nil).status)
			require.Equal(t, 412, b.do(t, "GET", ifMatch, nil, "If-Match", "*").status)
		})
	}
}

// TestUnsupportedHeadersAreRefused: a PUT that asks for what it would not get
// stores nothing.
func TestUnsupportedHeadersAreRefused(t *testing.T) {
	b := newBed(t, "plain", blobtest.NewMem(t), nil)
	for _, header := range [][2]string{
		{"Content-Encoding", "aws-chunked"}, {"Content-Encoding", "gzip, AWS-chunked"}, {"X-Amz-Meta-Owner", "me"},
		{"X-Amz-Checksum-Crc32", "AAAAAA=="}, {"X-Amz-Sdk-Checksum-Algorithm", "CRC32"}, {"X-Amz-Trailer", "x-amz-checksum-crc32"},
		{"X-Amz-Server-Side-Encryption-Customer-Key", "x"}, {"X-Amz-Acl", "public-read"}, {"X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"},
	} {
		got := b.do(t, "PUT", b.url(t, "k", "PUT", ""), strings.NewReader("x"), header[0], header[1])
		require.Equal(t, 501, got.status, header)
		require.Equal(t, "NotImplemented", got.header[signedurl.ErrorCodeHeader])
		require.False(t, b.has(t, "k"))
	}
	require.Equal(t, 200, b.do(t, "PUT", b.url(t, "k", "PUT", ""), strings.NewReader("x"), "X-Amz-Cf-Id", "x").status)
}

// TestKeysThatFilesCannotHold: they are the client's fault, and nothing is there.
func TestKeysThatFilesCannotHold(t *testing.T) {
	for _, b := range newBeds(t, nil) {
		if !strings.HasSuffix(b.name, "file") {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			b.write(t, "file", []byte("x"), nil)
			b.write(t, "dir/file", []byte("x"), nil)
			for _, key := range []string{strings.Repeat("k", 1000), "file/below", "dir", strings.Repeat("d/", 3000) + "x"} {
				put := b.do(t, "PUT", b.url(t, key, "PUT", ""), strings.NewReader("x"), "Content-Type", "a/b")
				require.Equal(t, 400, put.status, "PUT %.20s", key)
				for method, status := range map[string]int{"GET": 404, "DELETE": 204} {
					require.Equal(t, status, b.do(t, method, b.url(t, key, method, ""), nil).status, "%s %.20s", method, key)
				}
			}
			require.True(t, b.has(t, "file"))
			require.True(t, b.has(t, "dir/file"))
		})
	}
}
