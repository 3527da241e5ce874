package sse_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// wrappers are the clients that a service puts around another.
var wrappers = map[string]func(kms.Client) kms.Client{
	"bare":    func(c kms.Client) kms.Client { return c },
	"cached":  func(c kms.Client) kms.Client { return cache.New(c, nil) },
	"audited": func(c kms.Client) kms.Client { return audit.NewClient(cache.New(c, nil), sink{}) },
}

type sink struct{}

func (sink) Write(context.Context, audit.Record) error { return nil }

// TestForeignKey: an attacker who can write to the store, and has a key that the
// reader may use, cannot plant an object. SPEC KEK-4
func TestForeignKey(t *testing.T) {
	for name, wrap := range wrappers {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake(kmsKey, "key/attacker")
			fake.SetAlias("alias/photos", kmsKey)
			planted := seal(t, newKMS(t, fake, "key/attacker", nil), object, []byte("forged"), nil)
			genuine := seal(t, newKMS(t, fake, kmsKey, nil), object, []byte("secret"), nil)
			for _, keyID := range []string{kmsKey, "alias/photos"} {
				k := newKMS(t, wrap(fake), keyID, nil)
				before := fake.Count()
				_, err := open(k, object, planted)
				require.ErrorIs(t, err, sse.ErrKey, keyID)
				require.ErrorContains(t, err, kmstest.ARN("key/attacker"), "the rejected key is named")
				require.ErrorContains(t, err, "KMSOptions.Accept", "and how to accept it")
				if keyID == kmsKey {
					require.Equal(t, before, fake.Count(), "refused before the key service was asked")
				}
				got, err := open(k, object, genuine)
				require.NoError(t, err)
				require.Equal(t, "secret", string(got))
			}
			for opening, opts := range map[string]*sse.KMSOptions{
				"accepted": {Accept: func(id string) bool { return id == kmstest.ARN("key/attacker") }},
				"any":      {Accept: sse.AnyKey},
			} {
				for _, keyID := range []string{kmsKey, "alias/photos", ""} {
					got, err := open(newKMS(t, wrap(fake), keyID, opts), object, planted)
					require.NoError(t, err, "%s %s", opening, keyID)
					require.Equal(t, "forged", string(got))
				}
			}
			_, err := open(newKMS(t, wrap(fake), "", &sse.KMSOptions{Accept: func(string) bool { return false }}), object, genuine)
			require.ErrorIs(t, err, sse.ErrKey)
		})
	}
}

// TestForeignKeyByAlias: nor with an envelope that names the key by the reader's
// alias, or by the reader's key, and holds a data key of the attacker's. SPEC KEK-4
func TestForeignKeyByAlias(t *testing.T) {
	fake := kmstest.NewFake(kmsKey, "key/attacker")
	fake.SetAlias("alias/photos", kmsKey)
	for _, named := range []string{kmsKey, "alias/photos"} {
		fake.AnswerKey(func(k *kms.DataKey) *kms.DataKey { k.KeyID = named; return k })
		forger := newKMS(t, fake, "key/attacker", &sse.KMSOptions{Accept: sse.AnyKey})
		planted := seal(t, forger, object, []byte("forged"), nil)
		fake.Recover()
		for _, keyID := range []string{kmsKey, "alias/photos"} {
			_, err := open(newKMS(t, fake, keyID, nil), object, planted)
			require.ErrorIs(t, err, sse.ErrKey, "%s as %s", keyID, named)
		}
	}
}

// TestAliasMoved: an alias opens the objects of the key that it means now, in a
// process that has just started and never wrote too. Objects of the key that it
// left need Accept. SPEC KEK-4
func TestAliasMoved(t *testing.T) {
	for name, wrap := range wrappers {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake("key/old", "key/new")
			fake.SetAlias("alias/photos", "key/old")
			old := seal(t, newKMS(t, wrap(fake), "alias/photos", nil), object, []byte("old"), nil)
			_, err := open(newKMS(t, wrap(fake), "alias/photos", nil), object, old)
			require.NoError(t, err)

			fake.SetAlias("alias/photos", "key/new")
			current := seal(t, newKMS(t, wrap(fake), "alias/photos", nil), object, []byte("new"), nil)
			started := newKMS(t, wrap(fake), "alias/photos", nil)
			_, err = open(started, object, current)
			require.NoError(t, err)
			_, err = open(started, object, old)
			require.ErrorIs(t, err, sse.ErrKey)
			require.ErrorIs(t, err, kms.ErrCiphertext)
			require.ErrorContains(t, err, kmstest.ARN("key/old"))
			require.ErrorContains(t, err, `"alias/photos"`)
			accepting := newKMS(t, wrap(fake), "alias/photos", &sse.KMSOptions{Accept: func(id string) bool { return id == kmstest.ARN("key/old") }})
			for _, data := range [][]byte{old, current} {
				_, err = open(accepting, object, data)
				require.NoError(t, err)
			}
		})
	}
}

// plain hides everything but the methods of a kms.Client.
type plain struct{ kms.Client }

// TestUnknownClient: a client that cannot compare keys has one name for each.
func TestUnknownClient(t *testing.T) {
	fake := kmstest.NewFake(kmsKey, "photos-1")
	fake.SetAlias("alias/photos", kmsKey)
	fake.SetAlias("photos", "photos-1")
	for _, alias := range []string{"alias/photos", "arn:example:kms:eu-1:111122223333:alias/photos"} {
		_, err := sse.NewKMS(plain{fake}, alias, nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
		require.ErrorContains(t, err, "KMSOptions.Accept")
	}
	k := newKMS(t, plain{fake}, kmsKey, nil)
	_, err := open(k, object, seal(t, k, object, nil, nil))
	require.NoError(t, err)
	k = newKMS(t, plain{fake}, "alias/photos", &sse.KMSOptions{Accept: func(id string) bool { return id == kmsKey }})
	_, err = open(k, object, seal(t, k, object, nil, nil))
	require.NoError(t, err)

	// An alias that does not look like one fails before anything is written under it.
	var dst bytes.Buffer
	_, err = sse.NewWriter(t.Context(), &dst, newKMS(t, plain{fake}, "photos", nil), object, nil)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorContains(t, err, kmstest.ARN("photos-1"))
	require.Zero(t, dst.Len())
}

// TestWrongKeyAnswers: an answer with a data key of another key writes nothing.
func TestWrongKeyAnswers(t *testing.T) {
	fake := kmstest.NewFake(kmsKey, "other")
	other, err := fake.GenerateDataKey(t.Context(), "other", nil)
	require.NoError(t, err)
	fake.AnswerKey(func(*kms.DataKey) *kms.DataKey { return other })
	_, err = newKMS(t, fake, kmsKey, nil).Encrypt(t.Context(), object)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorContains(t, err, kmstest.ARN("other"))
	require.Nil(t, other.Plaintext(), "cleared")
}

// TestCacheTurnsOnBucketKeys: the one-line way to add a cache does cache.
func TestCacheTurnsOnBucketKeys(t *testing.T) {
	for name, tc := range map[string]struct {
		wrap  func(kms.Client) kms.Client
		opts  *sse.KMSOptions
		calls int
	}{
		"no cache":      {wrappers["bare"], nil, 10},
		"cache":         {wrappers["cached"], nil, 1},
		"audited cache": {wrappers["audited"], nil, 1},
		"turned off":    {wrappers["cached"], &sse.KMSOptions{NoBucketKey: true}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake(kmsKey)
			k := newKMS(t, tc.wrap(fake), kmsKey, tc.opts)
			for i := range 10 {
				e, err := k.Encrypt(t.Context(), sse.Object{Bucket: "b", Key: string(rune('a' + i))})
				require.NoError(t, err)
				require.Equal(t, tc.calls == 1, e.Envelope().BucketKeyEnabled())
			}
			require.Equal(t, tc.calls, fake.Count())
		})
	}
}

// TestEmbeddedAliasMoved: the same with the embedded service, which a cache asks
// for permission, and which a process opens again.
func TestEmbeddedAliasMoved(t *testing.T) {
	s := newVectorService(t)
	old, next := s.key(t, "alias/photos"), s.key(t, "alias/next")
	oldID := old[len(old)-36:]
	cipher := func(keyID string, opts *sse.KMSOptions) *sse.KMS {
		return newKMS(t, cache.New(s.document(t).client(t), nil), keyID, opts) // a new process
	}
	sealed := seal(t, cipher("alias/photos", nil), object, []byte("old"), nil)
	for _, keyID := range []string{"alias/photos", old, oldID} {
		_, err := open(cipher(keyID, nil), object, sealed)
		require.NoError(t, err, keyID)
	}
	require.NoError(t, s.UpdateAlias(t.Context(), "alias/photos", next))
	moved := cipher("alias/photos", nil)
	_, err := open(moved, object, sealed)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorContains(t, err, old)
	_, err = open(moved, object, seal(t, moved, object, []byte("new"), nil))
	require.NoError(t, err)
	_, err = open(cipher("alias/photos", &sse.KMSOptions{Accept: func(id string) bool { return id == old }}), object, sealed)
	require.NoError(t, err)
	_, err = open(cipher(next, nil), object, sealed)
	require.ErrorIs(t, err, sse.ErrKey)
}
