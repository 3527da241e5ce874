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
// To give each tenant its own key, pass a cipher from [blob.ByPrefix]. Destroying the key
// makes that tenant's objects unreadable, and no others.
//
// # What objstore does not have
//
//   - Metadata. Only its envelope shows that an object is encrypted. With
//     Options.AllowPlain, an object whose envelope was overwritten looks like a plain
//     one.
//   - Content types of existing objects. A rewrap stores an object without one.
//   - Conditional writes. A rewrap can undo a concurrent write to the same object by
//     another process. Objects that are written once, such as blocks and chunks, are
//     safe.
//   - Atomic uploads in every provider. That of the file system writes in place: a
//     failed upload leaves an object that no reader accepts.
package objstore
