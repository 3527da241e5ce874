package main

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

// TestExitCodes compares the table in README.md with the one of package message. The
// session exit.txtar has a command for each code but 130.
func TestExitCodes(t *testing.T) {
	readme := string(read(t, "README.md"))
	var table strings.Builder
	for _, e := range message.ExitCodes {
		fmt.Fprintf(&table, "| %d | %s |\n", e.Code, e.Meaning)
	}
	require.Contains(t, readme, table.String())

	workspace(t)
	write(t, "plain", random(100))
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	c := console.New(strings.NewReader(""), new(strings.Builder), new(strings.Builder))
	require.Equal(t, message.Interrupted, runOn(interrupted, c, args("encrypt", ring, "plain", "out")))
	require.NotContains(t, files(t), "out")
}

func TestExitCodeOfSeveralFailures(t *testing.T) {
	several := func(errs ...error) int {
		var f message.Failures
		for _, err := range errs {
			f.Add(err)
		}
		return message.ExitCode(message.Problemf(&f, "", "several failed"))
	}
	refused, missing, bad := message.ErrRefused, fs.ErrNotExist, sse.ErrCorrupt
	require.Equal(t, message.Refused, several(refused, refused))
	require.Equal(t, message.Failed, several(refused, missing))
	require.Equal(t, message.NotAuthentic, several(refused, bad, missing))
	require.Equal(t, message.Failed, several())
}
