package console

import (
	"context"
	"io"
	"time"

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
		t.delay = &DelayedWriter{Dst: c.Stderr, Until: time.Now().Add(c.Patience)}
		t.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(t.delay),
			progressbar.OptionSetDescription(message.Printable(name)),
			progressbar.OptionShowBytes(true),
			progressbar.OptionShowTotalBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
			progressbar.OptionSetWidth(20))
	}
	return t
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

// DelayedWriter drops what is written before a time.
type DelayedWriter struct {
	Dst   io.Writer
	Until time.Time
	Shown bool
}

func (w *DelayedWriter) Write(p []byte) (int, error) {
	if !w.Shown && time.Now().Before(w.Until) {
		return len(p), nil
	}
	w.Shown = true
	return w.Dst.Write(p)
}
