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

// Start starts a server that a test needs, and waits until it listens on port of
// 127.0.0.1. The server ends with the test. Without the program, the test skips and
// says what install says. env is in addition to this process's environment.
func Start(t testing.TB, install string, port int, env []string, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("no %s: %s", program, install)
	}
	var log bytes.Buffer // read after the process has ended
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, dialErr := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if dialErr == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %v\n%s", program, err, log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", program, dialErr)
		}
	}
}
