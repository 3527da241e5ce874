package s3test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/sse"
)

// text returns n bytes that compress well, with a marker in every line.
func text(n int) []byte {
	var lines []byte
	for i := range 100 {
		lines = fmt.Appendf(lines, "2026-11-25 INFO MARKER-7f3a customer=%04d card=4111 1111 1111 1111 ok\n", i)
	}
	return bytes.Repeat(lines, n/len(lines)+1)[:n]
}

// pieces are all pieces of 16 bytes of a plaintext.
type pieces struct {
	all   map[[16]byte]bool
	begin [1 << 16]bool // whether one begins so, to be quick
}

func piecesOf(plaintext []byte) *pieces {
	s := &pieces{all: make(map[[16]byte]bool)}
	for i := 0; i+16 <= len(plaintext); i++ {
		s.all[[16]byte(plaintext[i:])] = true
		s.begin[binary.BigEndian.Uint16(plaintext[i:])] = true
	}
	return s
}

// in reports whether p contains any piece.
func (s *pieces) in(p []byte) bool {
	for i := 0; i+16 <= len(p); i++ {
		if s.begin[binary.BigEndian.Uint16(p[i:])] && s.all[[16]byte(p[i:])] {
			return true
		}
	}
	return false
}

// TestNoPlaintextOnDisk: the server's files hold no 16 bytes of plaintext, after writes,
// rewraps, copies and aborted writes, in any mode and of any size.
func TestNoPlaintextOnDisk(t *testing.T) {
	ctx := context.Background()
	s := startVersity(t)
	w := new(wire)
	inner := s.open(t, s.newBucket(t), w)
	small, large := text(3*chunk+100), text(20<<20)
	for _, mode := range modes {
		b := encrypted(t, inner, mode.cipher(t), &blob.Options{Policy: mode.policy})
		require.NoError(t, b.WriteAll(ctx, mode.name+"/small", small, nil))
		require.NoError(t, b.WriteAll(ctx, mode.name+"/large", large, nil))
		require.NoError(t, b.Copy(ctx, mode.name+"/copy", mode.name+"/small", nil))
		report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true, Filter: jobs.Filter{Prefix: mode.name}})
		require.NoError(t, err)
		require.Equal(t, int64(3), report.Done)

		// An upload that is given up when a part of it is there already.
		w.take()
		source := io.MultiReader(bytes.NewReader(large), &waiting{until: func() bool { return w.has("UploadPart", 200) }}, broken{})
		require.ErrorIs(t, b.Upload(ctx, mode.name+"/broken", source, &gcblob.WriterOptions{ContentType: "text/plain"}), errBroken)
	}
	// That the search finds what is there:
	require.NoError(t, inner.WriteAll(ctx, "plain", small[1000:1100], nil))

	secret := piecesOf(small) // and of the large one, which repeats the same lines
	var found []string
	var searched int64
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		searched += int64(len(p))
		if secret.in(p) {
			found = append(found, entry.Name())
		}
		return nil
	}))
	require.Equal(t, []string{"plain"}, found)
	require.Greater(t, searched, int64(3*len(large)+3*8<<20), "the parts are not among the files")
	t.Logf("%d bytes searched", searched)
}

var errBroken = errors.New("the source is broken")

// broken is a reader that fails.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

// waiting is an empty reader that ends when a condition holds.
type waiting struct{ until func() bool }

func (w *waiting) Read([]byte) (int, error) {
	for deadline := time.Now().Add(time.Minute); !w.until(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return 0, errors.New("it does not come about")
		}
	}
	return 0, io.EOF
}

// TestDamageOnDisk damages files in many ways. No read returns a byte that was not written.
// A read of the whole object fails with an error of package sse, or with the SDK's if S3's
// checksum does not match. A check names the damage, and other objects stay good. It is long
// because each way to read meets each damage.
func TestDamageOnDisk(t *testing.T) {
	ctx := context.Background()
	const size = 3*chunk + 100
	s := startVersity(t)
	at := func(chunk, byte int) int { return envelope + chunk*sealedChunk + byte }
	flip := func(at int) func(x, y []byte) ([]byte, []byte) {
		return func(x, y []byte) ([]byte, []byte) {
			x[at] ^= 4
			return x, y
		}
	}
	cut := func(at int) func(x, y []byte) ([]byte, []byte) {
		return func(x, y []byte) ([]byte, []byte) { return x[:at], y }
	}
	for _, c := range []struct {
		name    string
		damage  func(x, y []byte) ([]byte, []byte) // of the files of "x" and "y"
		want    error
		verdict jobs.Verdict
		shallow jobs.Verdict // of a check that reads envelopes alone
		both    bool         // y is damaged too
	}{
		{name: "a bit of the magic", damage: flip(0), want: blob.ErrPlain, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictDamaged},
		{name: "a bit of the version", damage: flip(8), want: sse.ErrVersion, verdict: jobs.VerdictUnknownVersion, shallow: jobs.VerdictUnknownVersion},
		{name: "a bit of the padding", damage: flip(envelope - 56 - 200), want: sse.ErrFormat, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictDamaged},
		{name: "a bit of the head", damage: flip(envelope - 10), want: sse.ErrKey, verdict: jobs.VerdictWrongKey, shallow: jobs.VerdictWrongKey},
		{name: "a bit of the first chunk", damage: flip(at(0, 0)), want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "a bit in the middle", damage: flip(at(1, 5000)), want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "the last bit", damage: flip(at(3, 100+15)), want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "cut at a chunk's end", damage: cut(at(3, 0)), want: sse.ErrTruncated, verdict: jobs.VerdictTruncated, shallow: jobs.VerdictTruncated},
		{name: "cut at an earlier chunk's end", damage: cut(at(2, 0)), want: sse.ErrTruncated, verdict: jobs.VerdictTruncated, shallow: jobs.VerdictTruncated},
		{name: "cut in a chunk", damage: cut(at(2, 5000)), want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "cut behind the envelope", damage: cut(envelope), want: sse.ErrTruncated, verdict: jobs.VerdictTruncated, shallow: jobs.VerdictTruncated},
		{name: "cut in the envelope", damage: cut(300), want: io.ErrUnexpectedEOF, verdict: jobs.VerdictTruncated, shallow: jobs.VerdictTruncated},
		{name: "cut to nothing", damage: cut(0), want: blob.ErrPlain, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictDamaged},
		{name: "a byte more", damage: func(x, y []byte) ([]byte, []byte) { return append(x, 0), y },
			want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "the last chunk twice", damage: func(x, y []byte) ([]byte, []byte) { return append(x, x[at(3, 0):]...), y },
			want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "chunks change places", damage: func(x, y []byte) ([]byte, []byte) {
			first := bytes.Clone(x[at(0, 0):at(1, 0)])
			copy(x[at(0, 0):], x[at(1, 0):at(2, 0)])
			copy(x[at(1, 0):], first)
			return x, y
		}, want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "files change places", damage: func(x, y []byte) ([]byte, []byte) { return y, x }, both: true,
			want: sse.ErrKey, verdict: jobs.VerdictWrongKey, shallow: jobs.VerdictWrongKey},
		{name: "the other's envelope", damage: func(x, y []byte) ([]byte, []byte) { copy(x, y[:envelope]); return x, y },
			want: sse.ErrKey, verdict: jobs.VerdictWrongKey, shallow: jobs.VerdictWrongKey},
		{name: "the other's body", damage: func(x, y []byte) ([]byte, []byte) { copy(x[envelope:], y[envelope:]); return x, y },
			want: sse.ErrCorrupt, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictGood},
		{name: "plaintext instead", damage: func(x, y []byte) ([]byte, []byte) { return []byte("free money"), y },
			want: blob.ErrPlain, verdict: jobs.VerdictDamaged, shallow: jobs.VerdictDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := s.newBucket(t)
			cipher := modes[0].cipher(t)
			b := encrypted(t, s.open(t, name, nil), cipher, nil)
			plaintext := map[string][]byte{"x": text(size), "y": content(size)}
			var files [2][]byte
			for i, key := range []string{"x", "y"} {
				require.NoError(t, b.WriteAll(ctx, key, plaintext[key], nil))
				p, err := os.ReadFile(filepath.Join(s.dir, name, key))
				require.NoError(t, err)
				require.Len(t, p, at(3, 100+16))
				files[i] = p
			}
			x, y := c.damage(files[0], bytes.Clone(files[1]))
			// Written into the same file, whose metadata is in its attributes.
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, name, "x"), x, 0))
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, name, "y"), y, 0))

			// Whoever can write to the store can make its checksums right.
			unchecked := func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired }
			for _, r := range []struct {
				name     string
				b        *blob.Bucket
				checksum bool // S3's own, which may find the damage first
			}{
				{"with S3's checksum", b, true},
				{"without", encrypted(t, s.open(t, name, nil, unchecked), cipher, nil), false},
				// This one must not take the object for a plain one.
				{"plain objects allowed", encrypted(t, s.open(t, name, nil, unchecked), cipher, &blob.Options{AllowPlain: true}), false},
			} {
				p, err := r.b.ReadAll(ctx, "x")
				require.Error(t, err, r.name)
				require.True(t, bytes.HasPrefix(plaintext["x"], p), "%s: wrong plaintext", r.name)
				if !r.checksum {
					want := c.want
					if want == blob.ErrPlain {
						want = sse.ErrFormat // which it is, and an envelope that is gone too
					}
					require.ErrorIs(t, err, want, r.name)
				}
				for _, off := range []int64{0, 10, chunk, 2*chunk - 1, 3 * chunk, size - 1} {
					p, err := readPart(r.b, "x", off, 50)
					require.True(t, bytes.HasPrefix(plaintext["x"][off:], p), "%s: wrong plaintext at %d", r.name, off)
					if err == nil { // the damage is elsewhere
						require.Len(t, p, int(min(50, size-off)))
						require.Equal(t, jobs.VerdictGood, c.shallow)
					}
				}
			}

			for _, r := range []struct {
				b        *blob.Bucket
				checksum bool
			}{
				{b, true}, {encrypted(t, s.open(t, name, nil, unchecked), cipher, nil), false},
			} {
				for _, depth := range []jobs.Depth{jobs.CheckBodies, jobs.CheckEnvelopes} {
					want := map[string]jobs.Verdict{"x": c.verdict, "y": jobs.VerdictGood}
					if depth == jobs.CheckEnvelopes {
						want["x"] = c.shallow
					}
					if c.both {
						want["y"] = c.verdict
					}
					got := make(map[string]jobs.Verdict)
					for f, err := range jobs.Check(ctx, r.b, &jobs.CheckOptions{Depth: depth}) {
						require.NoError(t, err)
						require.Equal(t, f.Verdict == jobs.VerdictGood, f.Err == nil, "%v", f.Err)
						got[f.Key] = f.Verdict
					}
					if r.checksum && len(x) < envelope && got["x"] == jobs.VerdictUnreadable {
						// It was read as a whole, and S3's checksum came first.
						want["x"] = jobs.VerdictUnreadable
					}
					require.Equal(t, want, got)
				}
			}
		})
	}
}

func readPart(b *blob.Bucket, key string, off, n int64) ([]byte, error) {
	r, err := b.NewRangeReader(context.Background(), key, off, n, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
