// Package awss3 encrypts objects for services on the AWS SDK for Go.
//
// A [Client] has the operations of the SDK's S3 client on objects, with the SDK's
// own inputs and outputs. It encrypts what it writes and decrypts what it reads:
//
//	client, err := awss3.New(s3.NewFromConfig(cfg), sse.NewManaged(ring), nil)
//
//	_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: picture})
//	out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: aws.String("bytes=0-99")})
//
// [Client.UploadObject] uploads objects of many gigabytes, and of unknown length, in
// parallel parts. [Client.Open] gives random access. [Client.With] returns the client
// as one request or one tenant sees it, with a key of its own.
//
// Objects are stored as package blob stores them: its buckets read them, its jobs
// rewrap them, and this package reads what they wrote. See package stored for the
// layout. An object is bound to its key and to the name of its bucket, or to the name
// that [Options].Names has for it. Keys that Go CDK would spell differently in S3 are
// refused: those with control characters, "../" or "__0x".
//
// # Inputs and outputs
//
// Sizes, ranges, Content-Length and Content-Range are those of the plaintext.
// Conditions, tags, metadata, storage class and whatever else S3 stores with an object
// pass through. ETag, LastModified and VersionId are the store's. Names of metadata
// that begin with "blobseal-" are reserved.
//
// Checksums and Content-MD5 in an input are of the plaintext: a body that does not
// match them is not stored. ChecksumAlgorithm asks S3 for a checksum of what it
// stores. Outputs have no checksums, since the store's are of ciphertext; reads check
// them nevertheless.
//
// SSECustomerKey and its two companions make the request SSE-C. The key is used here
// and never sent. [Options].AllowCustomerKeys must allow it for writes.
// ServerSideEncryption and SSEKMSKeyId concern the encryption that S3 adds of its
// own, and pass through.
//
// # Retries
//
// Plaintext is encrypted once. The SDK reads the body of a request several times, for
// checksums and for retries; it then reads the same ciphertext from memory. So a
// source that cannot be read twice can be uploaded, and one that changes between two
// attempts cannot be encrypted twice with one key.
//
// # Memory
//
// A PutObject of up to 8 MiB of ciphertext holds it in memory. A larger one, and an
// UploadObject, goes to the SDK's transfer manager. It holds a part for each worker, one
// more, and what it read before it decided for parts: less than 100 MiB with its
// defaults, which are parts of 8 MiB, 5 workers and parts from 16 MiB on. A read holds
// less than 3 MiB, and a [Reader] two windows of 4 MiB.
//
// # Requests
//
// A PutObject up to 8 MiB and a GetObject of a whole object take one request to the
// store. A range takes three at most: for the envelope, for the last chunk, which proves
// how long the object is, and for the chunks that hold the range. A part number takes
// one more. HeadObject takes one, and a second if the metadata was lost. A copy reads
// the source and writes the copy; its ciphertext passes through this process. Composite
// objects, which were uploaded in parts by package sse's Multipart, are read with
// up to two requests more.
//
// No response is held while another one is awaited, except by a copy of more than 8
// MiB. Any number of readers can share one connection.
//
// # Guarantees
//
// Plaintext is authenticated before it is returned. The body of a GetObject ends in
// io.EOF only if the object, or the range, is complete: on any other error, discard
// what was read. A range is of one version of the object. If other writers replace the
// object during each of several attempts, the error is [stored.ErrChanged].
//
// # Errors
//
// Errors of S3 are unchanged. Those of this library are the sentinels of packages sse,
// kms, keyring and stored, and errors.Is finds them behind the SDK's wrapping. A key
// that does not exist is never taken for an object that does not: errors.As finds no
// types.NoSuchKey and no smithy.APIError in an error of the key operation. A range
// behind the end of the object is a smithy.APIError with S3's code, InvalidRange.
//
// # Presigned URLs
//
// The store would serve ciphertext under a presigned URL, and store plaintext.
// [Client.PresignGetObject] and its siblings therefore return [ErrPresign]. Package
// signedurl has a signer and a handler instead.
package awss3
