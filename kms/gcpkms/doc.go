// Package gcpkms uses the keys of Google Cloud KMS.
//
//	google, err := kms.NewKeyManagementClient(ctx) // of cloud.google.com/go/kms/apiv1
//	...
//	client, err := gcpkms.New(google)
//	cipher, err := sse.NewKMS(client, "projects/p/locations/l/keyRings/r/cryptoKeys/photos", nil)
//
// Google's client decides on credentials, endpoint, time limits and retries, over gRPC
// or REST. Google sees only its credentials: the principal in ctx is for blobseal's own
// audit trail. If your principals have different permissions at Google, give each one
// a client with its own credentials.
//
// # Keys
//
// Name a key of purpose ENCRYPT_DECRYPT by its resource name, without a version.
// Google encrypts under the primary version and finds the version of a ciphertext by
// itself, so a rotation needs nothing from you. [kms.Report] has the version that
// encrypted; Google does not say which one decrypted. There are no aliases.
//
// Google makes no data keys. This package draws 32 random bytes and Google encrypts
// them. Ciphertexts are the same as those of package tinkkms with Google's Tink
// integration, and open there.
//
// # Encryption context
//
// Google binds the encryption context as additional authenticated data, in the
// encoding of [kms.Context.AssociatedData]. It takes up to 64 KiB, or 8 KiB
// together with the data key if the key is in an HSM. IAM conditions cannot test it.
//
// Requests and answers carry CRC32C checksums. If one does not match, or Google did
// not verify it, the error is [kms.ErrUnavailable], so no object is written under a
// data key that was damaged on the way.
//
// # Permissions
//
// To write, a principal needs cloudkms.cryptoKeyVersions.useToEncrypt on the key
// (roles/cloudkms.cryptoKeyEncrypter); to read, cloudkms.cryptoKeyVersions.useToDecrypt
// (roles/cloudkms.cryptoKeyDecrypter); to rewrap, both. A change of a permission takes
// seconds to reach all of Google. A version that was disabled may keep working for
// hours.
//
// # Errors and retries
//
// Exhausted quotas, outages and the time limits of Google's client are
// [kms.ErrUnavailable]. A key whose version is destroyed, or scheduled for that, or not
// generated yet, is [kms.ErrPendingDeletion]. A key that does not exist is
// [kms.ErrNotFound], or [kms.ErrDenied] for a caller who may not know. Credentials that
// Google rejects are ErrDenied. Google answers "invalid argument" to a ciphertext that is
// damaged or of another key or context: that is [kms.ErrCiphertext]. Google's error is
// wrapped.
//
// ctx bounds a call with all its retries. While the service is down, Google's client
// retries until ctx ends, or for a minute if ctx has no deadline: pass a ctx with a
// deadline, or set other CallOptions.
//
// # Cost
//
// Each call is a round trip, a billed operation, and counts against the project's quota.
// Package kms/cache reduces that to one call for each principal, key and context in five
// minutes. The client is no [kms.Authorizer], so a cache serves a disabled key until
// its results expire.
//
// # Secrets
//
// gRPC and TLS do not erase their buffers, which hold data keys. Google's client logs
// whole messages at level debug: do not set GOOGLE_SDK_GO_LOGGING_LEVEL=debug.
package gcpkms
