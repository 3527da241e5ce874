package jobs_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// later is the begin of an envelope of a version to come.
const later = "\x89SSE\r\n\x1a\n\x02 and what nobody knows yet"

func TestInventory(t *testing.T) {
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			w := newWorld(t, store.Open(t))
			first := primary(t, w.ring)
			w.put(t, "a/managed", 100, nil)
			second := w.rotate(t)
			w.put(t, "b/managed", 20_000, nil)
			w.put(t, "c/kms", 0, w.kms)
			w.put(t, "d/ssec", 1, w.ssec)
			inner := w.Inner()
			require.NoError(t, inner.WriteAll(ctx, "e/empty", nil, nil))
			require.NoError(t, inner.WriteAll(ctx, "e/plain", blobtest.Content(12), nil))
			require.NoError(t, inner.WriteAll(ctx, "f/later", []byte(later), nil))
			raw := blobtest.ReadAll(t, inner, "a/managed")
			require.NoError(t, inner.WriteAll(ctx, "g/body cut", raw[:1030], nil))
			require.NoError(t, inner.WriteAll(ctx, "g/head cut", raw[:100], nil))
			attrs, err := inner.Attributes(ctx, "a/managed")
			require.NoError(t, err)
			overwritten := append([]byte("garbage!"), raw[8:]...)
			require.NoError(t, inner.WriteAll(ctx, "h/magic gone", overwritten, metadata(attrs.Metadata)))
			wide := blobtest.NewBucketWith(t, inner, sse.NewManaged(w.ring), &blob.Options{EnvelopeSize: 3000})
			require.NoError(t, wide.WriteAll(ctx, "i/wide", blobtest.Content(7), nil))

			managed := func(id string) jobs.KeyRef { return jobs.KeyRef{Mode: sse.ModeManaged, KeyID: id} }
			want := []jobs.Entry{
				{Key: "a/managed", Kind: stored.KindEncrypted, Seal: managed(first), Stored: 1024 + 116, Size: 100, EnvelopeSize: 1024},
				{Key: "b/managed", Kind: stored.KindEncrypted, Seal: managed(second), Stored: 1024 + 20_032, Size: 20_000, EnvelopeSize: 1024},
				{Key: "c/kms", Kind: stored.KindEncrypted, Seal: jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "arn:k1"}, Stored: 1024 + 16, EnvelopeSize: 1024},
				{Key: "d/ssec", Kind: stored.KindEncrypted, Seal: jobs.KeyRef{Mode: sse.ModeCustomer}, Stored: 1024 + 17, Size: 1, EnvelopeSize: 1024},
				{Key: "e/empty", Kind: stored.KindPlain},
				{Key: "e/plain", Kind: stored.KindPlain, Stored: 12, Size: 12},
				{Key: "f/later", Kind: stored.KindUnknownVersion, Stored: int64(len(later)), Size: -1, Err: sse.ErrVersion},
				{Key: "g/body cut", Kind: stored.KindDamaged, Seal: managed(first), Stored: 1030, Size: -1, EnvelopeSize: 1024, Err: sse.ErrTruncated},
				{Key: "g/head cut", Kind: stored.KindDamaged, Stored: 100, Size: -1, Err: sse.ErrFormat},
				{Key: "h/magic gone", Kind: stored.KindDamaged, Stored: 1140, Size: -1, Err: sse.ErrFormat},
				{Key: "i/wide", Kind: stored.KindEncrypted, Seal: managed(second), Stored: 3000 + 23, Size: 7, EnvelopeSize: 3000},
			}
			var got []jobs.Entry
			var totals jobs.Totals
			w.store.set(nil)
			for e, err := range jobs.Inventory(ctx, w.Bucket, nil) {
				require.NoError(t, err)
				totals.Add(e)
				require.WithinDuration(t, time.Now(), e.ModTime, time.Hour)
				e.ModTime = time.Time{}
				if want := want[len(got)].Err; want != nil {
					require.ErrorIs(t, e.Err, want, e.Key)
					e.Err = want
				}
				got = append(got, e)
			}
			require.Equal(t, want, got)
			require.Equal(t, len(want)+stored.MaxTries, w.store.count("open"), "one request for each object, and more for a long envelope and for what looks damaged")
			require.Equal(t, 2+stored.MaxTries, w.store.count("attributes"), "of what does not begin as an envelope")

			require.EqualValues(t, len(want), totals.Objects)
			require.EqualValues(t, 100+20_000+1+12+7, totals.Size)
			require.Equal(t, []jobs.KeyRef{managed(first), managed(second), {Mode: sse.ModeKMS, KeyID: "arn:k1"}, {Mode: sse.ModeCustomer}}, sorted(totals.Keys(), first))
			require.Equal(t, jobs.Count{Objects: 2, Stored: 1140 + 1030}, totals.Sealed[managed(first)])
			require.Equal(t, jobs.Count{Objects: 2, Stored: 12}, totals.Plain)
			require.EqualValues(t, 1, totals.UnknownVersion.Objects)
			require.EqualValues(t, 2, totals.Damaged.Objects)

			var keys []string
			for e, err := range jobs.Inventory(ctx, w.Bucket, &jobs.InventoryOptions{Filter: jobs.Filter{KeyIDs: []string{first}}}) {
				require.NoError(t, err)
				keys = append(keys, e.Key)
			}
			require.Equal(t, []string{"a/managed", "g/body cut"}, keys)
		})
	}
}

// sorted puts first before the other versions, whose ids are random.
func sorted(keys []jobs.KeyRef, first string) []jobs.KeyRef {
	slices.SortStableFunc(keys, func(a, b jobs.KeyRef) int {
		switch {
		case a.KeyID == first:
			return -1
		case b.KeyID == first:
			return 1
		}
		return 0
	})
	return keys
}

// TestInventoryMissesNothing: package fileblob lists "a-1" behind "a/1", and a
// plain walk through its pages leaves out half of these.
func TestInventoryMissesNothing(t *testing.T) {
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			inner := store.Open(t)
			var want []string
			for i := range 220 {
				for _, form := range []string{"a/%04d", "a-%04d", "a/b/%04d", "a-b-c/%04d", "a-b/%04d"} {
					key := fmt.Sprintf(form, i)
					want = append(want, key)
					require.NoError(t, inner.WriteAll(ctx, key, []byte("x"), nil))
				}
			}
			slices.Sort(want)
			b := blobtest.NewBucket(t, inner, nil)
			for _, prefix := range []string{"", "a-b", "a/b/1"} {
				var got []string
				for e, err := range jobs.Inventory(ctx, b, &jobs.InventoryOptions{Filter: jobs.Filter{Prefix: prefix}}) {
					require.NoError(t, err)
					got = append(got, e.Key)
				}
				require.Equal(t, withPrefix(want, prefix), got)
			}
		})
	}
}

// A listing that fails, at whichever page, is an error, and so is an ended ctx.
func TestInventoryTellsThatItIsNotAll(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for i := range 1500 {
		require.NoError(t, w.Inner().WriteAll(ctx, fmt.Sprintf("%04d", i), nil, nil))
	}
	for page := 1; page <= 2; page++ {
		w.store.set(func(op, _ string) error {
			if op == "list" && w.store.count("list") == page {
				return errRigged
			}
			return nil
		})
		n, last := 0, error(nil)
		for _, err := range jobs.Inventory(ctx, w.Bucket, nil) {
			if last = err; err == nil {
				n++
			}
		}
		require.ErrorIs(t, last, errRigged)
		require.Equal(t, (page-1)*1000, n)
	}
	w.store.set(nil)
	ended, cancel := context.WithCancel(ctx)
	defer cancel()
	n, last := 0, error(nil)
	for _, err := range jobs.Inventory(ended, w.Bucket, nil) {
		if last = err; err == nil {
			n++
		}
		if n == 10 {
			cancel()
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Less(t, n, 1500)
}

// An object that cannot be read is an entry; one that is gone is none.
func TestInventoryOfWhatCannotBeRead(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for _, key := range []string{"a", "b", "c"} {
		w.put(t, key, 10, nil)
	}
	w.store.set(func(op, key string) error {
		switch {
		case op == "open" && key == "a":
			return errRigged
		case op == "open" && key == "b":
			return w.store.Bucket.Delete(ctx, "b")
		}
		return nil
	})
	var got []jobs.Entry
	var totals jobs.Totals
	for e, err := range jobs.Inventory(ctx, w.Bucket, nil) {
		require.NoError(t, err)
		got = append(got, e)
		totals.Add(e)
	}
	require.Len(t, got, 2)
	require.Equal(t, "a", got[0].Key)
	require.ErrorIs(t, got[0].Err, errRigged)
	require.EqualValues(t, 1, totals.Unreadable.Objects)
}

// An answer that breaks off, which Go's HTTP client tells with io.ErrUnexpectedEOF,
// says nothing of the object: it is neither plain, without use for any key, nor
// damaged.
func TestInventoryOfABrokenAnswer(t *testing.T) {
	for _, size := range []int{blob.DefaultEnvelopeSize, 3000} {
		for nth := 1; nth <= 2; nth++ { // of the reads, each of less than an envelope
			t.Run(fmt.Sprintf("%d/%d", size, nth), func(t *testing.T) {
				w := newWorld(t, blobtest.NewMem(t))
				b := blobtest.NewBucketWith(t, w.store.Bucket, sse.NewManaged(w.ring), &blob.Options{EnvelopeSize: size})
				require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(10), nil))
				// Without its hint.
				require.NoError(t, w.store.Bucket.WriteAll(ctx, "k", blobtest.ReadAll(t, w.store.Bucket, "k"), nil))
				reads := 0
				w.store.set(func(op, _ string) error {
					if op == "open" {
						reads = 0
					}
					if op == "read" {
						if reads++; reads >= nth {
							return io.ErrUnexpectedEOF
						}
					}
					return nil
				})
				e := w.entry(t, "k")
				require.Zero(t, e.Kind, e)
				require.ErrorIs(t, e.Err, io.ErrUnexpectedEOF)
				require.Equal(t, jobs.VerdictUnreadable, w.verdicts(t, nil)["k"])
				_, err := jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "k1"}, nil, w.Bucket)
				require.ErrorIs(t, err, jobs.ErrInUse)
				_, err = w.Attributes(ctx, "k")
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				_, err = w.ReadAll(ctx, "k")
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				require.NotErrorIs(t, err, sse.ErrFormat)
			})
		}
	}
}

// Who leaves the loop leaves no goroutine behind.
func TestInventoryCanBeLeft(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for i := range 100 {
		w.put(t, fmt.Sprint(i), 1, nil)
	}
	before := runtime.NumGoroutine()
	for range 50 {
		for range jobs.Inventory(ctx, w.Bucket, nil) {
			break
		}
	}
	blobtest.NoneLeft(t, before)
}

// Forged envelopes do not make totals grow without end.
func TestTotalsAreBounded(t *testing.T) {
	var totals jobs.Totals
	for i := range 10_100 {
		totals.Add(jobs.Entry{Kind: stored.KindEncrypted, Seal: jobs.KeyRef{Mode: sse.ModeKMS, KeyID: fmt.Sprint(i)}, Stored: 1})
	}
	require.Len(t, totals.Sealed, 10_000)
	require.Equal(t, jobs.Count{Objects: 100, Stored: 100}, totals.Other)
}
