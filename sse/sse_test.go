package sse_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
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

// fresh opens a new ring for each call: a ring looks up unknown versions at a
// limited rate, and makes callers wait.
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

// ciphers returns two ciphers of each mode, with different keys.
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

var seal = ssetest.Seal

// open reads a self-contained object as a stream.
func open(dec sse.Decrypter, obj sse.Object, data []byte) ([]byte, error) {
	return ssetest.Open(context.Background(), dec, obj, data)
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

		// The contract of io.Reader, on a body short enough to read byte by byte.
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
