// Package stored defines how an encrypted object lies in an object store.
//
// A stored object is an [sse.Envelope], padded to the bucket's envelope size,
// and the body behind it: the self-contained form of package sse. Nothing else
// is needed to read the object. A [Hint] in the object's metadata repeats what
// the envelope says, for callers that see only a HEAD response. An attacker can
// edit the hint, so no read trusts it.
//
// A composite object, which was uploaded in parts, is stored as SPEC.md of package sse
// says in section 16: its parts, and a trailer with the envelope, at the end. Its first
// bytes tell it from other objects. The trailer says how large its plaintext is. Its
// hint is known when the upload begins and therefore has no sizes. Whoever completes an
// upload gives [sse.TrailerOptions] the bucket's envelope size, so that [PlaintextSize]
// refuses the composite object's size.
//
// Packages that encrypt a kind of bucket share this one: the layout and the
// hint, [ReadEnvelope], and [Locks], which make writers of one key take turns.
// Services use package blob instead. This package knows no store and links no
// store's client.
package stored
