// Package gcpkms is Google Cloud KMS as a [kms.Client], over Google's own client:
//
//	google, err := kms.NewKeyManagementClient(ctx) // of cloud.google.com/go/kms/apiv1
//	...
//	client, err := gcpkms.New(google)
//	mode, err := sse.NewKMS(client, "projects/p/locations/l/keyRings/r/cryptoKeys/photos", nil)
//
// Credentials, endpoint, time limits and retries are those of Google's client,
// over gRPC or REST. Who asks is whoever its credentials belong to: Google knows
// nothing of the principal in ctx, which is for blobseal's own audit trail. Where
// principals have permissions of their own, give each a client with its
// credentials.
//
// # Data keys
//
// Google Cloud KMS encrypts and makes no data keys. A data key is 32 random bytes
// from this process, which the service encrypts: its plaintext goes out in the
// request where with other services it comes in with the answer.
//
// Keys are of purpose ENCRYPT_DECRYPT and named by their resource names, as above.
// A version of a key is no key here, [kms.ErrInvalid]: Google encrypts under the
// primary version, finds the version of a ciphertext by itself, and so rotates
// keys without anybody's help. [kms.Report] has the version that encrypted; Google
// does not tell which one decrypted. There are no aliases.
//
// # What is bound
//
// The encryption context is the additional authenticated data, as
// [kms.Context.AssociatedData] encodes it. So it is in package tinkkms, whose data
// keys open here by the key's resource name. Google takes 64 KiB of it, and 8 KiB for keys in an
// HSM, where the data key counts too.
//
// Every request has the CRC32C of what it carries, which Google checks and says
// so; every answer is checked against its own. What does not match, or was not
// checked, is refused as [kms.ErrUnavailable], so that no object is written under
// a data key that was damaged on the way. So is an answer of another key.
//
// # Permissions
//
// Writing and rewrapping need cloudkms.cryptoKeyVersions.useToEncrypt on the key,
// of the role roles/cloudkms.cryptoKeyEncrypter; reading and rewrapping need
// cloudkms.cryptoKeyVersions.useToDecrypt, of roles/cloudkms.cryptoKeyDecrypter.
// No condition can be put on the context. A change of a permission takes seconds
// to be seen everywhere, and a version that was disabled may work for hours.
//
// # Errors, retries and time limits
//
// Exhausted quotas, outages, errors on Google's side, time limits of Google's
// client and answers that make no sense are [kms.ErrUnavailable]. A key whose
// version is disabled is [kms.ErrDisabled]; one that is scheduled for destruction,
// destroyed or not yet there [kms.ErrPendingDeletion]; one that does not exist
// [kms.ErrNotFound], or [kms.ErrDenied] for a caller without permission to know.
// Refused credentials are ErrDenied too. Google says of a ciphertext that is
// damaged, or of another key or context, that an argument is invalid: that is
// [kms.ErrCiphertext]. What Google's client returned is wrapped beside the kind.
//
// ctx bounds the whole of a call, with all retries. Google's client tries again
// while the service is down, until ctx ends or, if it has no deadline, for a
// minute: give it a deadline, or a client with other CallOptions.
//
// # Cost
//
// A call is one round trip and one billed operation, and counts against the
// project's quota for cryptographic requests: one for each object that is written
// or opened. [kms.NewCache] in front makes that one for each principal, key and
// context in five minutes. There is no [kms.Authorizer] here, so with a cache a
// disabled key goes on working for that long.
//
// # Secrets
//
// A data key passes through buffers of gRPC and of TLS, which nobody clears.
// Google's client logs whole messages, and so data keys, if its logger is at the
// level debug, as with GOOGLE_SDK_GO_LOGGING_LEVEL=debug: leave that off.
package gcpkms
