package web

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/freeport"
	"github.com/blobseal/blobseal/internal/testbed/selfsigned"
)

// nginxProxy is an nginx in front of a bed.
type nginxProxy struct {
	dir    string
	client *http.Client
}

// configuration returns the nginx configuration of PROXIES.md that has this number.
func configuration(t *testing.T, number int) string {
	t.Helper()
	document, err := os.ReadFile("../../../blob/signedurl/PROXIES.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```nginx\n(.*?)```").FindAllSubmatch(document, -1)
	require.Greater(t, len(blocks), number)
	return string(blocks[number][1])
}

// startNginx runs a configuration of PROXIES.md. Pairs of what the document has and
// what the test needs replace its addresses and paths.
func startNginx(t *testing.T, config string, port int, replace ...string) *nginxProxy {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = program(t, "/usr/sbin/nginx", "nginx")
	}
	p := &nginxProxy{dir: t.TempDir()}
	for i := 0; i < len(replace); i += 2 {
		require.Contains(t, config, replace[i])
	}
	config = strings.NewReplacer(append(replace, "/var/log/nginx", p.dir, "/var/cache/nginx", p.dir, "/etc/ssl", p.dir)...).Replace(config)
	roots := selfsigned.Write(t, filepath.Join(p.dir, "photos.pem"), filepath.Join(p.dir, "photos.key"))
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s/temp-%s;\n", kind, p.dir, kind)
	}
	whole := fmt.Sprintf("daemon off;\nmaster_process off;\npid %s/pid;\nerror_log %s/error.log;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n", p.dir, p.dir, &temporary, config)
	file := filepath.Join(p.dir, "nginx.conf")
	require.NoError(t, os.WriteFile(file, []byte(whole), 0o600))

	freeport.Run(t, exec.Command(nginx, "-p", p.dir, "-c", file), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	return p
}

// log returns what is in a file of nginx.
func (p *nginxProxy) log(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	return string(text)
}

// TestNginx: the configuration of PROXIES.md serves ranges and uploads, leaves no
// signature in a log and no plaintext on disk, and breaks off damaged objects.
func TestNginx(t *testing.T) {
	config := configuration(t, 0)
	port := freeport.Get(t)
	b := newBed(t, fmt.Sprintf("https://localhost:%d", port), nil, nil)
	p := startNginx(t, config, port, "listen 443", fmt.Sprintf("listen 127.0.0.1:%d", port), "127.0.0.1:8080", b.server.Listener.Addr().String())

	content := bytes.Repeat([]byte("plaintext-on-its-way "), 1<<20)
	var secrets []string
	signed := func(method, key string) string {
		link := b.sign(t, permit(method, key))
		_, signature, _ := strings.Cut(link, "signature=")
		secrets = append(secrets, signature)
		return link
	}
	for _, key := range append(awkwardKeys, "big") {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, signed("PUT", key), bytes.NewReader(content))
		require.NoError(t, err)
		resp, err := p.client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode, key)
		resp, body, err := get(t, p.client, signed("GET", key), "Range", "bytes=10-19")
		require.NoError(t, err)
		require.Equal(t, 206, resp.StatusCode, key)
		require.Equal(t, content[10:20], body)
		require.Equal(t, 2, resp.ProtoMajor)
	}
	resp, body, err := get(t, p.client, signed("GET", "big"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, body))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	resp, _, err = get(t, p.client, signed("GET", "big")+"x")
	require.NoError(t, err)
	require.Equal(t, 403, resp.StatusCode)
	b.damage(t, "big", 1)
	_, _, err = get(t, p.client, signed("GET", "big"))
	require.Error(t, err, "damaged")

	require.Eventually(t, func() bool { return strings.Contains(p.log(t, "photos.log"), "403 ") }, patience, 10*time.Millisecond, "wait for the access log")
	require.Contains(t, p.log(t, "photos.log"), "SignatureDoesNotMatch")
	p.search(t, append(secrets, "plaintext-on-its-way")...)
}

// search checks that no file of nginx contains any of texts.
func (p *nginxProxy) search(t *testing.T, texts ...string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(p.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, text := range texts {
			require.NotContains(t, string(content), text, path)
		}
		return err
	}))
}

// TestNginxSlicesSurviveARewrap: a cache that has the first slices of an object
// from before a rewrap gives the whole object.
func TestNginxSlicesSurviveARewrap(t *testing.T) {
	config := configuration(t, 1)
	port := freeport.Get(t)
	b := newBed(t, fmt.Sprintf("http://127.0.0.1:%d", port), nil, nil)
	p := startNginx(t, config, port, "listen 8443", fmt.Sprintf("listen 127.0.0.1:%d", port),
		"127.0.0.1:8080", b.server.Listener.Addr().String(), "206 10s", "206 1h")
	content := make([]byte, 5<<20+17)
	rand.Read(content)
	b.write(t, "k", "application/octet-stream", content)
	link := b.sign(t, permit("GET", "k"))

	before, body, err := get(t, p.client, link, "Range", "bytes=0-99")
	require.NoError(t, err)
	require.Equal(t, content[:100], body)
	_, err = b.ring.Rotate(t.Context())
	require.NoError(t, err)
	_, err = jobs.Rewrap(t.Context(), b.Bucket, nil)
	require.NoError(t, err)
	after, body, err := get(t, p.client, link)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, body), "%d bytes", len(body))
	require.Equal(t, before.Header.Get("Etag"), after.Header.Get("Etag"))

	// Clients that resume a download, or ask whether it changed, go on too.
	direct := strings.Replace(link, fmt.Sprintf("127.0.0.1:%d", port), b.server.Listener.Addr().String(), 1)
	resumed, rest, err := get(t, http.DefaultClient, direct, "Range", "bytes=100-", "If-Range", before.Header.Get("Etag"))
	require.NoError(t, err)
	require.Equal(t, http.StatusPartialContent, resumed.StatusCode)
	require.True(t, bytes.Equal(content[100:], rest))
	unchanged, _, err := get(t, http.DefaultClient, direct, "If-None-Match", before.Header.Get("Etag"))
	require.NoError(t, err)
	require.Equal(t, http.StatusNotModified, unchanged.StatusCode)
}
