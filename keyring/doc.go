// Package keyring stores and rotates master keys.
//
// A [Ring] holds versions of one master key. The newest, the primary, seals
// new data keys; older ones open what they sealed.
//
// A ring is one encrypted document in a [Store]: [NewFileStore] for one machine,
// packages sqlstore and etcdstore for a fleet. Any number of processes may
// share it. [Create] makes a ring once, for example with the command blobseal
// ring create; a service only calls [Open].
//
// # Roots
//
// A root encrypts the document. If you have a key service, use [NewKMSRoot]:
// its permissions decide who opens the ring. Otherwise use [NewKeyRoot], or
// [NewPassphraseRoot] if a person opens the ring. An open ring needs its root
// only when the document changes. To replace a root, call [Ring.ChangeRoot]
// in every running process before you disable the old key.
//
// # Rotation
//
// [Ring.Run], or the next use, replaces a primary older than the period, 90
// days by default. Objects are not re-encrypted. While the store is down, the
// old primary stays in use until Options.HardAge. A process that lives for
// seconds calls [Ring.RotateIfDue].
//
// [Ring.SetState] disables or destroys a version. Other processes learn of it
// when they refresh, so call Run in each. Backups still hold a destroyed
// version: destroy them, or their roots, too.
//
// Each process measures ages by its own clock. It replaces a primary that was created
// more than ten minutes in the future. A process whose clock is ahead cannot tell that
// from a ring that nobody used for years, so it rotates once.
//
// # Recovery
//
// Back up the document after every rotation, and the root separately. SSE-S3
// objects need both. Options.Backup gets each document before its new version
// seals anything.
//
// A store can lose its last writes: in a failover, when a backup is restored, or
// because someone puts an old document back. A process that knows more merges its
// own document into the stored one, writes the result, and logs that as an error.
// So no version is lost, and no disabled or destroyed version comes back. If the
// process cannot write, it keeps sealing for 30 seconds under a version that the
// store lacks, and then refuses.
//
// A version is lost if every process that knew it ends before one of them can write
// it back, and no backup has it. So if you lose the store or the root, do not restart
// running processes. [Ring.Document] saves the ring, and if the lost root was a key
// or passphrase, ChangeRoot replaces it.
//
// To go back to an old document on purpose, stop every process first.
package keyring
