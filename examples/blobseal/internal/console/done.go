package console

import (
	"fmt"
	"os"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// ShowsProgress reports whether a command shows its progress.
func (c *Console) ShowsProgress() bool { return c.IsTerminal(c.Stderr) && !c.Quiet }

// WarnIfPublic warns if others can read a file with a secret.
func (c *Console) WarnIfPublic(name string) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || !message.OthersMayRead(info) || c.Quiet || c.warned[name] || c.Stderr == nil {
		return
	}
	if c.warned == nil {
		c.warned = map[string]bool{}
	}
	c.warned[name] = true
	fmt.Fprintf(c.Stderr, "blobseal: warning: %s: others can read it (%s)\n", message.Printable(name), message.Printable(message.Shell("chmod", "600", name)))
}

// ReportChange writes what a command has changed: as a line of JSON, or as words, which Quiet
// leaves out.
func (c *Console) ReportChange(result any, format string, args ...any) error {
	switch {
	case c.JSON:
		return c.WriteLine(result)
	case c.Quiet:
		return nil
	}
	return c.Printf(format, args...)
}

// File is a file or object that a command has written, in JSON. Scripts rely on it.
type File struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Bytes int64  `json:"bytes"` // that were read
}

// ReportFile says that a file or object is complete, if the user wants to know. Nothing is
// said on a standard output that is the file.
func (c *Console) ReportFile(f File) error {
	c.Count(1, 0)
	switch {
	case c.JSON && f.To != "standard output":
		return c.WriteLine(f)
	case c.Verbose:
		fmt.Fprintf(c.Stderr, "%s -> %s: %d bytes\n", message.Printable(f.From), message.Printable(f.To), f.Bytes)
	}
	return nil
}

// Count adds to the objects and bytes that the command has worked on.
func (c *Console) Count(objects, bytes int64) {
	c.objects.Add(objects)
	c.bytes.Add(bytes)
}

// SayDone writes the last line, with objects, bytes, time and rate, to a terminal or if
// Verbose is set.
func (c *Console) SayDone() {
	objects, bytes := c.objects.Load(), c.bytes.Load()
	if objects == 0 || c.Quiet || !c.Verbose && !c.IsTerminal(c.Stderr) {
		return
	}
	took := time.Since(c.begun)
	noun := "objects"
	if objects == 1 {
		noun = "object"
	}
	text := fmt.Sprintf("%s %s in %.1f s", humanize.Comma(objects), noun, took.Seconds())
	if bytes > 0 {
		text = fmt.Sprintf("%s %s, %s in %.1f s, %s/s", humanize.Comma(objects), noun, humanize.IBytes(uint64(bytes)), took.Seconds(),
			humanize.IBytes(uint64(float64(bytes)/max(took.Seconds(), 0.001))))
	}
	fmt.Fprintln(c.Stderr, text)
}
