package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// newDirectory returns the directory of a gateway that has started and ended.
func newDirectory(t *testing.T) string {
	dir := t.TempDir()
	t.Run("first start", func(t *testing.T) { startAs(t, dir, nil) })
	return dir
}

// TestDirectory: a gateway replaces no key, ring or account that is lost or damaged.
func TestDirectory(t *testing.T) {
	t.Setenv("BLOBSEAL_PASSPHRASE", "")
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		rotate bool
		want   []string
	}{
		"lost root":          {remove("root.key"), false, []string{"root.key: no such file", "restore it"}},
		"lost root, rotated": {remove("root.key"), true, []string{"root.key: no such file", "restore it"}},
		"lost root and ring": {remove("root.key", "objects.ring"), false, []string{"--ring: no such ring", "--create"}},
		"lost ring":          {remove("objects.ring"), false, []string{"--ring: no such ring", "--create"}},
		"lost ring, rotated": {remove("objects.ring"), true, []string{"--ring: no such ring"}},
		"lost key service":   {remove("kms"), false, []string{"--key-service: no such key service", "--create"}},
		"damaged root":       {write("root.key", "short"), false, []string{"root.key: "}},
		"two roots":          {func(t *testing.T, dir string) { t.Setenv("BLOBSEAL_PASSPHRASE", "correct horse battery staple") }, false, []string{"BLOBSEAL_PASSPHRASE is set and ", "root.key exists"}},
		"damaged account":    {write("admin.json", "{"), false, []string{"admin.json: ", "remove it"}},
		"no secret":          {write("admin.json", `{"Access": "admin"}`), false, []string{"admin.json: Access or Secret is empty"}},
		"no store to rotate": {remove("objects/blobseal-gateway-state", "versions"), true, []string{"versions"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDirectory(t)
			c.change(t, dir)
			before := names(t, dir)
			ring, _ := os.ReadFile(filepath.Join(dir, "objects.ring"))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			t.Chdir(".") // and back in the end: the engine changes the working directory
			err := run(ctx, config{dir: dir, listen: "127.0.0.1:0", rotate: c.rotate})
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.Equal(t, before, names(t, dir))
			after, _ := os.ReadFile(filepath.Join(dir, "objects.ring"))
			require.Equal(t, ring, after)
		})
	}
}

// remove removes files and directories of a gateway.
func remove(names ...string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		for _, name := range names {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
}

// write replaces the content of a file of a gateway.
func write(name, content string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
}

// names lists a directory.
func names(t *testing.T, dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

// TestFirstStarts: of two gateways that start at once in a new directory, one creates
// what both use. A directory whose first start was interrupted starts again.
func TestFirstStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var gateways [2]*exec.Cmd
	var said [2]bytes.Buffer // read after the process has ended
	var ready sync.WaitGroup
	for i := range gateways {
		cmd := program(nil, "--dir", dir, "--listen", fmt.Sprintf("127.0.0.1:%d", freeport.Get(t)), "--audit", filepath.Join(t.TempDir(), "audit.jsonl"))
		cmd.Stderr = &said[i]
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		giveUp := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		t.Cleanup(func() { giveUp.Stop() })
		gateways[i] = cmd
		ready.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "Until"); {
			}
		})
	}
	ready.Wait() // listening, ended or killed
	for _, cmd := range gateways {
		cmd.Process.Signal(syscall.SIGTERM)
	}
	for i, cmd := range gateways {
		require.NoError(t, cmd.Wait(), "the gateway failed, or did not listen in time: %s", &said[i])
	}
	t.Run("interrupted after the ring", func(t *testing.T) {
		remove("objects", "kms")(t, dir)
		startAs(t, dir, nil)
	})
	t.Run("interrupted in the state's bucket", func(t *testing.T) {
		remove("objects/blobseal-gateway-state")(t, dir)
		require.NoError(t, os.Mkdir(filepath.Join(dir, "objects", "blobseal-gateway-state"), 0o700)) // without attributes
		startAs(t, dir, nil)
	})
}

// TestInterruptedRotation: the process that a signal ends before it has rotated fails.
// Its connection to etcd uses TLS.
func TestInterruptedRotation(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	require.NoError(t, err)
	defer listener.Close()
	first := make(chan byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		var b [1]byte
		io.ReadFull(conn, b[:])
		first <- b[0]
	}()
	cmd := program(nil, "--dir", newDirectory(t), "--rotate", "--ring", "etcds://"+listener.Addr().String()+"/ring")
	require.NoError(t, cmd.Start())
	giveUp := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer giveUp.Stop()
	select {
	case b := <-first:
		require.Equal(t, byte(22), b, "a TLS handshake begins with it")
	case <-time.After(patience):
		t.Fatal("waited for the program to ask etcd")
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	cmd.Wait()
	require.Equal(t, 1, cmd.ProcessState.ExitCode())
}

// TestGreeting: the secret is printed once.
func TestGreeting(t *testing.T) {
	dir, printed := t.TempDir(), map[string]string{}
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) { printed[name] = strings.Join(start(t, dir), "\n") })
	}
	require.Contains(t, printed["first"], "AWS_SECRET_ACCESS_KEY=")
	require.NotContains(t, printed["second"], "AWS_SECRET_ACCESS_KEY=")
	require.Contains(t, printed["second"], "AWS_ACCESS_KEY_ID=admin")
}
