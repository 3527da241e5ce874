// Package vaultkms uses the keys of the Transit engine of HashiCorp Vault or OpenBao.
//
//	vault, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, ...
//	...
//	client, err := vaultkms.New(vault, nil)
//	cipher, err := sse.NewKMS(client, "photos", nil)
//
// Vault's client decides on token, namespace, TLS, time limits, retries and rate limit.
// Renew its token yourself, with Vault's LifetimeWatcher or an agent. Vault sees only
// the token: the principal in ctx is for caches and blobseal's own audit trail.
//
// # Keys
//
// Make each key with derived=true:
//
//	vault write -f transit/keys/photos derived=true
//
// A derived key binds the encryption context. A key that is not derived ignores it
// without an error, so the client reads a key's description before its first use, every
// five minutes, and after a failure, and refuses a key that is not derived with
// [kms.ErrInvalid].
//
// Name a key by its name or its path: "photos" or "transit/keys/photos". Envelopes
// store the path. A path in another mount is [kms.ErrNotFound]. Transit has no aliases.
// The namespace is that of Vault's client, or the beginning of [Options.Mount].
//
// Transit makes the data keys (datakey/plaintext). The client does not call encrypt,
// which would create a missing key for a token that may.
//
// # Encryption context
//
// Transit derives the key for each data key from the parameter context, which is
// [kms.Context.AssociatedData]. Transit's other parameter, associated_data, would
// not do: requests for data keys do not have it, and Transit's rewrap drops it. Vault's
// audit log shows contexts as HMACs.
//
// # Policies
//
// Writers need, in Vault's ACL:
//
//	path "transit/keys/photos"              { capabilities = ["read"] }
//	path "transit/datakey/plaintext/photos" { capabilities = ["update"] }
//
// Readers need:
//
//	path "transit/keys/photos"    { capabilities = ["read"] }
//	path "transit/decrypt/photos" { capabilities = ["update"] }
//
// Reading a key shows its settings and the ages of its versions, not the key.
//
// # Rotation and deletion
//
// After a rotation (vault write -f transit/keys/photos/rotate, or auto_rotate_period),
// new data keys use the new version. Old versions still decrypt, until
// min_decryption_version passes them: then they are [kms.ErrDisabled], and can be
// enabled by lowering it. A deleted key is [kms.ErrNotFound], for ever. A key that OpenBao has
// soft-deleted is [kms.ErrPendingDeletion]. Transit cannot disable a key otherwise: take
// the permission away.
//
// # Errors and retries
//
// A 403 is [kms.ErrDenied], also for a token that is missing or has expired, and for a
// key that does not exist if the token may not know. A Vault that is sealed, in standby,
// over a quota, failing or out of reach is [kms.ErrUnavailable], and so is an answer that
// is not Vault's. Other refusals are [kms.ErrCiphertext] for Decrypt and [kms.ErrInvalid]
// for GenerateDataKey. Vault's error is wrapped.
//
// Vault's client retries as configured: by default twice, after about a second each,
// for at most 60 seconds. ctx bounds a call with all its retries, but not a look-up of
// SRV records, if the client makes one.
package vaultkms
