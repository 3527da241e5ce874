package s3clients

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/freeport"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
)

const (
	bucket    = "photos"
	innerUser = "inner"
	region    = "us-east-1"
)

// bed is a gateway with an inner store of its own, for one client's run.
type bed struct {
	dir     string // everything that the servers write
	work    string // the client's own files
	url, ca string
	user    string
	secret  string
	keyID   string // of the key service, which nobody uses unless a request names it
	http    *http.Client
	over    store
	stop    func() // ends the servers, so that nothing is left in a buffer
}

// store is an inner store.
type store string

const (
	onFiles store = "posix"
	onS3    store = "S3"
)

// newBed starts a gateway over an inner store, and creates the bucket. What is written
// there without a mode gets SSE-KMS, so that the tests see whether a client asks for
// SSE-S3. Customer keys are allowed.
func newBed(t *testing.T, over store) *bed {
	b := &bed{dir: t.TempDir(), work: t.TempDir(), over: over}
	environment, args := os.Environ(), []string{"--dir", b.path("gateway")}
	var stops []func()
	if over == onS3 {
		url, stop := startInner(t, b)
		stops = append(stops, stop)
		args = append(args, "--inner", url)
		environment = append(environment, "INNER_ACCESS_KEY_ID="+innerUser, "INNER_SECRET_ACCESS_KEY="+innerUser+"-secret")
	}
	address := fmt.Sprintf("127.0.0.1:%d", freeport.Get(t))
	b.url = "https://" + address
	cmd := exec.Command(gatewayProgram(t), append(args, "--listen", address)...)
	cmd.Env = environment
	stop := b.start(t, cmd, "gateway.log", func(line string) bool {
		setting, ok := strings.CutPrefix(line, "export ")
		if ok {
			b.set(setting)
		}
		return strings.HasPrefix(line, "Until")
	})
	b.stop = func() {
		stop()
		for _, stop := range stops {
			stop()
		}
	}
	text, err := os.ReadFile(b.ca)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	b.http = &http.Client{Transport: transport, Timeout: await.Longest}
	b.keyID = b.createKey(t)
	b.createBucket(t)
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

// set takes a setting of the environment that the gateway prints.
func (b *bed) set(setting string) {
	name, value, _ := strings.Cut(setting, "=")
	switch name {
	case "AWS_CA_BUNDLE":
		b.ca = value
	case "AWS_ACCESS_KEY_ID":
		b.user = value
	case "AWS_SECRET_ACCESS_KEY":
		b.secret = value
	}
}

// start starts a server whose output goes to a file, and waits until it prints a line
// that isReady accepts. The caller calls stop, or else the end of the test does.
func (b *bed) start(t *testing.T, cmd *exec.Cmd, log string, isReady func(line string) bool) (stop func()) {
	file, err := os.Create(b.path(log))
	require.NoError(t, err)
	cmd.Stderr = file
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ready, copied := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(copied)
		waits := true
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			file.WriteString(line)
			if waits && isReady(strings.TrimSuffix(line, "\n")) {
				waits = false
				ready <- true
			}
			if err != nil {
				close(ready)
				return
			}
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			ended := make(chan error, 1)
			go func() { <-copied; ended <- cmd.Wait() }()
			await.Value(t, ended, filepath.Base(cmd.Path)+" to end")
			file.Close()
		})
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(file.Name())
			t.Logf("%s:\n%s", log, text[max(0, len(text)-10_000):])
		}
	})
	t.Cleanup(stop)
	require.True(t, await.Value(t, ready, filepath.Base(cmd.Path)+" to listen"), "%s ended before it listened", cmd.Path)
	return stop
}

// startInner starts another S3 server, which logs each request and response with all
// headers.
func startInner(t *testing.T, b *bed) (url string, stop func()) {
	program, err := exec.LookPath("versitygw")
	if err != nil {
		t.Skip("no versitygw: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	}
	require.NoError(t, os.MkdirAll(b.path("inner"), 0o700))
	address := fmt.Sprintf("127.0.0.1:%d", freeport.Get(t))
	cmd := exec.Command(program, "--port", address, "--access", innerUser, "--secret", innerUser+"-secret",
		"--log-level", "debug", "--access-log", b.path("access.log"), "posix", b.path("inner"))
	stop = b.start(t, cmd, "inner.log", func(line string) bool { return strings.Contains(line, address) })
	listens := func() bool { // it says so before it does
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	require.Eventually(t, listens, await.Longest, 20*time.Millisecond, "versitygw does not listen")
	return "http://" + address, stop
}

// createKey creates a key in the gateway's key service.
func (b *bed) createKey(t *testing.T) string {
	text, err := os.ReadFile(b.path("gateway/root.key"))
	require.NoError(t, err)
	root, err := keyring.NewKeyRoot(text)
	require.NoError(t, err)
	store, err := keyring.NewFileStore(b.path("gateway/kms/keys"))
	require.NoError(t, err)
	service, err := localkms.Open(t.Context(), store, root, nil)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	key, err := client.CreateKey(t.Context(), &localkms.CreateKeyInput{Description: "photos"})
	require.NoError(t, err)
	return key.ID
}

// configuration makes SSE-KMS the default of a bucket, and allows customer keys.
const configuration = `<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>` +
	`<ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault>` +
	`<BlockedEncryptionTypes><EncryptionType>NONE</EncryptionType></BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>`

func (b *bed) createBucket(t *testing.T) {
	for _, step := range [][2]string{{"", ""}, {"?encryption=", configuration}} {
		response := b.send(t, http.MethodPut, "/"+bucket+step[0], step[1], nil)
		require.Equal(t, http.StatusOK, response.StatusCode, "%s", response.body)
	}
}

// program is a program that is built once.
type program struct {
	once sync.Once
	path string
	err  error
}

var gateway program

// gatewayProgram builds the gateway. The program lasts as long as the test binary.
func gatewayProgram(t *testing.T) string {
	gateway.once.Do(func() {
		gateway.path = filepath.Join(programs, "gateway")
		cmd := exec.CommandContext(context.Background(), "go", "build", "-o", gateway.path, ".")
		cmd.Dir, cmd.Env = "../../../examples/gateway", append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			gateway.err = fmt.Errorf("build the gateway: %w\n%s", err, out)
		}
	})
	require.NoError(t, gateway.err)
	return gateway.path
}

// programs is the directory of what the tests build.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "s3clients"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(programs)
		return m.Run()
	}())
}
