// Package kms is how blobseal uses a key service: the contract of its clients,
// a cache in front of them, and the audit trail of every use of a key.
//
// # The contract
//
// A key service keeps keys that never leave it. It makes a data key, which it
// returns twice: in the clear, for use, and encrypted under one of its keys, for
// storage. Later it turns the encrypted one back. A [Client] is that and no more:
//
//	GenerateDataKey(ctx, keyID, ec)        -> data key: plaintext, ciphertext, id of the key
//	Decrypt(ctx, keyID, ciphertext, ec)    -> plaintext
//
// The encryption context ([Context]) is bound to the ciphertext: pairs of text
// that must be given again, exactly. It is no secret. The ctx carries who asks
// ([WithPrincipal]) and what for ([WithResource]): a service decides by the first,
// and the audit trail shows both.
//
// Errors are of few kinds, the same for every service: [ErrNotFound],
// [ErrDisabled], [ErrPendingDeletion], [ErrDenied], [ErrCiphertext], [ErrInvalid],
// and [ErrUnavailable], which alone may be tried again. [ErrorCode] names them.
//
// Clients are in the packages below: localkms is a key service embedded in the
// process, tinkkms uses what Tink has an integration for, and the vendors' have
// modules of their own. Package kmstest tests a client against this contract, and
// has a fake service for the tests of those who use one.
//
// # Layers
//
// [NewCache] and [NewAudited] are clients in front of a client. Together they
// belong in this order, so that the trail shows every use, and which of them a
// cache answered:
//
//	sink, err := kms.OpenFileSink("/var/log/photos/audit.jsonl", nil)
//	...
//	client := kms.NewAudited(kms.NewCache(service, nil), sink, nil)
//
// The cache makes of a call for each object one call for each principal, key and
// context in five minutes: what S3 calls Bucket Keys. It never answers one
// principal with what another was given. In front of a service that is an
// [Authorizer], as the embedded one is, it asks for permission on each use, so
// that disabling a key works at once; otherwise within its time limit.
//
// An audited client hands out a result when its [Record] is written, and not
// before: no record, no key. A wrapper of your own, for metrics say, forwards
// Authorize, or has Unwrap() Client.
//
// # The audit trail
//
// A [FileSink] writes records as JSON Lines, each with the hash of the one before.
// [VerifyFile] finds what was edited, removed, moved or cut, and names the first
// of it; [ReadFile] returns the records. A chain of hashes has no key: keep an
// [Anchor] where the writer of the trail cannot reach it, or whoever can write the
// files can write them anew.
//
// # What is not promised
//
// The names and the JSON of records, the form of the audit file, and the kinds of
// errors and their codes are kept stable. Texts of errors are not.
package kms
