package jobs_test

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

var ctx = context.Background()

// errRigged is what a rigged store fails with.
var errRigged = errors.New("rigged")

// world is a bucket over a rigged store, with everything that it may need.
type world struct {
	*blob.Bucket
	store *rigged
	ring  *keyring.Ring
	kms   *sse.KMS
	fake  *kmstest.Fake
	ssec  *sse.Customer
}

// newWorld is in mode SSE-S3 and opens the other modes as well.
func newWorld(t testing.TB, inner *gcblob.Bucket) *world {
	w := &world{ring: blobtest.NewRing(t), fake: kmstest.NewFake("arn:k1", "arn:k2"), ssec: ssetest.NewCustomer(t, 1)}
	var err error
	w.kms, err = sse.NewKMS(w.fake, "arn:k1", &sse.KMSOptions{Accept: sse.AnyKey}) // tests move objects between keys
	require.NoError(t, err)
	var outer *gcblob.Bucket
	w.store, outer = rig(t, inner)
	w.Bucket = blobtest.NewBucketWith(t, outer, sse.NewManaged(w.ring), &blob.Options{
		AllowPlain: true,
		Decrypters: sse.ByMode{sse.ModeKMS: w.kms, sse.ModeCustomer: w.ssec},
		Policy:     blob.Policy{AllowCustomerKeys: true},
	})
	return w
}

func (w *world) kmsKey(t testing.TB, id string) *sse.KMS {
	c, err := sse.NewKMS(w.fake, id, nil)
	require.NoError(t, err)
	return c
}

// put writes an object, with another cipher than the bucket's if one is given.
func (w *world) put(t testing.TB, key string, size int, cipher sse.Cipher) {
	opts := &gcblob.WriterOptions{
		ContentType: "image/png", CacheControl: "no-cache", ContentLanguage: "de", ContentEncoding: "br",
		Metadata: map[string]string{"owner": "ann"},
	}
	require.NoError(t, blobtest.With(t, w.Bucket, blob.Request{Cipher: cipher}).WriteAll(ctx, key, blobtest.Content(size), opts))
}

// entry is what the inventory says of one key.
func (w *world) entry(t testing.TB, key string) jobs.Entry {
	for e, err := range jobs.Inventory(ctx, w.Bucket, &jobs.InventoryOptions{Filter: jobs.Filter{Prefix: key}}) {
		require.NoError(t, err)
		if e.Key == key {
			return e
		}
	}
	require.Fail(t, "no such entry", key)
	return jobs.Entry{}
}

// requireUnchanged requires an object to have what put gave it.
func (w *world) requireUnchanged(t testing.TB, key string, size int) {
	require.Equal(t, blobtest.Content(size), blobtest.ReadAll(t, w.Bucket.Bucket, key), key)
	attrs, err := w.Attributes(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "image/png", attrs.ContentType)
	require.Equal(t, "no-cache", attrs.CacheControl)
	require.Equal(t, "de", attrs.ContentLanguage)
	require.Equal(t, "br", attrs.ContentEncoding)
	require.Equal(t, map[string]string{"owner": "ann"}, attrs.Metadata)
	require.EqualValues(t, size, attrs.Size)

	// The hint tells what is.
	e := w.entry(t, key)
	inner, err := w.Inner().Attributes(ctx, key)
	require.NoError(t, err)
	require.Equal(t, e.Seal.Mode.String(), inner.Metadata["blobseal-mode"])
	require.Equal(t, e.Seal.KeyID, inner.Metadata["blobseal-key-id"])
	require.Empty(t, inner.ContentEncoding, "ciphertext is not packed")
	sum := md5.Sum(blobtest.ReadAll(t, w.Inner(), key))
	require.Equal(t, sum[:], inner.MD5, "the store's sum is of what is stored")
}

// body is the stored body of an object.
func (w *world) body(t testing.TB, key string) []byte {
	return blobtest.ReadAll(t, w.Inner(), key)[blob.DefaultEnvelopeSize:]
}

func (w *world) rotate(t testing.TB) string {
	info, err := w.ring.Rotate(ctx)
	require.NoError(t, err)
	return info.ID
}

func primary(t testing.TB, ring *keyring.Ring) string {
	key, err := ring.Primary(ctx)
	require.NoError(t, err)
	return key.ID()
}

var sizes = []int{0, 1, 1000, 16383, 16384, 16385, 200_000}

func TestRewrapMovesEveryModeToEveryMode(t *testing.T) {
	for _, store := range blobtest.Stores {
		for _, from := range []string{"managed", "kms", "customer"} {
			for _, to := range []string{"managed", "kms", "customer"} {
				t.Run(store.Name+"/"+from+" to "+to, func(t *testing.T) {
					w := newWorld(t, store.Open(t))
					ciphers := map[string]sse.Cipher{"managed": sse.NewManaged(w.ring), "kms": w.kms, "customer": w.ssec}
					bodies := map[string][]byte{}
					for _, size := range sizes {
						key := fmt.Sprintf("a/%d", size)
						w.put(t, key, size, ciphers[from])
						bodies[key] = w.body(t, key)
					}
					newID := w.rotate(t)
					second := ssetest.NewCustomer(t, 2)
					target := map[string]sse.Cipher{"managed": sse.NewManaged(w.ring), "kms": w.kmsKey(t, "arn:k2"), "customer": second}[to]
					want := map[string]jobs.KeyRef{
						"managed": {sse.ModeManaged, newID}, "kms": {sse.ModeKMS, "arn:k2"}, "customer": {sse.ModeCustomer, ""},
					}[to]

					report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: target})
					require.NoError(t, err)
					require.EqualValues(t, len(sizes), report.Done)
					require.Equal(t, want, report.Target)
					if to == "customer" {
						w.Bucket = blobtest.NewBucketWith(t, w.Inner(), second, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
					}
					for _, size := range sizes {
						key := fmt.Sprintf("a/%d", size)
						w.requireUnchanged(t, key, size)
						require.Equal(t, want, w.entry(t, key).Seal)
						require.Equal(t, bodies[key], w.body(t, key), "the body is copied as it is")
					}

					w.store.set(nil)
					report, err = jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: target})
					require.NoError(t, err)
					require.EqualValues(t, len(sizes), report.Current, "there is nothing left to do")
					require.Zero(t, w.store.count("create"))
				})
			}
		}
	}
}

func TestRewrapChooses(t *testing.T) {
	for _, c := range []struct {
		name   string
		filter jobs.Filter
		done   []string
		failed []string
	}{
		{"all of the bucket's mode", jobs.Filter{}, []string{"a/old", "b/old"}, []string{"d/damaged", "d/later"}},
		{"all", jobs.Filter{Modes: []sse.Mode{sse.ModeManaged, sse.ModeKMS, sse.ModeCustomer}}, []string{"a/kms", "a/kms2", "a/old", "b/old", "c/ssec"}, nil},
		{"prefix", jobs.Filter{Prefix: "b/"}, []string{"b/old"}, nil},
		{"mode", jobs.Filter{Modes: []sse.Mode{sse.ModeKMS}}, []string{"a/kms", "a/kms2"}, nil},
		{"key", jobs.Filter{KeyIDs: []string{"arn:k2"}}, []string{"a/kms2"}, nil},
		{"no key id", jobs.Filter{KeyIDs: []string{""}}, []string{"c/ssec"}, nil},
		{"prefix and mode", jobs.Filter{Prefix: "a/", Modes: []sse.Mode{sse.ModeManaged}}, []string{"a/old"}, nil},
		{"nothing", jobs.Filter{KeyIDs: []string{"k3"}}, nil, nil},
	} {
		for _, dry := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/dry=%v", c.name, dry), func(t *testing.T) {
				w := newWorld(t, blobtest.NewMem(t))
				w.put(t, "a/old", 10, nil)
				w.put(t, "b/old", 100_000, nil)
				w.put(t, "a/kms", 10, w.kms)
				w.put(t, "a/kms2", 100_000, w.kmsKey(t, "arn:k2"))
				w.put(t, "c/ssec", 10, w.ssec)
				w.rotate(t)
				w.put(t, "b/new", 10, nil)
				require.NoError(t, w.Inner().WriteAll(ctx, "b/plain", blobtest.Content(10), nil))
				require.NoError(t, w.Inner().WriteAll(ctx, "d/damaged", []byte("\x89SSE\r\n\x1a\n\x01\x01"), nil))
				require.NoError(t, w.Inner().WriteAll(ctx, "d/later", []byte("\x89SSE\r\n\x1a\n\x02\x01"), nil))

				var done, failed []string
				w.store.set(nil)
				report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Filter: c.filter, Job: jobs.Job{DryRun: dry, Object: func(r jobs.Result) {
					switch r.Outcome {
					case jobs.OutcomeDone:
						done = append(done, r.Key)
						require.Positive(t, r.Stored)
					case jobs.OutcomeFailed:
						failed = append(failed, r.Key)
					}
				}}})
				require.Equal(t, c.done, done)
				require.Equal(t, c.failed, failed)
				require.EqualValues(t, len(done), report.Done)
				require.EqualValues(t, len(failed), report.Failed)
				require.Equal(t, len(failed) > 0, errors.Is(err, jobs.ErrIncomplete))
				if dry {
					require.Zero(t, w.store.count("create"))
				} else {
					require.Equal(t, len(done), w.store.count("close"))
				}
			})
		}
	}
}

// What has to be asked for, in any of four ways, is that objects change their mode.
func TestRewrapLeavesModesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		opts func(w *world) *jobs.RewrapOptions
		left map[string]sse.Mode

		skipped int64 // objects that stay in use under keys that the caller may want to delete
	}{
		"nothing": {func(*world) *jobs.RewrapOptions { return nil }, map[string]sse.Mode{"kms": sse.ModeKMS, "ssec": sse.ModeCustomer}, 2},
		"prefix": {func(*world) *jobs.RewrapOptions {
			return &jobs.RewrapOptions{Filter: jobs.Filter{Prefix: "k"}, Force: true}
		},
			map[string]sse.Mode{"kms": sse.ModeKMS, "ssec": sse.ModeCustomer}, 1},
		"modes": {func(*world) *jobs.RewrapOptions {
			return &jobs.RewrapOptions{Filter: jobs.Filter{Modes: []sse.Mode{sse.ModeKMS}}}
		}, map[string]sse.Mode{"kms": sse.ModeManaged, "ssec": sse.ModeCustomer}, 0},
		"key": {func(*world) *jobs.RewrapOptions {
			return &jobs.RewrapOptions{Filter: jobs.Filter{KeyIDs: []string{""}}}
		},
			map[string]sse.Mode{"kms": sse.ModeKMS, "ssec": sse.ModeManaged}, 0},
		"target": {func(w *world) *jobs.RewrapOptions { return &jobs.RewrapOptions{To: sse.NewManaged(w.ring)} },
			map[string]sse.Mode{"kms": sse.ModeManaged, "ssec": sse.ModeManaged}, 0},
		"source": {func(w *world) *jobs.RewrapOptions {
			return &jobs.RewrapOptions{From: sse.ByMode{sse.ModeManaged: sse.NewManaged(w.ring), sse.ModeKMS: w.kms, sse.ModeCustomer: w.ssec}}
		}, map[string]sse.Mode{"kms": sse.ModeManaged, "ssec": sse.ModeManaged}, 0},
	} {
		for _, dry := range []bool{true, false} {
			w := newWorld(t, blobtest.NewMem(t))
			w.put(t, "managed", 10, nil)
			w.put(t, "kms", 10, w.kms)
			w.put(t, "ssec", 10, w.ssec)
			w.rotate(t)
			opts := c.opts(w)
			if dry {
				if opts == nil {
					opts = new(jobs.RewrapOptions)
				}
				opts.DryRun = true
			}
			report, err := jobs.Rewrap(ctx, w.Bucket, opts)
			if require.Equal(t, c.skipped, report.Skipped); c.skipped > 0 {
				require.ErrorIs(t, err, jobs.ErrSkipped, name)
			} else {
				require.NoError(t, err, name)
			}
			for key, mode := range c.left {
				if seal := w.entry(t, key).Seal; dry {
					require.NotEqual(t, sse.ModeManaged, seal.Mode, name)
				} else {
					require.Equal(t, mode, seal.Mode, "%s: %s", name, key)
				}
			}
		}
	}
}

// A dry run tells the bytes that the real one writes.
func TestRewrapRehearsesExactly(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for _, size := range sizes {
		w.put(t, fmt.Sprint(size), size, nil)
	}
	w.rotate(t)
	dry, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{DryRun: true}})
	require.NoError(t, err)
	real, err := jobs.Rewrap(ctx, w.Bucket, nil)
	require.NoError(t, err)
	require.Equal(t, real.Counts, dry.Counts)
}

func TestRewrapForce(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.kms)
	before := blobtest.ReadAll(t, w.Inner(), "a")
	report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: w.kms})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Current)
	report, err = jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: w.kms, Force: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done)
	require.NotEqual(t, before, blobtest.ReadAll(t, w.Inner(), "a"))
	w.requireUnchanged(t, "a", 10)
}

// Whether a data key is bound to the bucket or the object is part of what is
// asked for.
func TestRewrapHeedsBucketKeys(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.kms)
	bucketKey, err := sse.NewKMS(w.fake, "arn:k1", &sse.KMSOptions{BucketKey: true})
	require.NoError(t, err)
	report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: bucketKey})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done)
	require.True(t, w.entry(t, "a").BucketKey)
	w.requireUnchanged(t, "a", 10)
}

func TestRewrapRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		opts func(w *world) *jobs.RewrapOptions
		err  error
	}{
		{"a mode that the policy refuses", func(w *world) *jobs.RewrapOptions {
			w.Bucket, _ = blob.NewBucket(w.Inner(), "photos", sse.NewManaged(w.ring), nil)
			return &jobs.RewrapOptions{To: w.ssec}
		}, blob.ErrPolicy},
		{"a key service that is away", func(w *world) *jobs.RewrapOptions {
			w.fake.Disable("arn:k2")
			c, _ := sse.NewKMS(w.fake, "arn:k2", nil)
			return &jobs.RewrapOptions{To: c}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			w.put(t, "a", 10, nil)
			opts := c.opts(w)
			w.store.set(nil)
			report, err := jobs.Rewrap(ctx, w.Bucket, opts)
			require.Error(t, err)
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
			}
			require.NotNil(t, report)
			require.Zero(t, w.store.count("open"), "no object was looked at")
		})
	}
}

// An object that cannot be done as asked stays as it is, and the others are done.
func TestRewrapReportsWhatItCannotDo(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	w.put(t, "b", 10, ssetest.NewCustomer(t, 9)) // whose key nobody has
	w.put(t, "c", 10, nil)
	require.NoError(t, w.Inner().Copy(ctx, "d", "a", nil)) // under a name that is not its own
	before := [][]byte{blobtest.ReadAll(t, w.Inner(), "b"), blobtest.ReadAll(t, w.Inner(), "d")}
	w.rotate(t)
	report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: sse.NewManaged(w.ring)})
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.EqualValues(t, 2, report.Done)
	require.EqualValues(t, 2, report.Failed)
	for i, key := range []string{"b", "d"} {
		require.Equal(t, key, report.Failures[i].Key)
		require.ErrorIs(t, report.Failures[i].Err, sse.ErrKey)
		require.Equal(t, before[i], blobtest.ReadAll(t, w.Inner(), key))
	}
}
