//go:build linux

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompletionInShells has real shells complete a command, a flag and a file's name.
func TestCompletionInShells(t *testing.T) {
	workspace(t)
	for _, name := range []string{"HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"} { // where shells write
		t.Setenv(name, workingDirectory(t))
	}
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", customer, "plain", "sealed.enc")...)
	ok(t, args("encrypt", customer, "plain", "other.enc")...)
	write(t, ".bashrc", []byte("PS1='ready> '\n"+`eval "$(blobseal completion bash)"`+"\n"))
	write(t, ".zshrc", []byte("PS1='ready> '\n"+`eval "$(blobseal completion zsh)"`+"\n"))
	for shell, start := range map[string][]string{
		"bash": {"bash", "--noprofile", "--rcfile", ".bashrc", "-i"},
		"zsh":  {"zsh", "-o", "NO_GLOBAL_RCS", "-i"},
	} {
		t.Run(shell, func(t *testing.T) {
			need(t, shell)
			tty, screen := terminal(t)
			cmd := exec.Command(start[0], start[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			cmd.Env = append(os.Environ(), "TERM=dumb", "INPUTRC=/dev/null", "PROMPT_EOL_MARK=")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			require.NoError(t, cmd.Start())
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			show(t, screen, "ready> ")
			for _, test := range []struct{ typed, says string }{
				{"blobseal vers\t\n", ", go1"},
				{"blobseal version --js\t\n", `"platform": "`},
				{"blobseal inspect sea\t\n", "SSE-C"},
				{"blobseal verify --customer-key-file my.ke\tsealed.enc\n", "OK, 5 bytes"},
			} {
				_, err := screen.WriteString(test.typed)
				require.NoError(t, err)
				_, rest, _ := strings.Cut(show(t, screen, test.says), test.says)
				if !strings.Contains(rest, "ready> ") {
					show(t, screen, "ready> ")
				}
			}
		})
	}
	t.Run("fish", func(t *testing.T) {
		need(t, "fish")
		for typed, want := range map[string][]string{
			"blobseal vers":               {"version"},
			"blobseal ring set":           {"set-period"},
			"blobseal version --js":       {"--json"},
			"blobseal inspect sea":        {"sealed.enc"},
			"blobseal encrypt --ring my.": {"my.ring"},
			"blobseal completion ":        {"bash", "fish", "zsh"},
		} {
			out, err := exec.Command("fish", "--no-config", "-c", "blobseal completion fish | source; complete -C '"+typed+"'").CombinedOutput()
			require.NoError(t, err, "%s", out)
			lines := strings.Split(string(out), "\n")
			for _, word := range want {
				require.Contains(t, lines, word, "%q", typed)
			}
		}
	})
}

func need(t *testing.T, shell string) {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		t.Skipf("%s is missing (Debian: apt-get install %[1]s)", shell)
	}
}
