// Package doccommands extracts commands from the documentation, so that tests run the commands
// that readers are told to run.
package doccommands

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Commands returns the first block of shell commands that follows text in a document. text
// must occur once.
func Commands(t testing.TB, document, text string) string {
	t.Helper()
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(content), text); n != 1 {
		t.Fatalf("%s says %q %d times, want once", document, text, n)
	}
	_, after, _ := strings.Cut(string(content), text)
	_, block, found := strings.Cut(after, "\n```sh\n")
	if !found {
		t.Fatalf("%s: no block of commands follows %q", document, text)
	}
	block, _, found = strings.Cut(block, "\n```\n")
	if !found {
		t.Fatalf("%s: the block of commands after %q does not end", document, text)
	}
	return block
}

// Run runs commands in a directory, with additional environment variables, and stops at the
// first command that fails. It returns their output.
func Run(t testing.TB, dir string, env []string, commands string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
	return string(out)
}
