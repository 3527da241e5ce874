package s3clients

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
)

// sdkCannot is what a library cannot do.
var sdkCannot = map[string]string{"sync twice, *": "a library has no command to synchronize"}

// boto3 is the AWS SDK for Python.
var boto3 = client{name: "boto3", cannot: sdkCannot, start: func(t *testing.T, b *bed) doer {
	for _, python := range []string{"python3", "/usr/bin/python3"} { // the user's own, and that of the package
		if exec.Command(python, "-c", "import boto3").Run() == nil {
			return startDriver(t, b, python, "boto.py")
		}
	}
	t.Skip("no boto3 here; install it with: apt-get install python3-boto3")
	return nil
}}

// packages are those of the AWS SDK for JavaScript.
const packages = "@aws-sdk/client-s3@3.883.0 @aws-sdk/lib-storage@3.883.0 @aws-sdk/s3-request-presigner@3.883.0"

// javaScript is the AWS SDK for JavaScript, with lib-storage for uploads in parts.
var javaScript = client{name: "JavaScript SDK", cannot: sdkCannot, start: func(t *testing.T, b *bed) doer {
	if os.Getenv("BLOBSEAL_AWS_JS") == "" {
		t.Skipf("no AWS SDK for JavaScript: npm install --prefix DIR %s, and set BLOBSEAL_AWS_JS to DIR/node_modules", packages)
	}
	return startDriver(t, b, "node", "sdk.mjs")
}}

// environment is that of a client which is a program.
func (b *bed) environment() []string {
	return append(os.Environ(), "URL="+b.url, "BUCKET="+bucket, "HOME="+b.work, "AWS_CA_BUNDLE="+b.ca, "NODE_EXTRA_CA_CERTS="+b.ca,
		"AWS_ACCESS_KEY_ID="+b.user, "AWS_SECRET_ACCESS_KEY="+b.secret, "AWS_DEFAULT_REGION="+region, "AWS_REGION="+region,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+filepath.Join(b.work, "aws.config"), fmt.Sprint("PART_SIZE=", partSize))
}

// startDriver starts a program of testdata, which does tasks that it reads from its
// standard input, one in a line of JSON, and answers each with a line.
func startDriver(t *testing.T, b *bed, interpreter, name string) doer {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	require.NoError(t, err)
	cmd := exec.Command(interpreter, path)
	cmd.Dir, cmd.Env = b.work, b.environment()
	var log strings.Builder // read after the process has ended
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	var end sync.Once
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		for from := bufio.NewReader(out); ; {
			line, err := from.ReadBytes('\n')
			if err != nil {
				return
			}
			select {
			case lines <- line:
			case <-ended:
				return
			}
		}
	}()
	stop := func() {
		end.Do(func() {
			close(ended)
			cmd.Process.Kill()
			in.Close()
			cmd.Wait()
		})
	}
	t.Cleanup(stop)
	return func(ctx context.Context, do task) (got answer, err error) {
		text, err := json.Marshal(do)
		if err != nil {
			return got, err
		}
		if _, err := in.Write(append(text, '\n')); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return got, err
		}
		line := await.Value(t, lines, fmt.Sprintf("%s to %s %s", name, do.Do, do.Key))
		if line == nil {
			stop()
			return got, fmt.Errorf("%s ended: %s", name, log.String())
		}
		return got, json.Unmarshal(line, &got)
	}
}
