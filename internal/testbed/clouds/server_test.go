package clouds

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	gcs "cloud.google.com/go/storage"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/option"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// server is an emulator that a test started. It stops when the test ends.
type server struct {
	name    string
	install string // how to get it, for people whose test skipped
	url     string
	buckets atomic.Int64
	create  func(t testing.TB, s *server, name string)
	open    func(t testing.TB, s *server, name string) *gcblob.Bucket
}

// servers are the emulators under test.
var servers = []struct {
	name  string
	start func(t testing.TB) *server
}{
	{"gcs", startGCS},
	{"azure", startAzure},
}

// eachServer runs test on each emulator.
func eachServer(t *testing.T, test func(t *testing.T, s *server)) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) { test(t, s.start(t)) })
	}
}

// newBucket creates an empty bucket and returns a function that opens it.
func (s *server) newBucket(t testing.TB) func(t testing.TB) *gcblob.Bucket {
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	s.create(t, s, name)
	return func(t testing.TB) *gcblob.Bucket { return s.opened(t, name) }
}

// opened opens the bucket of that name, which need not exist.
func (s *server) opened(t testing.TB, name string) *gcblob.Bucket {
	b := s.open(t, s, name)
	t.Cleanup(func() { b.Close() })
	return b
}

// run starts the emulator's program and waits until it listens on port.
func (s *server) run(t testing.TB, program string, port int, env []string, args ...string) {
	t.Helper()
	s.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	freeport.Start(t, s.install, port, env, program, args...)
}

// startGCS starts fake-gcs-server.
func startGCS(t testing.TB) *server {
	s := &server{name: "gcs", install: "go install github.com/fsouza/fake-gcs-server@v1.56.1"}
	port := freeport.Get(t)
	s.run(t, "fake-gcs-server", port, nil, "-scheme", "http", "-host", "127.0.0.1", "-port", fmt.Sprint(port),
		"-public-host", fmt.Sprintf("127.0.0.1:%d", port), "-backend", "memory", "-log-level", "error")
	s.create = func(t testing.TB, s *server, name string) {
		c, err := gcs.NewClient(context.Background(), option.WithEndpoint(s.url+"/storage/v1/"), option.WithoutAuthentication())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.Bucket(name).Create(context.Background(), "project", nil))
	}
	s.open = func(t testing.TB, s *server, name string) *gcblob.Bucket {
		// The client reads through the JSON endpoint, writes through the upload endpoint beside it.
		t.Setenv("STORAGE_EMULATOR_HOST", s.url[len("http://"):])
		b, err := gcsblob.OpenBucket(context.Background(), gcp.NewAnonymousHTTPClient(http.DefaultTransport), name, nil)
		require.NoError(t, err)
		return b
	}
	return s
}

// Azurite serves the one account that AZURITE_ACCOUNTS names.
const azureAccount = "blobseal"

var azureKey = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64))

// startAzure starts Azurite.
func startAzure(t testing.TB) *server {
	s := &server{name: "azure", install: "npm install --global azurite@3.35.0"}
	port := freeport.Get(t)
	s.run(t, "azurite-blob", port, []string{"AZURITE_ACCOUNTS=" + azureAccount + ":" + azureKey}, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry",
		"--blobHost", "127.0.0.1", "--blobPort", fmt.Sprint(port))
	client := func(t testing.TB, s *server, name string) *azcontainer.Client {
		cred, err := azcontainer.NewSharedKeyCredential(azureAccount, azureKey)
		require.NoError(t, err)
		c, err := azcontainer.NewClientWithSharedKeyCredential(fmt.Sprintf("%s/%s/%s", s.url, azureAccount, name), cred, nil)
		require.NoError(t, err)
		return c
	}
	s.create = func(t testing.TB, s *server, name string) {
		_, err := client(t, s, name).Create(context.Background(), nil)
		require.NoError(t, err)
	}
	s.open = func(t testing.TB, s *server, name string) *gcblob.Bucket {
		b, err := azureblob.OpenBucket(context.Background(), client(t, s, name), nil)
		require.NoError(t, err)
		return b
	}
	return s
}
