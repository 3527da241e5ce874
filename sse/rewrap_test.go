package sse_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// TestRewrap goes from every cipher to every other, and to other names and
// contexts; the body stays as it is. SPEC SEAL-5
func TestRewrap(t *testing.T) {
	ctx := t.Context()
	plaintext := pattern(2*chunk + 9)
	renamed := sse.Object{Bucket: "archive", Key: "cat", Context: kms.Context{"team": "red"}}
	var all []sse.Cipher
	for _, pair := range ciphers(t) {
		all = append(all, pair[0], pair[1])
	}
	for _, from := range all {
		for _, to := range all {
			for _, target := range []struct{ ask, then sse.Object }{
				{object, object},
				{anyContext(object), object},
				{sse.Object{Bucket: "archive", Key: "cat", AnyContext: true}, sse.Object{Bucket: "archive", Key: "cat", Context: object.Context}},
				{renamed, renamed},
				{sse.Object{Context: kms.Context{}}, sse.Object{}},
			} {
				data := seal(t, from, object, plaintext, &sse.WriterOptions{EnvelopeSize: 640})
				old, err := sse.ReadEnvelope(bytes.NewReader(data))
				require.NoError(t, err)
				d, err := from.Decrypt(ctx, object, old)
				require.NoError(t, err)
				env, err := to.Rewrap(ctx, target.ask, d)
				require.NoError(t, err)
				require.Equal(t, 640, env.Size())
				head, err := env.MarshalBinary()
				require.NoError(t, err)
				rewrapped := append(head, data[640:]...)
				got, err := open(to, target.then, rewrapped)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plaintext, got))
				if target.ask.Key != object.Key {
					_, err = open(to, object, rewrapped)
					require.ErrorIs(t, err, sse.ErrKey)
				}
				if from != to {
					_, err = open(from, target.then, rewrapped)
					require.Error(t, err)
				}
				again, err := to.Rewrap(ctx, target.ask, d)
				require.NoError(t, err)
				require.NotEqual(t, env, again, "every seal has its own salt")
			}
		}
	}
}

func TestRewrapOutgrowsItsSize(t *testing.T) {
	c := newCustomer(t, customerKey)
	data := seal(t, c, sse.Object{}, nil, &sse.WriterOptions{EnvelopeSize: 200})
	env, err := sse.ReadEnvelope(bytes.NewReader(data))
	require.NoError(t, err)
	d, err := c.Decrypt(t.Context(), sse.Object{}, env)
	require.NoError(t, err)
	wide, err := c.Rewrap(t.Context(), sse.Object{Context: kms.Context{"long": strings.Repeat("x", 500)}}, d)
	require.NoError(t, err)
	require.Greater(t, wide.Size(), 600)
	_, err = wide.WithSize(200)
	require.ErrorIs(t, err, sse.ErrTooLarge)
}

// TestRotation is the life of a managed object. SPEC KEK-2
func TestRotation(t *testing.T) {
	ctx := t.Context()
	ring := newRing(t)
	c := sse.NewManaged(ring)
	data := seal(t, c, object, []byte("old"), &sse.WriterOptions{EnvelopeSize: 640})
	env, err := sse.ReadEnvelope(bytes.NewReader(data))
	require.NoError(t, err)
	first := env.KeyID()
	require.True(t, strings.HasPrefix(first, ring.ID()+"."))
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	got, err := open(c, object, data)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))

	d, err := c.Decrypt(ctx, object, env)
	require.NoError(t, err)
	newer, err := c.Rewrap(ctx, object, d)
	require.NoError(t, err)
	require.NotEqual(t, first, newer.KeyID())

	_, err = ring.SetState(ctx, first, keyring.Disabled)
	require.NoError(t, err)
	_, err = open(c, object, data)
	require.ErrorIs(t, err, keyring.ErrDisabled)
	require.NotErrorIs(t, err, sse.ErrKey)
	_, err = ring.SetState(ctx, first, keyring.Destroyed)
	require.NoError(t, err)
	_, err = open(c, object, data)
	require.ErrorIs(t, err, keyring.ErrDestroyed)
	head, err := newer.MarshalBinary()
	require.NoError(t, err)
	got, err = open(c, object, append(head, data[640:]...))
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
}

// TestUnknownVersion tells a version that is not there from one that could not
// be looked up.
func TestUnknownVersion(t *testing.T) {
	ctx := t.Context()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{0x82}, 32))
	require.NoError(t, err)
	store := keyringtest.NewStore()
	writer, err := keyring.Create(ctx, store, root, nil)
	require.NoError(t, err)
	reader, err := keyring.Open(ctx, store, root, nil)
	require.NoError(t, err)
	_, err = writer.Rotate(ctx)
	require.NoError(t, err)
	data := seal(t, sse.NewManaged(writer), object, []byte("new"), nil)

	errDown := errors.New("store is down")
	store.FailLoads(errDown, -1)
	_, err = open(sse.NewManaged(reader), object, data)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.NotErrorIs(t, err, sse.ErrKey, "it may be there: this is not final")

	_, err = open(sse.NewManaged(newRing(t)), object, data)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
}
