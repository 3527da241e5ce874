// Package localkms is a key service within the process: keys with permissions,
// rotation and an audit trail, for programs that have no key service to call.
//
// [Open] opens a service in a [keyring.Store], such as a file, under a root key
// or passphrase as package keyring has them. [Service.Client] is the service as
// an account sees it in a region. A [Client] is a [kms.Client], so it goes
// wherever another key service goes, behind [kms.NewCache] and [audit.NewClient]
// as well; its other methods make and administer keys.
//
//	store, err := keyring.NewFileStore("kms.blobseal")
//	root, err := keyring.NewKeyRoot(rootKey)
//	service, err := localkms.Open(ctx, store, root, &localkms.Options{Create: true})
//	client, err := service.Client("", "")
//	mode, err := sse.NewKMS(client, localkms.DefaultAlias, nil)
//
// # Keys
//
// A key has a random id, a UUID, which also names it as
// arn:blobseal:kms:REGION:ACCOUNT:key/ID. Its material are 32 random bytes, and
// more with each rotation: the newest version encrypts, all decrypt, and the id
// stays. [Client.EnableKeyRotation] rotates on a schedule, [Client.RotateKey]
// on demand.
//
// An alias is another name of a key. [DefaultAlias] is the name of a default key,
// which each account has in each region once it has used it.
//
// A disabled key serves nobody until it is enabled. [Client.ScheduleKeyDeletion]
// stops a key, and after 7 to 30 days deletes it: its material is gone from the
// store, and so is all that it encrypted.
//
// # Permissions
//
// Who asks is the [kms.Principal] in ctx. A program sets it from its own
// authentication; the service believes it. Whether a principal may do an
// operation with a key is decided in this order:
//
//  1. What the service's policy (Options.Policy) or the key's policy
//     ([Client.PutKeyPolicy]) forbids is denied.
//  2. If the key has a policy, what that permits is allowed.
//     Otherwise clients of the key's own account may do what the service's policy
//     permits, and everything if the service has none.
//  3. What a grant permits is allowed.
//  4. Everything else is denied.
//
// So without any policy a program may use all its keys, one account's
// apart from another's; a key with a policy denies what nobody permits; and an
// explicit forbid beats everything. Only a key's own policy and its grants let
// other accounts in. They name principals by their ids, which are those of all
// accounts: a policy that means one account alone says so, by context.account.
// [OpCreateKey], [OpListKeys] and [OpListAliases] have no key: the service's
// policy decides alone, and without one they are allowed.
//
// A service with keys of its own principals should bring a policy: keys without
// one, such as default keys, are open to every principal of their account, the
// nameless one included.
//
// # Policies
//
// Policies are written in Cedar (https://docs.cedarpolicy.com). In them
//
//   - principal is Principal::"ID", with the attributes id and type;
//   - action is Action::"NAME" by the names of the operations, such as
//     Action::"GenerateDataKey", each in one of the groups Action::"Use",
//     Action::"View" and Action::"Administer";
//   - resource is Key::"UUID", with the attributes id, arn, account, region,
//     default and tags, in Account::"ACCOUNT"; for operations without a key it
//     is the Account;
//   - context.encryptionContext has the pairs of the encryption context, and
//     context.account and context.region are those of the client that asks.
//
// One principal that writes what another reads, within one team:
//
//	permit (principal == Principal::"writer", action == Action::"GenerateDataKey", resource)
//	when { context.encryptionContext has team && context.encryptionContext.team == "red" };
//	permit (principal == Principal::"reader", action == Action::"Decrypt", resource);
//	permit (principal == Principal::"admin", action in [Action::"View", Action::"Administer"], resource);
//
// In one thing this is stricter than Cedar: a forbid that cannot be evaluated,
// since it reads a pair or a tag that is not there, forbids. Ask with "has" first.
// A permit that cannot be evaluated permits nothing, as ever.
//
// # Grants
//
// [Client.CreateGrant] permits a principal to use a key without a change of its
// policy, within an encryption context if wanted. Whoever administers the key
// revokes it; the principal itself, or one appointed to it, may retire it.
//
// # Audit
//
// Every operation except the two of [kms.Client] leaves a record in
// Options.Audit, refused ones included; [audit.NewClient] records the two. An operation
// that changes a key is recorded before it is stored. If the change then does not
// happen, a second record with the same request id says why.
//
// Rotations and deletions by schedule, [OpRotateKey] and [OpDeleteKey], are
// recorded under the principal "localkms". If several processes find the same
// one due, the process that does it leaves one record, and the others take theirs
// back with a second one.
//
// # Processes
//
// Everything is one document, replaced by compare-and-swap: any number of
// processes may have the service open, and one that is killed leaves the old
// document or the new one. Keys are used from memory, without a lock. A change
// holds at once within its Service, and in other processes after
// Options.RefreshInterval, a second. If the store tells of changes, as
// [keyring.Watcher] has it, a change holds after a tenth of a second in those that
// are in [Service.Run]. A key or a version that was made elsewhere is found at
// once. While the store cannot be read, keys are used for Options.MaxStaleness
// more, a minute; changes fail.
//
// Ten thousand keys take some 2.5 MiB and open in a few hundredths of a second.
// Each change writes them all, in some 50 ms: this is not a service for keys that
// come and go by the second. The bounds are [MaxDocumentSize], [MaxVersions],
// [MaxGrants], [MaxTags], [MaxPolicy] and their like, and Options.Quota for each
// account. A document that is full refuses changes with [ErrFull], but a part of
// it is kept for changes that take power away: a key can always be disabled.
//
// # Clocks
//
// Keys are deleted and rotated by the wall clock of the process that finds it due.
// A clock that goes back delays what is to come and undoes nothing: what was
// deleted, or was seen past its deadline, stays so. A clock that is far ahead
// deletes early what was scheduled to be deleted, and cannot be undone; so is the
// window shorter that begins by a clock which is behind. On machines that start
// without the time, wait for it before a service is opened.
//
// # What to keep
//
// The document and the root, as package keyring says of a ring: without either,
// everything that the keys encrypted is lost. A copy of the document from before a
// deletion still holds the key that was deleted. Whoever can write to the store
// can put an old document back: an open Service refuses it, with
// [keyring.ErrRollback], and also what others made of it, if that lacks a key or a
// version that the Service knows; one that starts cannot know.
package localkms
