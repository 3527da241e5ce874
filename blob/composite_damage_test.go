package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// TestCompositeDamage flips every bit of a composite object and cuts it at every byte.
// Reads of the whole object fail, reads of a part never return wrong bytes, and no read
// takes the object for a plain one.
func TestCompositeDamage(t *testing.T) {
	inner, cipher := blobtest.NewMem(t), ssetest.NewCustomer(t, 1)
	b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{AllowPlain: true, Policy: blob.Policy{AllowCustomerKeys: true}})
	u := blobtest.StartUpload(t, cipher, "k")
	u.EnvelopeSize = 0 // without padding
	u.Part(t, 2, blobtest.Content(20))
	u.Part(t, 7, blobtest.Content(30))
	want := u.Put(t, inner)
	good := blobtest.ReadAll(t, inner, "k")
	whole := func(p []byte, what string, at int) {
		replaceStored(t, inner, "k", p)
		_, err := b.ReadAll(ctx, "k")
		require.Error(t, err, "%s %d", what, at)
		require.True(t, isOurs(err), "%s %d: %v", what, at, err)
	}
	check := func(p []byte, what string, at int) {
		whole(p, what, at)
		got, err := blobtest.ReadRange(b.Bucket, "k", 3, 25)
		if err == nil { // the range may not need what is damaged
			require.True(t, bytes.Equal(want[3:28], got), "%s %d", what, at)
		} else {
			require.True(t, bytes.HasPrefix(want[3:28], got), "%s %d", what, at)
		}
	}
	for n := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[n] ^= 1 << bit
			if bit == n%8 {
				check(bad, "bit of byte", n)
			} else {
				whole(bad, "bit of byte", n)
			}
		}
	}
	for n := range len(good) {
		check(good[:n], "cut to", n)
	}
	check(append(bytes.Clone(good), 0), "longer by", 1)
	replaceStored(t, inner, "k", good)
	require.Equal(t, want, blobtest.ReadAll(t, b.Bucket, "k"))
}

// TestCompositeForged: whatever a store that knows the format makes of its objects, no way
// to read returns anything but the object's own plaintext, and each notices.
func TestCompositeForged(t *testing.T) {
	inner, cipher := blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	for _, size := range []int{100, chunk, 9 * chunk} { // read from memory, and not
		u := blobtest.StartUpload(t, cipher, "k")
		stale := u.Part(t, 1, blobtest.Content(size)).Stored
		one := u.Part(t, 1, blobtest.Content(size)).Stored
		two := u.Part(t, 2, blobtest.Content(size + 1)[1:]).Stored
		empty := u.Part(t, 3, nil).Stored
		want := u.Put(t, inner)
		whole := blobtest.ReadAll(t, inner, "k")
		foreign := blobtest.StartUpload(t, cipher, "k") // of the same name and sizes
		other := foreign.Part(t, 1, blobtest.Content(size)).Stored
		foreign.Part(t, 2, blobtest.Content(size))
		foreign.Part(t, 3, nil)
		foreign.Object(t)
		twice, _ := u.Object(t) // completed again: another list of the same parts
		require.Len(t, twice, len(whole))
		join := func(pieces ...[]byte) []byte { return bytes.Join(pieces, nil) }
		trailer := whole[len(one)+len(two)+len(empty):]
		require.Equal(t, whole, join(one, two, empty, trailer))
		last := len(two) - 16
		for name, bad := range map[string][]byte{
			"swapped parts":          join(two, one, empty, trailer),
			"a part twice":           join(one, one, empty, trailer),
			"a part left out":        join(one, empty, trailer),
			"the last part left out": join(one, two, trailer),
			"an earlier attempt":     join(stale, two, empty, trailer),
			"a part of another":      join(other, two, empty, trailer),
			"another's trailer":      join(one, two, empty, foreign.Trailer),
			"cut in a part":          join(one, two[:len(two)-20], empty, trailer),
			"cut before the trailer": join(one, two, empty[:70], trailer),
			"a byte more":            join(one, two, empty, []byte{0}, trailer),
			"no trailer":             join(one, two, empty),
			"half a trailer":         whole[:len(whole)-100],
			"a tag flipped":          join(one, two[:last], []byte{two[last] ^ 1}, two[last+1:], empty, trailer),
			"the empty part flipped": join(one, two, empty[:83], []byte{empty[83] ^ 1}, trailer),
			"the first head flipped": join(one[:12], []byte{one[12] ^ 1}, one[13:], two, empty, trailer),
		} {
			replaceStored(t, inner, "k", bad)
			for _, idiom := range idioms {
				t.Run(fmt.Sprintf("%d/%s/%s", size, name, idiom.name), func(t *testing.T) {
					got, err := idiom.read(b.Bucket)
					if name == "the first head flipped" && err == nil { // a range needs no heads
						require.True(t, bytes.Equal(want, got))
						return
					}
					require.Error(t, err)
					require.True(t, bytes.HasPrefix(want, got), "wrong bytes")
				})
			}
		}
		replaceStored(t, inner, "k", whole)
		for _, idiom := range idioms {
			t.Run(fmt.Sprintf("%d/whole/%s", size, idiom.name), func(t *testing.T) {
				got, err := idiom.read(b.Bucket)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, got))
			})
		}
	}
}

// TestCompositeBrokenAnswer: a response that breaks off is an error, and what came before it
// is right.
func TestCompositeBrokenAnswer(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	cipher := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	want := blobtest.PutComposite(t, inner, "k", cipher, 10*chunk, 5*chunk+3, 0)
	for _, off := range []int64{0, 10, 10 * chunk, 20 * chunk} {
		for _, n := range []int64{-1, 0, 7, 9 * chunk} {
			breakReads(t, spy, b, want, off, n, 12)
		}
	}
}

// TestCompositeTorn: a read whose requests met two versions of an object starts again and
// returns one of them, whichever of the versions is composite, and even if nothing but the
// content tells them apart.
func TestCompositeTorn(t *testing.T) {
	const size = 12 * chunk
	cipher := sse.NewManaged(blobtest.NewRing(t))
	one, two := blobtest.Content(size), bytes.Repeat([]byte("new"), size/3)
	put := map[string]func(t *testing.T, b *blob.Bucket, p []byte){
		"composite": func(t *testing.T, b *blob.Bucket, p []byte) {
			u := blobtest.StartUpload(t, cipher, "k")
			u.Part(t, 1, p[:11*chunk])
			u.Part(t, 2, p[11*chunk:])
			u.Put(t, b.Inner())
		},
		"whole": func(t *testing.T, b *blob.Bucket, p []byte) { require.NoError(t, b.WriteAll(ctx, "k", p, nil)) },
	}
	reads := map[string]func(b *blob.Bucket) ([]byte, error){
		"whole":      func(b *blob.Bucket) ([]byte, error) { return b.ReadAll(ctx, "k") },
		"range":      func(b *blob.Bucket) ([]byte, error) { return blobtest.ReadRange(b.Bucket, "k", 2*chunk, 5) },
		"long range": func(b *blob.Bucket) ([]byte, error) { return blobtest.ReadRange(b.Bucket, "k", 1, -1) },
		"copy": func(b *blob.Bucket) ([]byte, error) {
			if err := b.Copy(ctx, "copy", "k", nil); err != nil {
				return nil, err
			}
			return b.ReadAll(ctx, "copy")
		},
		"attributes": func(b *blob.Bucket) ([]byte, error) {
			attrs, err := b.Attributes(ctx, "k")
			if err != nil {
				return nil, err
			}
			return make([]byte, attrs.Size), nil
		},
	}
	for from := range put {
		for to := range put {
			for way, read := range reads {
				t.Run(fmt.Sprintf("%s to %s/%s", from, to, way), func(t *testing.T) {
					for nth := 1; nth <= 5; nth++ {
						spy, inner := blobtest.NewSpy(t)
						spy.Coarse = 1000 * time.Hour
						b := blobtest.NewBucketWith(t, inner, cipher, nil)
						put[from](t, b, one)
						var mu sync.Mutex
						var count int
						spy.Hook = func(_ context.Context, call string) error {
							if !strings.HasPrefix(call, "GET k") && !strings.HasPrefix(call, "HEAD k") {
								return nil
							}
							mu.Lock()
							count++
							now := count == nth
							mu.Unlock()
							if now {
								put[to](t, b, two)
							}
							return nil
						}
						got, err := read(b)
						require.NoError(t, err, "before request %d", nth)
						if way == "attributes" {
							require.Len(t, got, size)
							continue
						}
						part := func(p []byte) []byte {
							switch way {
							case "range":
								return p[2*chunk:][:5]
							case "long range":
								return p[1:]
							}
							return p
						}
						require.True(t, bytes.Equal(part(one), got) || bytes.Equal(part(two), got), "neither version was read, before request %d", nth)
					}
				})
			}
		}
	}
}

// TestCompositeProperty: objects of any sizes, uploaded in any order and with attempts that
// were repeated, with filler, read back as streams and in ranges, and so do their copies.
func TestCompositeProperty(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 13))
			mode := blobtest.Modes[random.IntN(len(blobtest.Modes))]
			inner, cipher := blobtest.Stores[random.IntN(len(blobtest.Stores))].Open(t), mode.Cipher(t)
			b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{Policy: mode.Policy})
			u := blobtest.StartUpload(t, cipher, "k")
			n := 1 + random.IntN(8)
			for _, i := range random.Perm(n) {
				size := []int{1 + random.IntN(100), chunk, chunk - 1, 2 * chunk, 1 + random.IntN(9*chunk)}[random.IntN(5)]
				if i == n-1 && random.IntN(3) == 0 {
					size = 0
				}
				for range 1 + random.IntN(2) {
					u.Part(t, 1+3*i, blobtest.Content(size + i)[i:])
				}
			}
			u.Filler = []int{0, 1, 70_000}[random.IntN(3)]
			want := u.Put(t, inner)
			require.NoError(t, b.Copy(ctx, "copy", "k", nil))
			for _, key := range []string{"k", "copy"} {
				require.True(t, bytes.Equal(want, blobtest.ReadAll(t, b.Bucket, key)))
				o, err := b.List(&gcblob.ListOptions{Prefix: key}).Next(ctx)
				require.NoError(t, err)
				require.EqualValues(t, len(want), o.Size)
				for range 30 {
					off := random.IntN(len(want) + 2)
					length := random.IntN(len(want) + 2)
					if random.IntN(4) == 0 {
						length = chunk - off%chunk
					}
					got, err := blobtest.ReadRange(b.Bucket, key, int64(off), int64(length))
					require.NoError(t, err)
					from := min(off, len(want))
					require.True(t, bytes.Equal(want[from:min(from+length, len(want))], got), "%d+%d of %d", off, length, len(want))
				}
			}
		})
	}
}
