package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/sse"
)

func TestRoundTrip(t *testing.T) {
	for mode, key := range modes {
		t.Run(mode, func(t *testing.T) {
			workspace(t)
			for _, n := range []int{0, 1, sse.ChunkSize - 1, sse.ChunkSize, sse.ChunkSize + 1, 300_000} {
				plain := random(n)
				write(t, "plain", plain)
				require.Empty(t, ok(t, args("encrypt", key, "--force", "plain", "sealed")...))
				require.Len(t, read(t, "sealed"), object.EnvelopeUnit+n+16*(n/sse.ChunkSize+1))
				require.Empty(t, ok(t, args("decrypt", key, "--force", "sealed", "copy")...))
				require.Equal(t, plain, read(t, "copy"))
				require.Equal(t, fmt.Sprintf("sealed: OK, %d bytes\n", n), ok(t, args("verify", key, "sealed")...))

				sealed := piped(string(plain), args("encrypt", key, "-", "-")...)
				require.Equal(t, 0, sealed.code, sealed.errout)
				opened := piped(sealed.out, args("decrypt", key, "-", "-")...)
				require.Equal(t, 0, opened.code, opened.errout)
				require.Equal(t, string(plain), opened.out)
				verified := piped(sealed.out, args("verify", key, "-")...)
				require.Equal(t, fmt.Sprintf("-: OK, %d bytes\n", n), verified.out)
			}
			for _, name := range files(t) {
				require.NotContains(t, name, ".tmp")
			}
		})
	}
}

func TestRange(t *testing.T) {
	workspace(t)
	plain := random(3*sse.ChunkSize + 100)
	write(t, "plain", plain)
	ok(t, args("encrypt", ring, "plain", "sealed")...)
	size := len(plain)
	for _, r := range [][2]int{
		{0, 0}, {0, size - 1}, {5, 9}, {sse.ChunkSize - 1, sse.ChunkSize}, {sse.ChunkSize, 2*sse.ChunkSize - 1}, {size - 1, size - 1}, {100, 3 * sse.ChunkSize},
	} {
		out := ok(t, args("decrypt", ring, "--range", fmt.Sprintf("%d-%d", r[0], r[1]), "sealed", "-")...)
		require.Equal(t, plain[r[0]:r[1]+1], []byte(out), r)
	}
	for _, off := range []int{0, 1, sse.ChunkSize, size - 1} {
		ok(t, args("decrypt", ring, "--force", "--range", fmt.Sprintf("%d-", off), "sealed", "copy")...)
		require.Equal(t, plain[off:], read(t, "copy"), off)
	}
	for _, text := range []string{fmt.Sprintf("0-%d", size), fmt.Sprintf("%d-", size), "9223372036854775807-", "9223372036854775806-9223372036854775807"} {
		blobseal(args("decrypt", ring, "--range", text, "sealed", "out")...).
			fails(t, 1, fmt.Sprintf("sealed: --range is beyond the end: the last byte is %d", size-1))
	}
	write(t, "plain", nil)
	ok(t, args("encrypt", ring, "plain", "empty")...)
	blobseal(args("decrypt", ring, "--range", "0-", "empty", "out")...).fails(t, 1, "the file is empty")
	require.NoFileExists(t, "out")

	t.Run("other chunks are not read", func(t *testing.T) {
		damaged := read(t, "sealed")
		damaged[object.EnvelopeUnit+5] ^= 1
		write(t, "sealed", damaged)
		out := ok(t, args("decrypt", ring, "--range", fmt.Sprintf("%d-%d", sse.ChunkSize, sse.ChunkSize+9), "sealed", "-")...)
		require.Equal(t, plain[sse.ChunkSize:sse.ChunkSize+10], []byte(out))
		blobseal(args("decrypt", ring, "--range", "0-0", "sealed", "-")...).fails(t, 4, "chunk 0 is not authentic")
	})
	t.Run("the length is authenticated", func(t *testing.T) {
		require.NoError(t, os.Truncate("sealed", object.EnvelopeUnit+2*(sse.ChunkSize+16)+50))
		res := blobseal(args("decrypt", ring, "--range", "20000-20001", "sealed", "-")...)
		res.fails(t, 4, "chunk 2 is not authentic")
		require.Empty(t, res.out)
	})
}

func TestIdentity(t *testing.T) {
	const refused = "wrong key, object or context, or edited envelope"
	for mode, key := range modes {
		t.Run(mode, func(t *testing.T) {
			workspace(t)
			write(t, "plain", []byte("plain"))
			ok(t, args("encrypt", key, "--object", "photos/2026/a.jpg", "--context", "owner=me", "--context", "x=1,2;y=3", "plain", "sealed")...)
			for name, test := range map[string]struct {
				args []string
				good bool
			}{
				"object":                   {[]string{"--object", "photos/2026/a.jpg"}, true},
				"object and context":       {[]string{"--object", "photos/2026/a.jpg", "--context", "x=1,2;y=3", "--context", "owner=me"}, true},
				"no object":                {nil, false},
				"other split":              {[]string{"--object", "photos/2026/a.jp"}, false},
				"part of the context":      {[]string{"--object", "photos/2026/a.jpg", "--context", "owner=me"}, false},
				"other value":              {[]string{"--object", "photos/2026/a.jpg", "--context", "owner=ME", "--context", "x=1,2;y=3"}, false},
				"no object, right context": {[]string{"--context", "owner=me", "--context", "x=1,2;y=3"}, false},
			} {
				res := blobseal(args("decrypt", key, test.args, "sealed", "-")...)
				if !test.good {
					res.fails(t, 4, "sealed: "+refused)
					require.Empty(t, res.out, name)
					continue
				}
				require.Equal(t, result{0, "plain", ""}, res, name)
			}
		})
	}
	t.Run("key", func(t *testing.T) {
		workspace(t)
		write(t, "plain", []byte("plain"))
		ok(t, args("encrypt", service, "plain", "kms")...)
		blobseal(args("decrypt", ring, "kms", "-")...).fails(t, 3, "kms: sealed under a key service (SSE-KMS): give --kms and its root")
		blobseal(args("decrypt", photos, "kms", "-")...).fails(t, 3, ", not under alias/photos")
		blobseal(args("decrypt", service, "kms", "-")...).fails(t, 3, ", which no flag accepts (if you trust that key, give --kms-key ")
		require.Equal(t, "plain", ok(t, args("decrypt", photos, "--kms-key", "alias/blobseal/default", "kms", "-")...), "one of two keys")
		blobseal(args("decrypt", service, "--kms-key", "alias/none", "kms", "-")...).fails(t, 5, `my.kms: no such key: "alias/none" (list them with: blobseal kms list --kms my.kms`)
		ok(t, "kms", "init", "--kms", "other.kms", "--root-key-file", "root.key")
		blobseal("decrypt", "--kms", "other.kms", "--root-key-file", "root.key", "--any-kms-key", "kms", "-").fails(t, 5, `kms: sealed under key "arn:blobseal:kms:`)
		ok(t, args("encrypt", customer, "plain", "sealed")...)
		blobseal("decrypt", "--customer-key-file", "other.key", "sealed", "-").fails(t, 4, refused)
		blobseal(args("decrypt", ring, "sealed", "-")...).fails(t, 3, "sealed: sealed under a customer key (SSE-C): give --customer-key-file")
		ok(t, args("encrypt", ring, "plain", "managed")...)
		blobseal(args("decrypt", anyKey, "managed", "-")...).fails(t, 3, "managed: sealed under a ring (SSE-S3): give --ring")
		blobseal(args("decrypt", customer, "managed", "-")...).fails(t, 3, "managed: sealed under a ring (SSE-S3): give --ring")
		ok(t, "ring", "create", "--ring", "other.ring", "--root-key-file", "root.key")
		blobseal("decrypt", "--ring", "other.ring", "--root-key-file", "root.key", "managed", "-").fails(t, 5, "of another ring (other.ring is ring ")
	})
}

func TestKeyFiles(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	raw := read(t, "my.key")
	require.Len(t, raw, 32)
	for name, text := range map[string]string{
		"hex": hex.EncodeToString(raw), "hex line": hex.EncodeToString(raw) + "\n", "upper": strings.ToUpper(hex.EncodeToString(raw)) + "\r\n",
	} {
		write(t, "text.key", []byte(text))
		require.Equal(t, "plain", ok(t, "decrypt", "--customer-key-file", "text.key", "sealed", "-"), name)
	}
	for name, test := range map[string]struct{ text, says string }{
		"empty":     {"", "it has 0 bytes"},
		"short":     {string(raw[:31]), "it has 31 bytes, want 32"},
		"long":      {string(raw) + "x", "it has 33 bytes"},
		"half hex":  {hex.EncodeToString(raw[:16]), "its 32 bytes are text"},
		"odd hex":   {hex.EncodeToString(raw)[:63], "it has 63 bytes"},
		"not hex":   {strings.Repeat("g", 64), "it has 64 bytes"},
		"much more": {strings.Repeat("x", 5000), "more than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, "bad.key", []byte(test.text))
			res := blobseal("decrypt", "--customer-key-file", "bad.key", "sealed", "out")
			res.fails(t, 1, "bad.key: ")
			require.Contains(t, res.errout, test.says)
			if len(test.text) > 20 {
				require.NotContains(t, res.errout, test.text[:20], "no secret")
			}
			blobseal("ring", "list", "--ring", "my.ring", "--root-key-file", "bad.key").fails(t, 1, "bad.key: ")
			require.NoFileExists(t, "out")
		})
	}
	blobseal("decrypt", "--customer-key-file", "none.key", "sealed", "out").fails(t, 5, "none.key: no such file or directory")
	blobseal("keygen", "my.key").fails(t, 3, "my.key: already exists")
	require.Equal(t, raw, read(t, "my.key"))
	ok(t, "keygen", "new.key")
	require.NotEqual(t, raw, read(t, "new.key"))
}

// TestBadInput checks that each failure has its code and its line, and leaves
// nothing behind.
func TestBadInput(t *testing.T) {
	workspace(t)
	write(t, "plain", random(3*sse.ChunkSize+100))
	ok(t, args("encrypt", ring, "plain", "sealed")...)
	good := read(t, "sealed")
	bad := func(name string, edit func(data []byte) []byte) {
		write(t, name, edit(bytes.Clone(good)))
	}
	flip := func(i int) func([]byte) []byte {
		return func(data []byte) []byte { data[i] ^= 1; return data }
	}
	bad("empty", func([]byte) []byte { return nil })
	bad("short", func(data []byte) []byte { return data[:100] })
	bad("magic", flip(0))
	bad("version", func(data []byte) []byte { data[8] = 2; return data })
	bad("envelope", flip(60))
	bad("head", flip(object.EnvelopeUnit-1))
	bad("chunk", flip(object.EnvelopeUnit+(sse.ChunkSize+16)+7))
	bad("cut-at-chunk", func(data []byte) []byte { return data[:object.EnvelopeUnit+2*(sse.ChunkSize+16)] })
	bad("cut-in-chunk", func(data []byte) []byte { return data[:object.EnvelopeUnit+2*(sse.ChunkSize+16)+1000] })
	bad("longer", func(data []byte) []byte { return append(data, 0) })
	require.NoError(t, os.Mkdir("dir", 0o755))
	write(t, "exists", []byte("precious"))
	write(t, "damaged.ring", []byte("nonsense"))
	damaged := read(t, "my.ring")
	damaged[len(damaged)/2] ^= 1
	write(t, "bitrot.ring", damaged)
	require.NoError(t, os.Symlink("nowhere", "dangling"))
	before := files(t)

	withRing := func(path string) []string { return []string{"--ring", path, "--root-key-file", "root.key"} }
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no IN":             {args("encrypt", ring, "none", "out"), "none: no such file or directory"},
		"no IN to decrypt":  {args("decrypt", ring, "none", "out"), "none: no such file or directory"},
		"IN is a directory": {args("encrypt", ring, "dir", "out"), "dir: is a directory"},
		"OUT is one":        {args("encrypt", ring, "--force", "plain", "dir"), "dir: is a directory"},
		"OUT's is none":     {args("encrypt", ring, "plain", "none/out"), "none/out: no such file or directory"},
		"OUT below a file":  {args("encrypt", ring, "plain", "plain/out"), "plain/out: not a directory"},
		"OUT exists":        {args("encrypt", ring, "plain", "exists"), "exists: already exists; --force replaces it"},
		"OUT exists, 2":     {args("decrypt", ring, "sealed", "exists"), "exists: already exists; --force replaces it"},
		"OUT dangles":       {args("decrypt", ring, "--force", "sealed", "dangling"), "dangling: is a symbolic link to a file that does not exist"},
		"OUT is full":       {args("decrypt", ring, "sealed", "/dev/full"), "/dev/full: no space left on device"},
		"OUT is full, 2":    {args("encrypt", ring, "plain", "/dev/full"), "/dev/full: no space left on device"},

		"no ring":         {args("encrypt", withRing("no.ring"), "plain", "out"), "no.ring: no such ring (create one with: blobseal ring create --ring no.ring --root-key-file root.key)"},
		"ring is a dir":   {args("encrypt", withRing("dir"), "plain", "out"), "dir: is a directory"},
		"ring is damaged": {args("encrypt", withRing("bitrot.ring"), "plain", "out"), "bitrot.ring: document is damaged: checksum does not match (if this is a ring, restore it from a backup)"},
		"ring is none":    {args("ring", "list", withRing("damaged.ring")), "damaged.ring: document is damaged: does not begin as a keyring document"},
		"wrong root":      {args("encrypt", "--ring", "my.ring", "--root-key-file", "other.key", "plain", "out"), "my.ring: wrong root: "},
		"ring exists":     {args("ring", "create", ring), "my.ring: already exists"},
		"no ring to list": {args("ring", "list", withRing("no.ring")), "no.ring: no such ring"},
		"big context":     {args("encrypt", ring, "--context", "a="+strings.Repeat("x", 9000), "plain", "out"), "encryption context has more than 8192 bytes"},

		"empty file":     {args("decrypt", ring, "empty", "out"), "empty: not a sealed file, or truncated within its envelope"},
		"short envelope": {args("decrypt", ring, "short", "out"), "short: not a sealed file, or truncated within its envelope"},
		"not sealed":     {args("decrypt", ring, "plain", "out"), "plain: not an envelope: magic bytes are missing (not a sealed file, or damaged)"},
		"magic":          {args("inspect", "magic"), "magic: not an envelope: "},
		"version":        {args("decrypt", ring, "version", "out"), "version: sealed by another release of blobseal"},
		"envelope":       {args("decrypt", ring, "envelope", "out"), "envelope: wrong key, object or context, or edited envelope"},
		"head":           {args("decrypt", ring, "head", "out"), "head: wrong key, object or context, or edited envelope"},
		"chunk": {args("decrypt", ring, "chunk", "out"),
			"chunk: damaged: chunk 1 is not authentic, at byte 17424 of the file (byte 16384 of the plaintext)"},
		"cut at a chunk": {args("decrypt", ring, "cut-at-chunk", "out"), "cut-at-chunk: truncated"},
		"cut in a chunk": {args("decrypt", ring, "cut-in-chunk", "out"), "chunk 2 is not authentic, at byte 33824 of the file (byte 32768 of the plaintext); it is the last one: the file may have been cut short"},
		"longer":         {args("decrypt", ring, "longer", "out"), "longer: damaged: chunk 3 is not authentic"},
		"rewrap of none": {args("rewrap", ring, "none"), "none: no such file or directory"},
		"rewrap of dir":  {args("rewrap", ring, "dir"), "dir: is a directory"},
		"rewrap edited":  {args("rewrap", ring, "envelope"), "envelope: wrong key"},
		"rewrap plain":   {args("rewrap", ring, "plain"), "plain: not an envelope: magic bytes are missing (not a sealed file, or damaged)"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "full") {
				if _, err := os.Stat("/dev/full"); err != nil {
					t.Skip(err)
				}
			}
			res := blobseal(test.args...)
			res.fails(t, anyFailure, test.says)
			require.Empty(t, res.out)
			require.NotContains(t, res.errout, "keyring:")
			require.NotContains(t, res.errout, "sse:")
			after := files(t)
			require.Equal(t, before, after, "nothing is left")
			require.Equal(t, "precious", string(read(t, "exists")))
		})
	}

	t.Run("a stream that is cut", func(t *testing.T) {
		plain := read(t, "plain")
		for _, name := range []string{"cut-at-chunk", "cut-in-chunk", "chunk"} {
			res := piped(string(read(t, name)), args("decrypt", ring, "-", "-")...)
			res.fails(t, 4, "standard input: ")
			require.True(t, strings.HasPrefix(string(plain), res.out), "what came out is authentic")
			require.Less(t, len(res.out), len(plain))
			piped(string(read(t, name)), args("decrypt", ring, "-", "out")...).fails(t, 4, "standard input: ")
		}
		require.Equal(t, before, files(t))
	})
	t.Run("a file that is cut is refused before its first byte", func(t *testing.T) {
		for _, name := range []string{"cut-at-chunk", "cut-in-chunk"} {
			res := blobseal(args("decrypt", ring, name, "-")...)
			res.fails(t, 4, name)
			require.Empty(t, res.out)
		}
	})
	t.Run("verify goes on", func(t *testing.T) {
		res := blobseal(args("verify", ring, "chunk", "sealed", "none", "cut-at-chunk", "sealed")...)
		res.fails(t, 4, "3 of 5 files failed verification")
		require.Equal(t, `chunk: FAILED: damaged: chunk 1 is not authentic, at byte 17424 of the file (byte 16384 of the plaintext)
sealed: OK, 49252 bytes
none: FAILED: no such file or directory
cut-at-chunk: FAILED: truncated: it ends where no sealed file or object can end
sealed: OK, 49252 bytes
`, res.out)
	})
	t.Run("inspect goes on", func(t *testing.T) {
		res := blobseal("inspect", "--json", "none", "sealed", "plain")
		res.fails(t, 4, "none: no such file or directory (and 1 more of 3 files failed)")
		require.Equal(t, 1, strings.Count(res.out, "\n"))
	})
	t.Run("a name of several lines", func(t *testing.T) {
		blobseal(args("decrypt", ring, "two\nlines", "out")...).fails(t, 5, "two lines: no such file")
	})
}

// TestOutputRace lets a file appear under the output's name meanwhile.
func TestOutputRace(t *testing.T) {
	t.Chdir(t.TempDir())
	c := console.New(nil, nil, nil)
	out, err := file.Create(t.Context(), c, "out", 0o644, false)
	require.NoError(t, err)
	defer out.Discard()
	_, err = out.Write([]byte("ours"))
	require.NoError(t, err)
	require.NoFileExists(t, "out")
	write(t, "out", []byte("theirs"))
	require.ErrorContains(t, out.Commit(), "already exists")
	require.Equal(t, "theirs", string(read(t, "out")))
	require.Equal(t, []string{"out"}, files(t))
}

func TestInspect(t *testing.T) {
	workspace(t)
	write(t, "plain", random(20_000))
	ok(t, args("encrypt", ring, "--context", "b=2", "--context", "a=1", "plain", "managed")...)
	ok(t, args("encrypt", customer, "plain", "customer")...)

	var found []map[string]any
	for line := range strings.Lines(ok(t, "inspect", "--json", "managed", "customer")) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		found = append(found, m)
	}
	key := keyID(t, "managed")
	require.Regexp(t, `^[0-9a-f]{16}\.[0-9a-f]{8}$`, key)
	require.Equal(t, []map[string]any{
		{"file": "managed", "mode": "SSE-S3", "key_id": key, "bucket_key": false, "composite": false, "context": map[string]any{"a": "1", "b": "2"},
			"envelope_size": 1024.0, "body_size": 20032.0, "plaintext_size": 20000.0},
		{"file": "customer", "mode": "SSE-C", "key_id": "", "bucket_key": false, "composite": false, "context": map[string]any{},
			"envelope_size": 1024.0, "body_size": 20032.0, "plaintext_size": 20000.0},
	}, found)

	require.Equal(t, `managed
  mode       SSE-S3, a key ring
  version    `+key+`
  context    a=1
             b=2
  envelope   1024 bytes
  body       20032 bytes
  plaintext  20000 bytes, computed; not authenticated

customer
  mode       SSE-C, a customer key
  context    none
  envelope   1024 bytes
  body       20032 bytes
  plaintext  20000 bytes, computed; not authenticated
`, ok(t, "inspect", "managed", "customer"))

	res := piped(string(read(t, "managed")), "inspect", "--json", "-")
	require.Equal(t, 0, res.code, res.errout)
	require.Contains(t, res.out, `"body_size":20032`)

	require.NoError(t, os.Truncate("managed", object.EnvelopeUnit+(sse.ChunkSize+16)))
	require.Contains(t, ok(t, "inspect", "managed"), "the file is truncated")
	require.Contains(t, ok(t, "inspect", "--json", "managed"), `"plaintext_size":null`)
}

func TestEnvelopeSize(t *testing.T) {
	workspace(t)
	write(t, "plain", nil)
	for _, n := range []int{0, 500, 1000, 5000} {
		name := fmt.Sprint(n)
		ok(t, args("encrypt", ring, "--context", "a="+strings.Repeat("x", n), "plain", name)...)
		f, err := os.Open(name)
		require.NoError(t, err)
		env, err := sse.ReadEnvelope(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.Zero(t, env.Size()%object.EnvelopeUnit)
		require.Less(t, env.Size(), 200+n+2*object.EnvelopeUnit)
	}
}
