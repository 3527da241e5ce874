// Package audit records every use of a key, and detects edits of the records.
//
// Put a client from [NewClient] in front of a cache or a key service. It writes
// a [Record] for each use, then returns the result: no record, no key.
//
//	sink, err := audit.OpenFileSink("/var/log/photos/audit.jsonl", nil)
//	...
//	client := audit.NewClient(kms.NewCache(service, nil), sink)
//
// # The trail
//
// A [FileSink] writes JSON Lines, each with the hash of the line before.
// [Verify] finds lines that were edited, removed, moved or cut off, and names the
// first. [Read] returns the records. [NewSlogSink] writes to a log instead, which
// detects nothing.
//
// The hashes have no key, so whoever can write the files can also rewrite all
// hashes. Keep an [Anchor] where they cannot reach it.
//
// # Compatibility
//
// The JSON of records, the format of the files and the error codes are stable.
// Error texts are not.
package audit
