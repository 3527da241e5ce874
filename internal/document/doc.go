// Package document runs one encrypted document that several processes share.
//
// It is the engine under keyring.Ring and localkms.Service. The document lives
// in a [Store] under compare-and-swap. Each process has a [Replica] of it, with an
// immutable state in memory that costs one atomic load to read. The replica
// loads, watches, edits and heals the document; a [Format] knows its content.
//
// # How to use it
//
// Write a [Format] with two types. S is the state that a process keeps of a
// document: a pointer to an immutable value with Identity and Generation. O is a
// document opened for an edit, with the secrets that an edit needs; the engine
// drops it when the edit ends. Then:
//
//	r, err := document.Open(ctx, store, root, format, document.Options{...})
//	state := r.State()                             // from memory
//	state, err = r.Fresh(ctx)                      // at most Options.MaxAge old, if the store answers
//	state, err = r.Lookup(ctx, id, found)          // loads the document if found is false
//	state, err = r.Edit(ctx, func(o O) (bool, error) { ... }) // load, change, swap; repeat after a conflict
//	err = r.ChangeRoot(ctx, newRoot, rekey)
//	err = r.Run(ctx, func(ctx context.Context, recovered bool) { ... }) // refresh by interval and on change
//
// # Loads
//
// One load runs at a time, in its own goroutine and with its own deadline. Callers
// share it. A caller's ctx ends the wait of that caller, not the load. So no caller
// can make others fail, and a store that hangs blocks nobody for longer than
// [LoadTimeout].
//
// # Edits
//
// One edit of a replica runs at a time; compare-and-swap guards against other
// processes. An edit never waits for a load that another caller began, and each
// attempt ends after [EditTimeout] at the latest.
//
// # Healing
//
// A store can lose its last writes: in a failover, when a backup is restored, or
// because an attacker put an old document back. So a replica does not adopt a
// document that lacks what this process knows. It merges its own document into the
// stored one, with [Format.Merge], and writes the result back under a generation
// above both. A stored document that includes everything is adopted without a
// write, so healing ends. Documents of different identities are never merged.
//
// While healing fails, [Replica.Diverged] says since when and why. After a short
// grace, a process must stop sealing under a key that the store is known to lack.
package document
