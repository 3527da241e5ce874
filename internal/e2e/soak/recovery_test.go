package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// What keyring/OPERATIONS.md says can be done while a fleet runs.

func keyRoot(t *testing.T, b byte) tink.AEADWithContext {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{b | 0x80}, 32)) // not text, which no key is
	require.NoError(t, err)
	return root
}

func openRing(t *testing.T, store keyring.Store, root tink.AEADWithContext, create bool) *keyring.Ring {
	open := keyring.Open
	if create {
		open = keyring.Create
	}
	ring, err := open(t.Context(), store, root, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return ring
}

func openBucket(t *testing.T, inner *gcblob.Bucket, cipher sse.Cipher, opts *blob.Options) *blob.Bucket {
	b, err := blob.NewBucket(inner, "fleet", cipher, opts)
	require.NoError(t, err)
	return b
}

// read requires that all objects in the bucket are there and hold what was written.
func read(t *testing.T, b *blob.Bucket, n int) {
	for i := range n {
		name := fmt.Sprint(i)
		data, err := b.ReadAll(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, content(name), data)
	}
}

func write(t *testing.T, b *blob.Bucket, names ...int) {
	for _, i := range names {
		require.NoError(t, b.WriteAll(t.Context(), fmt.Sprint(i), content(fmt.Sprint(i)), nil))
	}
}

// byService opens each object with the key service of its key.
type byService struct {
	prefix     string // of the keys of from
	from, then sse.Decrypter
}

func (b byService) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	if strings.HasPrefix(env.KeyID(), b.prefix) {
		return b.from.Decrypt(ctx, obj, env)
	}
	return b.then.Decrypt(ctx, obj, env)
}

// TestMoveBetweenKeyServices moves from one key service to another. All objects stay readable.
// Afterwards, nothing calls the old service.
func TestMoveBetweenKeyServices(t *testing.T) {
	inner := memblob.OpenBucket(nil)
	old, next := kmstest.NewFake("arn:old/photos"), kmstest.NewFake("arn:new/photos")
	from, err := sse.NewKMS(old, "arn:old/photos", nil)
	require.NoError(t, err)
	to, err := sse.NewKMS(next, "arn:new/photos", nil)
	require.NoError(t, err)
	write(t, openBucket(t, inner, from, nil), 0, 1)

	b := openBucket(t, inner, to, &blob.Options{Decrypters: sse.ByMode{sse.ModeKMS: byService{"arn:old/", from, to}}})
	read(t, b, 2)
	write(t, b, 2)
	read(t, b, 3)
	report, err := jobs.Rewrap(t.Context(), b, nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, report.Done)
	require.EqualValues(t, 1, report.Current)
	_, err = jobs.CheckUnused(t.Context(), jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "arn:old/photos"}, nil, b)
	require.NoError(t, err)
	old.RemoveKey("arn:old/photos")
	read(t, openBucket(t, inner, to, nil), 3)
}

// TestRestoredRing restores an old backup of the ring, which a new replica then rotates. A
// replica that ran all the time restores the version that the backup lacks, and keeps the new
// one. Every replica can read all objects again.
func TestRestoredRing(t *testing.T) {
	store, inner := keyring.NewMemStore(), memblob.OpenBucket(nil)
	running := openRing(t, store, keyRoot(t, 'k'), true)
	b := openBucket(t, inner, sse.NewManaged(running), nil)
	write(t, b, 0)
	backup, _, err := store.Load(t.Context())
	require.NoError(t, err)
	_, err = running.Rotate(t.Context())
	require.NoError(t, err)
	write(t, b, 1)
	_, version, err := store.Load(t.Context())
	require.NoError(t, err)
	_, err = store.Swap(t.Context(), version, backup)
	require.NoError(t, err)

	restarted := openRing(t, store, keyRoot(t, 'k'), false)
	after := openBucket(t, inner, sse.NewManaged(restarted), nil)
	_, err = after.ReadAll(t.Context(), "1")
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.ErrorIs(t, err, sse.ErrKey)
	require.NotErrorIs(t, err, keyring.ErrStore)
	_, err = restarted.Rotate(t.Context())
	require.NoError(t, err)
	write(t, after, 2)

	require.NoError(t, running.Refresh(t.Context()))
	require.NoError(t, restarted.Refresh(t.Context()))
	read(t, b, 3)
	read(t, after, 3)
	read(t, openBucket(t, inner, sse.NewManaged(openRing(t, store, keyRoot(t, 'k'), false)), nil), 3)
}

// TestLostRoot: a running replica does not need the lost root. It puts the ring under a new
// one.
func TestLostRoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	store, err := keyring.NewFileStore(path)
	require.NoError(t, err)
	running := openRing(t, store, keyRoot(t, 'k'), true)
	inner := memblob.OpenBucket(nil)
	write(t, openBucket(t, inner, sse.NewManaged(running), nil), 0)
	_, err = keyring.Open(t.Context(), store, keyRoot(t, 'x'), nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	require.NoError(t, running.ChangeRoot(t.Context(), keyRoot(t, 'n')))
	read(t, openBucket(t, inner, sse.NewManaged(openRing(t, store, keyRoot(t, 'n'), false)), nil), 1)
}

// TestRootThatIsAKey: a ring moves under a key of a key service. The key is disabled. Running
// replicas continue, and those that start say why they cannot.
func TestRootThatIsAKey(t *testing.T) {
	store, inner := keyring.NewMemStore(), memblob.OpenBucket(nil)
	service := kmstest.NewFake("root")
	root, err := keyring.NewKMSRoot(service, "root", nil)
	require.NoError(t, err)
	running := openRing(t, store, keyRoot(t, 'k'), true)
	replica := openRing(t, store, keyRoot(t, 'k'), false)
	require.NoError(t, running.ChangeRoot(t.Context(), root))
	require.ErrorIs(t, replica.Refresh(t.Context()), keyring.ErrRoot)
	require.NoError(t, replica.ChangeRoot(t.Context(), root), "the others are told by the same call")
	require.NoError(t, replica.Refresh(t.Context()))

	service.Disable("root")
	b := openBucket(t, inner, sse.NewManaged(replica), nil)
	write(t, b, 0)
	read(t, b, 1)
	_, err = keyring.Open(t.Context(), store, root, nil)
	require.ErrorIs(t, err, keyring.ErrRootUnavailable)
	require.NotErrorIs(t, err, keyring.ErrRoot)
	service.Enable("root")
	openRing(t, store, root, false)
}
