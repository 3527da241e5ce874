package blob_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// frozenFolder holds a bucket as v0.1.0 wrote it: the objects with their metadata, in
// the layout of fileblob; the documents of the ring and of the key service that seal
// them, both under a root of 32 bytes 01; and what is in the objects. The customer key
// is 32 bytes 07. These files never change.
const frozenFolder = "testdata/v0.1.0"

// frozenObject is what objects.json says of an object.
type frozenObject struct {
	Key, ContentType, ContentEncoding, SHA256 string

	Size     int64
	Mode     sse.Mode
	Metadata map[string]string
}

// frozenCiphers returns ciphers by mode, over the documents in a folder.
func frozenCiphers(t *testing.T, folder string) map[sse.Mode]sse.Cipher {
	root, err := keyring.NewKeyRoot(repeat(1))
	require.NoError(t, err)
	load := func(name string) keyring.Store {
		data, err := os.ReadFile(filepath.Join(folder, name))
		require.NoError(t, err)
		store := keyring.NewMemStore()
		_, err = store.Swap(ctx, "", data)
		require.NoError(t, err)
		return store
	}
	ring, err := keyring.Open(ctx, load("ring"), root, nil)
	require.NoError(t, err)
	service, err := localkms.Open(ctx, load("service"), root, nil)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	kms, err := sse.NewKMS(client, "alias/photos", nil)
	require.NoError(t, err)
	return map[sse.Mode]sse.Cipher{sse.ModeManaged: sse.NewManaged(ring), sse.ModeKMS: kms, sse.ModeCustomer: ssetest.NewCustomer(t, 7)}
}

func repeat(b byte) []byte {
	p := make([]byte, 32)
	for i := range p {
		p[i] = b
	}
	return p
}

func openFiles(t *testing.T, folder string) *gcblob.Bucket {
	inner, err := fileblob.OpenBucket(folder, &fileblob.Options{NoTempDir: true})
	require.NoError(t, err)
	t.Cleanup(func() { inner.Close() })
	return inner
}

// TestFrozenBucket reads a bucket of v0.1.0: every mode, objects in one piece and in
// parts, with their attributes. It also gives each a new name, which re-seals its key.
func TestFrozenBucket(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(frozenFolder)))
	inner := openFiles(t, filepath.Join(folder, "bucket"))
	ciphers := frozenCiphers(t, folder)
	text, err := os.ReadFile(filepath.Join(folder, "objects.json"))
	require.NoError(t, err)
	var objects []frozenObject
	require.NoError(t, json.Unmarshal(text, &objects))
	require.Len(t, objects, 6)

	for _, o := range objects {
		b := blobtest.NewBucketWith(t, inner, ciphers[o.Mode], &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
		require.NoError(t, b.Copy(ctx, "copy of "+o.Key, o.Key, nil))
		for _, key := range []string{o.Key, "copy of " + o.Key} {
			content := blobtest.ReadAll(t, b.Bucket, key)
			sum := sha256.Sum256(content)
			require.Equal(t, o.SHA256, hex.EncodeToString(sum[:]), key)
			attrs, err := b.Attributes(ctx, key)
			require.NoError(t, err)
			var hint stored.Hint
			require.True(t, attrs.As(&hint))
			require.Equal(t, o, frozenObject{o.Key, attrs.ContentType, attrs.ContentEncoding, o.SHA256, attrs.Size, hint.Mode, attrs.Metadata}, key)
			if attrs.Size > 10 {
				r, err := b.NewRangeReader(ctx, key, attrs.Size-10, 10, nil)
				require.NoError(t, err)
				require.EqualValues(t, attrs.Size, r.Size())
				require.NoError(t, r.Close())
			}
		}
	}
}

// TestWriteFrozenBucket writes the fixture, once.
func TestWriteFrozenBucket(t *testing.T) {
	if os.Getenv("BLOBSEAL_WRITE_FROZEN") == "" {
		t.Skip("only to add files to testdata")
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(frozenFolder), 0o755))
	require.NoError(t, os.Mkdir(frozenFolder, 0o755)) // never a second time
	root, err := keyring.NewKeyRoot(repeat(1))
	require.NoError(t, err)
	rings, services := keyring.NewMemStore(), keyring.NewMemStore()
	ring, err := keyring.Create(ctx, rings, root, nil)
	require.NoError(t, err)
	service, err := localkms.Create(ctx, services, root, nil)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	info, err := client.CreateKey(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, client.CreateAlias(ctx, "alias/photos", info.ID))
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	for name, store := range map[string]keyring.Store{"ring": rings, "service": services} {
		data, _, err := store.Load(ctx)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(frozenFolder, name), data, 0o644))
	}

	require.NoError(t, os.Mkdir(filepath.Join(frozenFolder, "bucket"), 0o755))
	inner := openFiles(t, filepath.Join(frozenFolder, "bucket"))
	var objects []frozenObject
	note := func(b *blob.Bucket, key string, mode sse.Mode) {
		content := blobtest.ReadAll(t, b.Bucket, key)
		sum := sha256.Sum256(content)
		attrs, err := b.Attributes(ctx, key)
		require.NoError(t, err)
		objects = append(objects, frozenObject{key, attrs.ContentType, attrs.ContentEncoding, hex.EncodeToString(sum[:]), attrs.Size, mode, attrs.Metadata})
	}
	ciphers := frozenCiphers(t, frozenFolder)
	for _, mode := range []sse.Mode{sse.ModeManaged, sse.ModeKMS, sse.ModeCustomer} {
		cipher := ciphers[mode]
		b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
		key := mode.String() + "/cat.jpg"
		require.NoError(t, b.WriteAll(ctx, key, blobtest.Content(chunk+1), &gcblob.WriterOptions{
			ContentType: "image/jpeg", ContentEncoding: "x-own", Metadata: map[string]string{"owner": "me", "note": "a b"},
		}))
		note(b, key, mode)
		key = mode.String() + "/in-parts"
		blobtest.PutComposite(t, inner, key, cipher, 5, 100, 0)
		note(b, key, mode)
	}
	require.NoError(t, os.Remove(filepath.Join(frozenFolder, "bucket", ".blobseal-lock.attrs")))
	text, err := json.MarshalIndent(objects, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(frozenFolder, "objects.json"), text, 0o644))
}
