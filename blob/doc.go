// Package blob makes a bucket of gocloud.dev/blob that encrypts at rest: a bucket
// of S3, Google, Azure, files or memory in, a bucket of the same kind out, and no
// change to the code that reads, writes, lists and shares what is in it.
//
//	inner, err := gcblob.OpenBucket(ctx, "s3://photos?region=eu-west-1")
//	bucket, err := blob.NewBucket(inner, "photos", sse.NewManaged(ring), nil)
//
//	err = bucket.WriteAll(ctx, "2026/cat.jpg", picture, nil)
//	service := gallery.New(bucket.Bucket) // which wants a *gcblob.Bucket
//
// # What is stored
//
// An object is stored as its envelope, padded to one size for the whole bucket
// (1 KiB unless [Options] say otherwise), and its body behind it: the
// self-contained form of package sse. Nothing else is needed to read it, so that
// it survives any copy tool that keeps bytes. It opens under its own key and in a
// bucket of its own name only. A [Hint] of what the envelope says stands in the
// object's metadata, for whoever sees a HEAD, and nothing trusts it. The caller's
// Content-Encoding stands there too, since no store may unpack ciphertext.
//
// # What is asked of the store
//
// A write is one request, and so are a read of a whole object, its attributes
// and a page of a list. A read of a part asks for the envelope and for the chunks
// that hold the part side by side, or for both at once where they are neighbours,
// and with a third, of at most 16,400 bytes, for the last chunk, which proves how
// long the object is; [Options].SkipLengthCheck waives that. A copy reads the
// source once, asks twice for its attributes, so that it is a copy of one version,
// and writes once: the body goes through as ciphertext. Where the store's gocloud
// driver uploads in parts, a write is as many requests as it makes: on S3 from 16
// MiB on. Parts of an upload that failed or was cancelled may stay in the store
// until a lifecycle rule ends them (s3blob of v0.47.0 aborts in the ctx that has
// ended); nothing of them is ever published.
//
// Sizes are arithmetic. Only where a bucket may have plain objects, or envelopes
// of several sizes, does a list look at each object that it shows, and at no more
// than sixteen of them at a time.
//
// # What a reader and a writer can rely on
//
// No byte is returned before it is authenticated, and io.EOF only when the object
// is whole. A read of a part is of one version of the object, also while others
// replace it; where they do that all the time it is [ErrChanged]. Sizes in
// attributes and lists are as authentic as the store, and so are those of readers
// of plain objects. That of a reader of an encrypted one is proved at the latest by
// io.EOF, unless [Options].SkipLengthCheck waives that: where it is another, the
// reader ends with [ErrChanged].
//
// Nothing is published before Close has returned nil, and nothing at all once a
// write, an upload's source or ctx has failed: the store's own write is cancelled
// before it is closed. Close publishes what was written, and cannot know that the
// source of an io.Copy failed: store the body of a request with Upload, or cancel ctx
// first.
//
// What a caller sees is the plaintext's: its size, the content type that was found in
// it, a ContentMD5 that is checked against it and goes no further. MD5 is absent from
// attributes, since stores know only the ciphertext's. ETag and ModTime are the
// store's, and change when an object is rewrapped.
//
// Commits, deletes and rewraps of one key through one Bucket take turns, so that
// of several writers with IfNotExist one wins, and a rewrap never puts an old
// version over a new one. A BeforeDelete hook runs in its delete's turn, and so must
// not write its own key. Between processes that is for the store to decide: see
// [Options].IfUnchanged.
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
// gocloud's hooks see the types of the inner bucket. A BeforeRead hook is called for
// each request to the store, one call at a time. A BeforeWrite hook can also ask for
// the [*sse.Envelope] that is being written. As of a bucket gives the [*Bucket], of a
// reader the [*sse.Envelope], of attributes the stored.Hint, and of all of them what
// the inner bucket gives. A copy is a write to the inner bucket, and its hook gets the
// types of a write. What the store keeps but gocloud does not know, such as tags, is
// not copied.
//
// # What is allowed
//
// [Policy] says in which modes and under which keys a bucket may be written;
// customer keys are refused unless it allows them, and what was once written stays
// readable. Nothing is ever written unencrypted. Objects that are not encrypted
// are refused, as forged ones must be, unless [Options].AllowPlain says that the
// bucket was there before its encryption: then they are read as they are, at the
// price of a look at their metadata, which tells a plain object from one whose
// envelope was damaged. [Bucket.ExplainWrite] and [Bucket.ExplainRead] tell which
// rule decides about a request, without touching a key.
//
// # Errors
//
// Errors of the inner bucket keep their codes. Ours have gocloud codes too, and
// are visible to [errors.Is] beside the sentinels of sse, kms and keyring:
// PermissionDenied for [sse.ErrKey], [kms.ErrDenied] and [ErrPolicy];
// InvalidArgument for [sse.ErrMode], as of a customer's object without its key,
// [sse.ErrInvalid], [sse.ErrTooLarge] and [ErrReserved]; FailedPrecondition for
// [ErrPlain], [ErrChanged], keys that are disabled, destroyed or missing, and copies
// of plain objects that the store unpacks on their way, by their Content-Encoding;
// Internal for damage, [sse.ErrCorrupt] and [sse.ErrFormat]; Unimplemented for
// [sse.ErrVersion] and [ErrNoSigner]. NotFound is an object that is not there, and
// never a key.
//
// # Signed URLs
//
// A store's own signed URL would serve ciphertext. Package signedurl makes URLs of
// your service instead and serves them; pass its Signer in [Options].
//
// # Rotation
//
// Rotating a ring changes the key of new objects. The jobs of a Bucket carry the
// old ones along: an inventory of what is under which key, a rewrap to the newest,
// which seals 104 bytes of each object anew, and [Retire], which disables or
// destroys a key only when nothing refers to it any more.
package blob
