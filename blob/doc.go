// Package blob encrypts buckets of gocloud.dev/blob.
//
// A [Bucket] is a bucket of the same kind as the one under it: S3, Google, Azure,
// files or memory. The code that uses it does not change.
//
//	inner, err := gcblob.OpenBucket(ctx, "s3://photos?region=eu-west-1")
//	bucket, err := blob.NewBucket(inner, "photos", sse.NewManaged(ring), nil)
//
//	err = bucket.WriteAll(ctx, "2026/cat.jpg", picture, nil)
//	service := gallery.New(bucket.Bucket) // takes a *gcblob.Bucket
//
// Package jobs inventories, checks, rewraps, encrypts and shreds whole buckets.
// Package signedurl makes and serves signed URLs; a store's own would serve
// ciphertext. MIGRATING.md says how to encrypt a bucket that is in use.
//
// # Stored objects
//
// An object is stored as its envelope, padded to one size for the whole bucket, and
// its body: the self-contained form of package sse. It survives any tool that copies
// bytes, and opens only under its own key in a bucket of its own name. A hint in the
// metadata repeats what the envelope says; nothing trusts it. Package stored has the
// details.
//
// A composite object, which was uploaded in parts, is read as any other. A Bucket makes
// none: its writes are single streams. [sse.StartMultipart] begins one.
//
// # Requests
//
// These take one request to the store: a write, a read of a whole object, its
// attributes, and a page of a list. A read of a part takes three at most: for the
// envelope, for the chunks that hold the part, and for the last chunk, which proves
// how long the object is. [Options].SkipLengthCheck saves the last one. A copy reads
// the source once, asks for its attributes before and after, and writes once. On S3, a
// write takes more requests from 16 MiB on, since gocloud's driver then uploads parts.
//
// A composite object has its envelope and the list of its parts at its end. A whole read
// takes three requests, unless the object is smaller than 128 KiB, attributes three, of
// which two at once, and a read of a part up to four. An object of more than 1,400 parts
// takes one more. A read of a part proves the object's length without reading its last
// chunk.
//
// A read that takes several requests holds at most one response at a time. Any number
// of readers can share a pool of connections, even of one. A copy or a rewrap of an
// object that is uploaded in parts holds the source's response meanwhile and needs a
// second connection.
//
// Lists compute sizes, and look at composite objects, with two requests each. If a
// bucket may have plain objects, or envelopes of several sizes, a list looks at each
// object. It looks at 16 objects at a time.
//
// # Guarantees
//
// A reader authenticates plaintext before it returns it. It returns the last byte of
// the object, or of the range, only after it has verified that the object ends where
// its size says. So neither io.Copy nor io.CopyN nor http.ServeContent takes a
// truncated object for whole. With SkipLengthCheck, this holds for reads to the end
// only. A read of a part is of one version of the object, even while other writers
// replace it; if they never stop, it is [ErrChanged].
//
// Nothing of a write is visible before Close has returned nil. Nothing is published if
// a Write, the source of an Upload, or ctx failed. Close cannot know that the source of
// an io.Copy failed: cancel ctx before Close, or call Upload.
//
// Sizes in attributes and lists are as authentic as the store. Attributes have no MD5.
// ETag and ModTime are the store's, and change when an object is rewrapped. A
// Content-Encoding is kept in the metadata, so that no store unpacks ciphertext.
//
// Commits, deletes and rewraps of one key take turns: all buckets over one inner bucket
// in a process, and all processes that share a fileblob bucket which no driver wraps.
// Of several writers with IfNotExist, one wins. Other stores need their own conditions
// between processes: see [Options].IfUnchanged. A BeforeDelete hook runs in its delete's
// turn and must not write its own key.
//
// # A request with its own key
//
// [Bucket.With] returns the bucket as one request sees it: with the customer's key,
// another key of a key service, or an encryption context such as the tenant.
//
//	mine, err := bucket.With(blob.Request{Cipher: customer})
//	if err != nil {
//		return err
//	}
//	r, err := mine.NewReader(ctx, key, nil)
//
// [Bucket.CopyFrom] copies from one such view to another.
//
// # Hooks and As
//
// gocloud's hooks see the types of the inner bucket. A BeforeRead hook is called for
// each request to the store, one call at a time. A BeforeWrite hook can also ask for
// the [*sse.Envelope] that is being written. A copy is a write to the inner bucket, and
// its hook sees the types of a write; what gocloud does not know, such as tags, is not
// copied. As of a bucket gives the [*Bucket], As of a reader the [*sse.Envelope], and As
// of attributes the stored.Hint.
//
// # Policy
//
// [Policy] says in which modes and under which keys a bucket may be written. It refuses
// customer keys unless told otherwise. Objects that were once written stay readable.
// Plain objects are refused, since an attacker could have put them there, unless
// [Options].AllowPlain is set. [Bucket.ExplainWrite] and [Bucket.ExplainRead] tell which
// rule decides about a request, without touching a key.
//
// # Errors
//
// Errors of the inner bucket keep their codes. Those of this library have gocloud codes,
// and errors.Is finds the sentinels of sse, kms and keyring in them:
//
//   - PermissionDenied: [sse.ErrKey], [kms.ErrDenied], [ErrPolicy]
//   - InvalidArgument: [sse.ErrMode], for example a customer's object without its key;
//     [sse.ErrInvalid], [sse.ErrTooLarge], [stored.ErrReserved]
//   - FailedPrecondition: [ErrPlain], [ErrChanged], a key that is disabled, destroyed or
//     missing, and a copy of an object that the store decompresses
//   - Internal: damage, [sse.ErrCorrupt] and [sse.ErrFormat]
//   - Unimplemented: [sse.ErrVersion], and a signed URL without [Options].Signer
//
// NotFound always means the object, never a key.
package blob
