// Package kms is the contract between blobseal and a key service.
//
// A key service keeps keys that never leave it. A [Client] asks it for data keys:
//
//	GenerateDataKey(ctx, keyID, ec)      -> a new data key, in the clear and encrypted
//	Decrypt(ctx, keyID, ciphertext, ec)  -> the data key in the clear
//
// The encryption context ec is bound to the ciphertext: Decrypt needs the same
// pairs. It is not secret. ctx carries the caller's identity ([WithPrincipal]),
// by which the service decides, and what the key is used for ([WithResource]).
//
// # Clients
//
// Package localkms is a key service inside your process. Package tinkkms uses any
// Tink integration. The modules awskms, gcpkms, azurekms and vaultkms talk to the
// vendors' services. To write your own, test it with package kmstest.
//
// Package cache puts a cache in front of a service, and package audit a trail that
// records every use of a key:
//
//	client := audit.NewClient(cache.New(service, nil), sink)
//
// If you wrap a Client, for example to count calls, forward Authorize and SameKey or
// add a method Unwrap() Client.
//
// # Errors
//
// Every service reports the same kinds of errors: [ErrNotFound], [ErrDisabled],
// [ErrPendingDeletion], [ErrDenied], [ErrCiphertext], [ErrInvalid] and
// [ErrUnavailable]. Retry only on ErrUnavailable. The kinds are stable; error
// texts are not.
package kms
