package sse_test

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// FuzzEnvelope: what parses marshals back to the same bytes, in both forms, and
// nothing panics. SPEC ENV-3
func FuzzEnvelope(f *testing.F) {
	c := newCustomer(f, customerKey)
	f.Add(marshal(f, envelope(f, c, object)))
	f.Add(marshal(f, envelope(f, sse.NewManaged(newRing(f)), object)))
	l := customerLayout()
	f.Add(l.bytes())
	l.mode, l.keyID, l.wrapped, l.padding = 2, []byte("key"), []byte("wrapped"), make([]byte, 9)
	l.context = pairs("a", "", "b", "c")
	f.Add(l.bytes())
	l.context = pairs("a", "", "blobseal:bucket-key", "true", "c", "d")
	f.Add(l.bytes())
	stranger := newCustomer(f, pattern(32))
	f.Fuzz(func(t *testing.T, data []byte) {
		src := bytes.NewReader(data)
		env, err := sse.ReadEnvelope(src)
		if err != nil {
			return
		}
		read := data[:len(data)-src.Len()]
		require.Equal(t, read, marshal(t, env))
		text, err := env.MarshalText()
		require.NoError(t, err)
		var again sse.Envelope
		require.NoError(t, again.UnmarshalText(text))
		require.Equal(t, read, marshal(t, &again))
		context := env.Context()
		if env.BucketKeyEnabled() {
			context["blobseal:bucket-key"] = "true"
		}
		var kv []string
		for _, name := range slices.Sorted(maps.Keys(context)) {
			kv = append(kv, name, context[name])
		}
		require.True(t, bytes.Contains(read, str16(pairs(kv...))))
		_, err = stranger.Decrypt(t.Context(), object, env)
		require.Error(t, err) // the fuzzer does not know its key
	})
}

// FuzzObject edits a valid object. Whatever the edit, what comes out is a prefix
// of the plaintext, and a clean end means that nothing was changed that counts.
func FuzzObject(f *testing.F) {
	c := newCustomer(f, customerKey)
	plaintext := pattern(2*chunk + 50)
	data := seal(f, c, object, plaintext, &sse.WriterOptions{EnvelopeSize: 300})
	for _, at := range []int{0, 9, 13, 20, 200, 250, 299, 300, 300 + 16400, len(data) - 1} {
		f.Add(at, 1, []byte{0xff}, false)
		f.Add(at, 0, []byte("inserted"), true)
		f.Add(at, 40, []byte{}, false)
	}
	f.Fuzz(func(t *testing.T, at, remove int, insert []byte, random bool) {
		at = max(0, min(at, len(data)))
		remove = max(0, min(remove, len(data)-at))
		edited := bytes.Join([][]byte{data[:at], insert, data[at+remove:]}, nil)
		read := open
		if random {
			read = openAt
		}
		got, err := read(c, object, edited)
		if bytes.Equal(edited, data) {
			require.NoError(t, err)
		} else if err == nil {
			t.Fatal("an edited object ended cleanly")
		}
		require.True(t, bytes.HasPrefix(plaintext, got))
	})
}

// FuzzRoundTrip: any plaintext, name and context, written in any steps.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("plaintext"), "bucket", "key", "name", "value", 3)
	f.Add(pattern(chunk), "", "", "", "", 1000)
	f.Fuzz(func(t *testing.T, plaintext []byte, bucket, key, name, value string, step int) {
		c := newCustomer(t, customerKey)
		obj := sse.Object{Bucket: bucket, Key: key, Context: kms.Context{name: value}}
		var dst bytes.Buffer
		w, err := sse.NewWriter(t.Context(), &dst, c, obj, nil)
		if err != nil { // a name or context that the format does not hold
			require.Zero(t, dst.Len())
			return
		}
		step = max(1, min(step, len(plaintext)))
		for rest := plaintext; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			_, err := w.Write(rest[:min(step, len(rest))])
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		r, err := sse.NewReader(t.Context(), &dst, c, obj)
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))
	})
}
