// Package manual takes commands out of the documentation, so that tests run what the
// reader is told to run.
package manual

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Commands returns the first block of shell commands after the text in a document. The
// text occurs once.
func Commands(t testing.TB, document, text string) string {
	t.Helper()
	content, err := os.ReadFile(document)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(content), text), "%s: how often it says %q", document, text)
	_, after, _ := strings.Cut(string(content), text)
	_, block, found := strings.Cut(after, "\n```sh\n")
	require.True(t, found, "%s: no commands after %q", document, text)
	block, _, found = strings.Cut(block, "\n```\n")
	require.True(t, found, "%s: commands after %q do not end", document, text)
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
	require.NoError(t, err, "%s\n%s", commands, out)
	return string(out)
}
