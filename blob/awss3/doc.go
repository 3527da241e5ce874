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
// [Client.UploadObject] uploads large objects, and objects of unknown length, in parallel
// parts. [Client.Open] gives random access. [Client.With] returns a client for one request
// or one tenant, with its own key.
//
// Objects are stored as package blob stores them. Buckets of package blob read them, its
// jobs rewrap them, and this package reads what they write. See package stored for the
// layout. An object is bound to its key and to the name of its bucket, or to the name in
// [Options].Names. Keys that Go CDK would spell differently in S3 are refused: those with
// control characters, "../" or "__0x".
//
// # Inputs and outputs
//
// Sizes, ranges, Content-Length and Content-Range are those of the plaintext.
// Conditions, tags, metadata, storage class and whatever else S3 stores with an object
// pass through. ETag, LastModified and VersionId are the store's. Names of metadata
// that begin with "blobseal-" are reserved.
//
// Checksums and Content-MD5 in an input are those of the plaintext. A body that does not
// match them is not stored. ChecksumAlgorithm asks S3 for a checksum of the ciphertext.
// Outputs have no checksums, since the store has only those of ciphertext. Reads check them
// nevertheless.
//
// SSECustomerKey and its two companions make the request SSE-C. The client uses the key and
// never sends it. Writes need [Options].AllowCustomerKeys. ServerSideEncryption and
// SSEKMSKeyId pass through: they control S3's own encryption.
//
// # Retries
//
// Plaintext is encrypted once. The SDK reads the body of a request several times, for
// checksums and for retries, and gets the same ciphertext from memory each time. A source
// can therefore be uploaded even if it cannot be read twice. A source that changes between
// two attempts is never encrypted twice with one key.
//
// # Memory
//
// A PutObject of up to 8 MiB of ciphertext holds the ciphertext in memory. The SDK's
// transfer manager uploads larger objects, and those of UploadObject. It holds a part for
// each worker, one more part, and what it reads before it decides to upload in parts: less
// than 100 MiB with its defaults, which are parts of 8 MiB, 5 workers, and parts from 16 MiB
// on. A read holds less than 3 MiB, and a [Reader] holds two windows of 4 MiB.
//
// # Requests
//
// A PutObject up to 8 MiB and a GetObject of a whole object take one request to the store. A
// range takes at most three: for the envelope, for the last chunk, which proves the object's
// size, and for the chunks of the range. A part number takes one more. HeadObject takes one,
// and a second if the metadata was lost. A copy reads the source and writes the copy; the
// ciphertext passes through this process. Reads of composite objects, which were uploaded in
// parts with package sse's Multipart, take up to two more.
//
// Only a copy of more than 8 MiB holds a response while it awaits another one. Any number of
// readers can share one connection.
//
// # Guarantees
//
// Plaintext is authenticated before it is returned. The body of a GetObject ends in io.EOF
// only if the object or the range is complete. On any other error, discard what you have
// read. All bytes of a range are from one version of the object. If other writers replace
// the object during each of several attempts, the error is [stored.ErrChanged].
//
// # Errors
//
// Errors of S3 are unchanged. Errors of this library are the sentinels of packages sse, kms,
// keyring and stored. errors.Is finds them inside the SDK's errors. A missing key never looks
// like a missing object: errors.As finds no types.NoSuchKey and no smithy.APIError in the
// error of a key operation. A range behind the end of the object is a smithy.APIError with
// S3's code, InvalidRange.
//
// # Presigned URLs
//
// With a presigned URL, the store would serve ciphertext and store plaintext.
// [Client.PresignGetObject] and its siblings therefore return [ErrPresign]. Use the signer
// and the handler of package signedurl.
package awss3
