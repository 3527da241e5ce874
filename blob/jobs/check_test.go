package jobs_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

func metadata(md map[string]string) *gcblob.WriterOptions { return &gcblob.WriterOptions{Metadata: md} }

func withPrefix(keys []string, prefix string) (some []string) {
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) {
			some = append(some, key)
		}
	}
	return some
}

// verdicts checks a bucket.
func (w *world) verdicts(t testing.TB, opts *jobs.CheckOptions) map[string]jobs.Verdict {
	all := map[string]jobs.Verdict{}
	for f, err := range jobs.Check(ctx, w.Bucket, opts) {
		require.NoError(t, err)
		require.Equal(t, f.Verdict == jobs.VerdictGood || f.Verdict == jobs.VerdictPlain, f.Err == nil, "%s: %v", f.Key, f.Err)
		all[f.Key] = f.Verdict
	}
	return all
}

// It is long because each damage stands beside the verdict on it.
func TestCheck(t *testing.T) {
	const size = 40_000 // three chunks
	for _, store := range blobtest.Stores {
		for _, depth := range []jobs.Depth{jobs.CheckEnvelopes, jobs.CheckLengths, jobs.CheckBodies} {
			t.Run(fmt.Sprintf("%s/depth %d", store.Name, depth), func(t *testing.T) {
				w := newWorld(t, store.Open(t))
				inner := w.Inner()
				w.put(t, "in a disabled version", size, nil)
				disabled := primary(t, w.ring)
				w.rotate(t)
				w.put(t, "under an unknown key of the service", size, w.kms)
				for i, n := range sizes {
					w.put(t, fmt.Sprintf("good %d", i), n, []sse.Cipher{nil, w.kmsKey(t, "arn:k2"), w.ssec}[i%3])
				}
				w.put(t, "customer's", size, ssetest.NewCustomer(t, 9))
				require.NoError(t, inner.WriteAll(ctx, "plain", blobtest.Content(5), nil))
				require.NoError(t, inner.WriteAll(ctx, "later", []byte(later), nil))
				w.put(t, "x", size, nil)
				stored := blobtest.ReadAll(t, inner, "x")
				attrs, err := inner.Attributes(ctx, "x")
				require.NoError(t, err)
				require.NoError(t, inner.Delete(ctx, "x"))
				damage := func(key string, p []byte) {
					require.NoError(t, inner.WriteAll(ctx, key, p, metadata(attrs.Metadata)))
				}
				flip := func(at int) []byte {
					p := bytes.Clone(stored)
					p[at] ^= 1
					return p
				}
				w.put(t, "x", size, nil)
				damage("moved", stored)
				damage("x", flip(20))   // in the key id
				damage("x2", flip(0))   // in the magic
				damage("x3", flip(900)) // in the padding
				damage("x4", stored[:500])
				damage("x5", stored[:1024])
				damage("x6", stored[:1024+16400])
				// Of the object's own name, from here on.
				own := func(key string, edit func(p []byte) []byte) {
					w.put(t, key, size, nil)
					p := blobtest.ReadAll(t, inner, key)
					require.NoError(t, inner.WriteAll(ctx, key, edit(p), metadata(attrs.Metadata)))
				}
				own("cut in a chunk", func(p []byte) []byte { return p[:len(p)-100] })
				own("cut at a chunk", func(p []byte) []byte { return p[:1024+2*16400] })
				own("flip in the first chunk", func(p []byte) []byte { p[1024+5] ^= 1; return p })
				own("flip in the last chunk", func(p []byte) []byte { p[len(p)-1] ^= 1; return p })
				own("longer", func(p []byte) []byte { return append(p, 0) })
				_, err = w.ring.SetState(ctx, disabled, keyring.Disabled)
				require.NoError(t, err)
				w.fake.RemoveKey("arn:k1")

				want := map[string]jobs.Verdict{
					"in a disabled version":               jobs.VerdictNoKey,
					"under an unknown key of the service": jobs.VerdictWrongKey,
					"customer's":                          jobs.VerdictWrongKey,
					"plain":                               jobs.VerdictPlain,
					"later":                               jobs.VerdictUnknownVersion,
					"moved":                               jobs.VerdictWrongKey,
					"x":                                   jobs.VerdictWrongKey,
					"x2":                                  jobs.VerdictDamaged,
					"x3":                                  jobs.VerdictDamaged,
					"x4":                                  jobs.VerdictTruncated,
					"x5":                                  jobs.VerdictTruncated,
					"x6":                                  jobs.VerdictTruncated,
					"cut in a chunk":                      jobs.VerdictGood,
					"cut at a chunk":                      jobs.VerdictTruncated,
					"flip in the first chunk":             jobs.VerdictGood,
					"flip in the last chunk":              jobs.VerdictGood,
					"longer":                              jobs.VerdictGood,
				}
				for i := range sizes {
					want[fmt.Sprintf("good %d", i)] = jobs.VerdictGood
				}
				if depth != jobs.CheckEnvelopes {
					want["cut in a chunk"], want["flip in the last chunk"], want["longer"] = jobs.VerdictDamaged, jobs.VerdictDamaged, jobs.VerdictDamaged
				}
				if depth == jobs.CheckBodies {
					want["flip in the first chunk"] = jobs.VerdictDamaged
				}
				require.Equal(t, want, w.verdicts(t, &jobs.CheckOptions{Depth: depth}))

				some := w.verdicts(t, &jobs.CheckOptions{Depth: depth, Filter: jobs.Filter{Modes: []sse.Mode{sse.ModeCustomer}}})
				require.Equal(t, []string{"customer's", "good 2", "good 5"}, slices.Sorted(maps.Keys(some)))
			})
		}
	}
}

// Without the customer's key there is no verdict on customers' objects.
func TestCheckWithoutTheKey(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.ssec)
	require.Equal(t, jobs.VerdictNoKey, w.verdicts(t, &jobs.CheckOptions{From: sse.NewManaged(w.ring)})["a"])
	require.Equal(t, jobs.VerdictGood, w.verdicts(t, &jobs.CheckOptions{From: w.ssec})["a"])
}

func TestCheckFaults(t *testing.T) {
	for _, op := range []string{"open", "read"} {
		for nth := 1; nth <= 3; nth++ {
			t.Run(fmt.Sprint(op, nth), func(t *testing.T) {
				w := newWorld(t, blobtest.NewMem(t))
				w.put(t, "a", 40_000, nil)
				w.put(t, "b", 10, nil)
				n := 0
				w.store.set(func(o, key string) error {
					if o == op && key == "a" {
						if n++; n >= nth {
							return errRigged
						}
					}
					return nil
				})
				got := w.verdicts(t, &jobs.CheckOptions{Depth: jobs.CheckBodies})
				want := jobs.VerdictUnreadable
				if n < nth {
					want = jobs.VerdictGood
				}
				require.Equal(t, map[string]jobs.Verdict{"a": want, "b": jobs.VerdictGood}, got)
			})
		}
	}
}

// An object that is replaced between two looks is good, and one that is deleted is
// not there: neither is damaged.
func TestCheckOfWhatChanges(t *testing.T) {
	for _, depth := range []jobs.Depth{jobs.CheckLengths, jobs.CheckBodies} {
		w := newWorld(t, blobtest.NewMem(t))
		w.put(t, "a", 40_000, nil)
		w.put(t, "b", 40_000, nil)
		opened := 0
		w.store.set(func(op, key string) error {
			if op == "open" {
				if opened++; opened == 2 { // the body's
					require.NoError(t, w.store.Bucket.Delete(ctx, "b"))
					w.put(t, "a", 20_000, nil)
				}
			}
			return nil
		})
		got := w.verdicts(t, &jobs.CheckOptions{Depth: depth, Workers: 1})
		require.Equal(t, map[string]jobs.Verdict{"a": jobs.VerdictGood}, got)
	}
}

// A store that tells, once, the size that another version had, as one of files does
// that looks at a file and then opens it, makes no object a truncated one. What it
// tells always is believed.
func TestCheckOfAStaleSize(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(100), nil))
	for times, want := range map[int]jobs.Verdict{1: jobs.VerdictGood, 1000: jobs.VerdictTruncated} {
		spy.Stale = func() int64 {
			if times--; times < 0 {
				return 0
			}
			return 50
		}
		for f, err := range jobs.Check(ctx, b, nil) {
			require.NoError(t, err)
			require.Equal(t, want, f.Verdict, f.Err)
		}
	}
}

// An object that is another one whenever its body is asked for is not damaged.
func TestCheckOfWhatNeverRests(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 40_000, nil)
	opened := 0
	w.store.set(func(op, key string) error {
		if op == "open" {
			if opened++; opened%2 == 0 { // the body's
				w.put(t, "a", 40_000, nil)
			}
		}
		return nil
	})
	for f, err := range jobs.Check(ctx, w.Bucket, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
		require.NoError(t, err)
		require.Equal(t, jobs.VerdictUnreadable, f.Verdict)
		require.ErrorIs(t, f.Err, blob.ErrChanged)
	}
}

// A look that failed is no look at the version that was there.
func TestCheckAfterAFault(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 40_000, nil)
	opened := 0
	w.store.set(func(op, key string) error {
		if op == "open" {
			switch opened++; opened {
			case 2: // the first look at the body
				return errRigged
			case 4: // the second
				w.put(t, "a", 40_000, nil)
			}
		}
		return nil
	})
	for f, err := range jobs.Check(ctx, w.Bucket, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
		require.NoError(t, err)
		require.Equal(t, jobs.VerdictGood, f.Verdict, f.Err)
	}
}
