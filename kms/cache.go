package kms

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/blobseal/blobseal/internal/secret"
)

// The defaults of [CacheOptions].
const (
	DefaultMaxAge     = 5 * time.Minute
	DefaultMaxUses    = 1 << 20
	DefaultMaxEntries = 1000
)

// CacheOptions are the options of [NewCache]. A zero field means its default; a
// field below zero, that nothing is cached.
type CacheOptions struct {
	// MaxAge is for how long a result answers, from the begin of the call that
	// returned it. The default is [DefaultMaxAge], as for S3 Bucket Keys. Without
	// an [Authorizer] it is also for how long a disabled key goes on working.
	MaxAge time.Duration

	// MaxUses is how often one result answers, the first time included. The
	// default is [DefaultMaxUses]. No cipher asks for a limit here: it bounds how
	// many objects one leaked data key opens, and at a call per million uses the
	// key service no longer shows in any bill or profile.
	MaxUses int64

	// MaxEntries is how many results are kept; the one that was used least
	// recently goes first. The default is [DefaultMaxEntries].
	MaxEntries int

	// Outage says what happens while the key service is down. The zero policy
	// fails closed.
	Outage OutagePolicy
}

// OutagePolicy says what a [Cache] does when its client says [ErrUnavailable].
// The zero policy fails closed: the operation fails.
type OutagePolicy struct{ maxAge time.Duration }

// ServeReads is the policy that answers Decrypt from a result which is past its
// limits, but no older than maxAge, when and only when the client says
// [ErrUnavailable], and an [Authorizer], if there is one, does not refuse. If the
// Authorizer too is unavailable, that is no refusal under this policy.
//
// GenerateDataKey is never answered so: a write fails, and falls back to no
// other key or mode. A result that the client has refused since, for any reason,
// is gone. Whoever relies on this policy accepts that a key which was disabled
// during the outage opens old objects for maxAge.
//
// The client has to notice the outage itself, before the callers' own deadlines
// pass: an ended ctx is not an outage.
func ServeReads(maxAge time.Duration) OutagePolicy { return OutagePolicy{max(0, maxAge)} }

// maxName bounds the names of entries, and so what an entry takes.
const maxName = 16 << 10

// Cache is a [Client] that answers from the results of an earlier call; see
// [NewCache]. It is safe for concurrent use.
type Cache struct {
	client     Client
	authorizer Authorizer // of client; may be nil
	maxAge     time.Duration
	maxUses    int64
	maxEntries int
	outage     OutagePolicy
	now        func() time.Time

	mu        sync.Mutex // never held during a call
	off       bool
	entries   map[string]*entry
	recent    entry // head of the ring of entries, most recently used first
	flights   map[string]*flight
	epoch     uint64 // rises when entries are invalidated
	nextSweep time.Time
}

// entry is a result. Everything but uses, refs and the links is immutable until
// the last reference is gone.
type entry struct {
	name       string // what was asked, by whom
	requested  string // key id or alias
	keyID      string
	keyVersion string
	made       time.Time
	plaintext  secret.Key // whose bytes are cleared with the last reference
	ciphertext []byte     // of a data key

	uses       int64
	refs       int // the cache's own, and those of waiters that have not taken it yet
	prev, next *entry
}

// flight is a call under way that others wait for.
type flight struct {
	done    chan struct{}
	epoch   uint64
	waiters int

	// Set before done is closed:
	finished bool
	entry    *entry // with a reference for each waiter
	err      error
	again    bool // the call ended since its caller's ctx did: no answer
	report   Report
}

// taken is a copy of what an entry holds, or of what a call returned.
type taken struct {
	plaintext  [DataKeySize]byte
	ciphertext []byte
	report     Report
}

// NewCache returns a client that calls c and answers from its results, within
// the limits of opts: what S3 calls Bucket Keys. nil opts means the defaults.
//
// A result answers the same question of the same principal only: operation, key
// id or alias as it was asked for, encryption context, and ciphertext. So each
// principal makes at least one call, and the key service's own trail shows it.
// GenerateDataKey then returns the same data key for many objects: it must be
// used to seal keys of objects, as package sse does, and the context must be that
// of the bucket, not of the object. Decrypt is not answered from what
// GenerateDataKey returned, since a principal may have permission for one and
// not for the other.
//
// If c is an [Authorizer], it is asked before every answer, about the key that
// the result is of: a key that was disabled and a permission that was taken away
// refuse at once, and the result is dropped. If c is none, they refuse within
// MaxAge, as with S3, or after [Cache.Invalidate]. An alias that was moved is
// noticed within MaxAge.
//
// Questions asked at once are one call. A caller whose ctx ends stops waiting
// without harm to others: if it was the one that called, the next one calls.
// Failures are shared among those who waited, and are never kept.
//
// Callers get copies, which they may clear. The cache's own plaintexts are
// zeroed when they are dropped: by the limits, by Invalidate, and by Close. It
// starts no goroutine, so that a result past its limits is dropped by the next
// call that has to ask c: an idle cache keeps what it has until it is closed.
//
// To audit cached uses, put a client of package audit in front of the cache.
func NewCache(c Client, opts *CacheOptions) *Cache {
	if opts == nil {
		opts = new(CacheOptions)
	}
	authorizer, _ := Find[Authorizer](c)
	cache := &Cache{
		client:     c,
		authorizer: authorizer,
		maxAge:     opts.MaxAge,
		maxUses:    opts.MaxUses,
		maxEntries: opts.MaxEntries,
		outage:     opts.Outage,
		now:        time.Now,
		off:        opts.MaxAge < 0 || opts.MaxUses < 0 || opts.MaxEntries < 0,
		entries:    make(map[string]*entry),
		flights:    make(map[string]*flight),
	}
	if cache.maxAge == 0 {
		cache.maxAge = DefaultMaxAge
	}
	if cache.maxUses == 0 {
		cache.maxUses = DefaultMaxUses
	}
	if cache.maxEntries == 0 {
		cache.maxEntries = DefaultMaxEntries
	}
	cache.recent.prev, cache.recent.next = &cache.recent, &cache.recent
	return cache
}

// Unwrap returns the client behind the cache, so that its [Authorizer] is found.
func (c *Cache) Unwrap() Client { return c.client }

// GenerateDataKey implements [Client].
func (c *Cache) GenerateDataKey(ctx context.Context, keyID string, ec Context) (*DataKey, error) {
	var t taken
	defer clear(t.plaintext[:])
	if err := c.use(ctx, &t, OpGenerateDataKey, keyID, nil, ec); err != nil {
		return nil, err
	}
	return NewDataKey(t.report.KeyID, t.plaintext[:], t.ciphertext)
}

// Decrypt implements [Client].
func (c *Cache) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec Context) ([]byte, error) {
	var t taken
	defer clear(t.plaintext[:])
	if err := c.use(ctx, &t, OpDecrypt, keyID, ciphertext, ec); err != nil {
		return nil, err
	}
	return slices.Clone(t.plaintext[:]), nil
}

// Invalidate drops what was returned for a key: by its id, also what was asked
// for by an alias, or by an alias, as it was asked for. A call under way answers
// those who wait for it, and is not kept.
func (c *Cache) Invalidate(keyID string) {
	c.invalidate(func(e *entry) bool {
		same, _ := SameKey(c.client, keyID, e.keyID)
		return same || e.requested == keyID
	})
}

// InvalidateAll drops everything.
func (c *Cache) InvalidateAll() {
	c.invalidate(func(*entry) bool { return true })
}

// Close drops everything. From then on every call goes to the client and
// nothing is kept.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.off = true
	c.mu.Unlock()
	c.InvalidateAll()
	return nil
}

func (c *Cache) invalidate(these func(*entry) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	clear(c.flights) // who asks from now on does not wait for an older answer
	for _, e := range c.entries {
		if these(e) {
			c.drop(e)
		}
	}
}

// use answers into t, and fills in the caller's report.
func (c *Cache) use(ctx context.Context, t *taken, op Operation, keyID string, ciphertext []byte, ec Context) error {
	err := ctx.Err()
	if err == nil {
		err = c.answer(ctx, t, op, keyID, ciphertext, ec)
	}
	if r := reporting(ctx); r != nil {
		*r = t.report
	}
	return asKeyError(op, keyID, err)
}

// answer answers from an entry, from a call that is under way, or from a call.
func (c *Cache) answer(ctx context.Context, t *taken, op Operation, keyID string, ciphertext []byte, ec Context) error {
	var scratch [512]byte
	name := appendName(scratch[:0], op, PrincipalFrom(ctx), keyID, ciphertext, ec)
	for {
		now := c.now()
		c.mu.Lock()
		if c.off || len(name) > maxName {
			c.mu.Unlock()
			return c.call(ctx, t, op, keyID, ciphertext, ec)
		}
		if e := c.entries[string(name)]; e != nil && c.fresh(e, now) {
			if c.authorizer == nil {
				c.take(t, e)
				c.mu.Unlock()
				return nil
			}
			id := e.keyID
			c.mu.Unlock()
			served, err := c.authorized(ctx, t, e, op, keyID, ec)
			if err == nil && !served {
				continue // the entry went in between, or an alias has to be asked anew
			}
			if err != nil {
				t.report = Report{KeyID: id, Cached: true}
			}
			return err
		}
		if e := c.entries[string(name)]; e != nil && !c.serves(e, now) {
			c.drop(e)
		}
		if f := c.flights[string(name)]; f != nil {
			f.waiters++
			c.mu.Unlock()
			again, err := c.wait(ctx, t, f)
			if again {
				if err := ctx.Err(); err != nil {
					return err
				}
				continue
			}
			return c.orStale(ctx, t, err, string(name), op, ec)
		}
		f := &flight{done: make(chan struct{}), epoch: c.epoch}
		key := string(name)
		c.flights[key] = f
		c.mu.Unlock()
		err := c.lead(ctx, t, f, key, now, op, keyID, ciphertext, ec)
		return c.orStale(ctx, t, err, key, op, ec)
	}
}

// authorized asks whether a fresh entry may answer, and takes it if so.
func (c *Cache) authorized(ctx context.Context, t *taken, e *entry, op Operation, keyID string, ec Context) (served bool, err error) {
	err = c.authorizer.Authorize(ctx, op, e.keyID, ec)
	c.mu.Lock()
	defer c.mu.Unlock()
	here := c.entries[e.name] == e
	stale := errors.Is(err, ErrUnavailable) && c.serves(e, c.now())
	switch {
	case err != nil && ctx.Err() != nil:
		return false, err
	case err == nil || stale:
		if !here || e.uses >= c.maxUses {
			return false, nil
		}
		c.take(t, e)
		t.report.Stale = stale
		return true, nil
	case errors.Is(err, ErrUnavailable):
		return false, err // it may be right yet
	case here:
		c.drop(e)
	}
	if same, _ := SameKey(c.client, keyID, e.keyID); !same {
		return false, nil // an alias may stand for another key by now: the client knows
	}
	return false, err
}

// wait waits for another caller's call. again means that there is no answer.
func (c *Cache) wait(ctx context.Context, t *taken, f *flight) (again bool, err error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.finished {
		f.waiters--
		return false, err
	}
	e := f.entry
	if e != nil {
		defer c.release(e)
	}
	switch {
	case err != nil:
		return false, err
	case f.again:
		return true, nil
	case f.err != nil:
		t.report = f.report
		return false, f.err
	case e.uses >= c.maxUses:
		return true, nil
	}
	c.take(t, e)
	return false, nil
}

// lead makes the call that others wait for.
func (c *Cache) lead(ctx context.Context, t *taken, f *flight, name string, begin time.Time, op Operation, keyID string, ciphertext []byte, ec Context) (err error) {
	returned := false
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.flights[name] == f {
			delete(c.flights, name)
		}
		f.finished = true
		f.err, f.again, f.report = err, !returned || err != nil && ctx.Err() != nil, t.report
		if returned && err == nil {
			f.entry = c.keep(t, f, name, begin, keyID)
		} else if e := c.entries[name]; e != nil && !f.again && !errors.Is(err, ErrUnavailable) {
			c.drop(e) // refused: not for an outage either
		}
		close(f.done)
	}()
	err = c.call(ctx, t, op, keyID, ciphertext, ec)
	returned = true // and did not panic
	return err
}

// keep makes an entry of what a call returned, with a reference for each waiter,
// and puts it into the cache unless that was invalidated since.
func (c *Cache) keep(t *taken, f *flight, name string, begin time.Time, keyID string) *entry {
	plaintext, _ := secret.New(t.plaintext[:]) // the length is right
	e := &entry{
		name: name, requested: keyID, keyID: t.report.KeyID, keyVersion: t.report.KeyVersion, made: begin,
		plaintext: plaintext, ciphertext: slices.Clone(t.ciphertext), uses: 1, refs: f.waiters,
	}
	if c.off || f.epoch != c.epoch {
		if e.refs == 0 {
			clear(e.plaintext.Bytes())
		}
		return e
	}
	if old := c.entries[name]; old != nil {
		c.drop(old)
	}
	if now := c.now(); !now.Before(c.nextSweep) {
		for _, old := range c.entries {
			if !c.fresh(old, now) && !c.serves(old, now) {
				c.drop(old)
			}
		}
		c.nextSweep = now.Add(c.maxAge / 4)
	}
	for len(c.entries) >= c.maxEntries {
		c.drop(c.recent.prev)
	}
	e.refs++
	c.entries[name] = e
	c.front(e)
	return e
}

// orStale is the outcome of a call that ended with err: an answer from a result
// past its limits, if the policy has it so.
func (c *Cache) orStale(ctx context.Context, t *taken, err error, name string, op Operation, ec Context) error {
	if err == nil || op != OpDecrypt || c.outage.maxAge == 0 || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	c.mu.Lock()
	e := c.entries[name]
	c.mu.Unlock()
	if e == nil {
		return err
	}
	var refusal error
	if c.authorizer != nil {
		refusal = c.authorizer.Authorize(ctx, op, e.keyID, ec)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	here := c.entries[name] == e
	switch {
	case refusal != nil && ctx.Err() != nil:
		return refusal
	case refusal != nil && !errors.Is(refusal, ErrUnavailable):
		if here {
			c.drop(e)
		}
		t.report = Report{KeyID: e.keyID}
		return refusal
	case !here || !c.serves(e, c.now()):
		return err
	}
	c.take(t, e)
	t.report.Stale = true
	return nil
}

// call asks the client, and checks that the answer is one.
func (c *Cache) call(ctx context.Context, t *taken, op Operation, keyID string, ciphertext []byte, ec Context) error {
	report := new(Report)
	ctx = WithReport(ctx, report)
	if op == OpDecrypt {
		plaintext, err := c.client.Decrypt(ctx, keyID, ciphertext, ec)
		defer clear(plaintext)
		t.report = *report
		if t.report.KeyID == "" {
			t.report.KeyID = keyID
		}
		if err != nil {
			return err
		}
		if len(plaintext) != DataKeySize || [DataKeySize]byte(plaintext) == [DataKeySize]byte{} {
			return fmt.Errorf("%w: the key service returned %d bytes that are no data key", ErrCiphertext, len(plaintext))
		}
		copy(t.plaintext[:], plaintext)
		return nil
	}
	key, err := c.client.GenerateDataKey(ctx, keyID, ec)
	t.report = *report
	if err != nil {
		return err
	}
	if key == nil || key.KeyID == "" || len(key.Ciphertext) == 0 || key.IsZero() {
		return fmt.Errorf("%w: the key service returned half a data key", ErrUnavailable)
	}
	copy(t.plaintext[:], key.Plaintext())
	t.ciphertext, t.report.KeyID = key.Ciphertext, key.KeyID
	key.Clear()
	return nil
}

// take copies what e holds into t and counts the use. c.mu is held.
func (c *Cache) take(t *taken, e *entry) {
	e.uses++
	copy(t.plaintext[:], e.plaintext.Bytes())
	t.ciphertext = slices.Clone(e.ciphertext)
	t.report = Report{KeyID: e.keyID, KeyVersion: e.keyVersion, Cached: true}
	if e.next != nil && c.recent.next != e {
		c.unlink(e)
		c.front(e)
	}
}

// fresh reports whether e may answer.
func (c *Cache) fresh(e *entry, now time.Time) bool {
	return e.uses < c.maxUses && age(e.made, now) < c.maxAge
}

// serves reports whether e may answer during an outage.
func (c *Cache) serves(e *entry, now time.Time) bool {
	return c.outage.maxAge > 0 && e.ciphertext == nil && age(e.made, now) <= c.outage.maxAge
}

// age is the time from made to now by the monotonic clock, or by the wall clock
// if that says more: the monotonic one stands still while the machine sleeps,
// and the wall clock may be moved.
func age(made, now time.Time) time.Duration {
	a := max(now.Sub(made), now.Round(0).Sub(made.Round(0)))
	if a < 0 {
		return math.MaxInt64
	}
	return a
}

// drop takes e out of the cache. c.mu is held.
func (c *Cache) drop(e *entry) {
	delete(c.entries, e.name)
	c.unlink(e)
	c.release(e)
}

// release gives up one reference to e, and with the last one its plaintext.
func (c *Cache) release(e *entry) {
	if e.refs--; e.refs == 0 {
		clear(e.plaintext.Bytes())
	}
}

func (c *Cache) front(e *entry) {
	e.prev, e.next = &c.recent, c.recent.next
	e.prev.next, e.next.prev = e, e
}

func (c *Cache) unlink(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}

// appendName appends the one encoding of a question, every part framed by its length.
func appendName(b []byte, op Operation, p Principal, keyID string, ciphertext []byte, ec Context) []byte {
	b = appendFramed(b, string(op))
	b = appendFramed(b, p.ID)
	b = appendFramed(b, p.Type)
	b = appendFramed(b, keyID)
	b = binary.AppendUvarint(b, uint64(len(ciphertext)))
	b = append(b, ciphertext...)
	var few [8]string
	keys := few[:0]
	for k := range ec {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = appendFramed(b, k)
		b = appendFramed(b, ec[k])
	}
	return b
}

func appendFramed(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
