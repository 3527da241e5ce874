package signedurl_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/sse"
)

// bed is a bucket whose signed URLs a server serves.
type bed struct {
	name   string
	bucket *gcblob.Bucket
	inner  *gcblob.Bucket // what stores the bytes; bucket itself if that is plain
	signer *signedurl.Signer
	clock  *clock
	server *httptest.Server
	log    *captured.Buffer
	done   chan struct{} // gets a value when the handler has returned
}

// newBed serves bucket at /shared.
func newBed(t testing.TB, name string, bucket *gcblob.Bucket, opts *signedurl.HandlerOptions) *bed {
	b := &bed{name: name, bucket: bucket, inner: bucket, clock: newClock(), log: new(captured.Buffer), done: make(chan struct{}, 10000)}
	if opts == nil {
		opts = new(signedurl.HandlerOptions)
	}
	opts.Logger = slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mux := http.NewServeMux()
	b.server = httptest.NewServer(mux)
	b.server.Client().Transport.(*http.Transport).DisableCompression = true
	t.Cleanup(b.server.Close)
	b.signer = newSigner(t, b.server.URL+"/shared", secretOf(1), &signedurl.SignerOptions{Now: b.clock.now, BindPrincipal: true})
	handler := signedurl.NewHandler(bucket, b.signer, opts)
	mux.HandleFunc("/shared/", func(w http.ResponseWriter, r *http.Request) {
		defer func() { b.done <- struct{}{} }()
		handler.ServeHTTP(w, r)
	})
	return b
}

// newEncrypted serves a bucket that encrypts into inner.
func newEncrypted(t testing.TB, name string, inner *gcblob.Bucket, cipher sse.Cipher, opts *signedurl.HandlerOptions) *bed {
	b := newBed(t, name, blobtest.NewBucketWith(t, inner, cipher, nil).Bucket, opts)
	b.inner = inner
	return b
}

// newBeds returns a bed for each kind of bucket; the first is plain.
func newBeds(t testing.TB, opts *signedurl.HandlerOptions) []*bed {
	copied := func() *signedurl.HandlerOptions {
		if opts == nil {
			return nil
		}
		o := *opts
		return &o
	}
	return []*bed{
		newBed(t, "plain mem", blobtest.NewMem(t), copied()),
		newBed(t, "plain file", blobtest.NewFile(t), copied()),
		newEncrypted(t, "encrypted mem", blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t)), copied()),
		newEncrypted(t, "encrypted file", blobtest.NewFile(t), sse.NewManaged(blobtest.NewRing(t)), copied()),
	}
}

// contentPolicy is the Content-Security-Policy of objects.
const contentPolicy = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox allow-same-origin"

// errorXML returns the body of an error response.
func errorXML(code string, status int) string {
	return xml.Header + "<Error><Code>" + code + "</Code><Message>" + http.StatusText(status) + "</Message></Error>"
}

// errorHeader returns the header of an error response, with more pairs of name and
// value.
func errorHeader(code string, status int, more ...string) map[string]string {
	h := map[string]string{
		"Cache-Control": "no-store", "Content-Type": "application/xml", "X-Content-Type-Options": "nosniff",
		"Content-Length": strconv.Itoa(len(errorXML(code, status))), signedurl.ErrorCodeHeader: code,
	}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

// answer is a response as a client saw it.
type answer struct {
	status int
	header map[string]string
	body   string
	broken bool // the body broke off
}

// do sends a request. The header is of pairs of name and value.
func (b *bed) do(t testing.TB, method, signed string, body io.Reader, header ...string) answer {
	req, err := http.NewRequestWithContext(t.Context(), method, signed, body)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.server.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: map[string]string{}}
	raw, err := io.ReadAll(resp.Body)
	a.broken = err != nil
	a.body = string(raw)
	for name, values := range resp.Header {
		a.header[name] = strings.Join(values, "|")
	}
	if mediaType, params, err := mime.ParseMediaType(a.header["Content-Type"]); err == nil && mediaType == "multipart/byteranges" {
		a.header["Content-Type"] = mediaType
		if method == "HEAD" {
			return a
		}
		a.body = readParts(t, raw, params["boundary"])
	}
	return a
}

// readParts writes the parts of a multipart body one after the other.
func readParts(t testing.TB, raw []byte, boundary string) string {
	var out strings.Builder
	r := multipart.NewReader(bytes.NewReader(raw), boundary)
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return out.String()
		}
		require.NoError(t, err)
		body, err := io.ReadAll(part)
		require.NoError(t, err)
		fmt.Fprintf(&out, "[%s %s]%s", part.Header.Get("Content-Range"), part.Header.Get("Content-Type"), body)
	}
}

// alike returns the answer without what differs between two buckets.
func (a answer) alike() answer {
	h := maps.Clone(a.header)
	for _, name := range []string{"Date", "Etag", "Last-Modified"} {
		if h[name] != "" {
			h[name] = "set"
		}
	}
	a.header = h
	return a
}

func (b *bed) url(t testing.TB, key, method, contentType string) string {
	return sign(t, b.signer, key, method, contentType)
}

// write stores an object without the handler.
func (b *bed) write(t testing.TB, key string, content []byte, opts *gcblob.WriterOptions) {
	require.NoError(t, b.bucket.WriteAll(t.Context(), key, content, opts))
}

// has reports what is stored.
func (b *bed) has(t testing.TB, key string) bool {
	ok, err := b.inner.Exists(t.Context(), key)
	require.NoError(t, err)
	return ok
}

// pattern returns n bytes in which no two ranges are equal.
func pattern(n int) []byte {
	b := make([]byte, n)
	seed := sha256.Sum256([]byte(fmt.Sprint(n)))
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// script is a bucket with one object, "k", that behaves as a test says. It counts
// the requests.
type script struct {
	driver.Bucket

	content []byte
	modTime time.Time
	attrErr error // of Attributes
	openErr error // of NewRangeReader
	// read, if set, is called before each Read of a reader with its position in the
	// object. Its error is the Read's.
	read func(ctx context.Context, pos int64) error
	// write, if set, is called before the first Write of a writer.
	write func()
	// opened, if set, may change the reader that was opened for the n-th time.
	opened func(n int, r *scriptReader)

	mu      sync.Mutex
	opens   []string
	readers int // that are open
	got     int // bytes that were read
	writes  []*scriptWriter
}

func newScript(content []byte) *script {
	return &script{content: content, modTime: time.Unix(1_700_000_000, 123_000_000)}
}

func (s *script) bucket() *gcblob.Bucket { return gcblob.NewBucket(s) }

func (s *script) ErrorCode(err error) gcerrors.ErrorCode { return gcerrors.Unknown }
func (s *script) Close() error                           { return nil }

func (s *script) Attributes(context.Context, string) (*driver.Attributes, error) {
	if s.attrErr != nil {
		return nil, s.attrErr
	}
	return &driver.Attributes{Size: int64(len(s.content)), ModTime: s.modTime, ETag: `"e"`, ContentType: "text/plain"}, nil
}

func (s *script) NewRangeReader(ctx context.Context, key string, off, n int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens = append(s.opens, fmt.Sprintf("%d+%d", off, n))
	if s.openErr != nil {
		return nil, s.openErr
	}
	end := int64(len(s.content))
	if n >= 0 {
		end = min(end, off+n)
	}
	r := &scriptReader{s: s, ctx: ctx, pos: off, data: s.content[off:end], attrs: driver.ReaderAttributes{Size: int64(len(s.content)), ModTime: s.modTime}}
	if s.opened != nil {
		s.opened(len(s.opens), r)
	}
	s.readers++
	return r, nil
}

// state returns the counts.
func (s *script) state() (opens []string, got, readers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opens, s.got, s.readers
}

type scriptReader struct {
	s     *script
	ctx   context.Context
	pos   int64
	data  []byte
	attrs driver.ReaderAttributes
}

func (r *scriptReader) Read(p []byte) (int, error) {
	if r.s.read != nil {
		if err := r.s.read(r.ctx, r.pos); err != nil {
			return 0, err
		}
	}
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1000)], r.data)
	r.data = r.data[n:]
	r.pos += int64(n)
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.got += n
	return n, nil
}

func (r *scriptReader) Close() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.readers--
	return nil
}
func (r *scriptReader) Attributes() *driver.ReaderAttributes { return &r.attrs }
func (r *scriptReader) As(any) bool                          { return false }

func (s *script) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &scriptWriter{s: s, ctx: ctx, contentType: contentType, opts: *opts}
	s.writes = append(s.writes, w)
	return w, s.openErr
}

type scriptWriter struct {
	s           *script
	ctx         context.Context
	contentType string
	opts        driver.WriterOptions
	buf         bytes.Buffer
	committed   bool
	closed      bool
}

func (w *scriptWriter) Write(p []byte) (int, error) {
	if w.s.write != nil && w.buf.Len() == 0 {
		w.s.write()
	}
	return w.buf.Write(p)
}

func (w *scriptWriter) Close() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.closed = true
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.committed = true
	return nil
}

// queryWith returns the signed URL with one parameter replaced.
func queryWith(t testing.TB, signed, name, value string) string {
	u, err := url.Parse(signed)
	require.NoError(t, err)
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}
