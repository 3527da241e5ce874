// Package console connects a command to its streams and its terminal.
package console

import (
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/blobseal/blobseal/examples/blobseal/kmsurl"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// Console has the streams of a command, and the settings that tests change.
type Console struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Flags of every command.
	JSON    bool // write results as JSON
	Quiet   bool // show no progress, and do not say what was done
	Verbose bool // say what was done in a pipe, too

	Parser     *kong.Kong // nil for a new one
	IsTerminal func(stream any) bool
	Patience   time.Duration // until a progress bar shows
	AuditWait  time.Duration // for another process to close the audit trail
	RootWait   time.Duration // for the key service of a root to answer

	Telemetry *sseotel.Telemetry // of a server, which keys report to; otherwise nil

	Clouds kmsurl.Options // of the clients of vendors' key services

	begun   time.Time
	objects atomic.Int64 // that the command has worked on
	bytes   atomic.Int64

	warned map[string]bool // files that WarnIfPublic has told about

	ends []func() // close what the command opened
}

func New(stdin io.Reader, stdout, stderr io.Writer) *Console {
	return &Console{
		Stdin: stdin, Stdout: stdout, Stderr: stderr, begun: time.Now(),
		IsTerminal: isTerminal, Patience: time.Second, AuditWait: auditWait, RootWait: rootWait,
	}
}

// AtEnd registers a function to call when the command ends.
func (c *Console) AtEnd(end func()) { c.ends = append(c.ends, end) }

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// rootWait is how long a key service may take to answer, including its client's retries.
const rootWait = 30 * time.Second

// auditWait is how long an operation waits for other processes that write an audit
// trail.
const auditWait = 10 * time.Second

// End calls the functions of AtEnd, the last one first.
func (c *Console) End() {
	for _, end := range slices.Backward(c.ends) {
		end()
	}
	c.ends = nil
}
