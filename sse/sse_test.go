package sse_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

const chunk = 16384

var (
	customerKey = bytes.Repeat([]byte{0xC5}, 32)
	object      = sse.Object{Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"team": "blue", "case": "17"}}
)

// pattern returns n bytes that do not repeat.
func pattern(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(p)
	return p
}

func newRing(t testing.TB) *keyring.Ring {
	t.Helper()
	return newRingIn(t, keyring.NewMemStore())
}

func newRingIn(t testing.TB, store keyring.Store) *keyring.Ring {
	t.Helper()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{0x82}, 32))
	require.NoError(t, err)
	ring, err := keyring.Create(t.Context(), store, root, nil)
	require.NoError(t, err)
	return ring
}

func newCustomer(t testing.TB, key []byte) *sse.Customer {
	t.Helper()
	c, err := sse.NewCustomer(key)
	require.NoError(t, err)
	return c
}

// fresh is a Decrypter like the one given, whose ring has not met a miss yet: a
// ring looks up unknown versions at a limited rate, and makes callers wait.
type fresh struct{ store keyring.Store }

func (f fresh) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{0x82}, 32))
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Open(ctx, f.store, root, nil)
	if err != nil {
		return nil, err
	}
	return sse.NewManaged(ring).Decrypt(ctx, obj, env)
}

// ciphers are the modes, each with a second cipher of the same mode and another key.
func ciphers(t testing.TB) map[sse.Mode][2]sse.Cipher {
	return map[sse.Mode][2]sse.Cipher{
		sse.ModeManaged:  {sse.NewManaged(newRing(t)), sse.NewManaged(newRing(t))},
		sse.ModeKMS:      {newKMS(t, kmstest.NewFake(kmsKey), kmsKey, nil), newKMS(t, kmstest.NewFake("key/8"), "key/8", nil)},
		sse.ModeCustomer: {newCustomer(t, customerKey), newCustomer(t, bytes.Repeat([]byte{1}, 32))},
	}
}

// anyContext returns obj without a statement about its context.
func anyContext(obj sse.Object) sse.Object {
	return sse.Object{Bucket: obj.Bucket, Key: obj.Key, AnyContext: true}
}

// seal returns a self-contained object.
func seal(t testing.TB, enc sse.Encrypter, obj sse.Object, plaintext []byte, opts *sse.WriterOptions) []byte {
	t.Helper()
	var dst bytes.Buffer
	w, err := sse.NewWriter(context.Background(), &dst, enc, obj, opts)
	require.NoError(t, err)
	_, err = w.Write(plaintext)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return dst.Bytes()
}

// open reads a self-contained object as a stream.
func open(dec sse.Decrypter, obj sse.Object, data []byte) ([]byte, error) {
	r, err := sse.NewReader(context.Background(), bytes.NewReader(data), dec, obj)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// openAt reads a self-contained object at random.
func openAt(dec sse.Decrypter, obj sse.Object, data []byte) ([]byte, error) {
	r, err := sse.NewReaderAt(context.Background(), bytes.NewReader(data), int64(len(data)), dec, obj)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestRoundTrip(t *testing.T) {
	for mode, cs := range ciphers(t) {
		for _, size := range []int{0, 1, 1000, chunk - 1, chunk, chunk + 1, 5*chunk + 7} {
			for _, envelope := range []int{0, 1024} {
				name := fmt.Sprintf("%v, %d bytes, envelope %d", mode, size, envelope)
				plaintext := pattern(size)
				data := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: envelope})
				env, err := sse.ReadEnvelope(bytes.NewReader(data))
				require.NoError(t, err, name)
				require.Equal(t, mode, env.Mode(), name)
				require.Equal(t, object.Context, env.Context(), name)
				require.Equal(t, mode == sse.ModeCustomer, env.KeyID() == "", name)
				if envelope > 0 {
					require.Equal(t, envelope, env.Size(), name)
				}
				body, err := sse.CiphertextSize(int64(size))
				require.NoError(t, err)
				require.EqualValues(t, len(data)-env.Size(), body, name)
				plain, err := sse.PlaintextSize(body)
				require.NoError(t, err)
				require.EqualValues(t, size, plain, name)
				for _, read := range []func(sse.Decrypter, sse.Object, []byte) ([]byte, error){open, openAt} {
					got, err := read(sse.ByMode{mode: cs[0]}, object, data)
					require.NoError(t, err, name)
					require.True(t, bytes.Equal(plaintext, got), name)
				}
			}
		}
	}
}

// TestDetached keeps the envelope apart from the body. SPEC BODY-1
func TestDetached(t *testing.T) {
	ctx := t.Context()
	plaintext := pattern(3*chunk + 100)
	for mode, cs := range ciphers(t) {
		e, err := cs[0].Encrypt(ctx, object)
		require.NoError(t, err)
		body, err := io.ReadAll(e.Reader(bytes.NewReader(plaintext)))
		require.NoError(t, err)
		d, err := cs[0].Decrypt(ctx, object, e.Envelope())
		require.NoError(t, err)

		// Many readers of one Decryption at once.
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				got, err := io.ReadAll(d.Reader(bytes.NewReader(body)))
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%v: reader %d: %v", mode, i, err)
				}
			})
		}
		wg.Wait()

		off, n, err := sse.CiphertextRange(20_000, 100)
		require.NoError(t, err)
		part, err := io.ReadAll(d.RangeReader(bytes.NewReader(body[off:off+n]), 20_000, 100))
		require.NoError(t, err)
		require.Equal(t, plaintext[20_000:20_100], part)

		at, err := d.ReaderAt(bytes.NewReader(body), int64(len(body)))
		require.NoError(t, err)
		require.EqualValues(t, len(plaintext), at.Size())
		got := make([]byte, at.Size())
		_, err = at.ReadAt(got, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))

		// The manners of io.Reader, on a body that byte by byte reads suit.
		short := seal(t, cs[0], object, plaintext[:200], nil)
		section, err := sse.NewReaderAt(ctx, bytes.NewReader(short), int64(len(short)), cs[0], object)
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(section, plaintext[:200]))
	}
}

// TestOneStreamPerEncryption: a second stream would use a key twice. SPEC BODY-2
func TestOneStreamPerEncryption(t *testing.T) {
	for _, first := range []func(*sse.Encryption){
		func(e *sse.Encryption) { e.Writer(io.Discard) },
		func(e *sse.Encryption) { e.Reader(strings.NewReader("")) },
	} {
		e, err := newCustomer(t, customerKey).Encrypt(t.Context(), object)
		require.NoError(t, err)
		first(e)
		var dst bytes.Buffer
		w := e.Writer(&dst)
		_, err = w.Write([]byte("x"))
		require.ErrorIs(t, err, sse.ErrUsed)
		_, err = io.Copy(w, strings.NewReader("x"))
		require.ErrorIs(t, err, sse.ErrUsed)
		require.ErrorIs(t, w.Close(), sse.ErrUsed)
		require.Zero(t, dst.Len())
		n, err := io.Copy(io.Discard, e.Reader(strings.NewReader("x")))
		require.ErrorIs(t, err, sse.ErrUsed)
		require.Zero(t, n)
		_, err = e.Reader(strings.NewReader("x")).Read(make([]byte, 1))
		require.ErrorIs(t, err, sse.ErrUsed)
	}
}

// TestDataKeysAreUnique: no two objects share a salt, a commitment or a byte run. SPEC BODY-2
func TestDataKeysAreUnique(t *testing.T) {
	for mode, cs := range ciphers(t) {
		seen := map[string]bool{}
		for range 500 {
			data := seal(t, cs[0], object, []byte("the same plaintext"), nil)
			tail := string(data[len(data)-56-34:]) // head and body
			require.False(t, seen[tail], mode)
			seen[tail] = true
		}
	}
}

// The errors that damage may give. Anything else, a clean end above all, is a failure.
var refusals = []error{sse.ErrFormat, sse.ErrVersion, sse.ErrMode, sse.ErrKey, sse.ErrCorrupt, sse.ErrTruncated}

// requireRefused opens data in every way, in which no byte that is not a true
// prefix may come out, and no way may end cleanly.
func requireRefused(t *testing.T, dec sse.Decrypter, data, plaintext []byte, name string) {
	t.Helper()
	for way, read := range map[string]func() ([]byte, error){
		"stream":          func() ([]byte, error) { return open(dec, object, data) },
		"at random":       func() ([]byte, error) { return openAt(dec, object, data) },
		"byte by byte":    func() ([]byte, error) { return byteByByte(dec, data) },
		"twice after all": func() ([]byte, error) { return again(dec, data) },
	} {
		got, err := read()
		require.Error(t, err, "%s, %s", name, way)
		known := false
		for _, refusal := range refusals {
			known = known || errors.Is(err, refusal)
		}
		require.True(t, known, "%s, %s: %v", name, way, err)
		require.True(t, bytes.HasPrefix(plaintext, got), "%s, %s: wrong plaintext", name, way)
	}
}

func byteByByte(dec sse.Decrypter, data []byte) ([]byte, error) {
	r, err := sse.NewReader(context.Background(), iotest.OneByteReader(bytes.NewReader(data)), dec, object)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(iotest.OneByteReader(r))
}

// again reads on after the error. SPEC ERR-3
func again(dec sse.Decrypter, data []byte) ([]byte, error) {
	r, err := sse.NewReader(context.Background(), bytes.NewReader(data), dec, object)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	for range 3 {
		n, second := r.Read(make([]byte, 100))
		if n != 0 || !errors.Is(second, err) {
			return nil, fmt.Errorf("after %v: %d, %v", err, n, second)
		}
		if _, second = io.Copy(io.Discard, r); !errors.Is(second, err) {
			return nil, fmt.Errorf("after %v: %v", err, second)
		}
	}
	return got, err
}

// TestEveryBitFlip and TestEveryTruncation are exhaustive over small objects.
// SPEC ENV-1 ENV-2 ENV-3 SEAL-2 MSG-4 MSG-5 ERR-1

func TestEveryBitFlip(t *testing.T) {
	plaintext := []byte("attack at dawn")
	store := keyring.NewMemStore()
	ring := newRingIn(t, store)
	service := newKMS(t, kmstest.NewFake(kmsKey), kmsKey, &sse.KMSOptions{BucketKey: true})
	dec := sse.ByMode{sse.ModeManaged: fresh{store}, sse.ModeKMS: service, sse.ModeCustomer: newCustomer(t, customerKey)}
	for mode, enc := range map[sse.Mode]sse.Encrypter{
		sse.ModeManaged: sse.NewManaged(ring), sse.ModeKMS: service, sse.ModeCustomer: newCustomer(t, customerKey),
	} {
		for _, size := range []int{0, 600} {
			data := seal(t, enc, object, plaintext, &sse.WriterOptions{EnvelopeSize: size})
			for bit := range len(data) * 8 {
				damaged := bytes.Clone(data)
				damaged[bit/8] ^= 1 << (bit % 8)
				requireRefused(t, dec, damaged, plaintext, fmt.Sprintf("%v, bit %d of byte %d", mode, bit%8, bit/8))
			}
		}
	}
}

func TestEveryTruncation(t *testing.T) {
	for mode, cs := range ciphers(t) {
		for _, plaintext := range [][]byte{nil, []byte("attack at dawn")} {
			data := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: 600})
			for n := range len(data) {
				requireRefused(t, cs[0], data[:n], plaintext, fmt.Sprintf("%v, %d of %d bytes", mode, n, len(data)))
			}
		}
		// At and around the boundaries of a longer one.
		plaintext := pattern(3 * chunk)
		data := seal(t, cs[0], object, plaintext, nil)
		body := len(data) - (3*(chunk+16) + 16)
		for k := range 4 {
			for _, d := range []int{-17, -16, -1, 0, 1, 15, 16, 17} {
				if n := body + k*(chunk+16) + d; n < len(data) {
					requireRefused(t, cs[0], data[:n], plaintext, fmt.Sprintf("%v, cut at %d%+d", mode, k, d))
				}
			}
			_, err := open(cs[0], object, data[:body+k*(chunk+16)])
			require.ErrorIs(t, err, sse.ErrTruncated) // SPEC MSG-6 ERR-2
		}
		_, err := open(cs[0], object, data[:body-1])
		require.ErrorIs(t, err, sse.ErrFormat)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

// TestMixedParts joins what does not belong together. SPEC SEAL-2
func TestMixedParts(t *testing.T) {
	plaintext := pattern(4*chunk + 5)
	for mode, cs := range ciphers(t) {
		a := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: 640})
		b := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: 640})
		part := func(data []byte, k int) []byte { return data[640+k*16400:][:16400] }
		join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
		for name, mixed := range map[string][]byte{
			"envelope of A, body of B":          join(a[:640], b[640:]),
			"envelope of A, head and body of B": join(a[:640-56], b[640-56:]),
			"chunks swapped":                    join(a[:640], part(a, 1), part(a, 0), a[640+2*16400:]),
			"chunk duplicated":                  join(a[:640], part(a, 0), a[640:]),
			"chunk dropped":                     join(a[:640], a[640+16400:]),
			"last appended":                     join(a, a[640+4*16400:]),
			"byte appended":                     join(a, []byte{0}),
			"object appended":                   join(a, b),
			"chunk of B":                        join(a[:640], part(b, 0), a[640+16400:]),
			"nothing after it":                  a[:640],
			"envelope twice":                    join(a[:640], a),
			"body alone":                        a[640:],
		} {
			requireRefused(t, cs[0], mixed, plaintext, fmt.Sprintf("%v, %s", mode, name))
		}
		_, err := open(cs[0], object, join(a[:640-56], b[640-56:]))
		require.ErrorIs(t, err, sse.ErrKey, "the head is bound by the sealed data key")
		var bad *sse.ChunkError // SPEC ERR-4
		_, err = open(cs[0], object, join(a[:640], part(a, 0), part(a, 2), part(a, 1), a[640+3*16400:]))
		require.ErrorAs(t, err, &bad)
		require.EqualValues(t, 1, bad.Chunk)
	}
}

// TestWrongObject: name, context and key are all bound. SPEC SEAL-1 SEAL-4
func TestWrongObject(t *testing.T) {
	for mode, cs := range ciphers(t) {
		data := seal(t, cs[0], object, []byte("secret"), nil)
		for name, obj := range map[string]sse.Object{
			"bucket":        {Bucket: "photoS", Key: object.Key},
			"key":           {Bucket: object.Bucket, Key: object.Key + "/"},
			"moved slash":   {Bucket: "photos/2026", Key: "cat.jpg"},
			"swapped":       {Bucket: object.Key, Key: object.Bucket},
			"joined":        {Bucket: object.Bucket + "/" + object.Key},
			"empty":         {},
			"fewer pairs":   {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{"team": "blue"}},
			"no pairs":      {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{}},
			"nil pairs":     {Bucket: object.Bucket, Key: object.Key},
			"other case":    {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{"Team": "blue", "case": "17"}},
			"other value":   {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{"team": "blu", "case": "17"}},
			"more pairs":    {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{"team": "blue", "case": "17", "x": ""}},
			"shifted value": {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{"teamb": "lue", "case": "17"}},
		} {
			_, err := open(cs[0], obj, data)
			require.ErrorIs(t, err, sse.ErrKey, "%v, %s", mode, name)
			_, err = openAt(cs[0], obj, data)
			require.ErrorIs(t, err, sse.ErrKey, "%v, %s", mode, name)
		}
		for name, obj := range map[string]sse.Object{
			"any context":    anyContext(object),
			"stated context": {Bucket: object.Bucket, Key: object.Key, Context: kms.Context{"case": "17", "team": "blue"}},
		} {
			got, err := open(cs[0], obj, data)
			require.NoError(t, err, name)
			require.Equal(t, "secret", string(got), name)
		}
		_, err := open(cs[1], object, data)
		require.ErrorIs(t, err, sse.ErrKey, "%v, another key", mode)
	}
}

// TestModesAreExclusive: a mode opens its own envelopes only, without a try of
// its key. SPEC SEAL-3
func TestModesAreExclusive(t *testing.T) {
	cs := ciphers(t)
	for mode, pair := range cs {
		data := seal(t, pair[0], object, nil, nil)
		for other := range cs {
			_, err := open(cs[other][0], object, data)
			if other == mode {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, sse.ErrMode)
			}
			_, err = open(sse.ByMode{other: cs[other][0]}, object, data)
			if other != mode {
				require.ErrorIs(t, err, sse.ErrMode)
			}
		}
		_, err := open(sse.ByMode{}, object, data)
		require.ErrorIs(t, err, sse.ErrMode)
		_, err = open(sse.ByMode{mode: nil}, object, data)
		require.ErrorIs(t, err, sse.ErrMode)
	}
}

// TestAnyContextIsExplicit: a caller who forgets the context gets an error, and
// loses nothing.
func TestAnyContextIsExplicit(t *testing.T) {
	ctx := t.Context()
	forgotten := sse.Object{Bucket: object.Bucket, Key: object.Key}
	both := anyContext(object)
	both.Context = object.Context
	for mode, cs := range ciphers(t) {
		_, err := cs[0].Encrypt(ctx, anyContext(object))
		require.ErrorIs(t, err, sse.ErrInvalid, mode)
		e, err := cs[0].Encrypt(ctx, object)
		require.NoError(t, err)
		_, err = cs[0].Decrypt(ctx, forgotten, e.Envelope())
		require.ErrorIs(t, err, sse.ErrKey, mode)
		_, err = cs[0].Decrypt(ctx, both, e.Envelope())
		require.ErrorIs(t, err, sse.ErrInvalid, mode)
		d, err := cs[0].Decrypt(ctx, object, e.Envelope())
		require.NoError(t, err)
		for _, obj := range []sse.Object{forgotten, both} {
			_, err = cs[0].Rewrap(ctx, obj, d)
			require.ErrorIs(t, err, sse.ErrInvalid, mode)
		}
	}
}

// TestRewrap goes from every cipher to every other, and to other names and
// contexts; the body stays as it is. SPEC SEAL-5
func TestRewrap(t *testing.T) {
	ctx := t.Context()
	plaintext := pattern(2*chunk + 9)
	renamed := sse.Object{Bucket: "archive", Key: "cat", Context: kms.Context{"team": "red"}}
	var all []sse.Cipher
	for _, pair := range ciphers(t) {
		all = append(all, pair[0], pair[1])
	}
	for _, from := range all {
		for _, to := range all {
			for _, target := range []struct{ ask, then sse.Object }{
				{object, object},
				{anyContext(object), object},
				{sse.Object{Bucket: "archive", Key: "cat", AnyContext: true}, sse.Object{Bucket: "archive", Key: "cat", Context: object.Context}},
				{renamed, renamed},
				{sse.Object{Context: kms.Context{}}, sse.Object{}},
			} {
				data := seal(t, from, object, plaintext, &sse.WriterOptions{EnvelopeSize: 640})
				old, err := sse.ReadEnvelope(bytes.NewReader(data))
				require.NoError(t, err)
				d, err := from.Decrypt(ctx, object, old)
				require.NoError(t, err)
				env, err := to.Rewrap(ctx, target.ask, d)
				require.NoError(t, err)
				require.Equal(t, 640, env.Size())
				head, err := env.MarshalBinary()
				require.NoError(t, err)
				rewrapped := append(head, data[640:]...)
				got, err := open(to, target.then, rewrapped)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plaintext, got))
				if target.ask.Key != object.Key {
					_, err = open(to, object, rewrapped)
					require.ErrorIs(t, err, sse.ErrKey)
				}
				if from != to {
					_, err = open(from, target.then, rewrapped)
					require.Error(t, err)
				}
				again, err := to.Rewrap(ctx, target.ask, d)
				require.NoError(t, err)
				require.NotEqual(t, env, again, "every seal has its own salt")
			}
		}
	}
}

func TestRewrapOutgrowsItsSize(t *testing.T) {
	c := newCustomer(t, customerKey)
	data := seal(t, c, sse.Object{}, nil, &sse.WriterOptions{EnvelopeSize: 200})
	env, err := sse.ReadEnvelope(bytes.NewReader(data))
	require.NoError(t, err)
	d, err := c.Decrypt(t.Context(), sse.Object{}, env)
	require.NoError(t, err)
	wide, err := c.Rewrap(t.Context(), sse.Object{Context: kms.Context{"long": strings.Repeat("x", 500)}}, d)
	require.NoError(t, err)
	require.Greater(t, wide.Size(), 600)
	_, err = wide.WithSize(200)
	require.ErrorIs(t, err, sse.ErrTooLarge)
}

// TestRotation is the life of a managed object. SPEC KEK-2
func TestRotation(t *testing.T) {
	ctx := t.Context()
	ring := newRing(t)
	c := sse.NewManaged(ring)
	data := seal(t, c, object, []byte("old"), &sse.WriterOptions{EnvelopeSize: 640})
	env, err := sse.ReadEnvelope(bytes.NewReader(data))
	require.NoError(t, err)
	first := env.KeyID()
	require.True(t, strings.HasPrefix(first, ring.ID()+"."))
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	got, err := open(c, object, data)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))

	d, err := c.Decrypt(ctx, object, env)
	require.NoError(t, err)
	newer, err := c.Rewrap(ctx, object, d)
	require.NoError(t, err)
	require.NotEqual(t, first, newer.KeyID())

	_, err = ring.SetState(ctx, first, keyring.Disabled)
	require.NoError(t, err)
	_, err = open(c, object, data)
	require.ErrorIs(t, err, keyring.ErrDisabled)
	require.NotErrorIs(t, err, sse.ErrKey)
	_, err = ring.SetState(ctx, first, keyring.Destroyed)
	require.NoError(t, err)
	_, err = open(c, object, data)
	require.ErrorIs(t, err, keyring.ErrDestroyed)
	head, err := newer.MarshalBinary()
	require.NoError(t, err)
	got, err = open(c, object, append(head, data[640:]...))
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
}

// downStore fails to load once down is set.
type downStore struct {
	keyring.Store
	down error
}

func (s *downStore) Load(ctx context.Context) ([]byte, string, error) {
	if s.down != nil {
		return nil, "", s.down
	}
	return s.Store.Load(ctx)
}

// TestUnknownVersion tells a version that is not there from one that could not
// be looked up.
func TestUnknownVersion(t *testing.T) {
	ctx := t.Context()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{0x82}, 32))
	require.NoError(t, err)
	shared := keyring.NewMemStore()
	writer, err := keyring.Create(ctx, shared, root, nil)
	require.NoError(t, err)
	store := &downStore{Store: shared}
	reader, err := keyring.Open(ctx, store, root, nil)
	require.NoError(t, err)
	_, err = writer.Rotate(ctx)
	require.NoError(t, err)
	data := seal(t, sse.NewManaged(writer), object, []byte("new"), nil)

	store.down = errors.New("store is down")
	_, err = open(sse.NewManaged(reader), object, data)
	require.ErrorIs(t, err, store.down)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.NotErrorIs(t, err, sse.ErrKey, "it may be there: this is not final")

	_, err = open(sse.NewManaged(newRing(t)), object, data)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
}

func TestNothingIsWrittenWhenTheKeyPhaseFails(t *testing.T) {
	refused := errors.New("no key for you")
	var dst bytes.Buffer
	_, err := sse.NewWriter(t.Context(), &dst, refusing{refused}, object, nil)
	require.ErrorIs(t, err, refused)
	require.Zero(t, dst.Len())
	c := newCustomer(t, customerKey)
	_, err = sse.NewWriter(t.Context(), &dst, c, object, &sse.WriterOptions{EnvelopeSize: 100})
	require.ErrorIs(t, err, sse.ErrTooLarge)
	require.Zero(t, dst.Len())
	full := errors.New("disk full")
	_, err = sse.NewWriter(t.Context(), failingWriter{full}, c, object, nil)
	require.ErrorIs(t, err, full)
	_, err = sse.NewWriter(t.Context(), failingWriter{}, c, object, nil)
	require.ErrorIs(t, err, io.ErrShortWrite)
	_, err = sse.NewReader(t.Context(), iotest.ErrReader(full), c, object)
	require.ErrorIs(t, err, full)
	require.NotErrorIs(t, err, sse.ErrFormat)
}

type refusing struct{ err error }

func (refusing) Mode() sse.Mode { return sse.ModeCustomer }

func (r refusing) Encrypt(context.Context, sse.Object) (*sse.Encryption, error) { return nil, r.err }

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestBadArguments: what the format cannot hold is refused, not cut. SPEC LIM-1 LIM-2
func TestBadArguments(t *testing.T) {
	c := newCustomer(t, customerKey)
	huge := make(kms.Context) // 4 GiB and a little, which in 32 bits is a little
	for value := strings.Repeat("v", 32<<20); len(huge) < 128; {
		huge[fmt.Sprint(len(huge))] = value
	}
	for _, n := range []int{0, 16, 31, 33} {
		_, err := sse.NewCustomer(make([]byte, n))
		require.ErrorIs(t, err, sse.ErrInvalid)
		require.ErrorContains(t, err, fmt.Sprintf("%d bytes", n))
	}
	for name, tc := range map[string]struct {
		obj  sse.Object
		want error
	}{
		"bucket":        {sse.Object{Bucket: strings.Repeat("b", 65536)}, sse.ErrTooLarge},
		"key":           {sse.Object{Key: strings.Repeat("k", 65536)}, sse.ErrTooLarge},
		"context":       {sse.Object{Context: kms.Context{"k": strings.Repeat("v", 8192)}}, sse.ErrTooLarge},
		"huge context":  {sse.Object{Context: huge}, sse.ErrTooLarge},
		"reserved":      {sse.Object{Context: kms.Context{"blobseal:object": "v"}}, sse.ErrInvalid},
		"empty name":    {sse.Object{Context: kms.Context{"": "v"}}, sse.ErrInvalid},
		"name not text": {sse.Object{Context: kms.Context{"\xff": "v"}}, sse.ErrInvalid},
		"not text":      {sse.Object{Context: kms.Context{"k": "\xff"}}, sse.ErrInvalid},
	} {
		_, err := c.Encrypt(t.Context(), tc.obj)
		require.ErrorIs(t, err, tc.want, name)
	}
	for name, obj := range map[string]sse.Object{
		"longest bucket":  {Bucket: strings.Repeat("b", 65535)},
		"longest key":     {Key: strings.Repeat("k", 65535)},
		"largest context": {Context: kms.Context{"k": strings.Repeat("v", 8192-5)}},
		"not UTF-8":       {Bucket: "\xff\x00", Key: "\x00"},
	} {
		got, err := open(c, obj, seal(t, c, obj, []byte("fits"), nil))
		require.NoError(t, err, name)
		require.Equal(t, "fits", string(got), name)
	}
	_, err := sse.CiphertextSize(-1)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.CiphertextSize(1 << 52)
	require.ErrorIs(t, err, sse.ErrTooLarge)
	_, err = sse.PlaintextSize(15)
	require.ErrorIs(t, err, sse.ErrTruncated) // SPEC MSG-7
	_, _, err = sse.CiphertextRange(-1, 5)
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestNoSecretPrints. SPEC ERR-4
func TestNoSecretPrints(t *testing.T) {
	key := []byte("0123456789abcdefghijklmnopqrstuv")
	c := newCustomer(t, key)
	e, err := c.Encrypt(t.Context(), object)
	require.NoError(t, err)
	d, err := c.Decrypt(t.Context(), object, e.Envelope())
	require.NoError(t, err)
	_, wrong := newCustomer(t, customerKey).Decrypt(t.Context(), object, e.Envelope())
	m := sse.NewManaged(newRing(t))
	var out bytes.Buffer
	for _, v := range []any{c, *c, e, d, *d, m, wrong, struct{ C *sse.Customer }{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text, _ := json.Marshal(v)
		out.Write(text)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	for _, form := range []string{"0123456789abcdef", "30313233", "48 49 50 51", "0x30, 0x31", "MDEyMzQ1"} {
		require.NotContains(t, out.String(), form)
	}
}

// ParseCustomerKey takes what S3 takes, and shows nothing of what it refuses.
func TestParseCustomerKey(t *testing.T) {
	const key, sum = "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs=", "DWygnHRtgiJ77HCm+1rvHw=="
	raw, err := base64.StdEncoding.DecodeString(key)
	require.NoError(t, err)
	parsed, err := sse.ParseCustomerKey("AES256", key, sum)
	require.NoError(t, err)
	same, err := sse.NewCustomer(raw)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "b", Key: "k"}
	e, err := parsed.Encrypt(t.Context(), obj)
	require.NoError(t, err)
	_, err = same.Decrypt(t.Context(), obj, e.Envelope())
	require.NoError(t, err)

	of := func(key []byte) (string, string) {
		sum := md5.Sum(key)
		return base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(sum[:])
	}
	short, shortSum := of(raw[:31])
	long, longSum := of(append(raw, 0))
	none, noneSum := of(nil)
	for name, c := range map[string][3]string{
		"nothing":                   {},
		"no algorithm":              {"", key, sum},
		"another algorithm":         {"AES128", key, sum},
		"algorithm in lower case":   {"aes256", key, sum},
		"key for the algorithm":     {key, key, sum},
		"no key":                    {"AES256", "", sum},
		"empty key with its MD5":    {"AES256", none, noneSum},
		"no MD5":                    {"AES256", key, ""},
		"MD5 of another key":        {"AES256", key, shortSum},
		"MD5 without padding":       {"AES256", key, strings.TrimRight(sum, "=")},
		"MD5 in hexadecimal":        {"AES256", key, "0d6ca09c746d82227bec70a6fb5aef1f"},
		"31 bytes":                  {"AES256", short, shortSum},
		"33 bytes":                  {"AES256", long, longSum},
		"no base64":                 {"AES256", key[:42] + "!=", sum},
		"base64 without padding":    {"AES256", strings.TrimRight(key, "="), sum},
		"base64 for URLs":           {"AES256", strings.ReplaceAll(key, "/", "_"), sum},
		"bits behind the last byte": {"AES256", strings.Replace(key, "Vs=", "Vt=", 1), sum},
		"white space":               {"AES256", key + " ", sum},
		"line end":                  {"AES256", key + "\n", sum},
		"raw key":                   {"AES256", string(raw), sum},
	} {
		customer, err := sse.ParseCustomerKey(c[0], c[1], c[2])
		require.ErrorIs(t, err, sse.ErrInvalid, name)
		require.Nil(t, customer, name)
		for _, part := range c {
			if len(part) > 6 { // AES256 is in the text
				require.NotContains(t, err.Error(), part, name)
			}
		}
	}
}

// A service that has lost an envelope, or never had one, is told so by every mode.
func TestNoEnvelope(t *testing.T) {
	for mode, m := range ciphers(t) {
		for _, env := range []*sse.Envelope{nil, new(sse.Envelope)} {
			for _, d := range []sse.Decrypter{m[0], sse.ByMode{mode: m[0]}, sse.ByMode{0: m[0]}, sse.ByMode{}} {
				_, err := d.Decrypt(t.Context(), sse.Object{}, env)
				require.ErrorIs(t, err, sse.ErrFormat)
				require.NotErrorIs(t, err, sse.ErrMode)
			}
		}
	}
}
