package console

import (
	"context"
	"io"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Source is a source of bytes that ends with a command's context, names itself in
// errors, and shows its progress on a terminal if that takes a while.
type Source struct {
	c     *Console
	ctx   context.Context
	name  string
	src   io.Reader
	n     int64
	bar   *progressbar.ProgressBar // nil if there is no terminal
	delay *DelayedWriter
}

// Track returns src as a [Source]. It has total bytes, or -1 if that is not known. The
// caller calls Done.
func (c *Console) Track(ctx context.Context, name string, src io.Reader, total int64) *Source {
	t := &Source{c: c, ctx: ctx, name: name, src: src}
	if c.ShowsProgress() {
		t.bar, t.delay = c.Bar(name, total,
			progressbar.OptionShowBytes(true),
			progressbar.OptionShowTotalBytes(true),
			progressbar.OptionUseIECUnits(true))
	}
	return t
}

// Bar returns a progress bar on standard error, which has a terminal.
func (c *Console) Bar(name string, total int64, opts ...progressbar.Option) (*progressbar.ProgressBar, *DelayedWriter) {
	delay := c.newDelayedWriter()
	opts = append(opts,
		progressbar.OptionSetWriter(delay),
		progressbar.OptionSetDescription(delay.describe(name)),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
		progressbar.OptionSetWidth(20))
	return progressbar.NewOptions64(total, opts...), delay
}

func (t *Source) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.src.Read(p)
	t.n += int64(n)
	t.c.bytes.Add(int64(n))
	if t.bar != nil {
		t.bar.Set64(t.n)
	}
	if err != nil && err != io.EOF {
		err = message.About(t.name, err)
	}
	return n, err
}

// Done removes the progress bar.
func (t *Source) Done() {
	if t.bar == nil {
		return
	}
	t.bar.Exit()
	if t.delay.Shown {
		t.bar.Clear()
	}
	t.bar = nil
}

// newDelayedWriter returns the writer of a progress bar to standard error.
func (c *Console) newDelayedWriter() *DelayedWriter {
	return &DelayedWriter{dst: c.Stderr, until: time.Now().Add(c.Patience), width: c.Width(c.Stderr)}
}

// describe returns the description of a progress bar. It leaves room for the bar.
func (w *DelayedWriter) describe(name string) string {
	name = message.Printable(name)
	if w.width == 0 {
		return name
	}
	return string(clip([]byte(name), max(w.width/3, 8)))
}

// DelayedWriter drops what is written before a time, and what is wider than the
// terminal: a bar that wraps cannot be removed.
type DelayedWriter struct {
	Shown bool

	dst   io.Writer
	until time.Time
	width int // of the terminal; 0 if that is unknown
}

func (w *DelayedWriter) Write(p []byte) (int, error) {
	if !w.Shown && time.Now().Before(w.until) {
		return len(p), nil
	}
	w.Shown = true
	shown := p
	if w.width > 0 {
		shown = clip(p, w.width-1)
	}
	if _, err := w.dst.Write(shown); err != nil {
		return 0, err
	}
	return len(p), nil
}

// clip returns text without what is beyond a number of columns.
func clip(text []byte, columns int) []byte {
	var kept []byte
	at := 0
	for _, r := range string(text) {
		switch {
		case r == '\r':
			at = 0
		case r >= 0x2E80: // where characters begin that take two columns
			at += 2
		default:
			at++
		}
		if at <= columns {
			kept = utf8.AppendRune(kept, r)
		}
	}
	return kept
}
