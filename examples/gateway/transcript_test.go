package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// transcript is a session that a person could have typed. It prints the session with
// go test -v.
type transcript struct {
	t      *testing.T
	dir    string // in which the commands run
	env    []string
	args   []string // of the gateway
	client *s3.Client

	objects string // the directory of buckets
	buckets string // flags that name them in the inner store
	as      string // what the command line needs to open them
}

// newTranscript builds the command line, and starts a gateway in the directory gw.
func newTranscript(t *testing.T, env []string, args ...string) *transcript {
	need(t, "aws", "awscli")
	need(t, "curl", "curl")
	s := &transcript{t: t, dir: t.TempDir(), args: args}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir = filepath.Join("..", "blobseal")
	build.Env = append(os.Environ(), "GOWORK=") // the tests of the workspace have compiled most of it
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	script := fmt.Sprintf("#!/bin/bash\nexport %s=\"$(printf '%%s\\n' \"$@\")\"\nexec %q\n", runVariable, os.Args[0])
	require.NoError(t, os.WriteFile(filepath.Join(bin, "gateway"), []byte(script), 0o700))

	address := fmt.Sprintf("127.0.0.1:%d", freeport.Get(t))
	s.say("$ gateway --dir gw --listen %s %s &", address, strings.Join(args, " "))
	s.client = startAt(t, address, filepath.Join(s.dir, "gw"), env, args...)
	admin, err := adminOf(config{dir: filepath.Join(s.dir, "gw")})
	require.NoError(t, err)
	s.env = append(append(os.Environ(), env...), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+s.dir,
		"AWS_ENDPOINT_URL=https://"+address, "AWS_CA_BUNDLE="+filepath.Join(s.dir, "gw", "tls.crt"), "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID="+admin.Access, "AWS_SECRET_ACCESS_KEY="+admin.Secret, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE="+filepath.Join(s.dir, "aws.config"))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "allow.xml"), []byte(allow), 0o600))
	return s
}

func (s *transcript) say(format string, args ...any) {
	if testing.Verbose() {
		fmt.Println(strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
	}
}

// try runs a command, prints it and its output, and returns the output.
func (s *transcript) try(command string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	// aws-cli 2.9 does not know AWS_ENDPOINT_URL.
	cmd := exec.CommandContext(ctx, "bash", "-c", `set -euo pipefail; aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }; `+command)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.dir, s.env, patience
	out, err := cmd.CombinedOutput()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("waited for the command to end: %w", err)
	}
	s.say("$ %s\n%s", command, out)
	return string(out), err
}

func (s *transcript) run(command string) string {
	s.t.Helper()
	out, err := s.try(command)
	require.NoError(s.t, err, "%s\n%s", command, out)
	return out
}

// TestTranscript: aws-cli puts and gets in all modes, a key is disabled, and S3 says so.
// Then the ring rotates and a bucket is rewrapped while clients write and read.
func TestTranscript(t *testing.T) {
	t.Run("files", func(t *testing.T) {
		s := newTranscript(t, nil)
		s.objects = filepath.Join(s.dir, "gw", "objects")
		s.buckets = "--bucket file://$PWD/gw/objects/photos --bucket file://$PWD/gw/objects/blobseal-gateway-state"
		s.allModes()
		s.disable()
		s.rewrap(s.readAll, func() {
			s.run("aws configure set s3.multipart_threshold 5GB") // what is copied in parts is not copied onto itself
			s.run("aws s3 cp --quiet --recursive s3://photos s3://photos --sse AES256 --exclude 'kms/*' --exclude 'customer/*'")
		})
	})
	t.Run("over S3", func(t *testing.T) {
		inner := startInner(t)
		s := newTranscript(t, inner.env, "--inner", inner.url)
		s.objects = inner.dir
		params := "?endpoint=" + inner.url + "&use_path_style=true&region=us-east-1'"
		s.buckets = "--bucket 's3://photos" + params + " --bucket 's3://blobseal-gateway-state" + params
		s.as = "env -u AWS_CA_BUNDLE -u AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=$INNER_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$INNER_SECRET_ACCESS_KEY "
		s.files()
		_, err := s.client.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: aws.String("photos"), ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{
			Rules: []types.ServerSideEncryptionRule{{ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256}}},
		}})
		require.NoError(t, err)
		s.rewrap(s.readSome, func() { s.run(s.as + "blobseal bucket rewrap --mode SSE-S3 --bucket 's3://photos" + params + ring) })
	})
}

const ring = " --ring gw/objects.ring --root-key-file gw/root.key"

// files makes files and a bucket, and puts two objects of SSE-S3.
func (s *transcript) files() {
	s.run("head -c 100000 /dev/urandom >cat.jpg; head -c 9000000 /dev/urandom >film.mp4; head -c 32 /dev/urandom >customer.key")
	s.run("aws s3 mb s3://photos")
	s.run("aws s3 cp --quiet cat.jpg s3://photos/cat.jpg")
	s.run("aws s3 cp --quiet film.mp4 s3://photos/film.mp4") // in parts
}

func (s *transcript) readSome() {
	s.run("aws s3 cp --quiet s3://photos/cat.jpg - | cmp - cat.jpg")
	s.run("aws s3 cp --quiet s3://photos/film.mp4 - | cmp - film.mp4")
}

func (s *transcript) readAll() {
	s.readSome()
	s.run("aws s3 cp --quiet s3://photos/kms/cat.jpg - | cmp - cat.jpg")
	s.run("aws s3 cp --quiet s3://photos/customer/cat.jpg - --sse-c AES256 --sse-c-key fileb://customer.key | cmp - cat.jpg")
}

// allModes puts and gets objects in all modes.
func (s *transcript) allModes() {
	s.files()
	s.run(`curl -fsS --cacert "$AWS_CA_BUNDLE" --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" ` +
		`-H "x-amz-content-sha256: $(sha256sum <allow.xml | cut -d' ' -f1)" -X PUT --data-binary @allow.xml "$AWS_ENDPOINT_URL/photos?encryption="`)
	s.run("blobseal kms create-key --kms gw/kms --root-key-file gw/root.key --alias alias/photos 2>/dev/null")
	s.waitForKey()
	s.run("aws s3 cp --quiet cat.jpg s3://photos/kms/cat.jpg --sse aws:kms --sse-kms-key-id alias/photos")
	s.run("aws s3 cp --quiet cat.jpg s3://photos/customer/cat.jpg --sse-c AES256 --sse-c-key fileb://customer.key")
	require.Contains(s.t, s.run("aws s3api head-object --bucket photos --key kms/cat.jpg --query ServerSideEncryption"), "aws:kms")
	s.readAll()
}

// waitForKey waits until the gateway knows the key: it looks every second.
func (s *transcript) waitForKey() {
	s.t.Helper()
	in := &s3.PutObjectInput{Bucket: aws.String("photos"), Key: aws.String("probe"), ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: aws.String("alias/photos")}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		_, err := s.client.PutObject(s.t.Context(), in)
		if err == nil {
			return
		}
		require.True(s.t, time.Now().Before(deadline), "waited for the gateway to know alias/photos: %v", err)
	}
}

// disable disables a key: S3 says so, and stores nothing.
func (s *transcript) disable() {
	s.run("blobseal kms disable --kms gw/kms --root-key-file gw/root.key alias/photos")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		out, err := s.try("aws s3api get-object --bucket photos --key kms/cat.jpg got")
		if err != nil {
			require.Contains(s.t, out, "KMS.DisabledException")
			break
		}
		require.True(s.t, time.Now().Before(deadline), "waited for the gateway to learn that the key is disabled")
	}
	out, err := s.try("aws s3api put-object --bucket photos --key kms/new --body cat.jpg --server-side-encryption aws:kms --ssekms-key-id alias/photos")
	require.Error(s.t, err)
	require.Contains(s.t, out, "KMS.DisabledException")
	_, err = s.try("aws s3api head-object --bucket photos --key kms/new")
	require.Error(s.t, err)
	s.run("aws s3 cp --quiet s3://photos/cat.jpg - | cmp - cat.jpg")
	s.run("blobseal kms enable --kms gw/kms --root-key-file gw/root.key alias/photos")
	s.waitForKey()
}

// rewrap rotates the ring and rewraps the bucket while clients write and read. Then the
// old version retires, and everything is still readable.
func (s *transcript) rewrap(read, rewrap func()) {
	g := gateways{objects: s.objects}
	sizes := s.sizes()
	old := g.sealing(s.t, "photos/cat.jpg")
	clients := startLoad(s.t, s.client)
	s.run(strings.Join(append([]string{"gateway", "--dir", "gw", "--rotate"}, s.args...), " "))
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		put(s.t, s.client, "probe", "text", "")
		if g.sealing(s.t, "photos/probe") != old {
			break
		}
		require.True(s.t, time.Now().Before(deadline), "waited for the gateway to seal under the newest version")
	}
	clients.next()
	rewrap()
	s.run(s.as + "blobseal bucket retire " + s.buckets + ring + " " + old)
	s.run("blobseal ring list" + ring)
	time.Sleep(2 * time.Second) // by then, the gateway usually knows
	written, got := clients.end()
	s.say("Meanwhile, clients wrote %d objects and read %d. None failed.", written, got)
	read()
	require.Equal(s.t, sizes, s.sizes())
}

// sizes returns the sizes of the objects by key, as a listing has them.
func (s *transcript) sizes() map[string]string {
	sizes := map[string]string{}
	for line := range strings.Lines(s.run("aws s3 ls --recursive s3://photos | grep -v load/")) {
		fields := strings.Fields(line) // date, time, size, key
		sizes[fields[3]] = fields[2]
	}
	delete(sizes, "probe")
	return sizes
}

// load is clients that write and read while something else happens.
type load struct {
	t       *testing.T
	stop    context.CancelFunc
	clients sync.WaitGroup
	read    atomic.Int64
	written [4]atomic.Int64 // by client
	failed  atomic.Pointer[error]
}

func startLoad(t *testing.T, client *s3.Client) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, stop: stop}
	t.Cleanup(func() { stop(); l.clients.Wait() })
	for i := range l.written {
		l.clients.Go(func() {
			if err := l.work(ctx, client, fmt.Sprintf("load/%d-", i), &l.written[i]); err != nil {
				l.failed.CompareAndSwap(nil, &err)
			}
		})
	}
	return l
}

// end ends the load, which must not have failed.
func (l *load) end() (written, read int64) {
	l.t.Helper()
	l.stop()
	l.clients.Wait()
	if err := l.failed.Load(); err != nil {
		l.t.Fatal(*err)
	}
	require.NotZero(l.t, l.read.Load())
	for i := range l.written {
		written += l.written[i].Load()
	}
	return written, l.read.Load()
}

// next waits until each client has written an object that it began to write after the
// call: none that the gateway sealed before is still on its way.
func (l *load) next() {
	l.t.Helper()
	var before [len(l.written)]int64
	for i := range l.written {
		before[i] = l.written[i].Load()
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		slow := -1
		for i := range l.written {
			if l.written[i].Load() < before[i]+2 {
				slow = i
			}
		}
		if slow < 0 || l.failed.Load() != nil { // end reports it
			return
		}
		require.True(l.t, time.Now().Before(deadline), "waited for client %d to write two objects", slow)
	}
}

// work replaces objects until ctx ends, and reads after each write what it has written
// last: each write stays.
func (l *load) work(ctx context.Context, client *s3.Client, prefix string, written *atomic.Int64) error {
	texts := map[string][]byte{}
	once := func(o *s3.Options) { o.RetryMaxAttempts = 1 }
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprint(prefix, i%6)
		texts[key] = bytes.Repeat(fmt.Append(nil, key, i), 1+i%3*2000)
		request := context.WithoutCancel(ctx)
		in := &s3.PutObjectInput{Bucket: aws.String("photos"), Key: &key, Body: bytes.NewReader(texts[key])}
		if i%3 == 2 {
			in.ServerSideEncryption = types.ServerSideEncryptionAwsKms
		}
		if _, err := client.PutObject(request, in, once); err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
		written.Add(1)
		for key, want := range texts {
			out, err := client.GetObject(request, &s3.GetObjectInput{Bucket: aws.String("photos"), Key: &key}, once)
			if err != nil {
				return fmt.Errorf("get %s: %w", key, err)
			}
			got, err := io.ReadAll(out.Body)
			out.Body.Close()
			if err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("get %s: another content, or %v", key, err)
			}
			l.read.Add(1)
		}
		time.Sleep(20 * time.Millisecond) // the machine has something else to do
	}
	return nil
}
