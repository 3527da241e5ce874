// Package s3gateway is an S3 server that encrypts: any S3 client that talks to it
// gets S3's server-side encryption, over plain files or over another S3 server.
//
// The server is [versitygw], the engine: it has the HTTP, the signatures, accounts,
// policies and versions. A [Gateway] is a backend for it that stands in front of
// another one, the inner store, encrypts what goes in and decrypts what comes out:
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
// Every object is, in SSE-S3 unless the request or the bucket's configuration
// (?encryption) says SSE-KMS or SSE-C. In SSE-KMS, the key service sees the
// authenticated user as the [kms.Principal]: its policies decide, and its audit
// trail names user, key and object. Customer keys need TLS, and a bucket whose
// configuration allows them.
//
// Objects lie in the store as package stored says, so that package blob, its jobs
// and the command line read them. The envelope in the object decides whether it is
// encrypted, never its metadata. An object that is not is refused, unless
// [Options] allow it.
//
// Names, metadata, tags and sizes are not encrypted. Neither are the checksums that
// the store keeps for clients, nor the ETag of an object of SSE-S3, which is the
// plaintext's MD5 and stays if UpdateObjectEncryption moves the object to SSE-KMS: an
// attacker who reads the store can test a guess at an object's content.
// Lists and HEAD compute an object's size from that of the stored one. Only reading the
// object proves it.
// An empty object whose key ends in a slash is stored as a directory.
//
// # Uploads in parts
//
// An upload becomes a composite object of package sse: each part of the client is a
// part of the inner store, one more part is the trailer, and completing the upload
// moves nothing else. A last part below 5 MiB takes 5 MiB. The state of uploads is
// in the store, in [Options].StateBucket: any gateway continues what another one has
// begun, and the configuration of buckets is there, too.
//
// GetObjectAttributes lists the parts with numbers and sizes, but not their checksums,
// which the gateway does not keep, nor PartsCount, for which the engine has no field.
//
// # Over another S3
//
// [OpenS3] makes another S3 server the inner store. Responses
// then have no checksums, as the server knows only those of ciphertext, and ETags
// that are the MD5 of ciphertext get the suffix "-1": clients would take them for the
// plaintext's. POST Object is NotImplemented there. Object lock is the server's own
// business: the engine does not pass it on. A server must refuse a body that ends early,
// as S3 does; versitygw, for one, stores what came of it.
//
// # Copies
//
// A copy has the stored body of its source and an envelope of its own: the source's key
// opens the data key, and the copy's seals it. A copy of an object onto itself that names
// an encryption is the rewrap. A store of files copies the body. Another S3 server copies
// bodies of at least 8 MiB: all of an object that was uploaded in parts, and all but 5 MiB
// of any other. Shorter bodies, and those on a server that copies no parts, pass through
// the gateway as ciphertext. Only plain objects, and copies that ask for a checksum which
// the source does not have, pass through in plaintext.
//
// Over files, a copy in SSE-S3 keeps the ETag of its source. A copy in another mode gets an
// ETag that tells nothing of the plaintext. Another S3 server makes its own ETags, of
// ciphertext. An object and its copies share a data key. To get another one, upload the
// object again.
//
// UpdateObjectEncryption, which is PUT of ?encryption of an object, moves an object to
// another key of the key service: it replaces the envelope, and the object keeps its body,
// metadata, tags and checksums. Over files it also keeps the modification time and the
// ETag, so the plaintext's MD5 goes along from SSE-S3 to SSE-KMS until the object is copied.
// See [Gateway.UpdateObjectEncryption].
//
// # Clients
//
// aws-cli, boto3, the AWS SDK for JavaScript, minio-go, rclone, s3cmd and mc are tested in
// each mode, over both kinds of inner store; internal/testbed/s3clients lists what each
// cannot do. Clients that sign URLs by version 2, as s3cmd does, must sign otherwise: the
// engine knows version 4.
//
// # What is not implemented
//
// S3 Select is NotImplemented, and so is UpdateObjectEncryption in a bucket with
// versioning.
//
// Bucket policies cannot demand an encryption. The engine has a fixed set of condition
// keys, to which a backend can add none: PutBucketPolicy answers MalformedPolicy to
// s3:x-amz-server-side-encryption, s3:x-amz-server-side-encryption-aws-kms-key-id and
// s3:x-amz-server-side-encryption-customer-algorithm. A bucket's configuration sets the
// default and blocks customer keys, and the key service decides who may use which key.
//
// [versitygw]: https://github.com/versity/versitygw
package s3gateway
