package main

import (
	"context"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// tracked reads a source until ctx ends, names the source in its errors, and
// shows progress on a terminal once that takes a while.
type tracked struct {
	ctx   context.Context
	name  string
	src   io.Reader
	n     int64
	bar   *progressbar.ProgressBar // nil if there is no terminal
	delay *delayedWriter
}

// track wraps src, of total bytes or -1 if that is not known. The caller calls
// done when it is through.
func (c *console) track(ctx context.Context, name string, src io.Reader, total int64) *tracked {
	t := &tracked{ctx: ctx, name: name, src: src}
	if c.isTerminal(c.stderr) {
		t.delay = &delayedWriter{dst: c.stderr, until: time.Now().Add(c.patience)}
		t.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(t.delay),
			progressbar.OptionSetDescription(printable(name)),
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
		err = about(t.name, err)
	}
	return n, err
}

// done takes the progress bar away.
func (t *tracked) done() {
	if t.bar == nil {
		return
	}
	t.bar.Exit()
	if t.delay.shown {
		t.bar.Clear()
	}
	t.bar = nil
}

// delayedWriter drops what is written before its time.
type delayedWriter struct {
	dst   io.Writer
	until time.Time
	shown bool
}

func (w *delayedWriter) Write(p []byte) (int, error) {
	if !w.shown && time.Now().Before(w.until) {
		return len(p), nil
	}
	w.shown = true
	return w.dst.Write(p)
}
