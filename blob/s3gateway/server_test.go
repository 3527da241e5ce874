package s3gateway_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"

	"github.com/blobseal/blobseal/blob/s3gateway"
	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/internal/testbed/freeport"
	"github.com/blobseal/blobseal/internal/testbed/selfsigned"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

const (
	rootUser, rootSecret = "admin", "admin-secret"
	serverVariable       = "BLOBSEAL_TEST_GATEWAY"
)

// setup says how a gateway is started. All gateways of a test share a directory.
type setup struct {
	Dir         string // holds data, ring, keys, trail and certificate
	Port        int
	Plain       bool // without TLS
	AllowPlain  bool
	Bare        bool   // the engine alone, as another S3 server
	Inner       string // the URL of another S3 server, in place of files
	Unversioned bool   // without object versions
	SideCar     bool   // attributes are in files of their own
	ReadOnly    bool
	Domain      string // below which buckets have hosts
	Pause       bool   // updates and copies onto themselves: see pausingFiles
	Count       bool   // the bytes that pass between the gateway and its files: see countingFiles
	Faults      faults
}

// inner opens the inner store.
func (s setup) inner(ctx context.Context) (backend.Backend, error) {
	if s.Inner == "" {
		files, err := s3gateway.OpenFiles(s.path("data"), &posix.PosixOpts{VersioningDir: s.versions(), SideCarDir: s.sidecar()})
		if err == nil && s.Pause {
			return &pausingFiles{Files: files, dir: s.Dir}, nil
		}
		if err == nil && s.Count {
			return newCountingFiles(files, s)
		}
		return files, err
	}
	return s3gateway.OpenS3(ctx, s3.New(s3.Options{
		BaseEndpoint: &s.Inner, UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(rootUser, rootSecret, ""),
	}), "")
}

func (s setup) path(name string) string { return filepath.Join(s.Dir, name) }

// sidecar returns the directory of attributes, or "".
func (s setup) sidecar() string {
	if !s.SideCar {
		return ""
	}
	return s.path("sidecar")
}

// versions returns the directory of object versions, or "".
func (s setup) versions() string {
	if s.Unversioned {
		return ""
	}
	return s.path("versions")
}

// TestMain runs a gateway instead of the tests if a test has started this process
// for that: the engine allows one gateway in a process.
func TestMain(m *testing.M) {
	if text := os.Getenv(serverVariable); text != "" {
		var s setup
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			log.Fatal(err)
		}
		log.Fatal(serve(s))
	}
	os.Exit(m.Run())
}

// serve runs a gateway until its standard input ends.
func serve(s setup) error {
	ctx := context.Background()
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the test's process
		os.Exit(0)                    // the engine's own shutdown has a race
	}()
	if s.Bare {
		return serveBare(ctx, s)
	}
	ring, keys, err := open(ctx, s)
	if err != nil {
		return err
	}
	managed := sse.NewManaged(ring)
	client, err := keys.Client("", "")
	if err != nil {
		return err
	}
	sink, err := audit.OpenFileSink(s.path(fmt.Sprintf("trail-%d", os.Getpid())), nil)
	if err != nil {
		return err
	}
	wire, err := s3wire.NewKeys(s3wire.KeysOptions{
		Managed: managed, Accept: sse.AnyKey, DefaultKey: localkms.DefaultAlias,
		KMS: audit.NewClient(s.Faults.keys(s, cache.New(faultyService{client, s.path(downFile)}, nil)), sink),
	})
	if err != nil {
		return err
	}
	inner, err := s.inner(ctx)
	if err != nil {
		return err
	}
	gateway, err := s3gateway.New(ctx, inner, wire, managed, &s3gateway.Options{AllowPlain: s.AllowPlain, KeyTimeout: s.Faults.KeyTimeout})
	if err != nil {
		return err
	}
	s.Faults.install(s, gateway, inner)
	return gateway.Run(ctx, s.engine())
}

// engine returns the configuration of the engine.
func (s setup) engine() embedgw.Config {
	config := embedgw.Config{
		RootUserAccess: rootUser, RootUserSecret: rootSecret, Quiet: true, IAMDir: s.path("accounts"),
		VirtualDomain: s.Domain, Readonly: s.ReadOnly,
		Ports:     []string{fmt.Sprintf("127.0.0.1:%d", s.Port)},
		S3Options: []s3api.Option{s3api.WithOnListen(func() { fmt.Println("listening") })},
	}
	if !s.Plain {
		config.CertFile, config.KeyFile = s.path("cert.pem"), s.path("cert.key")
	}
	return config
}

// serveBare runs the engine without a gateway.
func serveBare(ctx context.Context, s setup) error {
	files, err := posix.New(s.path("data"), meta.XattrMeta{}, posix.PosixOpts{VersioningDir: s.versions(), CopyObjectThreshold: 5 << 30})
	if err != nil {
		return err
	}
	config := s.engine()
	config.MaxConnections, config.MaxRequests, config.MultipartMaxParts = 1000, 1000, 10_000
	return embedgw.RunVersityGW(ctx, files, &config)
}

// open opens the ring and the key service of a directory.
func open(ctx context.Context, s setup) (*keyring.Ring, *localkms.Service, error) {
	key, err := os.ReadFile(s.path("root.key"))
	if err != nil {
		return nil, nil, err
	}
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		return nil, nil, err
	}
	ringStore, err := keyring.NewFileStore(s.path("ring"))
	if err != nil {
		return nil, nil, err
	}
	ring, err := keyring.Open(ctx, ringStore, root, nil)
	if errors.Is(err, keyring.ErrNotExist) {
		ring, err = keyring.Create(ctx, ringStore, root, nil)
	}
	if err != nil {
		return nil, nil, err
	}
	keyStore, err := keyring.NewFileStore(s.path("keys"))
	if err != nil {
		return nil, nil, err
	}
	service, err := localkms.Open(ctx, keyStore, root, &localkms.Options{RefreshInterval: time.Millisecond})
	if errors.Is(err, keyring.ErrNotExist) {
		service, err = localkms.Create(ctx, keyStore, root, &localkms.Options{RefreshInterval: time.Millisecond})
	}
	return ring, service, err
}

// keyClient returns a client of the key service.
func (s setup) keyClient(t *testing.T) *localkms.Client {
	_, service, err := open(t.Context(), s)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	return client
}

// newSetup prepares a directory.
func newSetup(t *testing.T) setup {
	s := setup{Dir: t.TempDir()}
	for _, name := range []string{"data", "versions", "accounts", "sidecar"} {
		require.NoError(t, os.Mkdir(s.path(name), 0o700))
	}
	key := make([]byte, 32)
	rand.Read(key)
	require.NoError(t, os.WriteFile(s.path("root.key"), key, 0o600))
	selfsigned.Write(t, s.path("cert.pem"), s.path("cert.key"))
	_, _, err := open(t.Context(), s)
	require.NoError(t, err)
	return s
}

// server is a running gateway.
type server struct {
	setup
	url string
	cmd *exec.Cmd
	log *captured.Buffer
}

// start starts a gateway, which ends with the test.
func (s setup) start(t *testing.T) *server {
	s.Port = freeport.Get(t)
	text, err := json.Marshal(s)
	require.NoError(t, err)
	g := &server{setup: s, log: new(captured.Buffer), url: fmt.Sprintf("https://127.0.0.1:%d", s.Port)}
	if s.Plain {
		g.url = fmt.Sprintf("http://127.0.0.1:%d", s.Port)
	}
	g.cmd = exec.Command(os.Args[0])
	g.cmd.Env = append(os.Environ(), serverVariable+"="+string(text))
	stdin, err := g.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := g.cmd.StdoutPipe()
	require.NoError(t, err)
	g.cmd.Stderr = g.log
	require.NoError(t, g.cmd.Start())
	t.Cleanup(func() {
		g.kill()
		stdin.Close()
		if strings.Contains(g.log.String(), "DATA RACE") {
			t.Error("a race in the gateway")
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.log)
		}
	})
	listening := make(chan bool, 1)
	go func() {
		defer close(listening)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if lines.Text() == "listening" {
				listening <- true
			}
		}
	}()
	require.True(t, await.Value(t, listening, "a gateway to listen"), "the gateway ended: %v", g.log)
	return g
}

// startWithBucket starts a gateway with a bucket, and returns a client, too.
func (s setup) startWithBucket(t *testing.T) (*server, *s3.Client) {
	g := s.start(t)
	c := g.client(t)
	newBucket(t, c)
	return g, c
}

// startBare starts another S3 server.
func startBare(t *testing.T) *server {
	s := newSetup(t)
	s.Bare, s.Plain = true, true
	return s.start(t)
}

// kill ends the gateway at once, as a crash does.
func (g *server) kill() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
}

// client returns a client of the gateway.
func (g *server) client(t *testing.T) *s3.Client { return g.clientAs(t, rootUser, rootSecret) }

func (g *server) clientAs(t *testing.T, user, secret string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &g.url, UsePathStyle: true, Region: "us-east-1", HTTPClient: g.http(t),
		Credentials:                credentials.NewStaticCredentialsProvider(user, secret, ""),
		RetryMaxAttempts:           1,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
	})
}

func (g *server) http(t *testing.T) *http.Client {
	pool := x509.NewCertPool()
	text, err := os.ReadFile(g.path("cert.pem"))
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(text))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: await.Longest}
}
