// Package azurekms makes a [kms.Client] of the keys in an Azure Key Vault or a
// Managed HSM, over Azure's own client.
//
//	credential, err := azidentity.NewDefaultAzureCredential(nil)
//	...
//	keys, err := azkeys.NewClient("https://photos.vault.azure.net", credential, nil)
//	...
//	client, err := azurekms.New(keys, nil)
//	...
//	mode, err := sse.NewKMS(client, "photos-key", nil)
//
// The client keeps its credential, cloud, transport, retries and logs.
//
// # What is bound, and by whom
//
// Key Vault wraps and unwraps keys, and that is all: it makes no data keys and has
// no associated data. So the encryption context is bound here. A data key's
// ciphertext is in two layers: a random wrapping key of its own, which Key Vault
// wraps; and the data key, sealed under the wrapping key together with its context,
// as a message of c2sp.org/chunked-encryption@v1 like everything that blobseal
// seals. Another context, another key and a changed byte are [kms.ErrCiphertext],
// as with services that bind contexts themselves, and the object's own seal in
// package sse binds it once more.
//
// What Key Vault does not see, it can neither decide by nor write down: its roles
// and logs know the key, the caller and the operation, and no context. Put
// [audit.NewClient] in front to have contexts in a trail.
//
// With an RSA key, who may read the public key can wrap without asking: Azure
// says so of its own roles. Then whoever has it and can also write to the object
// store can make objects that open. They cannot read any, nor change one that
// exists without replacing it. Where that matters, use a symmetric key of a Managed
// HSM ([Options.Algorithm]), or keep the permission to read keys (get) and the
// store apart.
//
// # Keys, versions and ids
//
// The id of a key is what Azure calls its identifier, with the version:
//
//	https://photos.vault.azure.net/keys/photos-key/0123456789abcdef0123456789abcdef
//
// Objects store it, so that a rotation leaves them as they are: Key Vault keeps the
// old versions, and each object is opened by its own. New data keys may be asked
// for by the identifier with or without the version, by "photos-key" for the newest
// version, or by "photos-key/VERSION". The ciphertext names the version too, so
// that these names decrypt as well. Use one with a version to hold on to it.
//
// A client asks its own vault only, whatever an id says, and tells by the answer
// whether the id was of this vault: one of another is [kms.ErrNotFound]. A backup
// of a key that was restored into another vault keeps name and versions: a client
// of that one opens the objects of the first with [Options.FormerVaults].
//
// # Roles
//
// "Key Vault Crypto Service Encryption User" on the key or the vault (in a Managed
// HSM "Managed HSM Crypto Service Encryption User") allows what this package does,
// and reading the key, which it does not do. To tell who encrypts from who
// decrypts, make roles of one action each:
//
//	Microsoft.KeyVault/vaults/keys/wrap/action    GenerateDataKey
//	Microsoft.KeyVault/vaults/keys/unwrap/action  Decrypt
//
// With access policies these are wrapKey and unwrapKey. The key's own key_ops must
// have them. Azure decides by the credential: the principal in ctx
// ([kms.WithPrincipal]) is for caches and the audit trail, and Azure does not see it.
//
// # Errors, retries and time
//
// A disabled key, and one before or after its validity, is [kms.ErrDisabled]; an
// expired key still unwraps. A deleted key is [kms.ErrNotFound], also while it can
// be recovered, since Azure says the same of both. Other 403s and 401s are
// [kms.ErrDenied]. Throttling (429), failures (5xx), a vault out of reach, a
// credential that gives no token and an answer that is not Azure's are
// [kms.ErrUnavailable]. Other refusals are [kms.ErrCiphertext] of Decrypt and
// [kms.ErrInvalid] of GenerateDataKey. Azure's own error is there for [errors.As].
//
// The SDK tries again as it is configured: by default three times, after 0.8
// seconds and more, and as long as Azure asks. This package adds no attempts. ctx
// bounds all of them and the pauses between. The SDK has callers wait for a token
// that another of them fetches, without regard to ctx; a call whose ctx ends
// meanwhile returns nevertheless, and a goroutine waits for the SDK and clears what
// it returns.
//
// The SDK's log of bodies (policy.LogOptions.IncludeBody) would hold keys: leave it
// off.
package azurekms
