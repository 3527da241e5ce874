// Package stored defines how an encrypted object lies in an object store.
//
// A stored object is an [sse.Envelope], padded to the bucket's envelope size,
// and the body behind it: the self-contained form of package sse. Nothing else
// is needed to read the object. A [Hint] in the object's metadata repeats what
// the envelope says, for callers that see only a HEAD response. An attacker can
// edit the hint, so no read trusts it.
//
// Packages that encrypt a kind of bucket share this one: the layout and the
// hint, [ReadEnvelope], and [Locks], which make writers of one key take turns.
// Services use package blob instead. This package knows no store and links no
// store's client.
package stored
