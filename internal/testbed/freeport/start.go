package freeport

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Start starts a server for a test, and waits until it listens on a port of 127.0.0.1. The
// server ends with the test. If the program is not installed, the test skips and prints
// install. env is added to the environment of this process.
func Start(t testing.TB, install string, port int, env []string, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("no %s: %s", program, install)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), env...)
	Run(t, cmd, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// Run starts a server that a test needs, and waits until it listens at an address of a
// network, as [net.Dial] has them. The server ends with the test.
func Run(t testing.TB, server *exec.Cmd, network, address string) {
	t.Helper()
	var log bytes.Buffer // read after the process has ended
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = server.Wait()
	}()
	t.Cleanup(func() {
		server.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, dialErr := net.Dial(network, address)
		if dialErr == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %v\n%s", server.Path, err, log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", server.Path, dialErr)
		}
	}
}
