// Package s3wire is the vocabulary of S3's server-side encryption: headers,
// errors, conditions of policies and bucket configurations. It has no HTTP server:
// any Go server that speaks S3 can use it.
//
// [NewKeys] takes the keys of a service. For a request that stores an object:
//
//	w, err := s3wire.ParseWrite(r.Header.Values, r.TLS != nil)
//	cipher, err := keys.ForWrite(w, configuration) // the bucket's; nil if it has none
//	out, err := sse.NewWriter(ctx, dst, cipher, sse.Object{Bucket: bucket, Key: key}, nil)
//	...
//	cipher.SetHeaders(rw.Header().Set)
//
// For a request that reads one:
//
//	q, err := s3wire.ParseRead(r.Header.Values, r.TLS != nil)
//	opener := keys.ForRead(q)
//	in, err := sse.NewReader(ctx, src, opener, sse.Object{Bucket: bucket, Key: key})
//	opener.SetHeaders(rw.Header().Set)
//
// Both fit wherever package sse, or package blob, takes a cipher. [FromError] turns
// any error into S3's code, message and status.
//
// A service without TLS of its own, behind a proxy that ends TLS, passes true for
// tls only if the proxy has said so and nobody else can.
//
// # Encryption contexts
//
// As in S3, the context of an SSE-KMS object has the pair "aws:s3:arn" with the
// ARN of the object, or of the bucket if the object has a bucket key. A request may
// add pairs, and may not replace this one. To read an object, a request states no
// context: the service knows the bucket and the key, and the key service decides.
//
// # What differs from S3
//
// aws:kms:dsse, which encrypts twice, is NotImplemented. Customer keys are blocked
// unless the bucket's configuration allows them.
package s3wire
