package console

import (
	"context"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// tracked reads a source until ctx ends, names the source in its errors, and
// shows progress on a terminal once that takes a while.
type tracked struct {
	ctx   context.Context
	name  string
	src   io.Reader
	n     int64
	bar   *progressbar.ProgressBar // nil if there is no terminal
	delay *DelayedWriter
}

// Track wraps src, of total bytes or -1 if that is not known. The caller calls
// done when it is through.
func (c *Console) Track(ctx context.Context, name string, src io.Reader, total int64) *tracked {
	t := &tracked{ctx: ctx, name: name, src: src}
	if c.IsTerminal(c.Stderr) {
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

func (t *tracked) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.src.Read(p)
	t.n += int64(n)
	if t.bar != nil {
		t.bar.Set64(t.n)
	}
	if err != nil && err != io.EOF {
		err = message.About(t.name, err)
	}
	return n, err
}

// Done takes the progress bar away.
func (t *tracked) Done() {
	if t.bar == nil {
		return
	}
	t.bar.Exit()
	if t.delay.Shown {
		t.bar.Clear()
	}
	t.bar = nil
}

// DelayedWriter drops what is written before its time.
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
