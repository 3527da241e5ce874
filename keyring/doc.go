// Package keyring keeps the master keys of a service that encrypts what it
// stores, and rotates them.
//
// # Rings
//
// A [Ring] holds versions of one master key. The newest is the primary: it
// seals the data keys of new objects. The others open the objects that they
// sealed, each named by its id, never by trial. [Open] opens a ring, or with
// Options.Create makes one; [Ring.Primary] and [Ring.Key] give out versions.
// Those hold a key-encryption key that is derived from the master key; the
// master keys themselves never leave the document.
//
// A ring is one document of a few kilobytes: a Tink keyset, encrypted, and
// beside it in the clear, but authenticated, the ring's id, a generation
// counter, the rotation period, and each version's id, state and times. Each
// change replaces the whole document by compare-and-swap.
//
// # Roots
//
// The root encrypts the document. Any tink.AEADWithContext will do:
//
//   - [NewKeyRoot], a key of 32 bytes from wherever the service keeps secrets
//     ([ParseKey] reads it);
//   - [NewPassphraseRoot], for a passphrase that someone types;
//   - [NewKMSRoot], a key in any key service that is a kms.Client: the vendors'
//     (packages awskms, gcpkms, azurekms and vaultkms), Tink's integrations (package
//     tinkkms) or the embedded one (package localkms);
//   - a Tink AEAD of one's own. One that is a key service's needs
//     aead.NewKMSEnvelopeAEADWithContext around it, since many services encrypt
//     no more than 4 KiB, which is some 35 versions.
//
// Where there is a key service, a key in it is the best root: no process has it,
// and who may open the ring is decided, and can be recorded, there. Where there
// is not, take a key. A passphrase is for rings that a person opens.
//
// The root is asked whenever the document has changed, and not in between: a
// ring goes on while its key service is away. [Ring.ChangeRoot] replaces it, also
// by one of another kind. While several processes run, each calls it: the first
// writes, and the others are told. One that was left out goes on with what it had,
// and logs [ErrRoot] whenever it refreshes. Leave a root before its key is disabled.
//
// # Stores
//
// A [Store] keeps the document where every process of the service sees it:
//
//   - [FileStore], for the processes of one machine;
//   - package sqlstore, in a table of PostgreSQL or SQLite;
//   - package etcdstore, under a key of etcd;
//   - [MemStore], for tests;
//   - others that package keyringtest can prove.
//
// A store that is a [Watcher] too tells [Ring.Run] at once what other processes
// change.
//
// # Rotation
//
// A primary older than the ring's period is replaced, by whichever process
// first has need of it or by [Ring.Run], and [Ring.Rotate] does so at once. A new
// version is in the store before it seals anything, and processes that rotate at
// once make one version. A process that meets an id that it does not know loads
// the document. Old versions stay enabled and keep opening old objects; no
// object is encrypted anew. While the store fails, the old primary stays in use, until
// it is older than Options.HardAge.
//
// Ages are measured by the wall clocks of the processes. A version made by a
// clock that is ahead does not age until the others reach its time of creation.
//
// A ring is rolled back when someone puts an older document in its place. An
// open Ring refuses that, with [ErrRollback], also once others have opened the old
// document and changed it: it keeps the versions that this lacks. A process that
// starts cannot know, and opens what it finds.
//
// # States
//
// [Ring.SetState] disables a version, and everything that it sealed, until it is
// enabled again, or destroys it, for ever. It takes effect in other processes
// when they next refresh, so services that rely on it call Run. A [Key] that was
// given out before works as long as it is held.
//
// Destroying a version makes its objects unreadable only once every copy of the
// older documents, or every copy of their roots, is gone as well: backups of
// the document hold the version that was destroyed after they were made.
//
// # What to keep, and what its loss costs
//
//   - The document. Without it every object is lost, whoever has the root. Back
//     it up after each rotation: a backup lacks the versions that were made
//     after it, and what they sealed is lost with them. It is encrypted, and safe
//     to copy at any time.
//   - The root. Without it the document is noise, and every object lost. Keep a
//     copy apart from the document: who has both can open every object that they
//     can read.
//   - Neither is needed to read objects in the other modes, SSE-KMS and SSE-C.
//
// A process that runs is a rescue, so do not restart it in haste. It has all the
// versions in memory that it knew: if a document was lost or an old one restored,
// it still opens what they sealed, and can rewrap that under another ring. And it
// has its root, if that is a key or a passphrase: where that was lost, ChangeRoot
// moves to one that is kept.
//
// Whoever may write to the store cannot read or forge keys, but can delete the
// ring or put an old document back.
package keyring
