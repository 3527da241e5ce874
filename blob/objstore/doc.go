// Package objstore encrypts the objects of any bucket of Thanos' objstore, as
// Thanos, Mimir, Loki and others use them.
//
//	inner, err := client.NewBucket(...) // github.com/thanos-io/objstore/client
//	bucket, err := objstore.NewBucket(inner, "metrics", cipher, nil)
//	err = bucket.Upload(ctx, "01JZ/index", index)
//
// A [Bucket] is an objstore.Bucket and replaces inner. Objects are stored as package
// blob stores them: [Bucket.Encrypted] returns the same bucket for Go CDK, on which
// package jobs runs:
//
//	report, err := jobs.Rewrap(ctx, bucket.Encrypted(), nil)
//
// To give each tenant a key of its own, pass a cipher that [blob.ByPrefix] made. The
// key's destruction makes that tenant's objects unreadable, and no others.
//
// # What objstore does not have
//
//   - Metadata. The only sign that an object is encrypted is its envelope. With
//     Options.AllowPlain, an object whose envelope was overwritten passes for a
//     plain one.
//   - Content types of existing objects. A rewrap stores them without.
//   - Conditional writes. A rewrap can undo what another process writes to the same
//     object at that moment. Objects that are written once, as blocks and chunks
//     are, need no care.
//   - Atomic uploads in every provider: the file system's writes in place. An
//     upload that fails leaves there an object that no reader accepts.
package objstore
