// Package vaultkms makes a [kms.Client] of the Transit engine of HashiCorp Vault
// or OpenBao, over Vault's own client.
//
//	vault, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, ...
//	...
//	client, err := vaultkms.New(vault, nil)
//	...
//	mode, err := sse.NewKMS(client, "photos", nil)
//
// The client keeps its token, namespace, TLS, timeouts, retries and rate limit;
// whoever made it renews the token, with Vault's LifetimeWatcher or an agent. Each
// call uses the token of that moment.
//
// # Keys
//
// A key is an AEAD key of Transit that was made with derived=true:
//
//	vault write -f transit/keys/photos derived=true
//
// A derived key is a different one for each context, so that Vault itself binds
// the encryption context of [kms.Context]: another context is
// [kms.ErrCiphertext]. A key that is not derived takes a context, ignores it
// and says nothing. So the client reads each key's description before its first
// use, and again every five minutes and after every failure, and refuses keys that
// are not derived with [kms.ErrInvalid]. Transit's other parameter, the associated
// data, would not do: the request for a data key has none and ignores one, and
// Transit's rewrap drops it.
//
// What Vault gets is what [kms.Context.AssociatedData] returns.
//
// The id of a key is its path, "transit/keys/photos". Its name alone, "photos",
// stands for the key in this client's mount. Objects store the path, and a client
// of another mount says [kms.ErrNotFound] to it rather than to ask a key that
// happens to have the same name. An alias that moves does not exist in Transit: a
// name is a key for as long as that exists. A namespace is the client's or the
// beginning of the mount's path, see [Options].
//
// Data keys are made by Transit (datakey/plaintext), and not here and then
// encrypted: Transit's encrypt makes a key that does not exist, for a token that
// may do so, where datakey refuses; and who may make data keys is a permission of
// its own. Vault's random source, which may be an HSM's, makes them.
//
// # Policies
//
// Who encrypts objects needs, in Vault's ACL:
//
//	path "transit/keys/photos"              { capabilities = ["read"] }
//	path "transit/datakey/plaintext/photos" { capabilities = ["update"] }
//
// Who decrypts them needs:
//
//	path "transit/keys/photos"    { capabilities = ["read"] }
//	path "transit/decrypt/photos" { capabilities = ["update"] }
//
// Reading a key of these types shows its settings and the ages of its versions,
// and no key. Vault decides by the client's token: the principal in ctx
// ([kms.WithPrincipal]) is for caches and the audit trail, and Vault does not see
// it. In Vault's audit log contexts and plaintexts are HMACs.
//
// # Rotation, and the end of keys
//
// Transit keeps the versions of a key. A rotation (vault write -f
// transit/keys/photos/rotate, or auto_rotate_period) gives new data keys the new
// version, whose number is in their ciphertext, "vault:v2:...", and in
// [kms.Report]. Older ones keep opening until min_decryption_version passes them:
// then they are [kms.ErrDisabled], and open again when it is lowered. A key that
// was deleted (which needs deletion_allowed) is [kms.ErrNotFound], for ever. One
// that OpenBao has soft-deleted is [kms.ErrPendingDeletion]. Transit cannot disable
// a key otherwise; take the permission away, which is [kms.ErrDenied].
//
// # Errors, retries and time
//
// A 403 is [kms.ErrDenied], also for a token that is missing or has expired; Vault
// says it of keys that do not exist too, to those who may not know. A 404, and a
// key that Transit does not find, is [kms.ErrNotFound]. Vault that is sealed, in
// standby, over a quota (429), failing (5xx) or out of reach is
// [kms.ErrUnavailable], and so is an answer that is not Vault's. Other refusals
// are [kms.ErrCiphertext] of Decrypt and [kms.ErrInvalid] of GenerateDataKey.
// Vault's own error is there for [errors.As].
//
// The client tries again as it is configured: by default twice, after about a
// second each, and gives up after 60 seconds. This package adds no attempts. ctx
// bounds all of them and the pauses between, but not a look-up of SRV records, if
// the client is told to make them.
package vaultkms
