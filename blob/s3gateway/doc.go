// Package s3gateway is an S3 server that encrypts. Every S3 client gets S3's server-side
// encryption from it, over plain files or over another S3 server.
//
// The server is [versitygw], the engine, which implements HTTP, signatures, accounts,
// policies and versions. A [Gateway] is a backend for the engine. It encrypts and decrypts
// the objects of another backend, the inner store:
//
//	files, err := s3gateway.OpenFiles("/srv/objects", nil)
//	keys, err := s3wire.NewKeys(s3wire.KeysOptions{Managed: managed, KMS: client})
//	gateway, err := s3gateway.New(ctx, files, keys, managed, nil)
//	err = gateway.Run(ctx, embedgw.Config{RootUserAccess: user, RootUserSecret: secret, Ports: []string{":7070"}})
//
// examples/gateway is such a server, with a ring, a key service, TLS and an audit trail.
//
// # What is encrypted
//
// Every object is encrypted: in SSE-S3, unless the request or the bucket's configuration
// (?encryption) says SSE-KMS or SSE-C. In SSE-KMS, the authenticated user is the
// [kms.Principal]: the policies of the key service decide, and its audit trail names user,
// key and object. Customer keys need TLS, and a bucket whose configuration allows them.
//
// Package stored defines how objects are stored. Package blob, its jobs and the command
// line therefore read them. The envelope in an object decides whether the object is
// encrypted; its metadata does not. A plain object is refused, unless [Options] allow it.
//
// Names, metadata, tags and sizes are not encrypted. Neither are the checksums that the
// store keeps for clients, nor the ETag of an object of SSE-S3. That ETag is the
// plaintext's MD5, and it stays if UpdateObjectEncryption moves the object to SSE-KMS. An
// attacker who reads the store can therefore test a guess at an object's content.
//
// Lists and HEAD compute an object's size from its stored size. Only reading the object
// proves it. An empty object whose key ends in a slash is stored as a directory.
//
// # Uploads in parts
//
// An upload becomes a composite object of package sse. Each part of the client is a part in
// the inner store, and one more part is the trailer. Completing the upload moves nothing
// else. A last part below 5 MiB takes 5 MiB. [Options].StateBucket of the inner store holds
// the state of uploads, so any gateway can continue them, and the configurations of buckets.
//
// GetObjectAttributes lists the parts with numbers and sizes, but not their checksums,
// which the gateway does not keep, nor PartsCount, for which the engine has no field.
//
// # Over another S3
//
// [OpenS3] makes another S3 server the inner store. Responses then have no checksums, since
// the server has only those of ciphertext. ETags that are the MD5 of ciphertext get the
// suffix "-1", since clients would take them for the plaintext's. POST Object is
// NotImplemented. The engine does not pass object locks on to the server. The server must
// refuse a body that ends early, as S3 does; versitygw, for example, stores it.
//
// # Copies
//
// A copy has the stored body of its source and its own envelope: the source's key opens the
// data key, and the copy's key seals it. To rewrap an object, copy it onto itself and name
// an encryption. A store of files copies the body. Another S3 server copies bodies of at
// least 8 MiB: all of an object that was uploaded in parts, and all but 5 MiB of any other.
// Shorter bodies, and bodies on a server that copies no parts, pass through the gateway as
// ciphertext. Plain objects pass through as plaintext, and so does a copy that asks for a
// checksum that its source does not have.
//
// Over files, a copy in SSE-S3 keeps the ETag of its source. A copy in another mode gets an
// ETag that tells nothing of the plaintext. Another S3 server computes ETags of ciphertext.
// An object and its copies share a data key. To get a new data key, upload the object again.
//
// UpdateObjectEncryption, which is PUT of ?encryption of an object, moves an object to
// another key of the key service: it replaces the envelope, and the object keeps its body,
// metadata, tags and checksums. Over files, it also keeps the modification time and the
// ETag. An object that moves from SSE-S3 to SSE-KMS therefore keeps the plaintext's MD5,
// until it is copied. See [Gateway.UpdateObjectEncryption].
//
// # Clients
//
// aws-cli, boto3, the AWS SDK for JavaScript, minio-go, rclone, s3cmd and mc are tested in
// each mode, over both kinds of inner store. internal/testbed/s3clients lists what each
// cannot do. URLs must be signed by version 4, the only one that the engine supports. s3cmd
// signs them by version 2.
//
// # What is not implemented
//
// S3 Select is NotImplemented, and so is UpdateObjectEncryption in a bucket with
// versioning.
//
// Bucket policies cannot demand an encryption. A backend cannot add to the engine's
// condition keys, so PutBucketPolicy answers MalformedPolicy to
// s3:x-amz-server-side-encryption, s3:x-amz-server-side-encryption-aws-kms-key-id and
// s3:x-amz-server-side-encryption-customer-algorithm. A bucket's configuration sets the
// default and blocks customer keys, and the key service decides who may use which key.
//
// [versitygw]: https://github.com/versity/versitygw
package s3gateway
