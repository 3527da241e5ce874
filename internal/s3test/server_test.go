package s3test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

const (
	region    = "us-east-1"
	accessKey = "AKIDBLOBSEAL"
	secretKey = "not-a-secret-of-anything"
)

// server is an S3 server that a test has started and that ends with it.
type server struct {
	name     string
	endpoint string
	base     http.RoundTripper // reaches the server, whatever the endpoint's host is
	dir      string            // where versitygw keeps files: one directory for each bucket
	moved    atomic.Int64      // bytes on versitygw's connections, both ways
	buckets  atomic.Int64
}

// servers are the S3 servers under test.
var servers = []struct {
	name  string
	start func(t testing.TB) *server
}{
	{"gofakes3", startFake},
	{"versitygw", startVersity},
}

// eachServer runs a test over each server.
func eachServer(t *testing.T, test func(t *testing.T, s *server)) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) { test(t, s.start(t)) })
	}
}

// startVersity starts versitygw on a socket. Its files are in another directory.
func startVersity(t testing.TB) *server {
	binary, err := exec.LookPath("versitygw")
	if err != nil {
		t.Skip("no versitygw: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	}
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "s3test") // the path of a socket has to be short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(run) })
	socket := filepath.Join(run, "s3")

	gateway := exec.Command(binary, "--port", socket, "--quiet", "--keep-alive", "posix", dir)
	gateway.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey, "VGW_REGION="+region)
	freeport.Run(t, gateway, "unix", socket)

	var dialer net.Dialer
	s := &server{name: "versitygw", endpoint: "http://versitygw.test", dir: dir}
	base := &http.Transport{MaxIdleConnsPerHost: 16, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, "unix", socket)
		return meter{c, &s.moved}, err
	}}
	t.Cleanup(base.CloseIdleConnections)
	s.base = base
	return s
}

// meter counts the bytes on a connection, in both directions.
type meter struct {
	net.Conn
	n *atomic.Int64
}

func (m meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.n.Add(int64(n))
	return n, err
}

func (m meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.n.Add(int64(n))
	return n, err
}

// client returns a client whose requests go through w, unless w is nil. The client does not
// retry, so that the number of requests is predictable.
func (s *server) client(w *wire, tune ...func(*s3.Options)) *s3.Client {
	transport := s.base
	if w != nil {
		w.base = s.base
		transport = w
	}
	return s3.New(s3.Options{
		Region:       region,
		BaseEndpoint: aws.String(s.endpoint),
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		HTTPClient:   &http.Client{Transport: transport},
		Retryer:      aws.NopRetryer{},

		// As config.LoadDefaultConfig has them, and so a bucket of an s3:// URL.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	}, tune...)
}

// newBucket makes an empty bucket on the server and returns its name.
func (s *server) newBucket(t testing.TB) string {
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	_, err := s.client(nil).CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &name})
	require.NoError(t, err)
	return name
}

// open opens a bucket of the server.
func (s *server) open(t testing.TB, name string, w *wire, tune ...func(*s3.Options)) *gcblob.Bucket {
	b, err := s3blob.OpenBucket(context.Background(), s.client(w, tune...), name, &s3blob.Options{
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
	})
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}
