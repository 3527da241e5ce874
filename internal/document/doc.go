// Package document runs one encrypted document that several processes share.
//
// It is the engine under keyring.Ring and localkms.Service. The document lives
// in a [Store] under compare-and-swap. Each process has a [Replica] of it: an
// immutable state in memory, which reads cost one atomic load. The replica
// loads, watches, edits and heals the document; a [Format] knows what is in it.
//
// # How to use it
//
// Write a [Format] with two types. S is what a process keeps of a document: an
// immutable pointer type with Identity and Generation. O is a document opened
// for an edit, with whatever secrets an edit needs; the engine drops it as soon
// as the edit is over. Then:
//
//	r, err := document.Open(ctx, store, root, format, document.Options{...})
//	state := r.State()                             // from memory
//	state, err = r.Fresh(ctx)                      // at most Options.MaxAge old, if the store answers
//	state, err = r.Lookup(ctx, id, found)          // loads if found does not find id
//	state, err = r.Edit(ctx, func(o O) (bool, error) { ... }) // load, change, swap; again after a conflict
//	err = r.ChangeRoot(ctx, newRoot, rekey)
//	err = r.Run(ctx, func(ctx context.Context, recovered bool) { ... }) // refresh by interval and on change
//
// # Loads
//
// One load runs at a time, in a goroutine of its own with a deadline of its own.
// Callers who want the same thing share it, and their ctx ends their wait but not
// the load. So no caller can make the others fail, and a store that hangs holds
// nobody longer than [LoadTimeout].
//
// # Edits
//
// One edit of a replica runs at a time; compare-and-swap holds off other
// processes. An edit never waits for a load of someone else, and each of its
// attempts ends after [EditTimeout], whatever ctx says.
//
// # Healing
//
// A store can lose its last writes: a failover, a restored backup, an attacker.
// A loaded document that does not include what this process knows is therefore
// not taken as it is: the replica merges its own document into the stored one,
// with [Format.Merge], and writes the result back under a generation above both.
// A stored document that includes everything is taken without a write, so healing
// ends. A document with another identity is never merged.
//
// While healing fails, [Replica.Diverged] says since when and why. A process must
// not seal under a key that the store is known to lack for longer than a short
// grace.
package document
