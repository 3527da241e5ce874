package main

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// uploadParts makes a file as an upload in parts does, under the workspace's ring. It
// returns the plaintext.
func uploadParts(t *testing.T, name string, obj sse.Object, sizes ...int) (plain []byte) {
	t.Helper()
	store, err := keyring.NewFileStore("my.ring")
	require.NoError(t, err)
	root, err := keyring.NewKeyRoot(read(t, "root.key"))
	require.NoError(t, err)
	keys, err := keyring.Open(t.Context(), store, root, nil)
	require.NoError(t, err)
	var parts [][]byte
	for _, size := range sizes {
		parts = append(parts, random(size))
	}
	_, object := ssetest.SealParts(t, sse.NewManaged(keys), obj, &sse.TrailerOptions{EnvelopeSize: 1024}, parts...)
	write(t, name, object)
	return slices.Concat(parts...)
}

// Files that were uploaded in parts are files as any others.
func TestComposite(t *testing.T) {
	workspace(t)
	plain := uploadParts(t, "sealed", sse.Object{}, 40_000, 20_000)
	require.Equal(t, string(plain), ok(t, args("decrypt", ring, "sealed", "-")...))
	require.Equal(t, string(plain[39_990:40_011]), ok(t, args("decrypt", ring, "--range", "39990-40010", "sealed", "-")...))
	require.Equal(t, string(plain[59_000:]), ok(t, args("decrypt", ring, "--range", "59000-", "sealed", "-")...))
	blobseal(args("decrypt", ring, "--range", "60000-", "sealed", "-")...).fails(t, 1, "sealed: --range is beyond the end: the last byte is 59999")
	require.Equal(t, "sealed: OK, 60000 bytes\n", ok(t, args("verify", ring, "sealed")...))
	require.Regexp(t, `(?s)mode +SSE-S3.*body +\d+ bytes, uploaded in parts.*plaintext +60000 bytes, as the file states; not authenticated`, ok(t, "inspect", "sealed"))
	require.Contains(t, ok(t, "inspect", "--json", "sealed"), `"composite":true,"envelope_size":`)
	blobseal(args("decrypt", customer, "sealed", "-")...).fails(t, 3, "sealed: ")
	piped(string(read(t, "sealed")), args("decrypt", ring, "-", "-")...).fails(t, 1, "standard input: uploaded in parts, which only a regular file can be read from (save it first)")

	whole := read(t, "sealed")
	for name, test := range map[string]struct {
		damage func(p []byte) []byte
		says   string
	}{
		"part":   {func(p []byte) []byte { p[41_000] ^= 1; return p }, "damaged: part 2 is not authentic"},
		"cut":    {func(p []byte) []byte { return p[:len(p)-1] }, "composite object has no footer at its end"},
		"inside": {func(p []byte) []byte { return append(p[:9000:9000], p[9001:]...) }, "truncated: "},
		"list":   {func(p []byte) []byte { p[60_000+2*68+5*16+60] ^= 1; return p }, "damaged"},
	} {
		write(t, name, test.damage(bytes.Clone(whole)))
		blobseal(args("decrypt", ring, name, "out")...).fails(t, 4, name+": ")
		require.NoFileExists(t, "out")
		res := blobseal(args("verify", ring, name)...)
		require.Equal(t, 4, res.code)
		require.Contains(t, res.out, test.says)
	}
}

// A rewrap of a file that was uploaded in parts changes its end alone.
func TestRewrapComposite(t *testing.T) {
	workspace(t)
	plain := uploadParts(t, "sealed", sse.Object{Bucket: "a", Key: "b"}, 40_000, 1)
	before := read(t, "sealed")
	old := keyID(t, "sealed")
	require.Equal(t, "sealed: already under the newest version, "+old+"\n", ok(t, args("rewrap", ring, "--object", "a/b", "sealed")...))
	ok(t, args("ring", "rotate", ring)...)
	ok(t, args("rewrap", ring, "--object", "a/b", "sealed")...)
	require.NotEqual(t, old, keyID(t, "sealed"))
	after := read(t, "sealed")
	end := 40_001 + 2*68 + 4*16
	require.Len(t, after, len(before))
	require.Equal(t, before[:end], after[:end])
	require.Equal(t, string(plain), ok(t, args("decrypt", ring, "--object", "a/b", "sealed", "-")...))

	for _, to := range [][]string{{"--to-customer-key-file", "my.key"}, {"--to-kms", "my.kms", "--to-kms-key", "alias/photos", "--to-root-key-file", "root.key"}} {
		write(t, "sealed", after)
		ok(t, args("rewrap", ring, "--object", "a/b", to, "--to-object", "c/d", "sealed")...)
		blobseal(args("decrypt", ring, "--object", "a/b", "sealed", "-")...).fails(t, 3, "sealed: ")
		key := customer
		if to[0] == "--to-kms" {
			key = photos
		}
		require.Equal(t, string(plain), ok(t, args("decrypt", key, "--object", "c/d", "sealed", "-")...))
		require.Equal(t, before[:end], read(t, "sealed")[:end])
	}
}

// The commands on buckets take an object that was uploaded in parts for what it is.
func TestBucketComposite(t *testing.T) {
	album(t, ring, "cat.jpg")
	plain := uploadParts(t, "parts", sse.Object{Bucket: "photos", Key: "dog.mp4"}, 200_000, 5)
	require.NoError(t, os.Rename("parts", "photos/dog.mp4"))
	require.Equal(t, string(plain), get(t, ring, "dog.mp4"))
	require.Equal(t, string(plain[199_990:200_003]), get(t, ring, "dog.mp4", "--range", "199990-200002"))
	require.Contains(t, ok(t, args("bucket", "inventory", bucketURL, "--json")...), `"objects":2,"stored":215282,"size":200023,`)
	require.Contains(t, ok(t, args("bucket", "check", bucketURL, ring)...), "2 good")

	ok(t, args("ring", "rotate", ring)...)
	ok(t, args("bucket", "rewrap", bucketURL, ring)...)
	require.Equal(t, string(plain), get(t, ring, "dog.mp4"))
	require.Contains(t, ok(t, args("bucket", "check", bucketURL, ring)...), "2 good")
	require.Equal(t, "picture of cat.jpg", get(t, ring, "cat.jpg"))
}
