package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// must is for examples alone.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// exampleBucket is an empty bucket in memory, its ring, and what is under it.
func exampleBucket() (*blob.Bucket, *keyring.Ring, *gcblob.Bucket) {
	root := must(keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32)))
	ring := must(keyring.Create(context.Background(), keyring.NewMemStore(), root, nil))
	inner := memblob.OpenBucket(nil)
	return must(blob.NewBucket(inner, "photos", sse.NewManaged(ring), &blob.Options{AllowPlain: true})), ring, inner
}

func examplePut(b *gcblob.Bucket, keys ...string) {
	for _, key := range keys {
		if err := b.WriteAll(context.Background(), key, []byte("the content of "+key), nil); err != nil {
			panic(err)
		}
	}
}

// A master key's life: it is rotated, what it sealed is moved to the new version, and
// once nothing is under the old one, that is disabled, and later destroyed. The
// example is long because it is one session, to be read from top to bottom.
func Example_rotation() {
	ctx := context.Background()
	bucket, ring, _ := exampleBucket()
	for i := range 1000 {
		examplePut(bucket.Bucket, fmt.Sprintf("2026/%04d.jpg", i))
	}
	old := must(ring.Primary(ctx)).ID()

	// Rotate: new objects are under the new version, old ones as they were.
	fresh := must(ring.Rotate(ctx)).ID
	examplePut(bucket.Bucket, "2026/new.jpg")
	count := func() {
		var totals jobs.Totals
		for entry, err := range jobs.Inventory(ctx, bucket, nil) {
			if err != nil {
				panic(err)
			}
			totals.Add(entry)
		}
		fmt.Println("under the old version:", totals.Sealed[jobs.KeyRef{Mode: sse.ModeManaged, KeyID: old}].Objects)
		fmt.Println("under the new version:", totals.Sealed[jobs.KeyRef{Mode: sse.ModeManaged, KeyID: fresh}].Objects)
	}
	count()

	// Too early.
	_, err := jobs.Retire(ctx, ring, old, nil, bucket)
	var inUse *jobs.InUseError
	if errors.As(err, &inUse) {
		fmt.Println("in use by", inUse.Objects, "objects,", inUse.Names[0], "for one")
	}

	// Rewrap. A checkpoint lets it go on where it was, if it is interrupted.
	dir := must(os.MkdirTemp("", "rotation"))
	defer os.RemoveAll(dir)
	report, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{Job: jobs.Job{
		Checkpoint: must(keyring.NewFileStore(filepath.Join(dir, "checkpoint"))),
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println("rewrapped", report.Done, "and left", report.Current)
	count()

	// Retire: disabled now, destroyed when the quarantine is over.
	info := must(jobs.Retire(ctx, ring, old, nil, bucket))
	fmt.Println("the old version is", info.State)
	_, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true}, bucket)
	fmt.Println("may be destroyed:", !errors.Is(err, jobs.ErrQuarantine))
	fmt.Printf("%s\n", must(bucket.ReadAll(ctx, "2026/0007.jpg")))

	// Output:
	// under the old version: 1000
	// under the new version: 1
	// in use by 1000 objects, photos/2026/0000.jpg for one
	// rewrapped 1000 and left 1
	// under the old version: 0
	// under the new version: 1001
	// the old version is disabled
	// may be destroyed: false
	// the content of 2026/0007.jpg
}

func ExampleInventory() {
	bucket, _, inner := exampleBucket()
	examplePut(bucket.Bucket, "a.jpg", "b.jpg")
	examplePut(inner, "from before.jpg")
	for entry, err := range jobs.Inventory(context.Background(), bucket, nil) {
		if err != nil {
			panic(err) // it is not the whole bucket
		}
		fmt.Println(entry.Key, entry.Kind, entry.Size, "bytes in", entry.Stored)
	}
	// Output:
	// a.jpg encrypted 20 bytes in 1060
	// b.jpg encrypted 20 bytes in 1060
	// from before.jpg plain 30 bytes in 30
}

// Objects move from the ring to a key of a key service.
func ExampleRewrap() {
	ctx := context.Background()
	root := must(keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32)))
	ring := must(keyring.Create(ctx, keyring.NewMemStore(), root, nil))
	var service kms.Client = kmstest.NewFake("arn:example:kms:eu-1:111122223333:key/1")
	archive := must(sse.NewKMS(service, "arn:example:kms:eu-1:111122223333:key/1", nil))
	bucket := must(blob.NewBucket(memblob.OpenBucket(nil), "photos", sse.NewManaged(ring), &blob.Options{
		Decrypters: sse.ByMode{sse.ModeKMS: archive},
	}))
	examplePut(bucket.Bucket, "2025/a.jpg", "2025/b.jpg", "2026/c.jpg")

	report, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{
		Filter: jobs.Filter{Prefix: "2025/", Modes: []sse.Mode{sse.ModeManaged}},
		To:     archive,
		Job: jobs.Job{Object: func(r jobs.Result) {
			fmt.Println(r.Key, r.Outcome, r.To)
		}},
	})
	if err != nil {
		panic(err) // some objects failed, if it is jobs.ErrIncomplete: see report.Failures
	}
	fmt.Println(report)
	fmt.Printf("%s\n", must(bucket.ReadAll(ctx, "2025/a.jpg")))
	// Output:
	// 2025/a.jpg done SSE-KMS arn:example:kms:eu-1:111122223333:key/1
	// 2025/b.jpg done SSE-KMS arn:example:kms:eu-1:111122223333:key/1
	// 2 done (2130 bytes), 0 current, 0 unmatched, 0 deleted meanwhile, 0 failed
	// the content of 2025/a.jpg
}

func ExampleEncryptExisting() {
	ctx := context.Background()
	bucket, _, inner := exampleBucket()
	examplePut(inner, "a.jpg", "b.jpg")
	examplePut(bucket.Bucket, "c.jpg")
	fmt.Println(must(jobs.EncryptExisting(ctx, bucket, &jobs.EncryptOptions{Job: jobs.Job{DryRun: true}})))
	fmt.Println(must(jobs.EncryptExisting(ctx, bucket, nil)))
	fmt.Printf("%s\n", must(bucket.ReadAll(ctx, "a.jpg")))
	// Output:
	// dry run: 2 done (2120 bytes), 0 current, 1 unmatched, 0 deleted meanwhile, 0 failed
	// 2 done (2120 bytes), 0 current, 1 unmatched, 0 deleted meanwhile, 0 failed
	// the content of a.jpg
}

func ExampleCheck() {
	ctx := context.Background()
	bucket, _, inner := exampleBucket()
	examplePut(bucket.Bucket, "cut.jpg", "flipped.jpg", "good.jpg")
	edit := func(key string, edit func(stored []byte) []byte) {
		if err := inner.WriteAll(ctx, key, edit(must(inner.ReadAll(ctx, key))), nil); err != nil {
			panic(err)
		}
	}
	edit("cut.jpg", func(p []byte) []byte { return p[:1030] })
	edit("flipped.jpg", func(p []byte) []byte { p[len(p)-1] ^= 1; return p })
	if err := inner.Copy(ctx, "moved.jpg", "good.jpg", nil); err != nil {
		panic(err)
	}
	for finding, err := range jobs.Check(ctx, bucket, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
		if err != nil {
			panic(err)
		}
		fmt.Println(finding.Key, "is", finding.Verdict)
	}
	// Output:
	// cut.jpg is truncated
	// flipped.jpg is damaged
	// good.jpg is good
	// moved.jpg is wrong key
}

func ExampleShredPrefix() {
	bucket, _, _ := exampleBucket()
	examplePut(bucket.Bucket, "ann/1.jpg", "ann/2.jpg", "bob/1.jpg")
	var record strings.Builder // a file, whose Sync is called before anything is deleted
	report := must(jobs.ShredPrefix(context.Background(), bucket, "ann/", &record, nil))
	fmt.Println(report.Objects, "shredded,", strings.Count(record.String(), "\n"), "lines of record")
	// Output:
	// 2 shredded, 4 lines of record
}

func ExampleShredObject() {
	ctx := context.Background()
	bucket, _, _ := exampleBucket()
	examplePut(bucket.Bucket, "ann/1.jpg")
	var record strings.Builder
	if err := jobs.ShredObject(ctx, bucket, "ann/1.jpg", &record); err != nil {
		panic(err)
	}
	fmt.Println(must(bucket.Exists(ctx, "ann/1.jpg")))
	// Output:
	// false
}

// What belongs together has a key of its own, and is forgotten with it, backups
// included.
func ExampleShredKey() {
	ctx := context.Background()
	bucket, ring, inner := exampleBucket()
	examplePut(bucket.Bucket, "a.jpg", "b.jpg")
	backup := must(inner.ReadAll(ctx, "a.jpg"))
	old := must(ring.Primary(ctx)).ID()
	must(ring.Rotate(ctx))
	examplePut(bucket.Bucket, "c.jpg")

	var record strings.Builder
	key := jobs.KeyRef{Mode: sse.ModeManaged, KeyID: old}
	report := must(jobs.ShredKey(ctx, key, jobs.RingKeyDestroyer(ring, old), &record, nil, bucket))
	fmt.Println(report.Objects, "objects are unreadable")
	if err := inner.WriteAll(ctx, "a.jpg", backup, nil); err != nil {
		panic(err)
	}
	_, err := bucket.ReadAll(ctx, "a.jpg")
	fmt.Println("from the backup:", errors.Is(err, keyring.ErrDestroyed))
	fmt.Printf("%s\n", must(bucket.ReadAll(ctx, "c.jpg")))
	// Output:
	// 2 objects are unreadable
	// from the backup: true
	// the content of c.jpg
}

func ExampleRetire() {
	ctx := context.Background()
	bucket, ring, _ := exampleBucket()
	examplePut(bucket.Bucket, "a.jpg")
	old := must(ring.Primary(ctx)).ID()
	must(ring.Rotate(ctx))
	_, err := jobs.Retire(ctx, ring, old, nil, bucket)
	fmt.Println("in use:", errors.Is(err, jobs.ErrInUse))
	must(jobs.Rewrap(ctx, bucket, nil))
	fmt.Println(must(jobs.Retire(ctx, ring, old, nil, bucket)).State)
	// Output:
	// in use: true
	// disabled
}

// Check that no object uses a key before you give it up.
func ExampleCheckUnused() {
	bucket, ring, _ := exampleBucket()
	examplePut(bucket.Bucket, "a.jpg")
	ctx := context.Background()
	seen, err := jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "key-1"}, nil, bucket)
	fmt.Println(seen.Objects, err)
	key := jobs.KeyRef{Mode: sse.ModeManaged, KeyID: must(ring.Primary(ctx)).ID()}
	_, err = jobs.CheckUnused(ctx, key, nil, bucket)
	fmt.Println(errors.Is(err, jobs.ErrInUse))
	// Output:
	// 1 <nil>
	// true
}
