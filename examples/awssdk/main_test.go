package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/program"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) { program.Main(m, main) }

// TestProgram runs the program, which checks what it shows.
func TestProgram(t *testing.T) {
	text := program.Output(t, t.TempDir())
	for _, line := range []string{
		`range:  "minutes"`,
		`moved:  403 `,
		`acme:   403 .*key is disabled: arn:`,
		`globex: 200`,
	} {
		require.Regexp(t, line, text)
	}
}

// TestGlue: the whole service takes less than 60 lines of code.
func TestGlue(t *testing.T) {
	text, err := os.ReadFile("service.go")
	require.NoError(t, err)
	lines := 0
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines++
		}
	}
	t.Logf("%d lines", lines)
	require.Less(t, lines, 60)
}
