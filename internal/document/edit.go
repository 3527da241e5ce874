package document

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// Edit loads the document, lets change edit it, and replaces it; after a conflict
// with another writer it does all of that again. change reports whether there is
// anything to write. It owns o, whose content is that of the stored document with,
// if the store went back, this process's own merged in. Edit adopts what the store
// then holds, and returns it. ctx bounds the call; a caller who waits for another
// edit of this replica gets an error that is ctx's.
//
// After [ErrStore] the change may or may not be in the store.
func (r *Replica[S, O]) Edit(ctx context.Context, change func(o O) (bool, error)) (S, error) {
	if err := r.lock(ctx); err != nil {
		var none S
		return none, err
	}
	defer r.unlock()
	return r.edit(ctx, nil, func(o O, _ *keeper) (bool, error) { return change(o) })
}

// OpenOther opens another document, such as a backup, under the roots of this replica.
func (r *Replica[S, O]) OpenOther(ctx context.Context, data []byte) (O, error) {
	o, _, err := r.open(ctx, r.keys.Load().roots, data, r.State())
	return o, err
}

// ChangeRoot puts the document under another root, in one write, and uses that
// root from then on. rekey, which may be nil, changes what the old root had sealed.
//
// It may be repeated: a document that the new root opens already is left as it is.
// So a caller repeats it after an error of the store, which leaves open whether the
// root was changed, and after a failover that lost the change; and a process whose
// document was moved elsewhere is told of the new root by the same call. See
// [NewRootChecker].
func (r *Replica[S, O]) ChangeRoot(ctx context.Context, root Root, rekey func(o O) error) error {
	if err := checkNewRoot(root); err != nil {
		return err
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	old, added := r.keys.Load(), &keeper{root}
	// The new root stands before those of calls that did not learn how they ended: it
	// may be the same as one of them. A refresh may meet the new document before we return.
	both := &rootSet{roots: slices.Insert(slices.Clone(old.roots), 1, added), former: old.former}
	r.keys.Store(both)
	_, err := r.edit(ctx, added, func(o O, opener *keeper) (bool, error) {
		if opener == added {
			return false, nil
		}
		if rekey == nil {
			return true, nil
		}
		return true, rekey(o)
	})
	switch {
	case err == nil:
		former := slices.Concat(old.roots, old.former)
		r.keys.Store(&rootSet{roots: []*keeper{added}, former: former[:min(len(former), formerLimit)]})
	case !errors.Is(err, ErrStore): // nothing was written
		r.keys.Store(old)
	}
	return err
}

// lock waits for the right to replace the document.
func (r *Replica[S, O]) lock(ctx context.Context) error {
	if r.opts.ReadOnly {
		return ErrReadOnly
	}
	select {
	case r.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keyring: wait for another edit: %w", ctx.Err())
	}
}

func (r *Replica[S, O]) unlock() { <-r.writer }

// heal writes what this process knows into a store that went back.
func (r *Replica[S, O]) heal(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, EditTimeout)
	defer cancel()
	if err := r.lock(ctx); err != nil {
		return errors.Join(cause, err)
	}
	defer r.unlock()
	_, err := r.edit(ctx, nil, nil)
	if errors.Is(err, errors.ErrUnsupported) {
		return cause
	}
	if err != nil {
		return fmt.Errorf("%w: heal: %w", cause, err)
	}
	return nil
}

// edit is Edit for a caller who holds the lock. change also gets the root that opened
// the document; nil changes nothing and only heals. The new document is under newRoot,
// or if that is nil under the root of the old one.
func (r *Replica[S, O]) edit(ctx context.Context, newRoot *keeper, change func(O, *keeper) (bool, error)) (S, error) {
	for attempt := 0; ; attempt++ {
		s, err := r.tryEdit(ctx, newRoot, change)
		if err == nil {
			return s.state, nil
		}
		if !errors.Is(err, ErrConflict) {
			var none S
			return none, err
		}
		if err := backOff(ctx, attempt); err != nil {
			var none S
			return none, err
		}
	}
}

// tryEdit is one attempt of edit.
func (r *Replica[S, O]) tryEdit(ctx context.Context, newRoot *keeper, change func(O, *keeper) (bool, error)) (*snapshot[S], error) {
	ctx, cancel := context.WithTimeout(ctx, EditTimeout)
	defer cancel()
	began := time.Now()
	known := r.current.Load()
	data, version, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	b, err := r.base(ctx, known, data, version, newRoot != nil)
	if b.same && change == nil {
		return r.restore(ctx, known, version, b.lost)
	}
	if err != nil {
		return nil, err
	}
	changed := false
	if change != nil {
		changed, err = change(b.o, b.stored.root)
	}
	if b.lost == nil && (err != nil || !changed) {
		r.adopt(b.stored, began)
		return b.stored, err
	}
	if err != nil {
		return nil, err
	}
	root := newRoot
	if root == nil {
		root = b.stored.root
	}
	began = time.Now()
	s, err := r.put(ctx, root, version, b.o, max(known.state.Generation(), b.stored.state.Generation())+1)
	if err != nil {
		return nil, err
	}
	r.adopt(s, began)
	if b.lost != nil {
		r.log(ctx, slog.LevelError, "store had lost changes, merged this process's document into it",
			slog.Uint64("generation", s.state.Generation()), slog.Any("lost", b.lost))
	}
	return s, nil
}

// base is what an edit starts from.
type base[S State, O any] struct {
	o      O
	stored *snapshot[S] // the stored document, or the one to put in its place
	lost   error        // what the stored document lacks, if o has more than that
	same   bool         // o is the known document, which the store lost as a whole
}

// base opens the document that was loaded, and merges this process's own into it if
// the store went back.
func (r *Replica[S, O]) base(ctx context.Context, known *snapshot[S], data []byte, version string, movesRoot bool) (b base[S, O], err error) {
	keys := r.keys.Load()
	sum := known.sumOf(data)
	if sum == known.sum || r.seen.has(sum) && r.current.Load() == known {
		if sum != known.sum {
			b.lost, b.same = r.rolledBack(ctx, known, data, keys), true
		}
		b.stored = known
		if !b.same {
			b.stored = &snapshot[S]{state: known.state, data: data, sum: sum, version: version, root: known.root}
		}
		b.o, b.stored, err = r.reopen(ctx, b.stored, keys)
		return b, err
	}
	roots := keys.roots
	if movesRoot { // an operator asks, so that a former root may be what the store went back to
		roots = append(slices.Clone(roots), keys.former...)
	}
	o, root, err := r.open(ctx, roots, data, known.state)
	if err != nil {
		return b, err
	}
	next, err := r.format.State(o)
	if err != nil {
		return b, err
	}
	b.o, b.stored = o, newSnapshot(next, data, version, root)
	b.lost = r.judge(known.state, next)
	if b.lost == nil || !errors.Is(b.lost, ErrRollback) {
		return b, b.lost
	}
	r.diverge(next, b.lost)
	own, _, err := r.reopen(ctx, known, keys)
	if err != nil {
		return b, fmt.Errorf("%w: merge: %w", b.lost, err)
	}
	if err := r.format.Merge(b.o, own); err != nil {
		return b, fmt.Errorf("%w: merge: %w", b.lost, err)
	}
	return b, nil
}

// reopen returns a draft of a document that this process knows, and the snapshot
// with the root that it is under.
func (r *Replica[S, O]) reopen(ctx context.Context, s *snapshot[S], keys *rootSet) (O, *snapshot[S], error) {
	if o, ok := r.format.Draft(s.state); ok {
		return o, s, nil
	}
	roots := append(slices.Clone(keys.roots), keys.former...)
	o, root, err := r.open(ctx, roots, s.data, s.state)
	if err != nil {
		return o, s, err
	}
	if root != s.root {
		moved := *s
		moved.root = root
		s = &moved
	}
	return o, s, nil
}

// restore puts the document that this process knows back, byte by byte, in place
// of an earlier one. It needs no root.
func (r *Replica[S, O]) restore(ctx context.Context, known *snapshot[S], version string, lost error) (*snapshot[S], error) {
	began := time.Now()
	stored, err := r.store.Swap(ctx, version, known.data)
	if err != nil {
		return nil, StoreError(ctx, "swap", err)
	}
	s := *known
	s.version = stored
	r.adopt(&s, began)
	r.log(ctx, slog.LevelError, "store had lost changes, put this process's document back",
		slog.Uint64("generation", s.state.Generation()), slog.Any("lost", lost))
	return &s, nil
}

// backOff waits a random while, longer after more attempts, but at most half a second.
func backOff(ctx context.Context, attempt int) error {
	limit := min(5*time.Millisecond<<min(attempt, 10), 500*time.Millisecond)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrConflict, ctx.Err())
	}
}
