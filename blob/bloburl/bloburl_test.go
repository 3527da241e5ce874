package bloburl_test

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/bloburl"
	_ "github.com/blobseal/blobseal/blob/bloburl/localkms"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// bed is a directory with a ring, a key service, their roots and a customer's key.
type bed struct{ dir, store string }

func newBed(t *testing.T) bed {
	ctx := context.Background()
	b := bed{dir: t.TempDir(), store: t.TempDir()}
	rootKey := bytes.Repeat([]byte{0xf1}, 32)
	b.write(t, "root.key", rootKey)
	b.write(t, "customer.key", bytes.Repeat([]byte{0xf2}, 32))
	b.write(t, "passphrase", []byte("correct horse battery staple\n"))
	root, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	rings, err := keyring.NewFileStore(b.path("ring"))
	require.NoError(t, err)
	_, err = keyring.Create(ctx, rings, root, nil)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(b.path("kms"), 0o700))
	documents, err := keyring.NewFileStore(b.path("kms/keys"))
	require.NoError(t, err)
	_, err = localkms.Create(ctx, documents, root, nil)
	require.NoError(t, err)
	return b
}

// addPassphraseRing makes a ring under a passphrase.
func (b bed) addPassphraseRing(t *testing.T) {
	cheap := &keyring.PassphraseParams{Time: 2, Memory: 19 << 10}
	root, err := keyring.NewPassphraseRoot([]byte("correct horse battery staple"), cheap)
	require.NoError(t, err)
	rings, err := keyring.NewFileStore(b.path("passphrase.ring"))
	require.NoError(t, err)
	_, err = keyring.Create(context.Background(), rings, root, nil)
	require.NoError(t, err)
}

func (b bed) path(name string) string { return filepath.Join(b.dir, filepath.FromSlash(name)) }

func (b bed) write(t *testing.T, name string, data []byte) {
	require.NoError(t, os.WriteFile(b.path(name), data, 0o600))
}

// url returns a URL of a bucket of files, with parameters; those whose name ends with
// "_file", and ring, are names of the bed.
func (b bed) url(pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		value := pairs[i+1]
		if _, err := os.Stat(b.path(value)); err == nil && value != "" {
			value = b.path(value)
		}
		q.Add(pairs[i], value)
	}
	return "blobseal+file://" + filepath.ToSlash(b.store) + "?" + q.Encode()
}

func (b bed) kmsKey() string { return "localkms://" + filepath.ToSlash(b.path("kms")) }

func principal() context.Context {
	return kms.WithPrincipal(context.Background(), kms.Principal{ID: "me"})
}

func modeOf(t *testing.T, bucket *gcblob.Bucket, key string) sse.Mode {
	r, err := bucket.NewReader(principal(), key, nil)
	require.NoError(t, err)
	defer r.Close()
	var env *sse.Envelope
	require.True(t, r.As(&env))
	return env.Mode()
}

// TestModes: a URL's keys choose the mode, and what one URL writes, another reads.
func TestModes(t *testing.T) {
	b := newBed(t)
	b.addPassphraseRing(t)
	t.Setenv("BLOBSEAL_KMS_ROOT_KEY_FILE", b.path("root.key"))
	for _, c := range []struct {
		name string
		url  string
		env  map[string]string
		want sse.Mode
	}{
		{"ring", b.url("ring", "ring", "root_key_file", "root.key"), nil, sse.ModeManaged},
		{"ring and passphrase file", b.url("ring", "passphrase.ring", "passphrase_file", "passphrase"), nil, sse.ModeManaged},
		{"ring and passphrase", b.url("ring", "passphrase.ring"), map[string]string{"BLOBSEAL_PASSPHRASE": "correct horse battery staple"}, sse.ModeManaged},
		{"all from the environment", b.url(), map[string]string{"BLOBSEAL_RING": b.path("ring"), "BLOBSEAL_ROOT_KEY_FILE": b.path("root.key")}, sse.ModeManaged},
		{"the URL hides the environment", b.url("customer_key_file", "customer.key"), map[string]string{"BLOBSEAL_RING": "/nothing"}, sse.ModeCustomer},
		{"customer", b.url("customer_key_file", "customer.key"), nil, sse.ModeCustomer},
		{"kms", b.url("kms_key", b.kmsKey()), nil, sse.ModeKMS},
		{"several", b.url("kms_key", b.kmsKey(), "ring", "ring", "root_key_file", "root.key", "mode", "SSE-KMS"), nil, sse.ModeKMS},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			bucket, err := gcblob.OpenBucket(principal(), c.url)
			require.NoError(t, err)
			require.NoError(t, bucket.WriteAll(principal(), "k", []byte("text"), nil))
			require.Equal(t, c.want, modeOf(t, bucket, "k"))
			require.NoError(t, bucket.Close())
			bucket, err = gcblob.OpenBucket(principal(), c.url)
			require.NoError(t, err)
			got, err := bucket.ReadAll(principal(), "k")
			require.NoError(t, err)
			require.Equal(t, "text", string(got))
			require.NoError(t, bucket.Close())
		})
	}
}

// TestSeveralKeys: with keys of several modes, writes use one and reads all.
func TestSeveralKeys(t *testing.T) {
	b := newBed(t)
	ctx := context.Background()
	keys := []string{"ring", "ring", "root_key_file", "root.key", "customer_key_file", "customer.key"}
	for _, mode := range []string{"SSE-S3", "SSE-C"} {
		bucket, err := gcblob.OpenBucket(ctx, b.url(append(keys, "mode", mode)...))
		require.NoError(t, err)
		require.NoError(t, bucket.WriteAll(ctx, mode, []byte("text"), nil))
		require.NoError(t, bucket.Close())
	}
	bucket, err := gcblob.OpenBucket(ctx, b.url(append(keys, "mode", "SSE-S3")...))
	require.NoError(t, err)
	defer bucket.Close()
	require.Equal(t, sse.ModeManaged, modeOf(t, bucket, "SSE-S3"))
	require.Equal(t, sse.ModeCustomer, modeOf(t, bucket, "SSE-C"))
}

// TestBadURLs: each is refused with what to do, and shows no secret.
func TestBadURLs(t *testing.T) {
	b := newBed(t)
	ring := []string{"ring", "ring", "root_key_file", "root.key"}
	for name, c := range map[string]struct{ url, want string }{
		"no key":             {b.url(), "add ring, kms_key or customer_key_file"},
		"unknown":            {b.url(append(ring, "rign", "x")...), "known parameters: allow_plain, customer_key_file, envelope_size, kms_key, mode, name, passphrase_file, ring, root_key_file, root_kms_key"},
		"passphrase":         {b.url("ring", "ring", "passphrase", "hunter2hunter2"), "passphrase_file, or set BLOBSEAL_PASSPHRASE"},
		"customer key":       {b.url("customer-key", "hunter2hunter2"), "use customer_key_file"},
		"password":           {"blobseal+s3://me:hunter2hunter2@photos?ring=x", "holds a password"},
		"no root":            {b.url("ring", "ring"), "needs its root"},
		"two roots":          {b.url(append(ring, "passphrase_file", "passphrase")...), "give one of"},
		"twice":              {b.url(append(ring, "ring", "ring")...), "give one value"},
		"mode":               {b.url(append(ring, "mode", "SSE-X")...), "want SSE-S3, SSE-KMS or SSE-C"},
		"mode without key":   {b.url(append(ring, "mode", "SSE-KMS")...), "SSE-KMS needs kms_key"},
		"several":            {b.url(append(ring, "customer_key_file", "customer.key")...), "add mode="},
		"no driver":          {"blobseal+gs://photos?customer_key_file=" + url.QueryEscape(b.path("customer.key")), `import _ "gocloud.dev/blob/gcsblob"`},
		"no name":            {"blobseal+file:///?customer_key_file=" + url.QueryEscape(b.path("customer.key")), "add name=NAME"},
		"no service":         {b.url("kms_key", "awskms:///alias/x"), "no key service for awskms:// (call RegisterKeyService; registered: localkms)"},
		"no ring":            {b.url("ring", "nothing.ring", "root_key_file", "root.key"), "nothing.ring"},
		"another root":       {b.url("ring", "ring", "root_key_file", "customer.key"), "keyring: "},
		"not a key":          {b.url("customer_key_file", "passphrase"), "customer_key_file"},
		"not a service":      {b.url("kms_key", "x"), "not a URL of a key"},
		"envelope size":      {b.url(append(ring, "envelope_size", "big")...), "envelope_size"},
		"small envelope":     {b.url(append(ring, "envelope_size", "7")...), "EnvelopeSize 7"},
		"plain":              {b.url(append(ring, "allow_plain", "maybe")...), "neither true nor false"},
		"no such directory":  {"blobseal+file:///no/such/directory?customer_key_file=" + url.QueryEscape(b.path("customer.key")), "no such file or directory"},
		"service parameters": {b.url("kms_key", b.kmsKey()+"?x=y"), `localkms:// has no parameter "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			bucket, err := gcblob.OpenBucket(context.Background(), c.url)
			require.Nil(t, bucket)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// TestOtherName: an object that is bound to another name does not open, and the error
// says under which name the bucket was opened.
func TestOtherName(t *testing.T) {
	b := newBed(t)
	ctx := context.Background()
	ring := []string{"ring", "ring", "root_key_file", "root.key"}
	bucket, err := gcblob.OpenBucket(ctx, b.url(append(ring, "name", "photos")...))
	require.NoError(t, err)
	require.NoError(t, bucket.WriteAll(ctx, "k", []byte("text"), nil))
	require.NoError(t, bucket.Close())
	bucket, err = gcblob.OpenBucket(ctx, b.url(ring...))
	require.NoError(t, err)
	defer bucket.Close()
	_, err = bucket.ReadAll(ctx, "k")
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorContains(t, err, `bucket opened as "`+filepath.Base(b.store)+`"`)
}

// TestPrefix: objects of a part of a bucket are bound to their whole keys.
func TestPrefix(t *testing.T) {
	b := newBed(t)
	ctx := context.Background()
	ring := []string{"ring", "ring", "root_key_file", "root.key"}
	part, err := gcblob.OpenBucket(ctx, b.url(append(ring, "prefix", "a/")...))
	require.NoError(t, err)
	require.NoError(t, part.WriteAll(ctx, "k", []byte("text"), nil))
	require.NoError(t, part.Close())
	whole, err := gcblob.OpenBucket(ctx, b.url(ring...))
	require.NoError(t, err)
	defer whole.Close()
	got, err := whole.ReadAll(ctx, "a/k")
	require.NoError(t, err)
	require.Equal(t, "text", string(got))
}

// TestOpener: an opener of one's own has a cipher and options.
func TestOpener(t *testing.T) {
	ctx := context.Background()
	cipher, err := sse.NewCustomer(bytes.Repeat([]byte{0xf1}, 32))
	require.NoError(t, err)
	mux := new(gcblob.URLMux)
	mux.RegisterBucket("blobseal+mem", &bloburl.URLOpener{Cipher: cipher, Options: blob.Options{EnvelopeSize: 2048}})
	bucket, err := mux.OpenBucket(ctx, "blobseal+mem://?name=photos")
	require.NoError(t, err)
	var b *blob.Bucket
	require.True(t, bucket.As(&b))
	require.Equal(t, "photos", b.Name())
	view, err := b.With(blob.Request{})
	require.NoError(t, err)
	require.NoError(t, view.Close())
	require.NoError(t, bucket.WriteAll(ctx, "k", []byte("text"), nil), "closing a view closes the bucket")
	size, err := b.Inner().Attributes(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, int64(2048+4+16), size.Size)
	require.NoError(t, bucket.Close())
	_, _, err = b.Inner().ListPage(ctx, gcblob.FirstPageToken, 1, nil)
	require.Error(t, err, "the store's bucket is open")
	_, err = mux.OpenBucket(ctx, "blobseal+mem://?ring=x")
	require.ErrorIs(t, err, sse.ErrInvalid)
}
