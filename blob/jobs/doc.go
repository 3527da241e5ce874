// Package jobs works on whole encrypted buckets: it says what is in them, moves objects
// to other keys, and takes keys out of use.
//
//   - [Inventory] lists objects with their keys. [Check] reads them and says what is
//     wrong.
//   - [Rewrap] moves objects to the newest key, another key or another mode.
//     [EncryptExisting] encrypts what was there before the bucket encrypted.
//   - [CheckUnused] and [Retire] say whether a key can go. Retire disables or destroys a
//     version of a ring once no object needs it.
//   - [ShredPrefix] and [ShredKey] make objects unreadable for good.
//
// A typical rotation:
//
//	_, err := ring.Rotate(ctx)                      // new objects: the new version
//	report, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{
//		Job: jobs.Job{Checkpoint: checkpoint},      // continue after an interrupt
//	})
//	version, err := jobs.Retire(ctx, ring, old, nil, bucket)
//
// # What a job promises
//
// A job that left an object undone returns an error, and its report names the first such
// objects. An object is gone only if the store's listing agrees. An object that another
// writer changes is attempted again. A process that is killed leaves every object
// readable.
package jobs
