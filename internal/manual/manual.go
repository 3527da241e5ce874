// Package manual takes commands out of the documentation, so that tests run what the
// reader is told to run.
package manual

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Commands returns the first block of shell commands after the text in a document. The
// text occurs once.
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
		t.Fatalf("%s: no commands after %q", document, text)
	}
	block, _, found = strings.Cut(block, "\n```\n")
	if !found {
		t.Fatalf("%s: commands after %q do not end", document, text)
	}
	return block
}

// Run runs commands in a directory, with more variables of the environment, and stops at
// the first that fails. It returns what they print.
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
