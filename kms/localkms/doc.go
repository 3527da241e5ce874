// Package localkms is an embedded key service: keys with permissions, rotation
// and an audit trail, for programs that have no key service to call.
//
// [Open] opens a service in a [keyring.Store], such as a file, under a root as
// package keyring has them. [Service.Client] returns the service as one account
// sees it in one region. A [Client] is a [kms.Client]; put it behind
// cache.New and [audit.NewClient] like any other. Its other methods create
// and administer keys.
//
//	store, err := keyring.NewFileStore("kms.blobseal")
//	root, err := keyring.NewKeyRoot(rootKey)
//	service, err := localkms.Create(ctx, store, root, nil)
//	client, err := service.Client("", "")
//	mode, err := sse.NewKMS(client, localkms.DefaultAlias, nil)
//
// # Keys
//
// A key has a random id, a UUID. Its full name is
// arn:blobseal:kms:REGION:ACCOUNT:key/ID. Its material is 32 random bytes per
// version: the newest version encrypts, all versions decrypt, and the id stays.
// [Client.EnableKeyRotation] rotates on a schedule, [Client.RotateKey] on demand.
//
// An alias is another name for a key. [DefaultAlias] names the default key, which
// each account gets in each region when it first uses the alias.
//
// A disabled key serves nobody until it is enabled. [Client.ScheduleKeyDeletion]
// stops a key and deletes it after 7 to 30 days. Then the store no longer holds
// its material, and nothing that it encrypted can be read.
//
// # Permissions
//
// The caller is the [kms.Principal] in ctx. Your program authenticates callers and
// sets it; the service believes it. The service decides in this order whether a
// principal may do an operation with a key:
//
//  1. What the service's policy (Options.Policy) or the key's policy
//     ([Client.PutKeyPolicy]) forbids is denied.
//  2. If the key has a policy, what that policy permits is allowed. Otherwise
//     clients of the key's own account may do what the service's policy permits,
//     or everything if the service has no policy.
//  3. What a grant permits is allowed.
//  4. Everything else is denied.
//
// So without any policy, a program may use all keys of the account that it asks
// for. A key with a policy denies what nobody permits, and an explicit forbid
// always wins. Only a key's own policy and its grants let other accounts in. They
// name principals by id, whatever account the principal uses; a policy that means
// one account says so with context.account. CreateKey, ListKeys and
// ListAliases have no key: the service's policy alone decides.
//
// If principals bring keys of their own, set Options.Policy. Keys without a policy,
// such as default keys, are open to every principal of their account, and to
// callers without a name.
//
// # Policies
//
// Policies are written in Cedar (https://docs.cedarpolicy.com):
//
//   - principal is Principal::"ID", with the attributes id and type.
//   - action is Action::"NAME", where NAME is an operation such as
//     GenerateDataKey. Each action is in one of the groups Action::"Use",
//     Action::"View" and Action::"Administer".
//   - resource is Key::"UUID", with the attributes id, arn, account, region,
//     default and tags, in Account::"ACCOUNT". For operations without a key,
//     resource is the Account.
//   - context.encryptionContext holds the encryption context; context.account and
//     context.region are those of the client.
//
// For example, one principal writes what another reads, within one team:
//
//	permit (principal == Principal::"writer", action == Action::"GenerateDataKey", resource)
//	when { context.encryptionContext has team && context.encryptionContext.team == "red" };
//	permit (principal == Principal::"reader", action == Action::"Decrypt", resource);
//	permit (principal == Principal::"admin", action in [Action::"View", Action::"Administer"], resource);
//
// One rule is stricter than Cedar's: a forbid that cannot be evaluated, because it
// reads a pair or a tag that is missing, forbids. Test with "has" first.
//
// # Grants
//
// [Client.CreateGrant] permits a principal to use a key without a change of the
// key's policy, and only with a certain encryption context if you say so. An
// administrator of the key revokes the grant; the principal itself, or another one
// that the grant names, may retire it.
//
// # Audit
//
// Every operation except the two of [kms.Client] leaves a record in
// Options.Audit, refused ones included; [audit.NewClient] records the two. An
// operation that changes a key is recorded before it is stored. If the change then
// does not happen, a second record with the same request id says why.
//
// Rotations and deletions by schedule, RotateKey and DeleteKey, are
// recorded under the principal "localkms". If several processes find the same
// one due, the process that does it leaves one record, and the others take theirs
// back with a second one.
//
// # Processes
//
// The service is one encrypted document in the store, replaced by
// compare-and-swap. Any number of processes may open it, and a process that is
// killed leaves the old document or the new one. Keys are used from memory. A
// change takes effect at once in its own Service, and in other processes after
// Options.RefreshInterval, a second by default, or within a tenth of a second in
// [Service.Run] if the store is a [keyring.Watcher]. Keys and versions created
// elsewhere are found at once. While the store cannot be read, keys are used for
// Options.MaxStaleness more, a minute by default, and changes fail.
//
// Ten thousand keys take about 2.5 MiB and open in less than a second. Each change
// rewrites them all, in about 50 ms: do not create a key per object. Options.Quota
// bounds what each account holds, and these limits what one key does:
//
//   - 1,000 versions, 1,000 grants and 50 tags
//   - a description of 8,192 bytes; tags with names of 128 bytes and values of 256
//   - a policy of [MaxPolicy] bytes
//   - grants with names of 255 bytes, to principals with ids of 2,048 bytes
//   - encryption contexts of 8,192 bytes, and of 4,096 bytes in a grant: the bytes
//     of all names and values, plus 8 for each pair
//
// The document has up to 32 MiB, or what the store takes if that is less: the result of
// its method MaxSize() int, or [keyring.MaxDocumentSize] without one. A full document
// refuses changes with [ErrFull], except that space is reserved for changes that take
// power away: a key can always be disabled.
//
// # Clocks
//
// Each process deletes and rotates keys by its own wall clock. A clock that goes
// back delays the schedule; a key that was seen past its deadline stays gone. A
// clock that is far ahead deletes early, which cannot be undone. On machines that
// start without the time, wait for it before you open a service.
//
// # Recovery
//
// Back up the document after changes, and the root separately. Without either,
// everything that the keys encrypted is lost. A backup from before a deletion still
// holds the deleted key.
//
// A store can lose its last writes, for example when a database fails over. A
// process that knows the lost changes merges them into the store when it next
// refreshes, and logs that. Nothing that was taken away comes back: disabled keys
// stay disabled, revoked grants revoked, deleted keys deleted. If two processes
// changed one key's policy independently, both policies apply until an
// administrator puts one, and the log says so. Two exceptions: a change that no
// running process knows is lost, and a process that starts on a document from
// before [Client.CancelKeyDeletion] deletes the key once its deadline has passed.
package localkms
