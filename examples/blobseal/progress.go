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
	bar   *progressbar.ProgressBar // nil until it shows
	begin func() *progressbar.ProgressBar
	start time.Time
	wait  time.Duration
	n     int64
}

// track wraps src, of total bytes or -1 if that is not known. The caller calls
// done when it is through.
func (c *console) track(ctx context.Context, name string, src io.Reader, total int64) *tracked {
	t := &tracked{ctx: ctx, name: name, src: src, start: time.Now(), wait: c.patience}
	if c.isTerminal(c.stderr) {
		t.begin = func() *progressbar.ProgressBar {
			return progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(c.stderr),
				progressbar.OptionSetDescription(name),
				progressbar.OptionShowBytes(true),
				progressbar.OptionShowTotalBytes(true),
				progressbar.OptionUseIECUnits(true),
				progressbar.OptionSetPredictTime(true),
				progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionSetWidth(20),
				progressbar.OptionClearOnFinish())
		}
	}
	return t
}

func (t *tracked) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.src.Read(p)
	t.n += int64(n)
	if t.begin != nil && t.bar == nil && time.Since(t.start) >= t.wait {
		t.bar = t.begin()
	}
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
	if t.bar != nil {
		t.bar.Clear()
		t.bar.Close()
		t.bar, t.begin = nil, nil
	}
}
