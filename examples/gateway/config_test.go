package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/s3gateway"
	"github.com/blobseal/blobseal/internal/testbed/freeport"
	"github.com/blobseal/blobseal/internal/testbed/pgserver"
	"github.com/blobseal/blobseal/sse"
)

// program returns a run of this program.
func program(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), runVariable+"="+strings.Join(args, "\n")), env...)
	return cmd
}

// startAs starts a gateway with these flags and variables, and returns its client.
func startAs(t *testing.T, dir string, env []string, args ...string) *s3.Client {
	return startAt(t, fmt.Sprintf("127.0.0.1:%d", freeport.Get(t)), dir, env, args...)
}

// startAt is startAs at an address.
func startAt(t *testing.T, address, dir string, env []string, args ...string) *s3.Client {
	cmd := program(env, append(args, "--dir", dir, "--listen", address)...)
	var said bytes.Buffer // read after the process has ended
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	listens, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "Until") {
				close(listens)
			}
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		killing := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer killing.Stop()
		<-ended
	})
	select {
	case <-listens:
	case <-ended:
		t.Fatalf("the gateway ended before it listened: %s", &said)
	case <-time.After(patience):
		t.Fatal("waited for the gateway to listen")
	}
	return clientOf(t, dir, address)
}

// clientOf returns a client of the gateway at an address.
func clientOf(t *testing.T, dir, address string) *s3.Client {
	certificate, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certificate))
	admin, err := adminOf(config{dir: dir})
	require.NoError(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return s3.New(s3.Options{
		BaseEndpoint: aws.String("https://" + address), UsePathStyle: true, Region: "us-east-1",
		HTTPClient:  &http.Client{Transport: transport, Timeout: patience},
		Credentials: credentials.NewStaticCredentialsProvider(admin.Access, admin.Secret, ""),
	})
}

// startPostgres starts a server, and returns the URL of its database.
func startPostgres(t *testing.T) string {
	if pgserver.Programs() == "" {
		t.Skip("no PostgreSQL here; install it with: apt-get install postgresql")
	}
	server, err := pgserver.New()
	require.NoError(t, err)
	t.Cleanup(func() { server.Remove() })
	require.NoError(t, server.Start(t.Context()))
	t.Cleanup(func() { server.Stop(syscall.SIGQUIT) })
	return server.URL()
}

// startEtcd starts a server, and returns its address.
func startEtcd(t *testing.T) string {
	client, peers := freeport.Get(t), freeport.Get(t)
	clientURL, peerURL := fmt.Sprintf("http://127.0.0.1:%d", client), fmt.Sprintf("http://127.0.0.1:%d", peers)
	freeport.Start(t, "apt-get install etcd-server", client, nil, "etcd", "--name", "test", "--data-dir", t.TempDir(),
		"--listen-client-urls", clientURL, "--advertise-client-urls", clientURL,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "test="+peerURL)
	return fmt.Sprintf("127.0.0.1:%d", client)
}

// innerStore is the S3 server in which a gateway keeps its objects.
type innerStore struct {
	url string
	dir string   // in which it keeps objects
	env []string // its keys, for the gateway
}

func startInner(t *testing.T) innerStore {
	port, dir := freeport.Get(t), t.TempDir()
	freeport.Start(t, "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0", port,
		[]string{"ROOT_ACCESS_KEY=inner", "ROOT_SECRET_KEY=inner-secret"},
		"versitygw", "--port", fmt.Sprintf("127.0.0.1:%d", port), "--quiet", "posix", dir)
	return innerStore{fmt.Sprintf("http://127.0.0.1:%d", port), dir, []string{"INNER_ACCESS_KEY_ID=inner", "INNER_SECRET_ACCESS_KEY=inner-secret"}}
}

// gateways are two gateways that act as one service.
type gateways struct {
	a, b    *s3.Client
	objects string // the directory of buckets
	rotate  func() // has the ring rotated by a run of the program
}

// startTwo starts two gateways with the same flags: of one directory or, as on two
// machines, each in a directory of its own.
func startTwo(t *testing.T, apart bool, objects string, env []string, args ...string) gateways {
	dir := t.TempDir()
	other := dir
	g := gateways{objects: cmp.Or(objects, filepath.Join(dir, "objects"))}
	g.a = startAs(t, dir, env, append(slices.Clip(args), "--create")...)
	if apart {
		other = t.TempDir()
		for _, name := range []string{"root.key", "admin.json", "tls.key", "tls.crt"} {
			content, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(other, name), content, 0o600))
		}
	}
	g.b = startAs(t, other, env, append(args, "--audit", filepath.Join(other, "second.jsonl"))...)
	g.rotate = func() {
		out, err := program(env, append(args, "--dir", other, "--rotate")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "The newest version is ")
	}
	return g
}

// TestTwoGateways runs two gateways of each configuration, which act as one service.
func TestTwoGateways(t *testing.T) {
	t.Run("directory", func(t *testing.T) { requireOne(t, startTwo(t, false, "", nil)) })
	t.Run("postgres over S3", func(t *testing.T) {
		database, inner := startPostgres(t), startInner(t)
		requireOne(t, startTwo(t, true, inner.dir, inner.env, "--inner", inner.url, "--ring", database, "--key-service", database))
	})
	t.Run("etcd", func(t *testing.T) {
		address := startEtcd(t)
		requireOne(t, startTwo(t, false, "", nil, "--ring", "etcd://"+address+"/photos/ring", "--key-service", "etcd://"+address+"/photos/keys"))
	})
}

// requireOne checks that what happens at one gateway holds at the other.
func requireOne(t *testing.T, g gateways) {
	ctx, bucket := t.Context(), aws.String("photos")
	_, err := g.a.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket})
	require.NoError(t, err)
	for _, mode := range []types.ServerSideEncryption{"", types.ServerSideEncryptionAwsKms} {
		put(t, g.a, "text"+string(mode), "text", mode)
		requireText(t, g.b, "text"+string(mode), "text")
	}

	// An upload that begins at one gateway is completed at the other.
	begun, err := g.a.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("big")})
	require.NoError(t, err)
	parts := []string{strings.Repeat("a", 5<<20), "the end"}
	var list []types.CompletedPart
	for i, client := range []*s3.Client{g.a, g.b} {
		number := aws.Int32(int32(i + 1))
		part, err := client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: bucket, Key: aws.String("big"), UploadId: begun.UploadId, PartNumber: number, Body: strings.NewReader(parts[i]),
		})
		require.NoError(t, err)
		list = append(list, types.CompletedPart{ETag: part.ETag, PartNumber: number})
	}
	_, err = g.b.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: aws.String("big"), UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
	})
	require.NoError(t, err)
	requireText(t, g.a, "big", strings.Join(parts, ""))

	// A bucket's default encryption.
	_, err = g.a.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: bucket, ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{
		Rules: []types.ServerSideEncryptionRule{{ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAwsKms}}},
	}})
	require.NoError(t, err)
	require.Equal(t, types.ServerSideEncryptionAwsKms, put(t, g.b, "default", "text", ""))

	// A rotation, which a gateway learns of while it runs.
	before := g.sealing(t, "photos/text")
	g.rotate()
	require.NotEqual(t, before, g.sealing(t, s3gateway.DefaultStateBucket+"/config/photos"))
	for i, client := range []*s3.Client{g.a, g.b} {
		key := fmt.Sprint("rotated", i)
		for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			put(t, client, key, "text", types.ServerSideEncryptionAes256)
			if g.sealing(t, "photos/"+key) != before {
				break
			}
			require.True(t, time.Now().Before(deadline), "waited for the gateway to seal under the newest version")
		}
		requireText(t, g.a, key, "text")
		requireText(t, g.b, key, "text")
		requireText(t, client, "text", "text")
	}
}

// put stores an object, and returns the encryption that the gateway says.
func put(t *testing.T, client *s3.Client, key, text string, mode types.ServerSideEncryption) types.ServerSideEncryption {
	t.Helper()
	out, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("photos"), Key: &key, Body: strings.NewReader(text), ServerSideEncryption: mode})
	require.NoError(t, err)
	return out.ServerSideEncryption
}

func requireText(t *testing.T, client *s3.Client, key, want string) {
	t.Helper()
	out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("photos"), Key: &key})
	require.NoError(t, err)
	defer out.Body.Close()
	got, err := io.ReadAll(out.Body)
	require.NoError(t, err)
	require.True(t, string(got) == want, "%s: %.20q", key, got)
}

// sealing returns the id of the key that sealed a small object.
func (g gateways) sealing(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(g.objects, filepath.FromSlash(name)))
	require.NoError(t, err)
	env, err := sse.ReadEnvelope(bytes.NewReader(raw))
	require.NoError(t, err)
	return env.KeyID()
}

// TestBadConfiguration: an error names the flag and what to do.
func TestBadConfiguration(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "BLOBSEAL_PASSPHRASE", "ETCDCTL_CACERT", "ETCDCTL_CERT"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/none")
	t.Setenv("ETCDCTL_USER", "me:hunter2")
	dir := newDirectory(t)
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	text := file("text", "no key")
	key := file("other.key", strings.Repeat("\x81", 32))
	none := filepath.Join(dir, "none")
	for name, c := range map[string]struct {
		config config
		want   []string
	}{
		"scheme":         {config{ring: "redis://db/ring"}, []string{"--ring: redis:// is unknown", "postgres://HOST/DATABASE"}},
		"password":       {config{ring: "postgres://me:hunter2@db/x"}, []string{"--ring: the URL holds a password", "PGPASSFILE"}},
		"parameter":      {config{keyService: "postgres://db/x?password=hunter2"}, []string{"--key-service: the URL holds a password"}},
		"not a URL":      {config{ring: "postgres://db/%zz?hunter2"}, []string{"--ring: not a URL"}},
		"no database":    {config{ring: "postgres://127.0.0.1:1/x"}, []string{"--ring: ", "refused"}},
		"document":       {config{ring: "postgres://127.0.0.1:1/x?document=%20"}, []string{"--ring: ", "document name"}},
		"etcd":           {config{ring: "etcd://127.0.0.1:1"}, []string{"--ring: want etcd://HOST:PORT,HOST:PORT/KEY"}},
		"etcd, clear":    {config{ring: "etcd://127.0.0.1:1,db:1/x"}, []string{"--ring: the password of ETCDCTL_USER would go to db:1 in the clear", "etcds://"}},
		"key service":    {config{keyService: "redis://db/x"}, []string{"--key-service: redis:// is unknown", "a directory, postgres://, etcd://, etcds://, awskms://, gcpkms://, azurekeyvault:// or hashivault://"}},
		"local service":  {config{keyService: "localkms://x"}, []string{"--key-service: localkms:// is unknown; want a directory"}},
		"local root":     {config{rootKMSKey: "localkms://x"}, []string{"--root-kms-key: localkms:// is unknown; want awskms://"}},
		"no ring":        {config{ring: none}, []string{"--ring: no such ring: " + none, "--create"}},
		"no key service": {config{keyService: none}, []string{"--key-service: no such key service: " + none, "--create"}},
		"no directory":   {config{rotate: true, dir: none}, []string{"--dir: ", none, "start the gateway once"}},
		"no objects":     {config{rotate: true, dir: filepath.Dir(text)}, []string{"--dir: ", "objects", "start the gateway once"}},
		"none to rotate": {config{rotate: true, ring: none}, []string{"--ring: no such ring: " + none, "start the gateway once"}},
		"both":           {config{rotate: true, create: true}, []string{"--rotate creates nothing"}},
		"vendor's key":   {config{keyService: "gcpkms://photos"}, []string{"--key-service", "want gcpkms://projects/P/"}},
		"no region":      {config{keyService: "awskms:///alias/photos"}, []string{"--key-service awskms:///alias/photos: no region", "AWS_REGION"}},
		"root key":       {config{rootKMSKey: "rings"}, []string{"--root-kms-key \"rings\": want a URL"}},
		"three roots":    {config{rootKMSKey: "hashivault://rings", rootKeyFile: key}, []string{"--root-kms-key: give no --root-key-file"}},
		"two roots":      {config{rootKeyFile: key, passphraseFile: text}, []string{"--root-key-file and --passphrase-file: give one"}},
		"no root":        {config{rootKeyFile: "/none"}, []string{"--root-key-file: open /none"}},
		"not a key":      {config{rootKeyFile: text}, []string{"--root-key-file " + text}},
		"no passphrase":  {config{passphraseFile: "/none"}, []string{"--passphrase-file: open /none"}},
		"another root":   {config{rootKeyFile: key}, []string{"--ring: ", "copy root.key"}},
		"inner":          {config{inner: "photos"}, []string{"--inner: want the address", "INNER_ACCESS_KEY_ID"}},
		"inner password": {config{inner: "http://me:hunter2@s3"}, []string{"--inner: want the address"}},
		"inner's keys":   {config{inner: "http://127.0.0.1:1"}, []string{"--inner needs INNER_ACCESS_KEY_ID"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.dir = cmp.Or(c.config.dir, dir)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			t.Chdir(".") // and back in the end: the engine changes the working directory
			err := run(ctx, c.config)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "hunter2")
			require.NoFileExists(t, none)
		})
	}
}
