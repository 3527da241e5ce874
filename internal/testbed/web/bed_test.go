package web

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// patience is how long a test waits for what a loaded machine does late.
const patience = 2 * time.Minute

// bed is an encrypted bucket whose signed URLs a server serves.
type bed struct {
	*blob.Bucket
	inner  *gcblob.Bucket
	ring   *keyring.Ring
	signer *signedurl.Signer
	server *httptest.Server
	log    *captured.Buffer
}

// newBed serves a bucket under /shared/. wrap, if not nil, wraps the handler. base,
// if not empty, is where clients reach the server.
func newBed(t testing.TB, base string, opts *signedurl.HandlerOptions, wrap func(http.Handler) http.Handler) *bed {
	t.Helper()
	b := &bed{server: httptest.NewUnstartedServer(nil), inner: memblob.OpenBucket(nil), ring: keyringtest.NewRing(t, nil), log: new(captured.Buffer)}
	t.Cleanup(func() { b.inner.Close() })
	if base == "" {
		base = "http://" + b.server.Listener.Addr().String()
	}
	u, err := url.Parse(base + "/shared")
	require.NoError(t, err)
	b.signer, err = signedurl.NewSigner(u, random(), nil)
	require.NoError(t, err)
	b.Bucket, err = blob.NewBucket(b.inner, "photos", sse.NewManaged(b.ring), &blob.Options{Signer: b.signer})
	require.NoError(t, err)
	t.Cleanup(func() { b.Bucket.Close() })
	if opts == nil {
		opts = new(signedurl.HandlerOptions)
	}
	opts.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	var handler http.Handler = signedurl.NewHandler(b.Bucket.Bucket, b.signer, opts)
	if wrap != nil {
		handler = wrap(handler)
	}
	mux := http.NewServeMux()
	mux.Handle("/shared/", handler)
	b.server.Config.Handler = mux
	b.server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(b.log, nil), slog.LevelWarn)
	b.server.Start()
	t.Cleanup(b.server.Close)
	return b
}

func random() []byte {
	secret := make([]byte, 32)
	rand.Read(secret)
	return secret
}

func (b *bed) write(t testing.TB, key, contentType string, content []byte) {
	t.Helper()
	require.NoError(t, b.WriteAll(t.Context(), key, content, &gcblob.WriterOptions{ContentType: contentType}))
}

func (b *bed) sign(t testing.TB, p signedurl.Permit) string {
	t.Helper()
	u, err := b.signer.Sign(&p)
	require.NoError(t, err)
	return u.String()
}

// damage flips a bit of the stored object, so many bytes before its end.
func (b *bed) damage(t testing.TB, key string, fromEnd int) {
	t.Helper()
	attrs, err := b.inner.Attributes(t.Context(), key)
	require.NoError(t, err)
	stored, err := b.inner.ReadAll(t.Context(), key)
	require.NoError(t, err)
	stored[len(stored)-fromEnd] ^= 1
	require.NoError(t, b.inner.WriteAll(t.Context(), key, stored, &gcblob.WriterOptions{ContentType: attrs.ContentType, Metadata: attrs.Metadata}))
}

// program returns the path of a program, or skips the test.
func program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is missing (install it with: apt-get install %s)", name, debian)
	}
	return path
}

// run runs a program and returns its standard output.
func run(t testing.TB, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdin = bytes.NewReader([]byte(stdin))
	var errout bytes.Buffer
	cmd.Stderr = &errout
	out, err := cmd.Output()
	require.NoError(t, err, "%s: %s", name, errout.String())
	return string(out)
}

// get returns a response and its body, or what broke off.
func get(t testing.TB, client *http.Client, link string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}
