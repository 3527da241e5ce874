package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	gcblob "gocloud.dev/blob"
)

var (
	bucketURL  = []string{"--bucket", "file://./photos"}
	toOther    = []string{"--to-ring", "other.ring", "--to-root-key-file", "root.key"}
	otherRing  = []string{"--ring", "other.ring", "--root-key-file", "root.key"}
	toCustomer = []string{"--to-customer-key-file", "my.key"}
)

// album makes a workspace with a bucket, photos, and objects in it.
func album(t *testing.T, key []string, names ...string) {
	t.Helper()
	workspace(t)
	require.NoError(t, os.Mkdir("photos", 0o755))
	for _, name := range names {
		put(t, key, name, "picture of "+name)
	}
}

func put(t *testing.T, key []string, name, text string, flags ...string) {
	t.Helper()
	res := piped(text, args("bucket", "put", bucketURL, key, flags, "-", name)...)
	require.Equal(t, result{}, res)
}

// plainly stores an object that is not encrypted.
func plainly(t *testing.T, name, text string) {
	t.Helper()
	store, err := gcblob.OpenBucket(t.Context(), "file://./photos")
	require.NoError(t, err)
	require.NoError(t, store.WriteAll(t.Context(), name, []byte(text), &gcblob.WriterOptions{ContentType: "text/x-poem"}))
	require.NoError(t, store.Close())
}

func get(t *testing.T, key []string, name string, flags ...string) string {
	t.Helper()
	return ok(t, args("bucket", "get", bucketURL, key, flags, name, "-")...)
}

// lines parses JSON Lines.
func lines(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var value map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &value), "%s", line)
		all = append(all, value)
	}
	return all
}

// summary is the last of JSON Lines.
func summary(t *testing.T, text string) map[string]any {
	t.Helper()
	all := lines(t, text)
	require.NotEmpty(t, all)
	return all[len(all)-1]["summary"].(map[string]any)
}

// TestBucketLife is what the help of bucket shows: put, rotate, rewrap, retire.
func TestBucketLife(t *testing.T) {
	album(t, ring, "a.jpg", "2026/b.jpg", "2026/c.jpg")
	old := ringKeys(t).Versions[0].ID
	require.NotContains(t, string(read(t, "photos/2026/b.jpg")), "picture")

	inventory := ok(t, args("bucket", "inventory", bucketURL, "--list")...)
	require.Regexp(t, `(?m)^2026/b.jpg: 21 bytes, SSE-S3 version `+old+`$`, inventory)
	require.Regexp(t, `(?m)^3 +3\d+ +SSE-S3 version `+old+`$`, inventory)
	require.Contains(t, inventory, "file://./photos: 3 objects, ")

	retire := args("bucket", "retire", bucketURL, ring, old)
	blobseal(retire...).fails(t, 3, "is the newest, which seals new files (rotate first with: ")
	ok(t, args("ring", "rotate", ring)...)
	newest := ringKeys(t).Versions[1].ID
	res := blobseal(retire...)
	res.fails(t, 3, "my.ring: version "+old+" is still needed: 3 objects under it (run bucket rewrap)")
	require.Equal(t, "photos/2026/b.jpg: is under the version\nphotos/2026/c.jpg: is under the version\nphotos/a.jpg: is under the version\n", res.out)

	before := read(t, "photos/a.jpg")
	rewrap := args("bucket", "rewrap", bucketURL, ring)
	require.Regexp(t, `^file://./photos: 3 objects would be rewrapped to SSE-S3 version `+newest+` \(\d+ bytes\), 0 current, 0 unmatched, 0 deleted meanwhile, 0 failed\n$`,
		ok(t, args(rewrap, "--dry-run")...))
	require.Equal(t, before, read(t, "photos/a.jpg"))
	listed := ok(t, args(rewrap, "--prefix", "2026/", "--list")...)
	require.True(t, strings.HasPrefix(listed, "2026/b.jpg: rewrapped to SSE-S3 version "+newest+"\n2026/c.jpg: rewrapped to SSE-S3 version "+newest+"\nfile://"), listed)
	all := lines(t, ok(t, args(rewrap, "--json", "--list")...))
	require.Equal(t, map[string]any{"key": "a.jpg", "outcome": "done", "stored": float64(len(before)),
		"from": map[string]any{"mode": "SSE-S3", "key_id": old}, "to": map[string]any{"mode": "SSE-S3", "key_id": newest}}, all[0])
	require.Equal(t, map[string]any{"bucket": "file://./photos", "target": map[string]any{"mode": "SSE-S3", "key_id": newest}, "resumed": false, "dry_run": false,
		"done": 1.0, "current": 2.0, "unmatched": 0.0, "deleted": 0.0, "failed": 0.0, "bytes": float64(len(before))}, all[1]["summary"])
	require.Equal(t, before[len(before)-16:], read(t, "photos/a.jpg")[len(before)-16:], "the body is as it was")

	require.Equal(t, "my.ring: version "+old+" is disabled: no object needs it\n", ok(t, retire...))
	blobseal(args(retire, "--destroy")...).fails(t, 2, "give --yes")
	res = blobseal(args(retire, "--destroy", "--yes")...)
	res.fails(t, 3, "my.ring: version "+old+" is not destroyed yet: it was disabled at ")
	require.Contains(t, res.errout, "repeat the command after ")
	require.Equal(t, "my.ring: version "+old+" is destroyed: no object needs it\n", ok(t, args(retire, "--destroy", "--yes", "--quarantine", "0")...))
	blobseal(retire...).fails(t, 3, "was destroyed, which cannot be undone")

	for _, name := range []string{"a.jpg", "2026/b.jpg", "2026/c.jpg"} {
		require.Equal(t, "picture of "+name, get(t, ring, name))
	}
	require.Equal(t, "file://./photos: 3 objects, 3 good (bodies authenticated)\n", ok(t, args("bucket", "check", bucketURL, ring)...))
}

func TestBucketPutAndGet(t *testing.T) {
	for mode, key := range modes {
		t.Run(mode, func(t *testing.T) {
			album(t, key)
			plain := random(100_000)
			write(t, "cat.jpg", plain)
			flags := []string{}
			if mode == "SSE-KMS" {
				flags = []string{"--bucket-key"}
			}
			require.Empty(t, ok(t, args("bucket", "put", bucketURL, key, flags, "--context", "owner=me", "--content-type", "image/x-cat", "cat.jpg", "2026/cat")...))
			require.Contains(t, string(read(t, "photos/2026/cat.attrs")), "image/x-cat")
			require.Equal(t, string(plain), get(t, key, "2026/cat"))
			require.Equal(t, string(plain[20_000:20_010]), get(t, key, "2026/cat", "--range", "20000-20009"))
			require.Equal(t, string(plain[99_990:]), get(t, key, "2026/cat", "--range", "99990-"))
			require.Empty(t, ok(t, args("bucket", "get", bucketURL, key, "2026/cat", "copy")...))
			require.Equal(t, plain, read(t, "copy"))
			info, err := os.Stat("copy")
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode())

			stored := read(t, "photos/2026/cat")
			blobseal(args("bucket", "put", bucketURL, key, "cat.jpg", "2026/cat")...).fails(t, 3, "2026/cat: already exists; --force replaces it")
			require.Equal(t, stored, read(t, "photos/2026/cat"))
			ok(t, args("bucket", "put", bucketURL, key, "--force", "my.key", "2026/cat")...)
			require.Equal(t, read(t, "my.key"), []byte(get(t, key, "2026/cat")))
		})
	}
}

// TestBucketCheck is long because each damage stands in one function with the line
// that reports it.
func TestBucketCheck(t *testing.T) {
	album(t, ring, "good", "foreign", "short", "flipped", "head", "gone")
	big := string(random(40_000))
	put(t, ring, "flipped", big, "--force")
	put(t, ring, "short", big, "--force")
	put(t, customer, "customers", "x")
	put(t, photos, "kms", "x")
	plainly(t, "plain", "x")
	edit := func(name string, change func([]byte) []byte) {
		require.NoError(t, os.WriteFile("photos/"+name, change(read(t, "photos/"+name)), 0o644))
	}
	edit("foreign", func([]byte) []byte { return read(t, "photos/good") })
	edit("short", func(data []byte) []byte { return data[:len(data)-100] })
	edit("flipped", func(data []byte) []byte { data[20_000] ^= 1; return data })
	edit("head", func(data []byte) []byte { data[0] ^= 1; return data })
	before := ringKeys(t).Versions[0].ID
	ok(t, args("ring", "rotate", ring)...)
	edit("gone", func([]byte) []byte { return nil })
	require.NoError(t, os.Remove("photos/gone"))
	put(t, ring, "new", "x")

	check := func(want []string, says string, flags ...any) {
		t.Helper()
		res := blobseal(args(append([]any{"bucket", "check", bucketURL, ring}, flags...)...)...)
		if says != "" {
			res.fails(t, 4, says)
		} else {
			require.Equal(t, 0, res.code, res.errout)
		}
		all := strings.SplitAfter(res.out, "\n")
		for i, line := range want {
			require.Regexp(t, "^"+line+"$", strings.TrimSuffix(all[i], "\n"))
		}
		require.Len(t, all, len(want)+2, "%s", res.out)
	}
	head := "head: DAMAGED: .+"
	foreign := "foreign: WRONG KEY: wrong key, or sealed for another object .*"
	unencrypted := `plain: PLAIN: not encrypted \(--allow-plain accepts it\)`
	noCustomer := `customers: NO KEY: sealed under a customer key \(SSE-C\): give --customer-key-file`
	noKMS := `kms: NO KEY: sealed under a key service \(SSE-KMS\): give --kms and its root`
	check([]string{noCustomer, foreign, head, noKMS, unencrypted}, "file://./photos: 5 of 9 objects cannot be read", "--depth", "envelopes")
	check([]string{noCustomer, "flipped: DAMAGED: damaged: chunk 1 is not authentic, at byte 16384 of the plaintext", foreign, head, noKMS, unencrypted,
		"short: .*"}, "file://./photos: 7 of 9 objects cannot be read")
	check([]string{noCustomer, foreign, head, noKMS, unencrypted, "short: .*"}, "6 of 9", "--depth", "lengths")
	check([]string{foreign, head}, "2 of 9", "--depth", "envelopes", "--allow-plain", "--kms", "my.kms", "--kms-key", "alias/photos", customer)
	check([]string{foreign}, "1 of 4 objects", "--depth", "envelopes", "--key-id", before)
	check([]string{"new: GOOD, 1 bytes"}, "", "--prefix", "new", "--list")
	check([]string{"new: LENGTH GOOD, 1 bytes"}, "", "--prefix", "new", "--list", "--depth", "lengths")

	res := blobseal(args("bucket", "check", bucketURL, ring, "--json")...)
	res.fails(t, 4, "7 of 9")
	all := lines(t, res.out)
	require.Len(t, all, 8)
	require.Equal(t, "flipped", all[1]["key"])
	require.Equal(t, "damaged", all[1]["verdict"])
	require.Equal(t, before, all[1]["key_id"])
	require.Equal(t, 40_000.0, all[1]["size"])
	verdicts := summary(t, res.out)["verdicts"].(map[string]any)
	require.Equal(t, 2.0, verdicts["good"])
	require.Equal(t, 2.0, verdicts["no key"])

	ok(t, args("ring", "disable", ring, before)...)
	res = blobseal(args("bucket", "check", bucketURL, ring, "--prefix", "good")...)
	res.fails(t, 3, "1 of 1 object")
	require.Contains(t, res.out, "good: NO KEY: sealed under version "+before+", which is disabled (enable it with: blobseal ring enable --ring my.ring --root-key-file root.key "+before)
}

// TestBucketCheckOfAZeroedBody: an object whose body is gone is not good.
func TestBucketCheckOfAZeroedBody(t *testing.T) {
	album(t, ring)
	put(t, ring, "zeroed", string(random(40_000)))
	data := read(t, "photos/zeroed")
	clear(data[2000:20_000])
	require.NoError(t, os.WriteFile("photos/zeroed", data, 0o644))

	blobseal(args("bucket", "check", bucketURL, ring)...).fails(t, 4, "1 of 1 object")
	require.Equal(t, "file://./photos: 1 object, 1 envelope good (envelopes authenticated, bodies not read)\n",
		ok(t, args("bucket", "check", bucketURL, ring, "--depth", "envelopes")...))
	require.Equal(t, "file://./photos: 1 object, 1 length good (envelopes and ends of bodies authenticated)\n",
		ok(t, args("bucket", "check", bucketURL, ring, "--depth", "lengths")...))
}

// A bucket is called as its directory is.
func TestBucketName(t *testing.T) {
	album(t, ring)
	for _, name := range []string{".photos", "photos.", "..photos"} {
		url := []string{"--bucket", "file://./" + name + "?create_dir=true"}
		ok(t, args("bucket", "put", url, ring, "my.key", "k")...)
		ok(t, args("verify", ring, "--object", name+"/k", name+"/k")...)
	}
}

// TestBucketRefuses has what is refused for what the files, the store or the keys
// say. Nothing changes.
func TestBucketRefuses(t *testing.T) {
	album(t, ring, "a")
	put(t, photos, "k", "x")
	write(t, "plain", []byte("x"))
	ok(t, args("ring", "create", otherRing)...)
	write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);`))
	ok(t, args("kms", "policy", "put", service, "--force", "alias/photos", "policy")...)
	before := tree(t)
	none := []string{"--bucket", "file://./none"}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no directory":         {args("bucket", "check", none, ring), "file://./none: no such directory (?create_dir=true creates it)"},
		"a file":               {args("bucket", "check", "--bucket", "file://./plain", ring), "is not a directory"},
		"parameter":            {args("bucket", "inventory", "--bucket", "file://./photos?frob=1"), `file://./photos: invalid query parameter "frob"`},
		"s3 parameter":         {args("bucket", "inventory", "--bucket", "s3://photos?frob=1"), `s3://photos: unknown query parameter "frob"`},
		"no object":            {args("bucket", "get", bucketURL, ring, "none", "-"), "none: no such object"},
		"range":                {args("bucket", "get", bucketURL, ring, "--range", "5-100", "a", "-"), "a: --range is beyond the end: the last byte is 11"},
		"output exists":        {args("bucket", "get", bucketURL, ring, "a", "plain"), "plain: already exists; --force replaces it"},
		"another ring":         {args("bucket", "get", bucketURL, otherRing, "a", "out"), "a: sealed under version "},
		"another name":         {args("bucket", "get", bucketURL, ring, "--name", "pictures", "a", "out"), "a bucket that is not named pictures"},
		"another mode":         {args("bucket", "get", bucketURL, customer, "a", "out"), "a: sealed under a ring (SSE-S3): give --ring and its root"},
		"another service key":  {args("bucket", "get", bucketURL, service, "--kms-key", "alias/none", "k", "out"), `no such key: "alias/none"`},
		"not permitted":        {args("bucket", "get", bucketURL, anyKey, "--principal", "user:bob", "k", "out"), `"user:bob" may not Decrypt`},
		"put, not permitted":   {args("bucket", "put", bucketURL, photos, "--principal", "user:bob", "plain", "new"), `"user:bob" may not GenerateDataKey`},
		"put, no file":         {args("bucket", "put", bucketURL, ring, "none", "new"), "none: no such file or directory"},
		"put, bad name":        {args("bucket", "put", bucketURL, ring, "plain", "x.attrs"), `x.attrs: file extension ".attrs" is reserved`},
		"rewrap of the denied": {args("bucket", "rewrap", bucketURL, ring, "--to-kms", "my.kms", "--to-root-key-file", "root.key", "--to-kms-key", "alias/photos", "--principal", "user:bob"), `"user:bob" may not GenerateDataKey`},
		"rewrap, no ring":      {args("bucket", "rewrap", bucketURL, "--ring", "none", "--root-key-file", "root.key"), "none: no such ring"},
		"retire, unknown key":  {args("bucket", "retire", bucketURL, ring, "00000000"), "my.ring: no such version"},
		"retire, no directory": {args("bucket", "retire", none, ring, ringKeys(t).Versions[0].ID), "rotate first"},
		"store down":           {args("bucket", "inventory", "--bucket", "s3://photos?endpoint=http://127.0.0.1:1&use_path_style=true&region=us-east-1"), "s3://photos: the store does not answer: dial tcp 127.0.0.1:1"},
		"bad secret":           {args("bucket", "sign", "--secret-file", "plain", "--base-url", "http://localhost/", "a"), "plain: not a key"},
		"no address":           {args("bucket", "serve", bucketURL, ring, "--secret-file", "my.key", "--listen", "256.0.0.1:0"), "--listen 256.0.0.1:0: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", "x")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			res := blobseal(test.args...)
			res.fails(t, anyFailure, test.says)
			require.Empty(t, res.out)
			require.Equal(t, before, tree(t))
		})
	}
	t.Run("rewrap with another ring", func(t *testing.T) {
		res := blobseal(args("bucket", "rewrap", bucketURL, otherRing)...)
		res.fails(t, 5, "1 object failed")
		require.Regexp(t, `(?m)^a: FAILED: sealed under version \S+ of another ring \(other.ring is ring `, res.out)
		require.Equal(t, before, tree(t))
	})
}

// tree lists the files below the current directory, but for an audit trail and the
// lock of a bucket.
func tree(t *testing.T) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if !strings.Contains(path, "my.kms") && filepath.Base(path) != ".blobseal-lock.attrs" {
			names = append(names, path)
		}
		return err
	}))
	return names
}

func TestBucketUsage(t *testing.T) {
	album(t, ring, "a")
	old := ringKeys(t).Versions[0].ID
	ok(t, args("ring", "rotate", ring)...)
	before := tree(t)
	serve := args("bucket", "serve", bucketURL, ring, "--secret-file", "my.key")
	sign := args("bucket", "sign", "--secret-file", "my.key")
	shred := args("bucket", "shred", bucketURL, "--record", "r", "--yes")
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no bucket":             {args("bucket", "inventory"), "--bucket"},
		"a path":                {args("bucket", "inventory", "--bucket", "photos"), `--bucket "photos": want a URL: file:///DIR, s3://NAME, gs://NAME, azblob://NAME or mem://`},
		"scheme":                {args("bucket", "inventory", "--bucket", "ftp://photos"), "--bucket: ftp:// is unknown; want file:///DIR, s3://NAME, gs://NAME, azblob://NAME or mem://"},
		"two slashes":           {args("bucket", "inventory", "--bucket", "file://photos/x"), "the directory begins with a third slash"},
		"no name":               {args("bucket", "inventory", "--bucket", "file:///"), "has no name in it: give --name"},
		"no key":                {args("bucket", "check", bucketURL), "no key: give --ring or --kms and its root"},
		"no root":               {args("bucket", "check", bucketURL, "--ring", "my.ring"), "the ring needs its root"},
		"put, two keys":         {args("bucket", "put", bucketURL, ring, customer, "my.key", "b"), "--ring and --customer-key-file: give one"},
		"put, context":          {args("bucket", "put", bucketURL, ring, "--context", "a", "my.key", "b"), "want NAME=VALUE"},
		"get, two keys":         {args("bucket", "get", bucketURL, ring, customer, "a", "-"), "--ring and --customer-key-file: give one"},
		"get, range":            {args("bucket", "get", bucketURL, ring, "--range", "x", "a", "-"), "want OFF-END"},
		"principal of none":     {args("bucket", "check", bucketURL, ring, "--principal", "user:bob"), "--principal: give --kms with it"},
		"mode":                  {args("bucket", "inventory", bucketURL, "--mode", "SSE-X"), "--mode"},
		"depth":                 {args("bucket", "check", bucketURL, ring, "--depth", "abyss"), "--depth"},
		"workers":               {args("bucket", "inventory", bucketURL, "--workers=-1"), "--workers -1: want 1 to 1000"},
		"rate":                  {args("bucket", "check", bucketURL, ring, "--rate=-1"), "--rate -1: want more than 0"},
		"too many workers":      {args("bucket", "inventory", bucketURL, "--workers=1001"), "--workers 1001: want 1 to 1000"},
		"no rate":               {args("bucket", "check", bucketURL, ring, "--rate=NaN"), "--rate NaN: want more than 0"},
		"max failures":          {args("bucket", "rewrap", bucketURL, ring, "--max-failures", "0"), "--max-failures 0: want 1 or more"},
		"nothing to change":     {args("bucket", "rewrap", bucketURL, customer), "nothing to change: give --to-ring, --to-kms or --to-customer-key-file"},
		"no newest":             {args("bucket", "rewrap", bucketURL, service), "a key service has no newest key: give --to-kms-key"},
		"no to-root":            {args("bucket", "rewrap", bucketURL, ring, "--to-ring", "other.ring"), "give --to-root-key-file"},
		"to a key of none":      {args("bucket", "rewrap", bucketURL, ring, "--to-kms-key", "alias/photos"), "--to-kms-key: give --to-kms with it"},
		"two filters":           {args("bucket", "rewrap", bucketURL, photos, toCustomer, "--key-id", "x"), "--kms-key and --key-id: give one"},
		"encrypt, bucket key":   {args("bucket", "encrypt-existing", bucketURL, ring, "--bucket-key"), "--bucket-key: give --kms with it"},
		"retire, no key":        {args("bucket", "retire", bucketURL, ring), "<key>"},
		"retire, what bucket":   {args("bucket", "retire", "--bucket", "mem://", ring, old), "a bucket in memory is always empty, so it proves nothing"},
		"retire, quarantine":    {args("bucket", "retire", bucketURL, ring, "00000000", "--quarantine=-1h"), "--quarantine -1h0m0s: want 0 or more"},
		"destroy in a script":   {args("bucket", "retire", bucketURL, ring, "--destroy", "00000000"), "give --yes"},
		"shred in a script":     {args("bucket", "shred", bucketURL, "--record", "r", "a"), "give --yes"},
		"shred without record":  {args("bucket", "shred", bucketURL, "a"), "--record"},
		"shred nothing":         {shred, "give one of these: keys of objects, --prefix, or --key-id"},
		"shred two":             {args(shred, "--prefix", "u", "a"), "give one of these"},
		"shred with a key":      {args(shred, ring, "a"), "objects are shredded without a key"},
		"shred a customer's":    {args(shred, customer, "--key-id", "x"), "--key-id names a key of --ring or of --kms"},
		"shred a key of none":   {args(shred, "--key-id", "x"), "no key: give --ring or --kms"},
		"shred, days":           {args(shred, ring, "--key-id", "x", "--days", "7"), "--days: give --kms with it"},
		"shred, too soon":       {args(shred, service, "--key-id", "x", "--days", "1"), "--days 1: want 7 to 30"},
		"sign, base":            {args(sign, "--base-url", "photos.example.com", "a"), "want an http or https URL without a query"},
		"sign, base with query": {args(sign, "--base-url", "http://localhost/?a=b", "a"), "want an http or https URL without a query"},
		"sign, too long":        {args(sign, "--base-url", "http://localhost/", "--expiry", "169h", "a"), "--expiry 169h0m0s: want more than 0, and at most 168h0m0s"},
		"sign, never":           {args(sign, "--base-url", "http://localhost/", "--expiry", "0s", "a"), "want more than 0"},
		"sign, method":          {args(sign, "--base-url", "http://localhost/", "--method", "POST", "a"), "--method"},
		"sign, type of a GET":   {args(sign, "--base-url", "http://localhost/", "--content-type", "a/b", "a"), "--content-type, --max-size: give --method PUT with them"},
		"serve without secret":  {args("bucket", "serve", bucketURL, ring), "--secret-file"},
		"serve a customer's":    {args("bucket", "serve", bucketURL, customer, "--secret-file", "my.key"), "a URL has no customer key"},
		"serve where":           {args(serve, "--listen", "8080"), `--listen "8080": want HOST:PORT`},
		"serve what size":       {args(serve, "--max-size", "0"), "--max-size 0: want 1 or more"},
		"serve what base":       {args(serve, "--listen", "127.0.0.1:0", "--base-url", "ftp://x/"), "want an http or https URL"},
		"serve, bucket key":     {args(serve, "--bucket-key"), "--bucket-key: give --kms with it"},
	} {
		t.Run(name, func(t *testing.T) {
			res := blobseal(test.args...)
			res.fails(t, 2, test.says)
			require.Empty(t, res.out)
			require.Equal(t, before, tree(t))
		})
	}
}

// An empty bucket in memory serves to try a command.
func TestBucketInMemory(t *testing.T) {
	workspace(t)
	require.Equal(t, "mem://: 0 objects, 0 bytes stored, 0 of plaintext\n", ok(t, "bucket", "inventory", "--bucket", "mem://"))
	require.Contains(t, ok(t, args("bucket", "rewrap", "--bucket", "mem://", ring)...), ": 0 objects rewrapped")
	require.Empty(t, ok(t, args("bucket", "put", "--bucket", "mem://", ring, "my.key", "k")...))
}

func TestBucketInventoryJSON(t *testing.T) {
	album(t, ring, "a")
	plainly(t, "b", "12345")
	all := lines(t, ok(t, args("bucket", "inventory", bucketURL, "--list", "--json")...))
	require.Len(t, all, 3)
	id := ringKeys(t).Versions[0].ID
	require.NotEmpty(t, all[0]["mod_time"])
	delete(all[0], "mod_time")
	require.Equal(t, map[string]any{"key": "a", "kind": "encrypted", "mode": "SSE-S3", "key_id": id, "stored": float64(len(read(t, "photos/a"))), "size": 12.0}, all[0])
	require.Equal(t, "plain", all[1]["kind"])
	sum := all[2]["summary"].(map[string]any)
	require.Equal(t, 2.0, sum["objects"])
	require.Equal(t, 17.0, sum["size"])
	require.Equal(t, []any{
		map[string]any{"kind": "encrypted", "mode": "SSE-S3", "key_id": id, "objects": 1.0, "stored": float64(len(read(t, "photos/a")))},
		map[string]any{"kind": "plain", "mode": "", "key_id": "", "objects": 1.0, "stored": 5.0},
	}, sum["groups"])
	require.True(t, bytes.HasPrefix([]byte(ok(t, args("bucket", "inventory", bucketURL, "--json")...)), []byte(`{"summary":`)))
}

// brokenOutput fails from the first line on, as a pipe whose reader has left.
type brokenOutput struct{}

func (brokenOutput) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// A job that cannot say what it does ends, with what it says why.
func TestBucketBrokenOutput(t *testing.T) {
	album(t, ring, "a", "b", "c")
	ok(t, args("ring", "rotate", ring)...)
	for _, command := range [][]string{
		args("bucket", "rewrap", bucketURL, ring, "--list", "--workers", "1"),
		args("bucket", "rewrap", bucketURL, ring, "--list", "--json"),
		args("bucket", "inventory", bucketURL),
		args("bucket", "check", bucketURL, ring, "--list"),
	} {
		var errout bytes.Buffer
		code := run(t.Context(), command, strings.NewReader(""), brokenOutput{}, &errout)
		result{code, "", errout.String()}.fails(t, 1, "standard output: broken pipe")
	}
}
