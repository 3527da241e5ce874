// Package transit starts Vault's own Transit engine, which internal/testbed/vault builds.
package transit

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Token is the engine's only token.
const Token = "vaultbed"

// env names the program.
const env = "BLOBSEAL_VAULTBED"

// Start starts the engine, which ends when the caller calls stop, or dies. Without the
// program, the URL is empty.
func Start() (url string, stop func() error, err error) {
	program := os.Getenv(env)
	if program == "" {
		return "", func() error { return nil }, nil
	}
	bed := exec.Command(program)
	bed.Stderr = os.Stderr
	in, err := bed.StdinPipe() // the engine ends with it
	if err != nil {
		return "", nil, err
	}
	out, err := bed.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := bed.Start(); err != nil {
		return "", nil, fmt.Errorf("%s: %w", env, err)
	}
	stop = func() error {
		in.Close()
		return bed.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", env, err)
	}
	return strings.TrimSpace(line), stop, nil
}

// URL starts an engine that ends with the test, and returns its URL. Without the
// program, the test skips.
func URL(t testing.TB) string {
	t.Helper()
	url, stop, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	if url == "" {
		Skip(t)
	}
	t.Cleanup(func() { stop() })
	return url
}

// Skip says how to get the program.
func Skip(t testing.TB) {
	t.Helper()
	t.Skipf("no Transit: build it with (cd internal/testbed/vault && GOWORK=off go build -o /tmp/vaultbed .) and set %s=/tmp/vaultbed", env)
}
