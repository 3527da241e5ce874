// Package audit records every use of a key, and detects edits of the records.
//
// Put a client from [NewClient] in front of a cache or a key service. It writes
// a [Record] for each use, then returns the result: no record, no key.
//
//	sink, err := audit.OpenFileSink("/var/log/photos/audit.jsonl", nil)
//	...
//	client := audit.NewClient(cache.New(service, nil), sink)
//
// # The trail
//
// A [FileSink] writes JSON Lines, each with the hash of the line before.
// [Verify] finds lines that were edited, removed, moved or cut off, and names the
// first. [Read] returns the records. [NewSlogSink] writes to a log instead, which
// detects nothing.
//
// The hashes have no key, so an attacker who can write the files can recompute all
// hashes after an edit. Two measures detect that:
//
//   - Give the sink a [Signer], and [Verify] the verifier key. The trail then
//     contains signed checkpoints, which the attacker cannot forge. Keep the signer
//     key out of the attacker's reach.
//   - Keep an [Anchor], such as [FileSink.Last], on another machine. An anchor also
//     detects that the end of the trail was cut off, which a signature cannot.
//
// # Compatibility
//
// The JSON of records, the format of the files and the error codes are stable.
// Error texts are not.
package audit
