package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	google "cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// watched is a proxy that notes the conditions of the requests it passes on.
type watched struct {
	address string // of the proxy

	mu         sync.Mutex
	conditions []string
}

// watch starts a proxy of the server on a port.
func watch(t *testing.T, port int) *watched {
	w := new(watched)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		condition := r.Header.Get("If-Match")
		if generation := r.URL.Query().Get("ifGenerationMatch"); generation != "0" {
			condition += generation
		}
		if condition != "" && r.Method != http.MethodGet {
			w.mu.Lock()
			w.conditions = append(w.conditions, condition)
			w.mu.Unlock()
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.address = strings.TrimPrefix(server.URL, "http://")
	return w
}

// take returns the conditions since it was called last.
func (w *watched) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.conditions
	w.conditions = nil
	return taken
}

// newGoogle starts a server with the API of Google's store and returns the URL of its
// bucket.
func newGoogle(t *testing.T) (string, *watched) {
	port := freeport.Get(t)
	w := watch(t, port)
	address := w.address
	freeport.Start(t, "go install github.com/fsouza/fake-gcs-server@v1.56.1", port, nil, "fake-gcs-server", "-scheme", "http", "-host", "127.0.0.1",
		"-port", fmt.Sprint(port), "-public-host", address, "-backend", "memory", "-log-level", "error")
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	c, err := google.NewClient(context.Background(), option.WithEndpoint("http://"+address+"/storage/v1/"), option.WithoutAuthentication())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Bucket("photos").Create(context.Background(), "project", nil))
	return "gs://photos", w
}

// newAzure starts Azurite and returns the URL of its container.
func newAzure(t *testing.T) (string, *watched) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64))
	t.Setenv("AZURITE_ACCOUNTS", "blobseal:"+key)
	port := freeport.Get(t)
	w := watch(t, port)
	address := w.address
	freeport.Start(t, "npm install --global azurite@3.35.0", port, nil, "azurite-blob", "--silent", "--skipApiVersionCheck", "--inMemoryPersistence",
		"--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", fmt.Sprint(port))
	t.Setenv("AZURE_STORAGE_ACCOUNT", "blobseal")
	t.Setenv("AZURE_STORAGE_KEY", key)
	credential, err := azblob.NewSharedKeyCredential("blobseal", key)
	require.NoError(t, err)
	c, err := azblob.NewClientWithSharedKeyCredential("http://"+address+"/blobseal", credential, nil)
	require.NoError(t, err)
	_, err = c.CreateContainer(context.Background(), "photos", nil)
	require.NoError(t, err)
	return "azblob://photos?localemu=true&protocol=http&domain=" + address, w
}

// TestBucketClouds has a key's life on the stores of Google and Azure.
func TestBucketClouds(t *testing.T) {
	for name, start := range map[string]func(*testing.T) (string, *watched){"google": newGoogle, "azure": newAzure} {
		t.Run(name, func(t *testing.T) {
			address, w := start(t)
			shown, _, _ := strings.Cut(address, "?")
			bucket := []string{"--bucket", address}
			workspace(t)
			old := ringKeys(t).Versions[0].ID
			plain := random(50_000)
			write(t, "cat.jpg", plain)
			for _, name := range []string{"a", "2026/b"} {
				require.Empty(t, ok(t, args("bucket", "put", bucket, ring, "cat.jpg", name)...))
			}
			require.Equal(t, string(plain[20_000:20_100]), ok(t, args("bucket", "get", bucket, ring, "--range", "20000-20099", "a", "-")...))
			blobseal(args("bucket", "get", bucket, ring, "none", "-")...).fails(t, 5, "none: no such object")
			ok(t, args("ring", "rotate", ring)...)
			w.take()
			require.Contains(t, ok(t, args("bucket", "rewrap", bucket, ring)...), shown+": 2 objects rewrapped to SSE-S3 version ")
			require.Len(t, w.take(), 2, "what replaces an object has a condition")
			require.Contains(t, ok(t, args("bucket", "inventory", bucket)...), shown+": 2 objects, ")
			require.Contains(t, ok(t, args("bucket", "check", bucket, ring)...), ", 2 good (")
			ok(t, args("bucket", "retire", bucket, ring, old)...)
			require.Equal(t, string(plain), ok(t, args("bucket", "get", bucket, ring, "2026/b", "-")...))
		})
	}
}
