package bucket

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/schollz/progressbar/v3"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"

	gcblob "gocloud.dev/blob"
	"golang.org/x/time/rate"

	"github.com/blobseal/blobseal/blob/jobs"
)

// paceFlags limit the load on a bucket.
type paceFlags struct {
	Workers int     `placeholder:"N" help:"Objects in progress at a time, at most 1000; by default 8."`
	Rate    float64 `placeholder:"N" help:"At most N objects a second."`
}

func (f paceFlags) check() error {
	switch {
	case f.Workers < 0 || f.Workers > 1000: // each takes memory
		return message.Usagef("--workers %d: want 1 to 1000", f.Workers)
	case !(f.Rate >= 0): // NaN, too
		return message.Usagef("--rate %v: want more than 0", f.Rate)
	}
	return nil
}

// limit returns the limit of --rate, or nil.
func (f paceFlags) limit() jobs.Limiter {
	if f.Rate == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(f.Rate), 1)
}

// counter shows on a terminal how many objects a command has processed, and of how many,
// which a listing finds out meanwhile.
type counter struct {
	c     *console.Console
	bar   *progressbar.ProgressBar // nil if there is no terminal
	delay *console.DelayedWriter
	n     int64

	total   atomic.Int64 // -1 while unknown
	stop    context.CancelFunc
	listing sync.WaitGroup
}

// count starts the counter of a command. The caller calls done.
func count(ctx context.Context, c *console.Console, b *bucket, prefix string) *counter {
	p := &counter{c: c}
	if !c.ShowsProgress() {
		return p
	}
	p.bar, p.delay = c.Bar(b.Name(), -1,
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("objects"))
	p.total.Store(-1)
	ctx, p.stop = context.WithCancel(ctx)
	p.listing.Go(func() {
		if n, err := b.size(ctx, prefix); err == nil { // the command reports an error of the store itself
			p.total.Store(n)
		}
	})
	return p
}

// size counts the objects.
func (b *bucket) size(ctx context.Context, prefix string) (n int64, err error) {
	for token := gcblob.FirstPageToken; len(token) > 0; {
		var page []*gcblob.ListObject
		if page, token, err = b.Inner().ListPage(ctx, token, b.pageSize, &gcblob.ListOptions{Prefix: prefix}); err != nil {
			return n, err
		}
		n += int64(len(page))
	}
	return n, nil
}

// advance reports that n objects have been processed.
func (p *counter) advance(n int64) {
	p.n = max(p.n, n)
	if p.bar == nil {
		return
	}
	if total := p.total.Load(); total > p.bar.GetMax64() && total >= p.n {
		p.bar.ChangeMax64(total)
	}
	p.bar.Set64(p.n)
}

// add reports that one more object has been processed, and bytes of it read.
func (p *counter) add(bytes int64) {
	p.c.Count(1, bytes)
	p.advance(p.n + 1)
}

// printf writes a line to standard output, and removes the bar for it.
func (p *counter) printf(format string, args ...any) error {
	p.clear()
	return p.c.Printf(format, args...)
}

// writeLine writes a line of JSON in the same way.
func (p *counter) writeLine(line any) error {
	p.clear()
	return p.c.WriteLine(line)
}

func (p *counter) clear() {
	if p.bar != nil && p.delay.Shown {
		p.bar.Clear()
	}
}

// finish removes the bar.
func (p *counter) finish() {
	if p.bar == nil {
		return
	}
	p.stop()
	p.listing.Wait()
	p.bar.Exit()
	p.clear()
	p.bar = nil
}
