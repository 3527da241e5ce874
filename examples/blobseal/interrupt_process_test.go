//go:build linux

package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/internal/testbed/await"
)

// TestInterruptedProcesses interrupts processes at random moments. The exit code is 130,
// or the command was faster; there is never half a file.
func TestInterruptedProcesses(t *testing.T) {
	workspace(t)
	write(t, "plain", random(10_000_000))
	ok(t, args("encrypt", ring, "plain", "sealed")...)
	for name, test := range map[string]struct {
		command []string
		out     string
		size    int64
	}{
		"encrypt": {args("encrypt", "-v", ring, "--force", "plain", "out"), "out", stat(t, "sealed").Size()},
		"decrypt": {args("decrypt", "-v", ring, "--force", "sealed", "copy"), "copy", 10_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			for range 8 {
				require.NoError(t, os.RemoveAll(test.out))
				cmd := command(t, "process", test.command...)
				var errout bytes.Buffer
				cmd.Stderr = &errout
				require.NoError(t, cmd.Start())
				time.Sleep(rand.N(300 * time.Millisecond))
				require.NoError(t, cmd.Process.Signal(os.Interrupt))
				_ = cmd.Wait()
				status := cmd.ProcessState.Sys().(syscall.WaitStatus)
				switch {
				case status.Signaled(): // before the process cared about signals
					require.Equal(t, syscall.SIGINT, status.Signal())
				case status.ExitStatus() == message.Interrupted:
					require.Regexp(t, `\Ablobseal: [^\n]*interrupted[^\n]*\n\z`, errout.String())
				default:
					require.Zero(t, status.ExitStatus(), errout.String())
					require.Regexp(t, `(?m)^1 object, [0-9.]+ MiB in [0-9.]+ s, [0-9.]+ \w*B/s$`, errout.String())
				}
				if info, err := os.Stat(test.out); err == nil {
					require.Equal(t, test.size, info.Size())
				}
				for _, name := range files(t) {
					require.False(t, strings.HasSuffix(name, ".tmp") && !status.Signaled(), "%s is left", name)
				}
			}
		})
	}
}

// TestInterruptedPrompt types ^C instead of a passphrase: the terminal shows again what
// is typed.
func TestInterruptedPrompt(t *testing.T) {
	workspace(t)
	tty, screen := terminal(t)
	cmd := command(t, "process", "ring", "list", "--ring", "my.ring", "--passphrase-prompt")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	echoes := func() bool {
		mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO != 0
	}
	show(t, screen, "Passphrase: ")
	require.Eventually(t, func() bool { return !echoes() }, await.Longest, time.Millisecond, "the terminal to hide what is typed")
	_, err := screen.WriteString("secret\x03")
	require.NoError(t, err)
	await.Value(t, ended, "the command to end")
	require.Equal(t, message.Interrupted, cmd.ProcessState.ExitCode())
	require.True(t, echoes())
	require.NotContains(t, show(t, screen, "blobseal: interrupted"), "secret")
}
