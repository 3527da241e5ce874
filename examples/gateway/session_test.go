package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/localkms"
)

// runVariable makes the test binary run the program with these arguments.
const runVariable = "BLOBSEAL_TEST_GATEWAY_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(runVariable); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		main()
		return
	}
	os.Exit(m.Run())
}

// patience bounds every wait.
const patience = 2 * time.Minute

// start starts the program and returns the environment that it prints.
func start(t *testing.T, dir string) []string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), runVariable+"="+strings.Join([]string{"--dir", dir, "--listen", address}, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		ended := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer ended.Stop()
		cmd.Wait()
	})
	printed := make(chan []string, 1)
	go func() {
		defer close(printed)
		var environment []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if setting, ok := strings.CutPrefix(lines.Text(), "export "); ok {
				environment = append(environment, setting)
			}
			if strings.HasPrefix(lines.Text(), "Until") {
				printed <- environment
			}
		}
	}()
	select {
	case environment, ok := <-printed:
		require.True(t, ok, "the gateway ended before it listened")
		return append(environment, "URL=https://"+address)
	case <-time.After(patience):
		t.Fatal("waited for the gateway to listen")
		return nil
	}
}

// script runs a script of testdata in a directory of its own.
func script(t *testing.T, interpreter, name, dir string, environment []string) string {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	require.NoError(t, err)
	cmd := exec.Command(interpreter, path)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+filepath.Join(dir, "aws.config"), "HOME="+dir), environment...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func need(t *testing.T, command, packages string) {
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("no %s here; install it with: apt-get install %s", command, packages)
	}
}

// allow lets a bucket take objects under customers' keys.
const allow = `<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault><BlockedEncryptionTypes><EncryptionType>NONE</EncryptionType></BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>`

// TestSession has aws-cli put, get, copy, sync and presign objects in every mode, in
// parts and at once. Then a key is disabled, and S3 says so. What other clients do is
// in internal/testbed/s3clients.
func TestSession(t *testing.T) {
	need(t, "aws", "awscli")
	need(t, "curl", "curl")
	dir, work := t.TempDir(), t.TempDir()
	environment := start(t, dir)
	root, err := rootOf(config{dir: dir}, false)
	require.NoError(t, err)
	keys, err := keysDocument(t.Context(), config{dir: dir})
	require.NoError(t, err)
	service, err := serviceOf(t.Context(), keys, root, nil)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	key, err := client.CreateKey(t.Context(), &localkms.CreateKeyInput{Description: "photos"})
	require.NoError(t, err)
	environment = append(environment, "KEY="+key.ID)
	require.NoError(t, os.WriteFile(filepath.Join(work, "allow.xml"), []byte(allow), 0o600))
	require.Contains(t, script(t, "bash", "aws.sh", work, environment), "as it should be")
	require.NoError(t, client.DisableKey(t.Context(), key.ID))
	time.Sleep(2 * time.Second) // the gateway looks at its keys every second
	said := script(t, "bash", "disabled.sh", work, environment)
	require.Equal(t, 2, strings.Count(said, "KMS.DisabledException"), said)

	trail, err := os.ReadFile(filepath.Join(dir, "audit.jsonl"))
	require.NoError(t, err)
	for _, word := range []string{`"id":"admin"`, "photos/small.key", "GenerateDataKey", "Decrypt", "Disabled"} {
		require.Contains(t, string(trail), word)
	}
	requireSecret(t, dir, work)
}

// requireSecret checks that no plaintext and no customer's key is in the gateway's
// directory.
func requireSecret(t *testing.T, dir, work string) {
	var secrets []string
	for _, name := range []string{"small", "big", "customer.key"} {
		content, err := os.ReadFile(filepath.Join(work, name))
		require.NoError(t, err)
		secrets = append(secrets, string(content[:16]), string(content[len(content)-16:]))
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, secret := range secrets {
			if strings.Contains(string(content), secret) {
				return fmt.Errorf("%s holds a secret", path)
			}
		}
		return nil
	})
	require.NoError(t, err)
}
