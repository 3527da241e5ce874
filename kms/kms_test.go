package kms_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

func TestDataKey(t *testing.T) {
	plaintext := bytes.Repeat([]byte{0xab}, kms.DataKeySize)
	k, err := kms.NewDataKey("key", plaintext, []byte("sealed"))
	require.NoError(t, err)
	clear(plaintext)
	require.Equal(t, bytes.Repeat([]byte{0xab}, kms.DataKeySize), k.Plaintext(), "plaintext is copied")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "key", k, "value", *k)
	asJSON, err := json.Marshal(k)
	require.NoError(t, err)
	for _, text := range []string{log.String(), string(asJSON)} {
		require.Contains(t, text, "key")
		require.NotContains(t, text, "abab")
		require.NotContains(t, text, "q6ur")
		require.NotRegexp(t, `171\D{1,2}171`, text)
	}
	own := k.Plaintext()
	k.Clear()
	require.Equal(t, make([]byte, kms.DataKeySize), own)
	require.Nil(t, k.Plaintext())

	var none kms.DataKey
	require.Nil(t, none.Plaintext())
	none.Clear()
	for _, n := range []int{0, 16, 31, 33} {
		_, err := kms.NewDataKey("key", make([]byte, n), nil)
		require.ErrorIs(t, err, kms.ErrInvalid)
	}
}

var alice = kms.Principal{ID: "alice", Type: "User"}

func as(t testing.TB, p kms.Principal) context.Context { return kms.WithPrincipal(t.Context(), p) }

func TestWhatCtxCarries(t *testing.T) {
	ctx := t.Context()
	require.Zero(t, kms.PrincipalFrom(ctx))
	require.Empty(t, kms.ResourceFrom(ctx))
	require.NotNil(t, kms.ReportFrom(ctx))
	var r kms.Report
	ctx = kms.WithReport(kms.WithResource(kms.WithPrincipal(ctx, alice), "photos/cat.jpg"), &r)
	require.Equal(t, alice, kms.PrincipalFrom(ctx))
	require.Equal(t, "photos/cat.jpg", kms.ResourceFrom(ctx))
	require.Same(t, &r, kms.ReportFrom(ctx))
}

// TestKeyError: an error carries the operation and the key, and its text names each once.
func TestKeyError(t *testing.T) {
	fake := kmstest.NewFake("key")
	ctx := as(t, alice)
	k, err := fake.GenerateDataKey(ctx, "key", nil)
	require.NoError(t, err)
	for name, client := range map[string]kms.Client{
		"fake":    fake,
		"cache":   cache.New(fake, nil),
		"asking":  cache.New(kmstest.Authorizing{Fake: fake}, nil),
		"foreign": cache.New(bare{}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.GenerateDataKey(ctx, "none", nil)
			got, ok := errors.AsType[*kms.KeyError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, kms.OpGenerateDataKey, got.Op)
			require.Equal(t, "none", got.KeyID)
			require.ErrorIs(t, err, kms.ErrNotFound)
			require.EqualError(t, err, `kms: GenerateDataKey with key "none": key not found`)
			_, err = client.Decrypt(ctx, "none", k.Ciphertext, nil)
			got, ok = errors.AsType[*kms.KeyError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, kms.OpDecrypt, got.Op)
		})
	}
}

// bare is a client whose errors are not KeyErrors.
type bare struct{}

func (bare) GenerateDataKey(context.Context, string, kms.Context) (*kms.DataKey, error) {
	return nil, kms.ErrNotFound
}

func (bare) Decrypt(context.Context, string, []byte, kms.Context) ([]byte, error) {
	return nil, kms.ErrNotFound
}
