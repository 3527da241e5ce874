package document

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// Edit loads the document, has change edit it, and replaces the stored document. After a
// conflict with another writer it starts over. change owns o, and reports whether there is
// anything to write. o holds the stored document; if the store went back, this process's
// own document is merged into it. Edit adopts the document that the store then holds, and
// returns its state. ctx bounds the call, also while another edit of this replica runs.
//
// After [ErrStore] the change may or may not be in the store.
func (r *Replica[S, O]) Edit(ctx context.Context, change func(o O) (bool, error)) (state S, err error) {
	if err := r.lock(ctx); err != nil {
		return state, err
	}
	defer r.unlock()
	s, err := r.edit(ctx, nil, func(o O, _ *rootRef) (bool, error) { return change(o) })
	if err != nil {
		return state, err
	}
	return s.state, nil
}

// OpenOther opens another document, such as a backup, under the roots of this replica.
func (r *Replica[S, O]) OpenOther(ctx context.Context, data []byte) (O, error) {
	o, _, err := r.open(ctx, r.keys.Load().roots, data, r.State())
	return o, err
}

// ChangeRoot encrypts the document under another root, in one write, and uses that
// root from then on. rekey replaces what the old root sealed inside the document; it may
// be nil.
//
// ChangeRoot may be repeated: it does not write a document that the new root opens
// already. Callers repeat it after [ErrStore], which leaves open whether the root was
// changed, and after a failover that lost the change. Another process learns of the new
// root by the same call. See [NewRootChecker].
func (r *Replica[S, O]) ChangeRoot(ctx context.Context, root Root, rekey func(o O) error) error {
	if err := checkNewRoot(root); err != nil {
		return err
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	old, added := r.keys.Load(), &rootRef{root}
	// The new root stands before the roots of earlier calls whose end is unknown: it may
	// be the same as one of them. A refresh may load the new document before we return.
	both := &rootSet{roots: slices.Insert(slices.Clone(old.roots), 1, added), former: old.former}
	r.keys.Store(both)
	_, err := r.edit(ctx, added, func(o O, opener *rootRef) (bool, error) {
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
		r.keys.Store(&rootSet{roots: []*rootRef{added}, former: former[:min(len(former), formerLimit)]})
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

// heal merges what this process knows into a store that went back. cause says what the
// store lacks.
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
// the document; a nil change only heals. The new document is under newRoot, or if that is
// nil under the root of the old one.
func (r *Replica[S, O]) edit(ctx context.Context, newRoot *rootRef, change func(O, *rootRef) (bool, error)) (*snapshot[S], error) {
	for attempt := 0; ; attempt++ {
		s, err := r.tryEdit(ctx, newRoot, change)
		if !errors.Is(err, ErrConflict) {
			return s, err
		}
		if err := backOff(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

// tryEdit is one attempt of edit.
func (r *Replica[S, O]) tryEdit(ctx context.Context, newRoot *rootRef, change func(O, *rootRef) (bool, error)) (*snapshot[S], error) {
	ctx, cancel := context.WithTimeout(ctx, EditTimeout)
	defer cancel()
	began := time.Now()
	known := r.current.Load()
	loaded, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	earlier := loaded.sum != known.sum && r.seen.has(loaded.sum) && r.current.Load() == known
	if earlier && change == nil {
		return r.restore(ctx, known, loaded)
	}
	var o O
	var lost error // what the stored document lacks and o holds
	if earlier || loaded.sum == known.sum {
		if earlier {
			lost = r.rolledBack(ctx, known, loaded)
		}
		loaded.state = known.state
		o, loaded.root, err = r.reopen(ctx, known)
	} else {
		o, lost, err = r.openAndMerge(ctx, known, loaded, newRoot != nil)
	}
	if err != nil {
		return nil, err
	}
	changed := false
	if change != nil {
		changed, err = change(o, loaded.root)
	}
	if lost == nil && (err != nil || !changed) {
		r.adopt(loaded, began)
		return loaded, err
	}
	if err != nil {
		return nil, err
	}
	generation := max(known.state.Generation(), loaded.state.Generation()) + 1
	s, err := r.put(ctx, cmp.Or(newRoot, loaded.root), loaded.version, o, generation)
	if err == nil && lost != nil {
		r.log(ctx, slog.LevelError, "store had lost changes, merged this process's document into it",
			slog.Uint64("generation", s.state.Generation()), slog.Any("lost", lost))
	}
	return s, err
}

// openAndMerge opens a document that this process does not know. If the store went back,
// it merges the known document into that one, and lost is what the stored one lacks.
func (r *Replica[S, O]) openAndMerge(ctx context.Context, known, loaded *snapshot[S], movesRoot bool) (o O, lost, err error) {
	keys := r.keys.Load()
	roots := keys.roots
	if movesRoot { // the store may have gone back to a document under a former root
		roots = keys.all()
	}
	o, err = r.compare(ctx, roots, loaded, known)
	if !errors.Is(err, ErrRollback) {
		return o, nil, err
	}
	lost = err
	own, _, err := r.reopen(ctx, known)
	if err == nil {
		err = r.format.Merge(o, own)
	}
	if err != nil {
		return o, lost, fmt.Errorf("%w: merge: %w", lost, err)
	}
	return o, lost, nil
}

// reopen returns a draft of a document that this process knows, and its root.
func (r *Replica[S, O]) reopen(ctx context.Context, known *snapshot[S]) (O, *rootRef, error) {
	if o, ok := r.format.Draft(known.state); ok {
		return o, known.root, nil
	}
	return r.open(ctx, r.keys.Load().all(), known.data, known.state)
}

// restore puts the document that this process knows back, byte by byte, in place
// of an earlier one. It needs no root.
func (r *Replica[S, O]) restore(ctx context.Context, known, earlier *snapshot[S]) (*snapshot[S], error) {
	lost := r.rolledBack(ctx, known, earlier)
	s := *known
	if err := r.swap(ctx, earlier.version, &s); err != nil {
		return nil, err
	}
	r.log(ctx, slog.LevelError, "store had lost changes, put this process's document back",
		slog.Uint64("generation", s.state.Generation()), slog.Any("lost", lost))
	return &s, nil
}

// backOff waits a random while, longer after more attempts, but at most half a second.
func backOff(ctx context.Context, attempt int) error {
	limit := min(5*time.Millisecond<<min(attempt, 10), 500*time.Millisecond)
	select {
	case <-time.After(rand.N(limit)):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrConflict, ctx.Err())
	}
}
