package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv("BLOBSEAL_TEST_PROGRAM") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestProgram runs the program, which checks what it shows.
func TestProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BLOBSEAL_TEST_PROGRAM=1", "TMPDIR="+t.TempDir())
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	for _, line := range []string{
		`range:  "minutes"`,
		`moved:  403 `,
		`acme:   403 .*key is disabled: arn:`,
		`globex: 200`,
	} {
		require.Regexp(t, line, string(text))
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
