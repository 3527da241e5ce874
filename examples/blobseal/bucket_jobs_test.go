package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/bucket"
)

func TestBucketRewrapTo(t *testing.T) {
	for name, test := range map[string]struct {
		source, rewrap, target []string
		to                     string
	}{
		"another ring":    {ring, toOther, otherRing, "SSE-S3 version "},
		"key service":     {ring, []string{"--to-kms", "my.kms", "--to-root-key-file", "root.key", "--to-kms-key", "alias/photos"}, photos, "SSE-KMS key arn:"},
		"customer key":    {ring, toCustomer, customer, "SSE-C, a customer key"},
		"customer's new":  {customer, []string{"--to-customer-key-file", "other.key"}, []string{"--customer-key-file", "other.key"}, "SSE-C, a customer key"},
		"another key":     {defaultKey, []string{"--to-kms-key", "alias/photos"}, photos, "SSE-KMS key arn:"},
		"a bucket key":    {photos, []string{"--to-kms-key", "alias/photos", "--to-bucket-key"}, photos, "SSE-KMS key arn:"},
		"new material":    {photos, []string{"--to-kms-key", "alias/photos", "--force"}, photos, "SSE-KMS key arn:"},
		"ring to itself":  {ring, []string{"--force"}, ring, "SSE-S3 version "},
		"from a customer": {customer, []string{"--to-ring", "my.ring", "--to-root-key-file", "root.key"}, ring, "SSE-S3 version "},
	} {
		t.Run(name, func(t *testing.T) {
			album(t, test.source, "a", "b/c")
			ok(t, args("ring", "create", otherRing)...)
			out := ok(t, args("bucket", "rewrap", bucketURL, test.source, test.rewrap)...)
			require.Contains(t, out, "file://./photos: 2 objects rewrapped to "+test.to)
			require.Equal(t, "picture of b/c", get(t, test.target, "b/c"))
			if !strings.Contains(strings.Join(test.rewrap, " "), "--force") {
				again := ok(t, args("bucket", "rewrap", bucketURL, test.source, test.rewrap)...)
				require.Contains(t, again, ": 0 objects rewrapped")
				require.Regexp(t, " 2 (current|unmatched)", again) // unmatched: under another key than --kms-key
			}
			ok(t, args("bucket", "check", bucketURL, test.target)...)
		})
	}
	t.Run("what the filter says", func(t *testing.T) {
		album(t, ring, "a")
		put(t, photos, "b", "x")
		put(t, service, "c", "x")
		keys := lines(t, ok(t, args("bucket", "inventory", bucketURL, "--list", "--json")...))
		out := ok(t, args("bucket", "rewrap", bucketURL, anyKey, toCustomer, "--key-id", keys[1]["key_id"].(string))...)
		require.Contains(t, out, ": 1 object rewrapped")
		require.Contains(t, out, " 2 unmatched")
		out = ok(t, args("bucket", "rewrap", bucketURL, photos, toCustomer)...)
		require.Contains(t, out, ": 0 objects rewrapped", "--kms-key is what objects must be under")
		out = ok(t, args("bucket", "rewrap", bucketURL, ring, toCustomer, "--mode", "SSE-S3", "--mode", "SSE-C")...)
		require.Contains(t, out, ": 1 object rewrapped")
		require.Contains(t, out, " 1 current, 1 unmatched")
	})
}

// TestBucketRewrapOfSeveralModes: what a rewrap leaves alone is named, and what to do.
func TestBucketRewrapOfSeveralModes(t *testing.T) {
	album(t, ring, "a")
	put(t, photos, "b", "x")
	put(t, customer, "c", "x")
	ok(t, args("ring", "rotate", ring)...)
	res := blobseal(args("bucket", "rewrap", bucketURL, ring)...)
	res.fails(t, 1, "file://./photos: skipped 2 objects of other modes than SSE-S3, whose keys are still in use (to move them, run the command with their keys and a target such as --to-ring; to skip them on purpose, give --mode SSE-S3)")
	require.Contains(t, res.out, ": 1 object rewrapped")
	require.Contains(t, res.out, ", 0 unmatched, 2 of other modes, ")
	ok(t, args("bucket", "rewrap", bucketURL, ring, "--mode", "SSE-S3")...)

	res = blobseal(args("bucket", "rewrap", bucketURL, anyKey, "--to-kms-key", "alias/blobseal/default")...)
	res.fails(t, 1, "skipped 2 objects of other modes than SSE-KMS")
	require.Contains(t, res.out, ": 1 object rewrapped")
	res = blobseal(args("bucket", "rewrap", bucketURL, anyKey, toCustomer)...)
	res.fails(t, 3, "1 object failed without being changed; the same command tries again (run it once for each mode, with that mode's keys and --mode)")
	ok(t, args("bucket", "rewrap", bucketURL, ring, toCustomer)...)
}

// TestBucketRewrapToUnreadable: a target that seals for a principal, but does not open.
func TestBucketRewrapToUnreadable(t *testing.T) {
	album(t, ring, "a")
	write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);
permit (principal, action == Action::"GenerateDataKey", resource);`))
	ok(t, args("kms", "policy", "put", by("user:admin"), "alias/photos", "policy")...)
	before := read(t, "photos/a")
	blobseal(args("bucket", "rewrap", bucketURL, ring, "--principal", "user:hand", "--to-kms", "my.kms", "--to-root-key-file", "root.key", "--to-kms-key", "alias/photos")...).
		fails(t, 3, "file://./photos: nothing was changed, because the objects would not open under the target: my.kms: access denied: \"user:hand\" may not Decrypt with ")
	require.Equal(t, before, read(t, "photos/a"))
}

func TestBucketFailures(t *testing.T) {
	album(t, ring, "a", "b", "c")
	require.NoError(t, os.WriteFile("photos/b", read(t, "photos/a"), 0o644)) // an object under another's name
	ok(t, args("ring", "rotate", ring)...)

	res := blobseal(args("bucket", "rewrap", bucketURL, ring)...)
	res.fails(t, 4, "file://./photos: 1 object failed without being changed; the same command tries again")
	require.Contains(t, res.out, "b: FAILED: wrong key, or sealed for another object or for a bucket that is not named photos, or edited envelope\n")
	require.Contains(t, res.out, ": 2 objects rewrapped to ")
	require.Contains(t, res.out, " 1 failed\n")

	res = blobseal(args("bucket", "rewrap", bucketURL, ring, "--json")...)
	res.fails(t, 4, "1 object failed")
	all := lines(t, res.out)
	require.Equal(t, "b", all[0]["key"])
	require.Equal(t, "failed", all[0]["outcome"])
	require.Contains(t, all[0]["error"], "wrong key")
	require.Equal(t, 1.0, summary(t, res.out)["failed"])

	res = blobseal(args("bucket", "rewrap", bucketURL, ring, "--name", "pictures", "--force", "--max-failures", "1")...)
	res.fails(t, 1, "gave up after 1 object failed; the same command skips what is done")

	require.NoError(t, os.Remove("photos/b"))
	require.Contains(t, ok(t, args("bucket", "rewrap", bucketURL, ring)...), " 2 current")
}

func TestBucketCheckpoint(t *testing.T) {
	album(t, ring, "a", "b")
	rewrap := args("bucket", "rewrap", bucketURL, ring, "--force")
	checkpoint := []string{"--checkpoint", "photos.cp"}
	bad := read(t, "photos/b")
	require.NoError(t, os.WriteFile("photos/b", read(t, "photos/a"), 0o644))
	blobseal(args(rewrap, checkpoint)...).fails(t, 4, "1 object failed")
	require.NoError(t, os.WriteFile("photos/b", bad, 0o644))
	out := ok(t, args(rewrap, checkpoint, "--json", "--list")...)
	require.Equal(t, "b", lines(t, out)[0]["key"], "what is done is not done again")
	require.Equal(t, true, summary(t, out)["resumed"])
	require.Equal(t, 2.0, summary(t, out)["done"])

	require.NoError(t, os.WriteFile("photos/b", read(t, "photos/a"), 0o644))
	blobseal(args(rewrap, checkpoint)...).fails(t, 4, "1 object failed")
	blobseal(args(rewrap, checkpoint, "--prefix", "a")...).fails(t, 1, "photos.cp: is not a checkpoint of this job")
	require.NoError(t, os.CopyFS("elsewhere/photos", os.DirFS("photos")))
	blobseal(args("bucket", "rewrap", "--bucket", "file://./elsewhere/photos", ring, "--force", checkpoint)...).
		fails(t, 1, "photos.cp: is not a checkpoint of this job")
	write(t, "photos.cp", []byte("to do: rewrap"))
	blobseal(args(rewrap, checkpoint)...).fails(t, 1, "photos.cp: is not a checkpoint of this job")
	blobseal(args(rewrap, "--checkpoint", "no/photos.cp")...).fails(t, 5, "no/photos.cp: no such file or directory")
	blobseal(args(rewrap, "--checkpoint", "photos")...).fails(t, 1, "photos: is a directory")
}

func TestBucketEncryptExisting(t *testing.T) {
	album(t, ring, "sealed")
	plainly(t, "poem", "roses are red")
	blobseal(args("bucket", "get", bucketURL, ring, "poem", "-")...).fails(t, 3, "poem: not encrypted (--allow-plain reads it, encrypt-existing encrypts it)")
	require.Equal(t, "roses are red", get(t, ring, "poem", "--allow-plain"))
	encrypt := args("bucket", "encrypt-existing", bucketURL, ring)
	require.Contains(t, ok(t, args(encrypt, "--dry-run")...), ": 1 object would be encrypted under SSE-S3 version ")
	require.Equal(t, "roses are red", string(read(t, "photos/poem")))
	require.Contains(t, ok(t, args("bucket", "inventory", bucketURL)...), "nothing: not encrypted")
	require.Regexp(t, `: 1 object encrypted under SSE-S3 version .* 1 unmatched, .* 0 failed\n$`, ok(t, encrypt...))
	require.NotContains(t, string(read(t, "photos/poem")), "roses")
	require.Equal(t, "roses are red", get(t, ring, "poem"))
	require.Contains(t, string(read(t, "photos/poem.attrs")), "text/x-poem")
	require.NotContains(t, ok(t, args("bucket", "inventory", bucketURL)...), "not encrypted")
}

func TestBucketShred(t *testing.T) {
	album(t, ring, "a", "u7/a", "u7/b", "u8/a")
	record := []string{"--record", "shredded.jsonl"}
	events := func() (all []string) {
		for _, line := range lines(t, string(read(t, "shredded.jsonl"))) {
			all = append(all, fmt.Sprint(line["event"], " ", line["key"]))
		}
		require.NoError(t, os.Remove("shredded.jsonl"))
		return all
	}
	shred := args("bucket", "shred", bucketURL, record)
	require.Equal(t, "a: shredded\n", ok(t, args(shred, "--yes", "a")...))
	require.Equal(t, []string{"shred a", "shredded a"}, events())
	require.NoFileExists(t, "photos/a")
	blobseal(args(shred, "--yes", "a")...).fails(t, 5, "a: no such object")

	plainly(t, "u7/plain", "x")
	res := blobseal(args(shred, "--yes", "--prefix", "u7/")...)
	res.fails(t, 1, "file://./photos: 1 object not shredded; see shredded.jsonl")
	require.Equal(t, "file://./photos: 2 objects shredded\n", res.out)
	require.FileExists(t, "photos/u7/plain")
	require.Equal(t, []string{"shred u7/a", "shred u7/b", "shred u7/plain", "shredded u7/a", "shredded u7/b", "failed u7/plain"}, events())
	blobseal(args(shred, "--yes", "u7/plain")...).fails(t, 3, "u7/plain: not encrypted: deleting it would shred nothing")
	events()
	require.NoError(t, os.Remove("photos/u7/plain"))

	t.Run("a record that is none", func(t *testing.T) {
		before := read(t, "my.ring")
		blobseal("bucket", "shred", bucketURL[0], bucketURL[1], "--record", "my.ring", "--yes", "u8/a").fails(t, 1, "my.ring: is not a record of what was shredded")
		require.Equal(t, before, read(t, "my.ring"))
		require.FileExists(t, "photos/u8/a")
	})
	t.Run("a record that was torn", func(t *testing.T) {
		write(t, "shredded.jsonl", []byte("{\"event\":\"shr"))
		blobseal(args(shred, "--yes", "none")...).fails(t, 5, "none: no such object")
		require.Equal(t, "{\"event\":\"shr\n", string(read(t, "shredded.jsonl")))
		require.NoError(t, os.Remove("shredded.jsonl"))
	})
	t.Run("a ring's key", func(t *testing.T) {
		old := ringKeys(t).Versions[0].ID
		blobseal(args(shred, ring, "--yes", "--key-id", old)...).fails(t, 3, "rotate first")
		ok(t, args("ring", "rotate", ring)...)
		require.Equal(t, "file://./photos: SSE-S3 version "+old+" sealed 1 object here; the key is destroyed\n", ok(t, args(shred, ring, "--yes", "--key-id", old)...))
		require.Equal(t, []string{"shred u8/a", "shred <nil>", "shredded <nil>"}, events())
		blobseal(args("bucket", "get", bucketURL, ring, "u8/a", "-")...).fails(t, 3, "u8/a: sealed under version "+old+", which was destroyed")
	})
	t.Run("a service's key", func(t *testing.T) {
		put(t, photos, "k", "x")
		require.Contains(t, ok(t, args(shred, service, "--yes", "--key-id", "alias/photos", "--days", "7")...), " sealed 1 object here; the key is disabled, and is deleted after some days")
		blobseal(args("bucket", "get", bucketURL, anyKey, "k", "-")...).fails(t, 3, "pending deletion")
		blobseal(args(shred, service, "--yes", "--key-id", "alias/photos")...).fails(t, 3, "pending deletion")
	})
}

// TestBucketHalfShredded: a key that may be disabled, but not deleted.
func TestBucketHalfShredded(t *testing.T) {
	album(t, photos, "a")
	write(t, "policy", []byte(`permit (principal, action, resource) unless { action == Action::"ScheduleKeyDeletion" };`))
	ok(t, args("kms", "policy", "put", service, "alias/photos", "policy")...)
	res := blobseal(args("bucket", "shred", bucketURL, "--record", "r", "--yes", service, "--key-id", "alias/photos")...)
	res.fails(t, 3, "may not ScheduleKeyDeletion")
	require.Contains(t, res.errout, "; the key is disabled\n")
}

// TestBucketRetireNeedsTheRoot: what the ring's root has against it is not the
// bucket's.
func TestBucketRetireNeedsTheRoot(t *testing.T) {
	album(t, ring)
	local := []string{"--ring", "kms.ring", "--root-kms-key", "localkms://my.kms?key=alias/photos", "--root-key-file", "root.key"}
	ok(t, args("ring", "create", local)...)
	put(t, local, "a", "x")
	old, _, _ := strings.Cut(strings.SplitAfter(ok(t, args("ring", "list", local)...), "CHANGED\n")[1], " ")
	ok(t, args("ring", "rotate", local)...)
	ok(t, args("bucket", "rewrap", bucketURL, local)...)
	write(t, "policy", []byte(`permit (principal, action, resource) unless { action == Action::"GenerateDataKey" };`))
	ok(t, args("kms", "policy", "put", service, "alias/photos", "policy")...)
	blobseal(args("bucket", "retire", bucketURL, local, old)...).fails(t, 3, "blobseal: kms.ring: its root cannot be used: my.kms: ")
}

func TestBucketRetireKeepsWhatIsUnclear(t *testing.T) {
	album(t, ring, "a", "b")
	old := ringKeys(t).Versions[0].ID
	ok(t, args("ring", "rotate", ring)...)
	ok(t, args("bucket", "rewrap", bucketURL, ring)...)
	data := read(t, "photos/b")
	data[0] ^= 1
	require.NoError(t, os.WriteFile("photos/b", data, 0o644))
	res := blobseal(args("bucket", "retire", bucketURL, ring, old)...)
	res.fails(t, 3, "is still needed: 1 object that may be (run bucket check)")
	require.Regexp(t, "^photos/b: may be under the version: .+\n$", res.out)
	res = blobseal(args("bucket", "retire", bucketURL, ring, old, "--json")...)
	res.fails(t, 3, "is still needed")
	var got bucket.Retirement
	require.NoError(t, json.Unmarshal([]byte(res.out), &got))
	require.Equal(t, "enabled", got.State)
	require.EqualValues(t, 1, got.Unclear)
	require.Empty(t, got.Names)
	require.Equal(t, "b", got.UnclearNames[0].Key)
	require.EqualValues(t, "enabled", ringKeys(t).Versions[0].State)
}

// TestBucketRetireOfAnEmptyBucket: one that was mistyped proves nothing.
func TestBucketRetireOfAnEmptyBucket(t *testing.T) {
	album(t, ring, "a")
	old := ringKeys(t).Versions[0].ID
	ok(t, args("ring", "rotate", ring)...)
	require.NoError(t, os.Mkdir("fotos", 0o755))
	retire := args("bucket", "retire", "--bucket", "file://./fotos", ring, old)
	blobseal(retire...).fails(t, 3, "file://./fotos: has no objects: is it the right bucket?")
	require.EqualValues(t, "enabled", ringKeys(t).Versions[0].State)
	ok(t, args(retire, "--allow-empty")...)
	require.EqualValues(t, "disabled", ringKeys(t).Versions[0].State)
}
