// Package azurekms uses the keys of an Azure Key Vault or Managed HSM.
//
//	credential, err := azidentity.NewDefaultAzureCredential(nil)
//	...
//	keys, err := azkeys.NewClient("https://photos.vault.azure.net", credential, nil)
//	...
//	client, err := azurekms.New(keys, nil)
//	cipher, err := sse.NewKMS(client, "photos-key", nil)
//
// Azure's client decides on credential, cloud, transport and retries. Azure sees only
// its credential: the principal in ctx is for blobseal's own audit trail.
//
// # Keys
//
// Name a key as "photos-key" for its newest version, as "photos-key/VERSION", or by its
// identifier, with or without version:
//
//	https://photos.vault.azure.net/keys/photos-key/0123456789abcdef0123456789abcdef
//
// Envelopes store the identifier with the version. All versions of a key are one
// key: after a rotation, new objects use the new version and old ones open under
// theirs, whichever name you set.
//
// A client asks its own vault only, whatever an id says. An id of another vault is
// [kms.ErrNotFound]. If you restored keys from another vault, which keeps their names and
// versions, name that vault in [Options.FormerVaults].
//
// # Encryption context
//
// Key Vault wraps keys. It makes no data keys and binds no context, so this package
// binds it: Key Vault wraps a random key, which is used once, and [kms.SealDataKey]
// seals the data key and its context under that. Azure's roles and logs see key, caller and
// operation, but no context. To record contexts, use package kms/audit.
//
// Whoever may read the public key of an RSA key can wrap without asking Azure. If they
// can also write to the object store, they can plant objects that open. They cannot
// read objects. To prevent that, use a symmetric key of a Managed HSM
// ([Options.Algorithm]), or let nobody read keys (the permission get) who can write
// to the store.
//
// # Roles
//
// "Key Vault Crypto Service Encryption User", for a Managed HSM "Managed HSM Crypto
// Service Encryption User", allows what this package does, and reading keys, which it
// does not do. To tell writers from readers, make roles with one action each:
//
//	Microsoft.KeyVault/vaults/keys/wrap/action    GenerateDataKey
//	Microsoft.KeyVault/vaults/keys/unwrap/action  Decrypt
//
// In access policies, these are wrapKey and unwrapKey. The key's own key_ops must
// include them.
//
// # Errors and retries
//
// A disabled key, and one before or after its validity, is [kms.ErrDisabled]; an
// expired key still unwraps. A deleted key is [kms.ErrNotFound], even while it can be
// recovered, because Azure does not tell the two apart. Throttling, 5xx answers, a
// credential that yields no token and answers that are not Azure's are
// [kms.ErrUnavailable]. Azure's error is wrapped.
//
// The SDK retries as configured: by default three times, after 0.8 seconds and more.
// ctx bounds a call with all its retries. While the SDK waits for a token that another
// call fetches, it ignores ctx. The call returns at the end of ctx all the same, and a
// goroutine stays until the SDK returns.
//
// # Secrets
//
// Leave policy.LogOptions.IncludeBody off: bodies hold keys.
package azurekms
