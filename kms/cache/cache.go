// Package cache remembers the answers of a key service, as S3 Bucket Keys do.
//
//	client := cache.New(service, nil)
//
// One call per object becomes one call per principal, key and context every five
// minutes. Principals never share a result. If the service is a [kms.Authorizer],
// the cache asks it for permission on every use, so disabling a key takes effect at
// once. Otherwise it takes effect when the cached result expires.
package cache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/kms"
)

// Options are the options of [New]. A zero field means its default. A
// negative MaxAge, MaxUses or MaxEntries means that the cache keeps nothing.
type Options struct {
	// MaxAge is how long a result is used, from the start of the call that
	// returned it: five minutes by default, as for S3 Bucket Keys. Without an
	// [kms.Authorizer], a disabled key keeps working for as long.
	MaxAge time.Duration

	// MaxUses is how often a result is used, the first use included: 2^20 times by
	// default. The cipher needs no limit. This one bounds how many objects a leaked
	// data key opens.
	MaxUses int64

	// MaxEntries is how many results the cache keeps: 1000 by default. It drops the
	// least recently used first.
	MaxEntries int

	// StaleReads lets Decrypt use a result past the limits above, but no older than
	// StaleReads, while the key service is down: when the client returns
	// [kms.ErrUnavailable], and an Authorizer does not refuse. The default is not to.
	//
	// GenerateDataKey never uses such results: writes fail, and fall back to no
	// other key. A result that the service has refused since is gone.
	//
	// Keys that are disabled during an outage keep opening objects for StaleReads.
	// The client must notice the outage before the deadline of the caller's ctx,
	// because an ended ctx is not an outage.
	StaleReads time.Duration
}

const (
	defaultMaxAge     = 5 * time.Minute
	defaultMaxUses    = 1 << 20
	defaultMaxEntries = 1000
)

// Client is a [kms.Client] that remembers results; see [New]. It is safe for
// concurrent use.
type Client struct {
	client     kms.Client
	authorizer kms.Authorizer // of client; may be nil
	maxAge     time.Duration
	maxUses    int64
	maxEntries int
	staleReads time.Duration
	now        func() time.Time

	mu        sync.Mutex // never held during a call
	off       bool
	entries   map[string]*entry
	recent    *list.List // of *entry, the most recently used first; a module for LRU would save twenty lines
	flights   map[string]*flight
	epoch     uint64 // rises when entries are invalidated
	nextSweep time.Time
	stats     Stats
}

// Stats counts what a [Client] did.
type Stats struct {
	Hits    uint64 // uses that were answered without a call, stale ones included
	Stale   uint64 // hits past the limits; see Options.StaleReads
	Misses  uint64 // calls of the client
	Entries int    // results kept now
}

// New returns a client that calls c and uses its results again, within the
// limits of opts, as S3 Bucket Keys do. nil opts means the defaults.
//
// A result answers only the same question of the same principal: operation, key id
// or alias, encryption context and ciphertext. So each principal makes at least
// one call, which the key service can refuse and record. Decrypt does not use what
// GenerateDataKey returned, because a principal may have permission for only one.
//
// GenerateDataKey returns the same data key for many objects. Use the data key to
// seal the keys of objects, as package sse does, and pass the context of the
// bucket, not of the object.
//
// If c is an [kms.Authorizer], the cache asks it before every answer. Disabling a key
// or revoking a permission then takes effect at once. Otherwise it takes effect
// within MaxAge, or after [Client.Invalidate]. The cache notices within MaxAge that
// an alias has moved. New logs a warning if c wraps an Authorizer by embedding
// and so hides it.
//
// Concurrent questions that are the same make one call. If the caller who makes it
// gives up, the next one calls. Callers who wait share a failure, which the cache
// does not keep.
//
// Callers own what they get and may clear it. The cache overwrites its own copies
// when it drops them. It starts no goroutine, so an idle cache keeps expired
// results: call [Client.Invalidate] when you have no use for it any more.
func New(c kms.Client, opts *Options) *Client {
	if isnil.Any(c) {
		c = noClient{}
	}
	if opts == nil {
		opts = new(Options)
	}
	authorizer, ok := kms.Find[kms.Authorizer](c)
	if !ok {
		warnIfHidden(c)
	}
	cache := &Client{
		client:     c,
		authorizer: authorizer,
		maxAge:     opts.MaxAge,
		maxUses:    opts.MaxUses,
		maxEntries: opts.MaxEntries,
		staleReads: max(0, opts.StaleReads),
		now:        time.Now,
		off:        opts.MaxAge < 0 || opts.MaxUses < 0 || opts.MaxEntries < 0,
		entries:    make(map[string]*entry),
		recent:     list.New(),
		flights:    make(map[string]*flight),
	}
	if cache.maxAge == 0 {
		cache.maxAge = defaultMaxAge
	}
	if cache.maxUses == 0 {
		cache.maxUses = defaultMaxUses
	}
	if cache.maxEntries == 0 {
		cache.maxEntries = defaultMaxEntries
	}
	return cache
}

// noClient takes the place of a nil Client.
type noClient struct{}

func (noClient) GenerateDataKey(context.Context, string, kms.Context) (*kms.DataKey, error) {
	return nil, fmt.Errorf("%w: the cache's client is nil", kms.ErrInvalid)
}

func (noClient) Decrypt(context.Context, string, []byte, kms.Context) ([]byte, error) {
	return nil, fmt.Errorf("%w: the cache's client is nil", kms.ErrInvalid)
}

// Unwrap returns the client behind the cache; see [kms.Find].
func (c *Client) Unwrap() kms.Client { return c.client }

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	var r result
	defer clear(r.plaintext[:])
	if err := c.use(ctx, &question{op: kms.OpGenerateDataKey, keyID: keyID, ec: ec}, &r); err != nil {
		return nil, err
	}
	return kms.NewDataKey(r.report.KeyID, r.plaintext[:], r.ciphertext)
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	var r result
	defer clear(r.plaintext[:])
	if err := c.use(ctx, &question{op: kms.OpDecrypt, keyID: keyID, ciphertext: ciphertext, ec: ec}, &r); err != nil {
		return nil, err
	}
	return slices.Clone(r.plaintext[:]), nil
}

// Invalidate drops the results of these keys, named by id or as they were asked
// for; without names, all results. A call under way is not kept.
func (c *Client) Invalidate(keyIDs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	clear(c.flights) // later callers do not wait for an older answer
	for _, e := range c.entries {
		drop := len(keyIDs) == 0
		for _, id := range keyIDs {
			same, _ := kms.SameKey(c.client, id, e.keyID)
			drop = drop || same || id == e.requested
		}
		if drop {
			c.drop(e)
		}
	}
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Entries = len(c.entries)
	return stats
}

// question is a call of the cache.
type question struct {
	op         kms.Operation
	keyID      string
	ciphertext []byte
	ec         kms.Context
}

// result is an answer. GenerateDataKey and Decrypt each hold one and pass a pointer
// down, so that no other frame has a copy of the plaintext when they overwrite theirs.
type result struct {
	plaintext  [kms.DataKeySize]byte
	ciphertext []byte // of a new data key
	report     kms.Report
}

// use answers q and fills in the caller's report.
func (c *Client) use(ctx context.Context, q *question, r *result) error {
	var scratch [512]byte
	err := c.answer(ctx, q, q.appendName(scratch[:0], kms.PrincipalFrom(ctx)), r)
	*kms.ReportFrom(ctx) = r.report
	return kms.CallError(ctx, q.op, q.keyID, nil, err)
}

// answer answers from an entry, from a call that another caller makes, or from a
// call of its own. name encodes q and the principal.
func (c *Client) answer(ctx context.Context, q *question, name []byte, r *result) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		e, f, first := c.find(name)
		if e != nil && c.authorizer == nil {
			c.take(e, false, r)
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		var err error
		switch {
		case e != nil:
			err = c.answerIfAuthorized(ctx, q, e, r)
		case f != nil && !first:
			err = f.wait(ctx, r)
		default:
			err = c.lead(ctx, q, name, f, r)
		}
		if errors.Is(err, errRetry) {
			*r = result{}
			continue
		}
		if e == nil {
			err = c.answerStale(ctx, q, name, r, err)
		}
		return err
	}
	return ctx.Err()
}

// errRetry means that there is no answer yet.
var errRetry = errors.New("kms: ask again")

// find returns the entry that may answer. Otherwise it returns the flight whose
// call will answer, and whether the caller is the first and must make the call.
// Without either, the cache does not keep the answer. c.mu is held.
func (c *Client) find(name []byte) (e *entry, f *flight, first bool) {
	if c.off || len(name) > maxName {
		return nil, nil, true
	}
	now := c.now()
	if e = c.entries[string(name)]; e != nil {
		if c.fresh(e, now) {
			return e, nil, false
		}
		if !c.servesStale(e, now) {
			c.drop(e)
		}
	}
	if f = c.flights[string(name)]; f != nil {
		return nil, f, false
	}
	f = &flight{done: make(chan struct{}), epoch: c.epoch}
	c.flights[string(name)] = f
	return nil, f, true
}

// answerIfAuthorized answers from a fresh entry if the Authorizer allows it.
func (c *Client) answerIfAuthorized(ctx context.Context, q *question, e *entry, r *result) error {
	refusal := c.authorizer.Authorize(ctx, q.op, e.keyID, q.ec)
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := e.place != nil
	usable := kept && e.uses < c.maxUses
	r.report = kms.Report{KeyID: e.keyID, Cached: true}
	switch {
	case refusal != nil && ctx.Err() != nil:
		return refusal
	case refusal == nil && usable:
		c.take(e, false, r)
		return nil
	case refusal == nil:
		return errRetry // the entry was dropped meanwhile
	case errors.Is(refusal, kms.ErrUnavailable) && !c.servesStale(e, c.now()):
		return refusal // keep the entry for when the service is back
	case errors.Is(refusal, kms.ErrUnavailable) && usable:
		c.take(e, true, r)
		return nil
	case errors.Is(refusal, kms.ErrUnavailable):
		return errRetry
	}
	if kept {
		c.drop(e)
	}
	if same, _ := kms.SameKey(c.client, q.keyID, e.keyID); !same {
		return errRetry // an alias, which may mean another key by now
	}
	return refusal
}

// answerStale returns err, or answers from a stale entry if err says that the service
// is down.
func (c *Client) answerStale(ctx context.Context, q *question, name []byte, r *result, err error) error {
	if q.op != kms.OpDecrypt || c.staleReads == 0 || !errors.Is(err, kms.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	c.mu.Lock()
	e := c.entries[string(name)]
	c.mu.Unlock()
	if e == nil {
		return err
	}
	var refusal error
	if c.authorizer != nil {
		refusal = c.authorizer.Authorize(ctx, q.op, e.keyID, q.ec)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := e.place != nil
	switch {
	case refusal != nil && ctx.Err() != nil:
		return refusal
	case refusal != nil && !errors.Is(refusal, kms.ErrUnavailable):
		if kept {
			c.drop(e)
		}
		r.report = kms.Report{KeyID: e.keyID}
		return refusal
	case kept && c.servesStale(e, c.now()):
		c.take(e, true, r)
		return nil
	}
	return err
}

// call asks the client, and checks that the answer is one.
func (c *Client) call(ctx context.Context, q *question, r *result) error {
	c.mu.Lock()
	c.stats.Misses++
	c.mu.Unlock()
	report := new(kms.Report)
	defer func() { r.report = *report }()
	ctx = kms.WithReport(ctx, report)
	if q.op == kms.OpDecrypt {
		plaintext, err := c.client.Decrypt(ctx, q.keyID, q.ciphertext, q.ec)
		defer clear(plaintext)
		if report.KeyID == "" {
			report.KeyID = q.keyID
		}
		if err != nil {
			return err
		}
		if len(plaintext) != kms.DataKeySize || [kms.DataKeySize]byte(plaintext) == [kms.DataKeySize]byte{} {
			return fmt.Errorf("%w: the key service returned %d bytes that are not a data key", kms.ErrCiphertext, len(plaintext))
		}
		copy(r.plaintext[:], plaintext)
		return nil
	}
	key, err := c.client.GenerateDataKey(ctx, q.keyID, q.ec)
	if err != nil {
		return err
	}
	if key == nil || key.KeyID == "" || len(key.Ciphertext) == 0 || key.Plaintext() == nil {
		return fmt.Errorf("%w: the key service returned a data key without id, ciphertext or plaintext", kms.ErrUnavailable)
	}
	copy(r.plaintext[:], key.Plaintext())
	r.ciphertext, report.KeyID = key.Ciphertext, key.KeyID
	key.Clear()
	return nil
}
