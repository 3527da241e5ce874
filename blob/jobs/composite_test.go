package jobs_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

const partChunk, storedChunk = 16384, 16400

// compositeSizes are the parts of a small and of a large composite object, and where they
// end in the store.
var compositeSizes = map[string][]int{"small": {10, 20}, "large": {12 * partChunk, 7}}

var compositeEnds = map[string]int{"small": 2*68 + 10 + 16 + 20 + 16, "large": 2*68 + 12*storedChunk + 16 + 7 + 16}

// isComposite requires an object to have what [blobtest.PutComposite] gave it, and a hint
// that tells its key.
func (w *world) isComposite(t testing.TB, b *blob.Bucket, key string, want []byte, mode sse.Mode) {
	t.Helper()
	require.True(t, bytes.Equal(want, blobtest.ReadAll(t, b.Bucket, key)), key)
	got, err := blobtest.ReadRange(b.Bucket, key, 3, 9)
	require.NoError(t, err)
	require.Equal(t, want[3:12], got)
	attrs, err := b.Attributes(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "image/jpeg", attrs.ContentType)
	require.Equal(t, map[string]string{"owner": "me"}, attrs.Metadata)
	require.EqualValues(t, len(want), attrs.Size)
	raw, err := w.Inner().Attributes(ctx, key)
	require.NoError(t, err)
	hint, _ := stored.ParseHint(raw.Metadata)
	e := w.entry(t, key)
	require.Equal(t, stored.KindEncrypted, e.Kind)
	require.Equal(t, mode, e.Seal.Mode)
	require.Equal(t, e.Seal, jobs.KeyRef{Mode: hint.Mode, KeyID: hint.KeyID})
	require.True(t, hint.Composite)
	require.EqualValues(t, len(want), e.Size)
	require.Equal(t, raw.Size, e.Stored)
}

// TestRewrapComposite: a rewrap of a composite object, within its mode and to any other,
// replaces its envelope, its footer and its hint, and nothing else.
func TestRewrapComposite(t *testing.T) {
	for _, store := range blobtest.Stores {
		for _, from := range []sse.Mode{sse.ModeManaged, sse.ModeKMS, sse.ModeCustomer} {
			for _, to := range []sse.Mode{sse.ModeManaged, sse.ModeKMS, sse.ModeCustomer} {
				t.Run(fmt.Sprintf("%s/%v to %v", store.Name, from, to), func(t *testing.T) {
					w := newWorld(t, store.Open(t))
					ciphers := map[sse.Mode]sse.Cipher{sse.ModeManaged: sse.NewManaged(w.ring), sse.ModeKMS: w.kms, sse.ModeCustomer: w.ssec}
					want, before := make(map[string][]byte), make(map[string][]byte)
					for key, sizes := range compositeSizes {
						want[key] = blobtest.PutComposite(t, w.Inner(), key, ciphers[from], sizes...)
						before[key] = blobtest.ReadAll(t, w.Inner(), key)
						w.isComposite(t, w.Bucket, key, want[key], from)
					}
					w.rotate(t)
					opts := &jobs.RewrapOptions{To: ciphers[to], From: sse.ByMode(ciphersOf(ciphers)), Force: true, Job: jobs.Job{DryRun: true}}
					tried, err := jobs.Rewrap(ctx, w.Bucket, opts)
					require.NoError(t, err)
					opts.DryRun = false
					report, err := jobs.Rewrap(ctx, w.Bucket, opts)
					require.NoError(t, err)
					require.EqualValues(t, len(want), report.Done)
					require.Equal(t, tried.Counts, report.Counts)
					var size int64
					for key := range want {
						w.isComposite(t, w.Bucket, key, want[key], to)
						after := blobtest.ReadAll(t, w.Inner(), key)
						size += int64(len(after))
						require.Equal(t, before[key][:compositeEnds[key]], after[:compositeEnds[key]])
						require.NotEqual(t, before[key], after)
						_, err := stored.PlaintextSize(int64(len(after)), blob.DefaultEnvelopeSize)
						require.Error(t, err, "a list would take it for an object of another size")
					}
					require.Equal(t, size, report.Bytes)
					for _, depth := range []jobs.Depth{jobs.CheckBodies, jobs.CheckLengths, jobs.CheckEnvelopes} {
						require.Equal(t, map[string]jobs.Verdict{"small": jobs.VerdictGood, "large": jobs.VerdictGood}, w.verdicts(t, &jobs.CheckOptions{Depth: depth}))
					}
				})
			}
		}
	}
}

func ciphersOf(ciphers map[sse.Mode]sse.Cipher) map[sse.Mode]sse.Decrypter {
	decrypters := make(map[sse.Mode]sse.Decrypter)
	for mode, c := range ciphers {
		decrypters[mode] = c
	}
	return decrypters
}

// TestCheckComposite: a check finds what is wrong with a composite object: with its list of
// parts and its size at any depth, with its parts if it reads them.
func TestCheckComposite(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	cipher := sse.NewManaged(w.ring)
	put := func(key string, damage func(object []byte) []byte) {
		blobtest.PutComposite(t, w.Inner(), key, cipher, 2*partChunk, 100)
		require.NoError(t, w.Inner().WriteAll(ctx, key, damage(blobtest.ReadAll(t, w.Inner(), key)), nil))
	}
	flip := func(at int) func([]byte) []byte {
		return func(p []byte) []byte { p[(at+len(p))%len(p)] ^= 1; return p }
	}
	put("good", func(p []byte) []byte { return p })
	put("head", flip(30))
	put("chunk", flip(storedChunk))
	put("list", flip(2*68+2*storedChunk+16+100+16+60))
	put("footer", flip(-1))
	put("plain size", flip(-25))
	put("cut inside", func(p []byte) []byte { return append(p[:10000:10000], p[10016:]...) })
	put("cut", func(p []byte) []byte { return p[:len(p)-1] })
	put("longer", func(p []byte) []byte { return append([]byte("\x89SSE\r\n\x1a\n\x02\x00"), p...) })
	blobtest.PutComposite(t, w.Inner(), "elsewhere", cipher, 5)
	require.NoError(t, w.Inner().WriteAll(ctx, "moved", blobtest.ReadAll(t, w.Inner(), "elsewhere"), nil))
	blobtest.PutComposite(t, w.Inner(), "customer", ssetest.NewCustomer(t, 9), 5)
	blobtest.PutComposite(t, w.Inner(), "other ring", sse.NewManaged(blobtest.NewRing(t)), 5)

	want := map[string]jobs.Verdict{
		"good": jobs.VerdictGood, "elsewhere": jobs.VerdictGood, "moved": jobs.VerdictWrongKey,
		"customer": jobs.VerdictWrongKey, "other ring": jobs.VerdictWrongKey,
		"list": jobs.VerdictDamaged, "footer": jobs.VerdictDamaged, "plain size": jobs.VerdictDamaged, "cut": jobs.VerdictDamaged,
		"cut inside": jobs.VerdictTruncated, "longer": jobs.VerdictDamaged,
		"head": jobs.VerdictGood, "chunk": jobs.VerdictGood,
	}
	require.Equal(t, want, w.verdicts(t, &jobs.CheckOptions{Depth: jobs.CheckEnvelopes}))
	require.Equal(t, want, w.verdicts(t, &jobs.CheckOptions{Depth: jobs.CheckLengths}))
	want["head"], want["chunk"] = jobs.VerdictDamaged, jobs.VerdictDamaged
	require.Equal(t, want, w.verdicts(t, &jobs.CheckOptions{Depth: jobs.CheckBodies}))
}

// TestRewrapCompositeRace: a rewrap of a composite object that another writer replaces, at
// any of its requests, loses no write and joins no two versions.
func TestRewrapCompositeRace(t *testing.T) {
	for nth := int32(1); nth < 12; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			cipher := sse.NewManaged(w.ring)
			blobtest.PutComposite(t, w.Inner(), "k", cipher, 12*partChunk, 7)
			other := blobtest.StartUpload(t, cipher, "k") // of the same size, and of other bytes
			other.Part(t, 1, bytes.Repeat([]byte("other"), 12*partChunk/5+1)[:12*partChunk])
			other.Part(t, 2, []byte("another"))
			w.rotate(t)
			var calls atomic.Int32
			var want []byte
			w.store.set(func(op, _ string) error {
				if (op == "open" || op == "attributes" || op == "create") && calls.Add(1) == nth {
					want = other.Put(t, w.store.Bucket)
				}
				return nil
			})
			_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Workers: 1}})
			w.store.set(nil)
			require.NoError(t, err)
			if want == nil {
				return // so many calls were not made
			}
			w.isComposite(t, w.Bucket, "k", want, sse.ModeManaged)
		})
	}
}

// TestRetireComposite: a composite object under a version of the ring keeps the version, and
// one whose envelope does not open may need it.
func TestRetireComposite(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	old := primary(t, w.ring)
	want := blobtest.PutComposite(t, w.Inner(), "k", sse.NewManaged(w.ring), 5*partChunk, 9)
	w.rotate(t)
	destroy := &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}
	_, err := jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
	var inUse *jobs.InUseError
	require.ErrorAs(t, err, &inUse)
	require.EqualValues(t, 1, inUse.Objects)
	_, err = jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeManaged, KeyID: old}, nil, w.Bucket)
	require.ErrorIs(t, err, jobs.ErrInUse)

	_, err = jobs.Rewrap(ctx, w.Bucket, nil)
	require.NoError(t, err)
	good := blobtest.ReadAll(t, w.Inner(), "k")
	for name, damage := range map[string]func(p []byte){
		"sealed key": func(p []byte) { p[bytes.LastIndex(p, []byte(primary(t, w.ring)))+100] ^= 1 },
		"key id":     func(p []byte) { p[bytes.LastIndex(p, []byte(primary(t, w.ring)))+20] ^= 1 },
		"footer":     func(p []byte) { p[len(p)-1] ^= 1 },
	} {
		bad := bytes.Clone(good)
		damage(bad)
		attrs, err := w.Inner().Attributes(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, w.Inner().WriteAll(ctx, "k", bad, &gcblob.WriterOptions{ContentType: attrs.ContentType, Metadata: attrs.Metadata}))
		_, err = jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
		require.ErrorAs(t, err, &inUse, name)
		require.EqualValues(t, 1, inUse.Unclear, name)
		require.Equal(t, keyring.Enabled, w.state(old))
		require.NoError(t, w.Inner().WriteAll(ctx, "k", good, &gcblob.WriterOptions{ContentType: attrs.ContentType, Metadata: attrs.Metadata}))
	}
	info, err := jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
	require.NoError(t, err)
	require.Equal(t, keyring.Destroyed, info.State)
	w.isComposite(t, w.Bucket, "k", want, sse.ModeManaged)
}

// TestOtherJobsOnComposite: composite objects are encrypted already, and are shredded as any
// others are.
func TestOtherJobsOnComposite(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	want := blobtest.PutComposite(t, w.Inner(), "a/k", sse.NewManaged(w.ring), 5*partChunk, 9)
	before := blobtest.ReadAll(t, w.Inner(), "a/k")
	w.putPlain(t, "a/plain", 100)
	report, err := jobs.EncryptExisting(ctx, w.Bucket, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done)
	require.EqualValues(t, 1, report.Unmatched)
	require.Equal(t, before, blobtest.ReadAll(t, w.Inner(), "a/k"))
	w.isComposite(t, w.Bucket, "a/k", want, sse.ModeManaged)

	shredded, err := jobs.ShredPrefix(ctx, w.Bucket, "a/k", io.Discard, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, shredded.Objects)
	exists, err := w.Inner().Exists(ctx, "a/k")
	require.NoError(t, err)
	require.False(t, exists)

	old := primary(t, w.ring)
	want = blobtest.PutComposite(t, w.Inner(), "b", sse.NewManaged(w.ring), 5)
	require.Len(t, want, 5)
	w.rotate(t)
	var record strings.Builder
	shredded, err = jobs.ShredKey(ctx, jobs.KeyRef{Mode: sse.ModeManaged, KeyID: old}, jobs.RingKeyDestroyer(w.ring, old), &record, nil, w.Bucket)
	require.NoError(t, err)
	require.EqualValues(t, 2, shredded.Objects, "and what was plain")
	require.Contains(t, record.String(), `"key":"b"`)
	_, err = w.ReadAll(ctx, "b")
	require.ErrorIs(t, err, keyring.ErrDestroyed)
}
