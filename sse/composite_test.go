package sse_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// attempt uploads a part through one of the two forms, in steps, now and then
// after attempts that fail.
func attempt(t *testing.T, random *rand.Rand, m *sse.Multipart, number int, plain []byte) storedPart {
	for random.IntN(3) == 0 {
		p, err := m.Part(number)
		require.NoError(t, err)
		broken := io.MultiReader(bytes.NewReader(plain[:random.IntN(len(plain)+1)]), iotest.ErrReader(io.ErrNoProgress))
		if random.IntN(2) == 0 {
			_, err = io.Copy(io.Discard, p.Reader(broken))
		} else {
			w := p.Writer(io.Discard)
			_, err = io.Copy(w, broken)
			require.ErrorIs(t, w.Close(), io.ErrNoProgress)
		}
		require.ErrorIs(t, err, io.ErrNoProgress)
		_, err = p.Receipt()
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
	p, err := m.Part(number)
	require.NoError(t, err)
	body, err := sse.CiphertextSize(int64(len(plain)))
	require.NoError(t, err)
	var stored []byte
	switch random.IntN(3) {
	case 0:
		return sealPart(t, m, number, plain)
	case 1:
		stored, err = io.ReadAll(p.Reader(iotest.HalfReader(bytes.NewReader(plain))))
	default: // a client that knows the length
		stored = make([]byte, body+sse.PartOverhead)
		_, err = io.ReadFull(p.Reader(bytes.NewReader(plain)), stored)
	}
	require.NoError(t, err)
	require.EqualValues(t, body+sse.PartOverhead, len(stored))
	receipt, err := p.Receipt()
	require.NoError(t, err)
	_, err = p.Reader(bytes.NewReader(plain)).Read(make([]byte, 1))
	require.ErrorIs(t, err, sse.ErrUsed)
	return storedPart{number, plain, stored, receipt}
}

// TestRandomComposites uploads random objects in random order, with retries, in
// several processes, and reads them in every way. SPEC COMP-1 COMP-6 COMP-13
func TestRandomComposites(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 2))
	sizes := []int{1, 2, 100, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 3*chunk + 7, 40 * chunk}
	for mode, cs := range ciphers(t) {
		for round := range 12 {
			u := startUpload(t, cs[0], object)
			state, err := u.m.State(t.Context(), nil)
			require.NoError(t, err)
			numbers := random.Perm(1 + random.IntN(6))
			for i, n := range numbers {
				m, err := sse.OpenMultipart(t.Context(), cs[0], object, state)
				require.NoError(t, err)
				numbers[i] = n*(1+round) + 1
				plain := pattern(sizes[random.IntN(len(sizes))])
				if n == len(numbers)-1 && random.IntN(2) == 0 {
					plain = nil
				}
				u.parts = append(u.parts, attempt(t, random, m, numbers[i], plain))
			}
			slices.SortFunc(u.parts, func(a, b storedPart) int { return a.number - b.number })
			u.filler = random.IntN(3) * 1000
			opts := &sse.TrailerOptions{Filler: int64(u.filler), EnvelopeSize: 1024 * (round % 2)}
			stored := u.complete(t, opts)
			if size := opts.EnvelopeSize; size > 0 {
				over := ((len(stored)-size)%16400 + 16400) % 16400
				require.Less(t, over, 16, "no object of version 1 has that size")
			}
			readEverywhere(t, random, cs[0], object, stored, u.plain())

			c, err := openComposite(t, cs[0], object, stored)
			require.NoError(t, err)
			var got []storedPart
			for number, size := range c.Parts() {
				got = append(got, storedPart{number: number, plain: make([]byte, size)})
			}
			require.Len(t, got, len(u.parts), mode)
			for i, p := range u.parts {
				require.Equal(t, p.number, got[i].number)
				require.Len(t, got[i].plain, len(p.plain))
			}
			for range c.Parts() {
				break
			}
		}
	}
}

// TestManyParts: 10,000 parts, the trailer of which takes two reads.
func TestManyParts(t *testing.T) {
	c := newCustomer(t, customerKey)
	u := startUpload(t, c, object)
	for number := 1; number <= 10_000; number++ {
		p, err := u.m.Part(number)
		require.NoError(t, err)
		var dst bytes.Buffer
		w := p.Writer(&dst)
		_, err = w.Write([]byte{byte(number)})
		require.NoError(t, err)
		require.NoError(t, w.Close())
		receipt, err := p.Receipt()
		require.NoError(t, err)
		u.parts = append(u.parts, storedPart{number, []byte{byte(number)}, dst.Bytes(), receipt})
	}
	stored := u.complete(t, nil)
	require.Less(t, len(u.trailer), 400<<10)
	readEverywhere(t, rand.New(rand.NewPCG(1, 1)), c, object, stored, u.plain())

	src := &countedAt{r: bytes.NewReader(stored)}
	trailer, err := sse.ReadTrailer(src, int64(len(stored)))
	require.NoError(t, err)
	require.Equal(t, []int{10, 64 << 10, len(u.trailer) - 64<<10}, src.reads)
	require.EqualValues(t, 10_000, trailer.Size())

	_, err = u.m.Trailer(append(u.receipts(), u.parts[0].receipt), nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestKeeperCompletes: a service that has no customer key completes an upload,
// and can do nothing else. SPEC COMP-14
func TestKeeperCompletes(t *testing.T) {
	ctx, ring := t.Context(), sse.NewManaged(newRing(t))
	for mode, cs := range ciphers(t) {
		version1 := marshal(t, envelope(t, ring, object))
		u := startUpload(t, cs[0], object)
		state, err := u.m.State(ctx, ring)
		require.NoError(t, err)
		m, err := sse.OpenMultipart(ctx, cs[0], anyContext(object), state)
		require.NoError(t, err)
		u.parts = append(u.parts, sealPart(t, m, 1, pattern(chunk)), sealPart(t, m, 7, pattern(5)))

		c, err := sse.OpenCompleter(ctx, ring, anyContext(object), state)
		require.NoError(t, err)
		u.trailer, err = c.Trailer(u.receipts(), nil)
		require.NoError(t, err)
		got, err := readComposite(t, cs[0], object, u.object())
		require.NoError(t, err)
		require.True(t, bytes.Equal(u.plain(), got))
		again, err := m.State(ctx, ring) // another process can hand the upload on
		require.NoError(t, err)
		_, err = sse.OpenCompleter(ctx, ring, object, again)
		require.NoError(t, err)

		size := len(marshal(t, trailerOf(t, u.object()).Envelope()))
		object2 := slices.Concat(u.object()[:len(u.object())-32-size], state[size:])
		_, err = cs[1].Decrypt(ctx, object, trailerOf(t, u.object()).Envelope())
		require.Error(t, err, mode)
		asObject := withFooter(object2, int64(len(u.plain())), len(u.trailer)-32-size, len(state)-size)
		_, err = readComposite(t, ring, object, asObject)
		require.ErrorIs(t, err, sse.ErrKey, "the keeper's envelope is no object's")
		for name, tc := range map[string]struct {
			dec   sse.Decrypter
			obj   sse.Object
			state []byte
			want  error
		}{
			"no keeper":        {ring, object, state[:size], sse.ErrFormat},
			"half a keeper":    {ring, object, state[:size+100], sse.ErrFormat},
			"version 1 behind": {ring, object, slices.Concat(state[:size], version1), sse.ErrFormat},
			"object as keeper": {sse.ByMode{mode: cs[0], sse.ModeManaged: ring}, object, append(bytes.Clone(state[:size]), state[:size]...), sse.ErrKey},
			"keeper as object": {ring, object, append(bytes.Clone(state[size:]), state[size:]...), sse.ErrKey},
			"renamed":          {ring, sse.Object{Bucket: object.Bucket, Key: "other", AnyContext: true}, state, sse.ErrKey},
			"other keeper":     {sse.NewManaged(newRing(t)), object, state, sse.ErrKey},
			"empty":            {ring, object, nil, sse.ErrFormat},
		} {
			if name == "keeper as object" {
				_, err = sse.OpenMultipart(ctx, tc.dec, tc.obj, tc.state)
			} else {
				_, err = sse.OpenCompleter(ctx, tc.dec, tc.obj, tc.state)
			}
			require.ErrorIs(t, err, tc.want, name)
		}
		other := startUpload(t, cs[0], object)
		theirs, err := other.m.State(ctx, ring)
		require.NoError(t, err)
		_, err = sse.OpenCompleter(ctx, ring, object, append(bytes.Clone(state[:size]), theirs[size:]...))
		require.ErrorIs(t, err, sse.ErrFormat, "two uploads")
	}
}

// TestReceipts: an upload takes its own receipts, in order. SPEC COMP-14
func TestReceipts(t *testing.T) {
	c := newCustomer(t, customerKey)
	u, _ := compositeOf(t, c, object, 5, 6, 0)
	other, _ := compositeOf(t, c, object, 5)
	r := u.receipts()
	edited := bytes.Clone(r[0])
	edited[60] ^= 1
	for name, tc := range map[string]struct {
		receipts [][]byte
		opts     *sse.TrailerOptions
		want     error
	}{
		"foreign":          {[][]byte{r[0], other.receipts()[0]}, nil, sse.ErrReceipt},
		"edited":           {[][]byte{edited}, nil, sse.ErrReceipt},
		"cut":              {[][]byte{r[0][:50]}, nil, sse.ErrReceipt},
		"nil":              {[][]byte{nil}, nil, sse.ErrReceipt},
		"none":             {nil, nil, sse.ErrInvalid},
		"repeated":         {[][]byte{r[0], r[0]}, nil, sse.ErrInvalid},
		"descending":       {[][]byte{r[1], r[0]}, nil, sse.ErrInvalid},
		"empty, not last":  {[][]byte{r[0], sealPart(t, u.m, 2, nil).receipt, r[2]}, nil, sse.ErrInvalid},
		"negative filler":  {r, &sse.TrailerOptions{Filler: -1}, sse.ErrInvalid},
		"much filler":      {r, &sse.TrailerOptions{Filler: 5 << 20}, sse.ErrInvalid},
		"envelope's size":  {r, &sse.TrailerOptions{EnvelopeSize: -1}, sse.ErrInvalid},
		"two of one part":  {[][]byte{r[0], sealPart(t, u.m, 1, nil).receipt}, nil, sse.ErrInvalid},
		"a gap":            {[][]byte{r[0], r[2]}, nil, nil},
		"the filler limit": {r, &sse.TrailerOptions{Filler: 5<<20 - 1}, nil},
	} {
		_, err := u.m.Trailer(tc.receipts, tc.opts)
		require.ErrorIs(t, err, tc.want, name)
	}
	for _, number := range []int{-1, 0, 10_001} {
		_, err := u.m.Part(number)
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
	for _, err := range []error{
		second(new(sse.Multipart).Part(1)), second((*sse.Multipart)(nil).Part(1)),
		second(new(sse.Completer).Trailer(nil, nil)), second(new(sse.Multipart).State(t.Context(), nil)),
		second(sse.StartMultipart(t.Context(), nil, object)), second(sse.OpenMultipart(t.Context(), nil, object, must(u.m.State(t.Context(), nil)))),
	} {
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
}

func second[T any](_ T, err error) error { return err }

// TestPartsInParallel: one Multipart serves many goroutines.
func TestPartsInParallel(t *testing.T) {
	c := newCustomer(t, customerKey)
	u := startUpload(t, c, object)
	u.parts = make([]storedPart, 40)
	var wg sync.WaitGroup
	for i := range u.parts {
		wg.Go(func() { u.parts[i] = sealPart(t, u.m, i+1, pattern(chunk+i)) })
	}
	wg.Wait()
	stored := u.complete(t, nil)
	composite, err := openComposite(t, c, object, stored)
	require.NoError(t, err)
	at := composite.ReaderAt(bytes.NewReader(stored))
	for i := range u.parts {
		wg.Go(func() {
			got := make([]byte, 3*chunk)
			n, err := at.ReadAt(got, int64(i*chunk))
			if err != nil && err != io.EOF || !bytes.Equal(u.plain()[i*chunk:][:n], got[:n]) {
				t.Errorf("part %d: %v", i, err)
			}
			all, err := io.ReadAll(composite.Reader(bytes.NewReader(stored)))
			if err != nil || !bytes.Equal(u.plain(), all) {
				t.Errorf("stream: %v", err)
			}
		})
	}
	wg.Wait()
}

// TestRewrapComposite: a rewrap changes the tail only. SPEC COMP-15
func TestRewrapComposite(t *testing.T) {
	renamed := sse.Object{Bucket: "photos", Key: "copy", Context: kms.Context{"long": string(bytes.Repeat([]byte("x"), 4000))}}
	for mode, cs := range ciphers(t) {
		for to, others := range ciphers(t) {
			u := startUpload(t, cs[0], object)
			u.add(t, 3, pattern(chunk))
			u.add(t, 5, nil)
			stored := u.complete(t, &sse.TrailerOptions{EnvelopeSize: 512})
			trailer := trailerOf(t, stored)
			d, err := cs[0].Decrypt(t.Context(), object, trailer.Envelope())
			require.NoError(t, err)
			for _, obj := range []sse.Object{object, renamed} {
				env, err := others[1].Rewrap(t.Context(), obj, d)
				require.NoError(t, err)
				require.Equal(t, trailer.Envelope().BodyID(), env.BodyID())
				tail, off, err := trailer.Replace(env)
				require.NoError(t, err)
				rewrapped := slices.Concat(stored[:off], tail)
				require.Zero(t, (len(rewrapped)-len(stored))%16400, "%v to %v", mode, to)
				got, err := readComposite(t, others[1], obj, rewrapped)
				require.NoError(t, err)
				require.True(t, bytes.Equal(u.plain(), got))
				_, err = readComposite(t, others[0], obj, rewrapped)
				require.Error(t, err)
			}
			other, _ := compositeOf(t, cs[0], object, 5)
			padded, err := trailer.Envelope().WithSize(5000)
			require.NoError(t, err)
			tail, _, err := trailer.Replace(padded)
			require.NoError(t, err)
			require.Len(t, tail, 5000+32, "the caller's padding stays")
			_, _, err = trailer.Replace(trailerOf(t, other.object()).Envelope())
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, _, err = trailer.Replace(envelope(t, cs[0], object))
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, _, err = trailer.Replace(nil)
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, err = trailerOf(t, other.object()).Open(d)
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, err = trailer.Open(nil)
			require.ErrorIs(t, err, sse.ErrInvalid)
		}
	}
}

// TestCompositeIsNoBody: what opens objects of version 1 says so. SPEC COMP-7
func TestCompositeIsNoBody(t *testing.T) {
	c := newCustomer(t, customerKey)
	_, stored := compositeOf(t, c, object, 100, 5)
	_, err := open(c, object, stored)
	require.ErrorIs(t, err, sse.ErrComposite)
	require.ErrorIs(t, err, sse.ErrVersion)
	_, err = sse.ReadEnvelope(bytes.NewReader(stored))
	require.ErrorIs(t, err, sse.ErrComposite)
	require.ErrorIs(t, new(sse.Envelope).UnmarshalBinary(stored), sse.ErrComposite)
	require.True(t, sse.IsEnvelope(stored))

	env := trailerOf(t, stored).Envelope()
	text, err := env.MarshalText()
	require.NoError(t, err)
	var hint sse.Envelope
	require.NoError(t, hint.UnmarshalText(text))
	require.True(t, hint.Equal(env))
	d, err := c.Decrypt(t.Context(), object, &hint)
	require.NoError(t, err)
	_, err = d.Reader(bytes.NewReader(stored)).Read(make([]byte, 1))
	require.ErrorIs(t, err, sse.ErrComposite)
	_, err = d.RangeReader(bytes.NewReader(stored), 0, 5).Read(make([]byte, 1))
	require.ErrorIs(t, err, sse.ErrComposite)
	_, err = d.ReaderAt(bytes.NewReader(stored), int64(len(stored)))
	require.ErrorIs(t, err, sse.ErrComposite)

	whole := seal(t, c, object, []byte("meow"), nil)
	for prefix, want := range map[string]error{
		string(whole): sse.ErrFormat, "": sse.ErrFormat, "plain text of some kind": sse.ErrFormat,
		"\x89SSE\r\n\x1a\n\x02": sse.ErrVersion, "\x89SSE\r\n\x1a\n\x02\x01": sse.ErrVersion, "\x89SSE\r\n\x1a\n\x03\x00": sse.ErrVersion,
		string(stored[:60]): sse.ErrFormat,
	} {
		_, err := sse.ReadTrailer(bytes.NewReader([]byte(prefix)), int64(len(prefix)))
		require.ErrorIs(t, err, want, "%.12q", prefix)
		require.NotErrorIs(t, err, sse.ErrComposite)
	}
	_, err = sse.ReadTrailer(bytes.NewReader(stored), int64(len(stored))+5)
	require.ErrorIs(t, err, sse.ErrTruncated)
	_, err = sse.ReadTrailer(bytes.NewReader(stored), -1)
	require.ErrorIs(t, err, sse.ErrInvalid)
	composite, err := openComposite(t, c, object, stored)
	require.NoError(t, err)
	for _, off := range []int64{-1, 106} {
		_, _, err = composite.StoredRange(off, 1)
		require.ErrorIs(t, err, sse.ErrInvalid)
		_, err = composite.RangeReader(bytes.NewReader(stored), off, 1).Read(make([]byte, 1))
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
	_, err = composite.ReaderAt(bytes.NewReader(stored)).ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
	require.Contains(t, fmt.Sprint(&sse.PartError{Number: 7, Err: sse.ErrTruncated}), "part 7")
}

// TestReaderAtProvesParts: a part whose size is a multiple of a chunk's ends in an empty
// chunk, which random access verifies, too.
func TestReaderAtProvesParts(t *testing.T) {
	c := newCustomer(t, customerKey)
	u, stored := compositeOf(t, c, object, 2*sse.ChunkSize, 5)
	composite, err := openComposite(t, c, object, stored)
	require.NoError(t, err)
	at := composite.ReaderAt(bytes.NewReader(stored))
	_, err = at.ReadAt(make([]byte, 1), 0)
	require.NoError(t, err)
	damaged := bytes.Clone(stored)
	damaged[len(u.parts[0].stored)-1] ^= 1
	_, err = composite.ReaderAt(bytes.NewReader(damaged)).ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, sse.ErrCorrupt)
}

// TestZeroEncryption: an Encryption that no cipher made encrypts nothing.
func TestZeroEncryption(t *testing.T) {
	_, err := new(sse.Encryption).Writer(io.Discard).Write([]byte("x"))
	require.ErrorIs(t, err, sse.ErrUsed)
	_, err = new(sse.Encryption).Reader(bytes.NewReader(nil)).Read(make([]byte, 1))
	require.ErrorIs(t, err, sse.ErrUsed)
}

// TestWrappedEncrypter: an Encrypter that changes the Object of an upload cannot start
// the upload, and the Encryption that a wrapper sees has no stream.
func TestWrappedEncrypter(t *testing.T) {
	_, err := sse.StartMultipart(t.Context(), forgetful{newCustomer(t, customerKey)}, object)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.StartMultipart(t.Context(), eager{newCustomer(t, customerKey)}, object)
	require.ErrorIs(t, err, sse.ErrUsed)
}

// eager writes to each Encryption.
type eager struct{ *sse.Customer }

func (f eager) Encrypt(ctx context.Context, obj sse.Object) (*sse.Encryption, error) {
	e, err := f.Customer.Encrypt(ctx, obj)
	if err == nil {
		_, err = e.Observed(func(int64, error) {}).Writer(io.Discard).Write([]byte("x"))
	}
	return e, err
}

// forgetful loses what an Object holds and other packages cannot see.
type forgetful struct{ *sse.Customer }

func (f forgetful) Encrypt(ctx context.Context, obj sse.Object) (*sse.Encryption, error) {
	return f.Customer.Encrypt(ctx, sse.Object{Bucket: obj.Bucket, Key: obj.Key, Context: obj.Context})
}
