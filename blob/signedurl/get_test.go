package signedurl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestEveryRangeIsItsBytes compares ranges around the edges of chunks with the
// bytes themselves.
func TestEveryRangeIsItsBytes(t *testing.T) {
	const chunk = 16384
	rng := rand.New(rand.NewPCG(1, 2))
	for _, b := range newBeds(t, nil) {
		t.Run(b.name, func(t *testing.T) {
			for _, size := range []int{1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17, 1<<20 + 5} {
				content := pattern(size)
				b.write(t, "k", content, &gcblob.WriterOptions{ContentType: "a/b"})
				u := b.url(t, "k", "GET", "")
				require.True(t, b.do(t, "GET", u, nil).body == string(content))

				edges := []int{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, size / 2, size - 2, size - 1}
				pick := func() int {
					if rng.IntN(3) == 0 {
						return rng.IntN(size)
					}
					return min(max(edges[rng.IntN(len(edges))], 0), size-1)
				}
				for range 25 {
					var specs []string
					var want strings.Builder
					for range 1 + rng.IntN(3) {
						first, last := pick(), pick()
						if first > last {
							first, last = last, first
						}
						spec := fmt.Sprintf("%d-%d", first, last)
						switch {
						case last == size-1 && rng.IntN(2) == 0:
							spec = fmt.Sprintf("%d-", first)
						case last == size-1 && rng.IntN(2) == 0:
							spec = fmt.Sprintf("-%d", size-first)
						}
						specs = append(specs, spec)
						fmt.Fprintf(&want, "[bytes %d-%d/%d a/b]%s", first, last, size, content[first:last+1])
					}
					wanted := want.String()
					if len(specs) == 1 {
						_, wanted, _ = strings.Cut(wanted, "]")
					} else { // all of the object
						wanted = string(content)
					}
					got := b.do(t, "GET", u, nil, "Range", "bytes="+strings.Join(specs, ", "))
					require.False(t, got.broken)
					require.True(t, wanted == got.body, "%d: %v", size, specs)
				}
			}
		})
	}
}

// TestReadsOnlyWhatIsSent: the handler opens and reads only the range that it sends.
func TestReadsOnlyWhatIsSent(t *testing.T) {
	content := pattern(300_000)
	for _, tc := range []struct {
		name   string
		method string
		header []string
		status int
		opens  []string
		got    int
	}{
		{"whole", "GET", nil, 200, []string{"0+-1"}, 300_000},
		{"head", "HEAD", nil, 200, nil, 0},
		{"head of a range", "HEAD", []string{"Range", "bytes=1-5"}, 206, nil, 0},
		{"head of ranges", "HEAD", []string{"Range", "bytes=1-5,7-8"}, 200, nil, 0},
		{"range", "GET", []string{"Range", "bytes=1000-1999"}, 206, []string{"1000+1000"}, 1000},
		{"from the begin", "GET", []string{"Range", "bytes=0-9"}, 206, []string{"0+10"}, 10},
		{"to the end", "GET", []string{"Range", "bytes=299990-"}, 206, []string{"299990+-1"}, 10},
		{"suffix", "GET", []string{"Range", "bytes=-7"}, 206, []string{"299993+-1"}, 7},
		{"ranges", "GET", []string{"Range", "bytes=5-9, 100000-199999 ,-1"}, 200, []string{"0+-1"}, 300_000},
		{"not modified", "GET", []string{"If-None-Match", `"e"`}, 304, nil, 0},
		{"condition failed", "GET", []string{"If-Match", `"x"`}, 412, nil, 0},
		{"no such range", "GET", []string{"Range", "bytes=300000-"}, 416, []string{"299999+-1"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(content)
			b := newBed(t, "script", s.bucket(), nil)
			got := b.do(t, tc.method, b.url(t, "k", "GET", ""), nil, tc.header...)
			require.Equal(t, tc.status, got.status)
			<-b.done
			opens, read, readers := s.state()
			require.Equal(t, tc.opens, opens)
			require.Equal(t, tc.got, read)
			require.Zero(t, readers)
		})
	}
}

// TestErrorsAfterTheFirstByte: an error after the first byte breaks the response
// off, even if all bytes have arrived and only the end is missing.
func TestErrorsAfterTheFirstByte(t *testing.T) {
	fail := errors.New("disk on fire")
	readErr := func(at int64) func(*script) {
		return func(s *script) {
			s.read = func(_ context.Context, pos int64) error {
				if pos >= at {
					return fail
				}
				return nil
			}
		}
	}
	for _, tc := range []struct {
		name   string
		set    func(*script)
		ranges string
		prior  bool // something was sent
	}{
		{"in the middle", readErr(5_000), "", true},
		{"at the end", readErr(10_000), "", true},
		{"at the end of a range", readErr(6_000), "bytes=3000-5999", true},
		{"at the end of one read", readErr(500), "bytes=0-499", false},
		{"too short", func(s *script) { s.opened = func(_ int, r *scriptReader) { r.data = r.data[:5_000] } }, "", true},
		{"cut by one byte", func(s *script) { s.opened = func(_ int, r *scriptReader) { r.data = r.data[:9_999] } }, "", true},
		{"too long", func(s *script) {
			s.opened = func(_ int, r *scriptReader) { r.data = append(bytes.Clone(r.data), 'x') }
		}, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(pattern(10_000))
			tc.set(s)
			b := newBed(t, "script", s.bucket(), nil)
			req, err := http.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
			require.NoError(t, err)
			if tc.ranges != "" {
				req.Header.Set("Range", tc.ranges)
			}
			resp, err := b.server.Client().Do(req)
			if err != nil { // broken before the headers left the server's buffer
				require.True(t, tc.prior)
			} else {
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if tc.prior {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					if resp.StatusCode == 200 {
						require.Less(t, len(body), 10_000)
						require.True(t, bytes.HasPrefix(s.content, body))
					}
				} else {
					require.NoError(t, err)
					require.Equal(t, 500, resp.StatusCode)
				}
			}
			<-b.done
			_, _, readers := s.state()
			require.Zero(t, readers)
			require.Contains(t, b.log.String(), "level=ERROR")
		})
	}
}

// TestReplacedObjectIsReadAgain: the handler does not mix the attributes of one
// version with the content of the next.
func TestReplacedObjectIsReadAgain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		times  int // that the object is found replaced
		ranges string
		status int
	}{
		{"once", 1, "", 200},
		{"twice", 2, "", 200},
		{"once in a range", 1, "bytes=4-5", 206},
		{"always", 1000, "", 503},
	} {
		for _, what := range []string{"size", "time"} {
			t.Run(tc.name+"/"+what, func(t *testing.T) {
				s := newScript([]byte("secret content"))
				s.opened = func(n int, r *scriptReader) {
					if n > tc.times {
						return
					}
					if what == "size" {
						r.attrs.Size++
					} else {
						r.attrs.ModTime = r.attrs.ModTime.Add(time.Second)
					}
				}
				b := newBed(t, "script", s.bucket(), nil)
				got := b.do(t, "GET", b.url(t, "k", "GET", ""), nil, "Range", tc.ranges)
				require.Equal(t, tc.status, got.status)
				<-b.done
				opens, _, readers := s.state()
				require.Zero(t, readers)
				if tc.status == 503 {
					require.Len(t, opens, stored.MaxTries)
				}
			})
		}
	}
}

// TestDecompressedObjectIsRefused: an object that the store decompresses has no
// known size. A retry does not help.
func TestDecompressedObjectIsRefused(t *testing.T) {
	s := newScript([]byte("secret content"))
	s.opened = func(_ int, r *scriptReader) { r.attrs.Size = -1 }
	b := newBed(t, "script", s.bucket(), nil)
	require.Equal(t, 500, b.do(t, "GET", b.url(t, "k", "GET", ""), nil).status)
	opens, _, readers := s.state()
	require.Len(t, opens, 1)
	require.Zero(t, readers)
	require.Contains(t, b.log.String(), "Content-Encoding")
}

// TestDisconnectWhileReading: when the client disconnects, the handler cancels and
// closes the bucket's reader.
func TestDisconnectWhileReading(t *testing.T) {
	for _, ranges := range []string{"", "bytes=0-49999"} {
		t.Run(ranges, func(t *testing.T) {
			s := newScript(pattern(100_000))
			s.read = func(ctx context.Context, pos int64) error {
				if pos < 30_000 {
					return nil
				}
				<-ctx.Done() // a store that hangs
				return ctx.Err()
			}
			b := newBed(t, "script", s.bucket(), nil)
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, "GET", b.url(t, "k", "GET", ""), nil)
			require.NoError(t, err)
			if ranges != "" {
				req.Header.Set("Range", ranges)
			}
			resp, err := b.server.Client().Do(req)
			require.NoError(t, err)
			_, err = io.ReadFull(resp.Body, make([]byte, 10_000))
			require.NoError(t, err)
			cancel()
			_ = resp.Body.Close()
			<-b.done
			_, _, readers := s.state()
			require.Zero(t, readers)
			require.NotContains(t, b.log.String(), "level=ERROR")
		})
	}
}

// failingConn is a connection that fails after so many good writes.
type failingConn struct {
	http.ResponseWriter
	good int
}

func (w *failingConn) Write(p []byte) (int, error) {
	if w.good--; w.good < 0 {
		return 0, errors.New("write: i/o timeout")
	}
	return w.ResponseWriter.Write(p)
}

// TestAbort: if the object or the connection fails after the first byte, the
// handler panics with http.ErrAbortHandler.
func TestAbort(t *testing.T) {
	for _, ranges := range []string{"", "bytes=0-4999"} {
		for good := range 4 { // writes of 1000 bytes, before the store hangs
			t.Run(fmt.Sprintf("connection/%s/%d", ranges, good), func(t *testing.T) {
				s := newScript(pattern(10_000))
				s.read = func(ctx context.Context, pos int64) error {
					if pos < 4000 {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
				b := newBed(t, "script", s.bucket(), nil)
				r := httptest.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
				r.Header.Set("Range", ranges)
				conn := &failingConn{httptest.NewRecorder(), good}
				require.PanicsWithValue(t, http.ErrAbortHandler, func() {
					signedurl.NewHandler(s.bucket(), b.signer, nil).ServeHTTP(conn, r)
				})
				_, _, readers := s.state()
				require.Zero(t, readers)
			})
		}
		t.Run("object/"+ranges, func(t *testing.T) {
			s := newScript(pattern(10_000))
			s.read = func(_ context.Context, pos int64) error {
				if pos >= 4000 {
					return errors.New("disk on fire")
				}
				return nil
			}
			b := newBed(t, "script", s.bucket(), nil)
			r := httptest.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
			r.Header.Set("Range", ranges)
			require.PanicsWithValue(t, http.ErrAbortHandler, func() {
				signedurl.NewHandler(s.bucket(), b.signer, nil).ServeHTTP(httptest.NewRecorder(), r)
			})
		})
	}
}

// TestDamagedObjects: a client gets only authentic bytes of a damaged object, and
// never a clean end.
func TestDamagedObjects(t *testing.T) {
	const chunk, stored = 16384, 16400
	content := pattern(3*chunk + 100)
	whole := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	flip := func(fromEnd int) func([]byte) []byte {
		return func(b []byte) []byte { b[len(b)-fromEnd] ^= 1; return b }
	}
	for _, tc := range []struct {
		name      string
		damage    func([]byte) []byte
		ranges    string
		authentic int // bytes that may be sent
		ok        bool
	}{
		{"first chunk", flip(3*stored + 116), "", 0, false},
		{"second chunk", flip(2*stored + 116), "", chunk, false},
		{"last chunk", flip(1), "", 3 * chunk, false},
		{"cut in the last chunk", whole(10), "", 3 * chunk, false},
		{"last chunk cut off", whole(116), "", 3 * chunk, false},
		{"one more byte", func(b []byte) []byte { return append(b, 0) }, "", 3*chunk + 100, false},
		{"envelope", func(b []byte) []byte { b[200] ^= 1; return b }, "", 0, false},
		{"magic", func(b []byte) []byte { b[0] ^= 1; return b }, "", 0, false},
		{"empty", func(b []byte) []byte { return nil }, "", 0, false},
		{"range beside the damage", flip(2*stored + 116), "bytes=0-99", 100, true},
		{"range in the damage", flip(2*stored + 116), "bytes=16384-16390", 0, false},
		{"range in a chunk that was cut off", whole(116 + 100), "bytes=49200-", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newEncrypted(t, "encrypted", blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t)), nil)
			b.write(t, "k", content, &gcblob.WriterOptions{ContentType: "a/b"})
			raw, err := b.inner.ReadAll(t.Context(), "k")
			require.NoError(t, err)
			attrs, err := b.inner.Attributes(t.Context(), "k")
			require.NoError(t, err)
			require.NoError(t, b.inner.WriteAll(t.Context(), "k", tc.damage(raw), &gcblob.WriterOptions{Metadata: attrs.Metadata, ContentType: "a/b"}))

			req, err := http.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
			require.NoError(t, err)
			if tc.ranges != "" {
				req.Header.Set("Range", tc.ranges)
			}
			resp, err := b.server.Client().Do(req)
			if err != nil {
				return // broken before its headers left
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			clean := err == nil && resp.StatusCode < 300
			require.Equal(t, tc.ok, clean, "%d %v", resp.StatusCode, err)
			if resp.StatusCode == 200 || tc.ok {
				require.LessOrEqual(t, len(body), tc.authentic)
				require.True(t, bytes.HasPrefix(content, body))
			}
		})
	}
}

// TestEmptyObjectIsOpened: a GET of an empty object needs the key, too.
func TestEmptyObjectIsOpened(t *testing.T) {
	fake := kmstest.NewFake("key")
	cipher, err := sse.NewKMS(fake, "key", nil)
	require.NoError(t, err)
	b := newEncrypted(t, "encrypted", blobtest.NewMem(t), cipher, nil)
	b.write(t, "k", nil, nil)
	u := b.url(t, "k", "GET", "")
	require.Equal(t, 200, b.do(t, "GET", u, nil).status)
	fake.Disable("key")
	require.Equal(t, 400, b.do(t, "GET", u, nil).status)
	require.Equal(t, 200, b.do(t, "HEAD", u, nil).status)
}
