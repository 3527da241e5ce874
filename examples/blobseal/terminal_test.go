//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Ciphertext could change the terminal, and is no use there.
func TestNoCiphertextOnATerminal(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain words"))
	tty, screen := terminal(t)
	var errout bytes.Buffer
	c := console.New(strings.NewReader(""), tty, &errout)
	require.Equal(t, message.Usage, runOn(t.Context(), c, args("encrypt", customer, "plain", "-")))
	require.Equal(t, "blobseal: a terminal cannot show a sealed file: give OUT, use a pipe, or give --force\n", errout.String())
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	require.Zero(t, runOn(t.Context(), c, args("decrypt", customer, "sealed", "-")))
	require.Equal(t, "plain words", show(t, screen, "plain words"))
}

// Colours are for terminals whose users want them.
func TestColour(t *testing.T) {
	workspace(t)
	for name, test := range map[string]struct {
		setUp    func(t *testing.T)
		coloured bool
	}{
		"terminal":      {func(t *testing.T) { t.Setenv("NO_COLOR", ""); t.Setenv("TERM", "xterm") }, true},
		"NO_COLOR":      {func(t *testing.T) { t.Setenv("NO_COLOR", "1"); t.Setenv("TERM", "xterm") }, false},
		"dumb terminal": {func(t *testing.T) { t.Setenv("NO_COLOR", ""); t.Setenv("TERM", "dumb") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			test.setUp(t)
			tty, screen := terminal(t)
			c := console.New(strings.NewReader(""), tty, new(bytes.Buffer))
			require.Zero(t, runOn(t.Context(), c, args("doctor", ring)))
			require.Equal(t, test.coloured, strings.Contains(show(t, screen, "0 warnings"), "\x1b["))
		})
	}
	require.NotContains(t, ok(t, args("doctor", ring)...), "\x1b")
}

// TestWidths shows all help at several widths: no line is wider, but for examples that
// are to be pasted.
func TestWidths(t *testing.T) {
	var commands [][]string
	for name := range helpTexts() {
		if name != "blobseal" {
			commands = append(commands, strings.Fields(name))
		}
	}
	for _, width := range []int{40, 80, 200} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			t.Setenv("COLUMNS", fmt.Sprint(width))
			for _, command := range append(commands, nil) {
				help := ok(t, args(command, "--help")...)
				require.NotContains(t, help, "\x1b")
				for line := range strings.Lines(help) {
					line = strings.TrimSuffix(line, "\n")
					synopsis := strings.HasPrefix(line, "Usage: ") || strings.HasPrefix(line, "Run ") // which kong does not wrap
					example := strings.HasPrefix(line, "    ")
					longWord := len(strings.Fields(line)) <= 2
					if !synopsis && !example && !longWord && len([]rune(line)) > width {
						t.Errorf("%v: %d columns: %q", command, len([]rune(line)), line)
					}
				}
			}
		})
	}
}
