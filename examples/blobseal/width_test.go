//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
)

// sized returns a terminal of a width.
func sized(t *testing.T, columns int) (tty, screen *os.File) {
	t.Helper()
	tty, screen = terminal(t)
	require.NoError(t, unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}))
	return tty, screen
}

// onTerminal runs a command whose output is a terminal of a width, and returns what the
// terminal shows.
func onTerminal(t *testing.T, columns int, command []string) string {
	t.Helper()
	tty, screen := sized(t, columns)
	c := console.New(strings.NewReader(""), tty, new(bytes.Buffer))
	require.Zero(t, runOn(t.Context(), c, command), command)
	fmt.Fprint(tty, "the end")
	return strings.TrimSuffix(strings.ReplaceAll(show(t, screen, "the end"), "\r\n", "\n"), "the end")
}

// TestTableWidths runs each command that prints a table or a list at several widths. A
// table that does not fit shows each cell on a line of its own; nothing is left out or
// cut. In a pipe, no width counts.
func TestTableWidths(t *testing.T) {
	album(t, ring, "a", strings.Repeat("long/", 8)+"b")
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", photos, "--principal", "user:ann", "--context", "team=art", "plain", "sealed")...)
	ok(t, args("kms", "grant", "create", service, "--to", "user:ann", "--operation", "Decrypt", "--operation", "Encrypt", "alias/photos")...)
	ok(t, args("ring", "rotate", ring)...)
	for name, test := range map[string]struct {
		command []string
		table   bool // its lines fit
	}{
		"ring list":         {args("ring", "list", ring), true},
		"kms list":          {args("kms", "list", service), true},
		"kms alias list":    {args("kms", "alias", "list", service), true},
		"kms grant list":    {args("kms", "grant", "list", service, "alias/photos"), true},
		"kms rotation list": {args("kms", "rotation", "list", service, "alias/photos"), true},
		"audit show":        {args("audit", "show", "--kms", "my.kms"), true},
		"bucket ls":         {args("bucket", "ls", "-r", bucketURL), true},
		"bucket inventory":  {args("bucket", "inventory", bucketURL), true},
		"kms describe":      {args("kms", "describe", service, "alias/photos"), false},
		"audit verify":      {args("audit", "verify", "--kms", "my.kms"), false},
		"bucket check":      {args("bucket", "check", "--list", bucketURL, ring), false},
		"doctor":            {args("doctor", ring, bucketURL), false},
		"inspect":           {args("inspect", "sealed"), false},
		"verify":            {args("verify", photos, "sealed"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("COLUMNS", "40") // which a pipe does not have
			t.Setenv("NO_COLOR", "1")
			for _, columns := range []int{40, 80, 200} {
				piped := ok(t, test.command...)
				require.NotContains(t, piped, "\x1b")
				shown := onTerminal(t, columns, test.command)
				require.NotContains(t, shown, "\x1b")
				for _, word := range strings.Fields(piped) {
					require.Contains(t, shown, word, "%d columns", columns)
				}
				if columns == 200 && name != "audit show" && name != "kms grant list" { // which are wider
					require.Equal(t, piped, shown, "a wide terminal shows what a pipe gets")
				}
				if !test.table {
					require.Equal(t, piped, shown, "what may be pasted has no breaks of its own")
					continue
				}
				for line := range strings.Lines(shown) {
					line = strings.TrimRight(line, "\n")
					longWord := len(strings.Fields(line)) <= 2
					prose := strings.HasPrefix(line, "ring ") || strings.HasPrefix(line, "file://")
					require.True(t, prose || longWord || len(line) <= columns, "%d columns: %q", columns, line)
				}
			}
			t.Setenv("NO_COLOR", "")
			t.Setenv("TERM", "dumb")
			require.NotContains(t, onTerminal(t, 80, test.command), "\x1b")
		})
	}
}

// TestProgressWidths: a progress bar is never wider than the terminal, whatever the
// file's name.
func TestProgressWidths(t *testing.T) {
	workspace(t)
	plain := strings.Repeat("name", 30)
	write(t, plain, random(1_000_000))
	for _, columns := range []int{40, 80, 200} {
		tty, screen := sized(t, columns)
		c := console.New(strings.NewReader(""), new(bytes.Buffer), tty)
		c.Patience = 0
		require.Zero(t, runOn(t.Context(), c, args("encrypt", customer, "--force", plain, "sealed")))
		fmt.Fprint(tty, "the end")
		text := show(t, screen, "the end")
		require.Contains(t, text, "%")
		bar, _, _ := strings.Cut(text, "1 object, ")
		for _, line := range strings.Split(bar, "\r") {
			require.Less(t, len([]rune(line)), columns, "%d columns: %q", columns, line)
		}
	}
}
