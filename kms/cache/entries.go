package cache

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// maxName bounds an entry's name in bytes, and so the size of the cache.
const maxName = 16 << 10

// entry is a result that the cache keeps. Only uses changes, until drop clears it.
type entry struct {
	name       string // of the question
	requested  string // key id or alias
	keyID      string
	keyVersion string
	made       time.Time
	plaintext  secret.Key
	ciphertext []byte // of a data key

	uses  int64
	place *list.Element // nil once the entry is dropped
}

// flight is a call under way.
type flight struct {
	epoch uint64
	done  chan struct{}

	// Set before done is closed:
	report kms.Report
	err    error // errRetry if waiters have to ask again, also to get the result
}

// wait waits for another caller's call.
func (f *flight) wait(ctx context.Context, r *result) error {
	select {
	case <-f.done:
		r.report = f.report
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lead makes the call that others wait for. Without f, nobody does.
func (c *Client) lead(ctx context.Context, q *question, name []byte, f *flight, r *result) (err error) {
	if f == nil {
		return c.call(ctx, q, r)
	}
	began := c.now()
	err = errRetry // for those who wait, if the client panics
	defer func() { c.endFlight(ctx, q, string(name), f, began, r, err) }()
	err = c.call(ctx, q, r)
	return err
}

// endFlight keeps the answer r of a call, and tells err to those who wait for it.
func (c *Client) endFlight(ctx context.Context, q *question, name string, f *flight, began time.Time, r *result, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	if c.flights[name] == f {
		delete(c.flights, name)
	}
	f.err = errRetry
	switch {
	case err == nil && !c.off && f.epoch == c.epoch:
		c.keep(q, name, r, began)
	case err != nil && !errors.Is(err, errRetry) && ctx.Err() == nil:
		f.report, f.err = r.report, err
		if e := c.entries[name]; e != nil && !errors.Is(err, kms.ErrUnavailable) {
			c.drop(e) // it was refused, so an outage does not bring it back
		}
	}
}

// keep makes r an entry. c.mu is held, as in all that follow.
func (c *Client) keep(q *question, name string, r *result, began time.Time) {
	if old := c.entries[name]; old != nil {
		c.drop(old)
	}
	c.sweep()
	for len(c.entries) >= c.maxEntries {
		c.drop(c.recent.Back().Value.(*entry))
	}
	plaintext, _ := secret.New(r.plaintext[:]) // the length is right
	e := &entry{
		name: name, requested: q.keyID, keyID: r.report.KeyID, keyVersion: r.report.KeyVersion, made: began,
		plaintext: plaintext, ciphertext: slices.Clone(r.ciphertext), uses: 1,
	}
	e.place = c.recent.PushFront(e)
	c.entries[name] = e
}

// sweep drops expired entries, now and then.
func (c *Client) sweep() {
	now := c.now()
	if now.Before(c.nextSweep) {
		return
	}
	for _, e := range c.entries {
		if !c.fresh(e, now) && !c.servesStale(e, now) {
			c.drop(e)
		}
	}
	c.nextSweep = now.Add(c.maxAge / 4)
}

// take copies e to r and counts the use.
func (c *Client) take(e *entry, stale bool, r *result) {
	e.uses++
	c.stats.Hits++
	if stale {
		c.stats.Stale++
	}
	c.recent.MoveToFront(e.place)
	copy(r.plaintext[:], e.plaintext.Bytes())
	r.ciphertext = slices.Clone(e.ciphertext)
	r.report = kms.Report{KeyID: e.keyID, KeyVersion: e.keyVersion, Cached: true, Stale: stale}
}

// drop removes e and overwrites its plaintext.
func (c *Client) drop(e *entry) {
	delete(c.entries, e.name)
	c.recent.Remove(e.place)
	e.place = nil
	clear(e.plaintext.Bytes())
}

// fresh reports whether e is within the limits.
func (c *Client) fresh(e *entry, now time.Time) bool {
	return e.uses < c.maxUses && age(e.made, now) < c.maxAge
}

// servesStale reports whether e may answer during an outage.
func (c *Client) servesStale(e *entry, now time.Time) bool {
	return c.staleReads > 0 && e.ciphertext == nil && age(e.made, now) <= c.staleReads
}

// age returns the time since made by the monotonic clock, or by the wall clock if
// that is longer. The monotonic clock stops while the machine sleeps, and the wall
// clock can be set back.
func age(made, now time.Time) time.Duration {
	a := max(now.Sub(made), now.Round(0).Sub(made.Round(0)))
	if a < 0 {
		return math.MaxInt64
	}
	return a
}

// appendName appends the encoding of q, asked by p, with each part framed by its
// length. Nobody stores it, so it need not be that of [kms.Context.AssociatedData],
// which allocates.
func (q *question) appendName(b []byte, p kms.Principal) []byte {
	for _, part := range [...]string{string(q.op), p.ID, p.Type, q.keyID} {
		b = appendFramed(b, part)
	}
	b = binary.AppendUvarint(b, uint64(len(q.ciphertext)))
	b = append(b, q.ciphertext...)
	var few [8]string // most contexts are small
	names := few[:0]
	for name := range q.ec {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendFramed(b, name)
		b = appendFramed(b, q.ec[name])
	}
	return b
}

func appendFramed(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
