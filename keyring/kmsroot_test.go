package keyring_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/testing/fakekms"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/tinkkms"
)

func kmsRoot(t testing.TB, client kms.Client, keyID string, opts *keyring.KMSRootOptions) tink.AEADWithContext {
	t.Helper()
	root, err := keyring.NewKMSRoot(client, keyID, opts)
	require.NoError(t, err)
	return root
}

// kmsHeader returns the parts of a KMS root's ciphertext.
func kmsHeader(t testing.TB, sealed []byte) (keyID string, wrapped []byte, header int) {
	t.Helper()
	require.EqualValues(t, 2, sealed[0])
	id := int(binary.BigEndian.Uint16(sealed[1:]))
	w := int(binary.BigEndian.Uint16(sealed[3+id:]))
	header = 3 + id + 2 + w
	return string(sealed[3 : 3+id]), sealed[header-w : header], header
}

// tinkClient is a key service of another kind than the fake.
func tinkClient(t testing.TB, keyID string) kms.Client {
	t.Helper()
	uri, err := fakekms.NewKeyURI()
	require.NoError(t, err)
	aead, err := fakekms.NewAEADWithContext(uri)
	require.NoError(t, err)
	client, err := tinkkms.New(aead, keyID, nil)
	require.NoError(t, err)
	return client
}

func TestKMSRoot(t *testing.T) {
	for name, client := range map[string]func() kms.Client{
		"fake": func() kms.Client { return kmstest.NewFake("root") },
		"tink": func() kms.Client { return tinkClient(t, kmstest.ARN("root")) },
	} {
		t.Run(name, func(t *testing.T) {
			keyID := kmstest.ARN("root")
			root := kmsRoot(t, client(), keyID, nil)
			sealed, err := root.EncryptWithContext(t.Context(), []byte("x"), []byte("ad"))
			require.NoError(t, err)
			id, _, header := kmsHeader(t, sealed)
			require.Equal(t, keyID, id)
			testRoot(t, root, kmsRoot(t, client(), keyID, nil), header)

			for n := range header {
				_, err := root.DecryptWithContext(t.Context(), sealed[:n], []byte("ad"))
				require.ErrorIs(t, err, keyring.ErrRoot, "%d bytes", n)
			}
			for i := range 8 * header {
				flipped := append([]byte(nil), sealed...)
				flipped[i/8] ^= 1 << (i % 8)
				_, err := root.DecryptWithContext(t.Context(), flipped, []byte("ad"))
				require.ErrorIs(t, err, keyring.ErrRoot, "bit %d", i)
			}
		})
	}
}

func TestNewKMSRootRefuses(t *testing.T) {
	fake := kmstest.NewFake("root")
	for name, c := range map[string]struct {
		client kms.Client
		keyID  string
		opts   *keyring.KMSRootOptions
	}{
		"no client":   {nil, "root", nil},
		"no key":      {fake, "", nil},
		"long key":    {fake, strings.Repeat("k", 2049), nil},
		"own purpose": {fake, "root", &keyring.KMSRootOptions{Context: kms.Context{"blobseal:purpose": "x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := keyring.NewKMSRoot(c.client, c.keyID, c.opts)
			require.Error(t, err)
			require.Nil(t, root)
		})
	}
	require.Zero(t, fake.Count(), "the service is not asked before it is needed")
}

// The service sees the ring's own principal, no matter whose request made the ring ask, and
// a context by which policies can tell roots apart.
func TestKMSRootAsksAsTheService(t *testing.T) {
	fake := kmstest.NewFake("root")
	service := kms.Principal{ID: "blob service", Type: "Service"}
	ec := kms.Context{"environment": "production"}
	root := kmsRoot(t, fake, "root", &keyring.KMSRootOptions{Context: ec, Principal: service})
	ec["environment"] = "test" // it was copied
	report := new(kms.Report)
	ctx := kms.WithReport(kms.WithResource(kms.WithPrincipal(t.Context(), kms.Principal{ID: "alice"}), "bucket/object"), report)
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, fake.Count(kms.OpGenerateDataKey))
	for _, call := range fake.Calls() {
		require.NoError(t, call.Err)
		require.Equal(t, service, call.Principal)
		require.Equal(t, "keyring", call.Resource)
		require.Equal(t, kms.Context{"blobseal:purpose": "keyring root", "environment": "production"}, call.Context)
	}
	require.Zero(t, *report, "the report of the caller's own key operation")
	before := fake.Count()
	require.NoError(t, ring.Refresh(ctx))
	require.Equal(t, before, fake.Count(), "not asked about a document that is known")
}

// A root with another context does not open the document, and neither does a data key of an object.
func TestKMSRootContext(t *testing.T) {
	fake := kmstest.NewFake("root")
	production := kmsRoot(t, fake, "root", &keyring.KMSRootOptions{Context: kms.Context{"environment": "production"}})
	sealed, err := production.EncryptWithContext(t.Context(), []byte("keyset"), []byte("ad"))
	require.NoError(t, err)
	for _, ec := range []kms.Context{nil, {"environment": "test"}, {"Environment": "production"}, {"environment": "production", "x": "y"}} {
		_, err := kmsRoot(t, fake, "root", &keyring.KMSRootOptions{Context: ec}).DecryptWithContext(t.Context(), sealed, []byte("ad"))
		require.ErrorIs(t, err, keyring.ErrRoot)
		require.ErrorIs(t, err, kms.ErrCiphertext)
	}
	_, wrapped, _ := kmsHeader(t, sealed)
	_, err = fake.Decrypt(t.Context(), "root", wrapped, kms.Context{"environment": "production"})
	require.ErrorIs(t, err, kms.ErrCiphertext, "without the purpose")
}

// An error about the service's key is no error of the document.
func TestKMSRootErrors(t *testing.T) {
	service := kms.Principal{ID: "service"}
	gone := errors.New("dial tcp: connection refused")
	for name, c := range map[string]struct {
		act  func(*kmstest.Fake)
		kind error // of package kms
	}{
		"unavailable":     {func(f *kmstest.Fake) { f.Fail(fmt.Errorf("%w: %w", kms.ErrUnavailable, gone), -1) }, kms.ErrUnavailable},
		"disabled":        {func(f *kmstest.Fake) { f.Disable("root") }, kms.ErrDisabled},
		"to be deleted":   {func(f *kmstest.Fake) { f.ScheduleDeletion("root") }, kms.ErrPendingDeletion},
		"deleted":         {func(f *kmstest.Fake) { f.RemoveKey("root") }, kms.ErrNotFound},
		"denied":          {func(f *kmstest.Fake) { f.Deny(service) }, kms.ErrDenied},
		"no data key":     {func(f *kmstest.Fake) { f.AnswerKey(func(*kms.DataKey) *kms.DataKey { return nil }); noPlaintext(f) }, kms.ErrUnavailable},
		"short plaintext": {func(f *kmstest.Fake) { clearKey(f); f.AnswerPlaintext(func(b []byte) []byte { return b[:31] }) }, kms.ErrUnavailable},
		"huge ciphertext": {func(f *kmstest.Fake) { hugeKey(f); noPlaintext(f) }, kms.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake("root")
			root := kmsRoot(t, fake, "root", &keyring.KMSRootOptions{Principal: service})
			store := keyring.NewMemStore()
			ring, err := keyring.Create(t.Context(), store, root, nil)
			require.NoError(t, err)
			old := primary(t, ring)
			c.act(fake)

			_, err = keyring.Open(t.Context(), store, root, nil)
			require.ErrorIs(t, err, keyring.ErrRootUnavailable)
			require.ErrorIs(t, err, c.kind)
			require.NotErrorIs(t, err, keyring.ErrRoot)
			require.ErrorContains(t, err, `"root"`)
			_, err = ring.Rotate(t.Context())
			require.ErrorIs(t, err, keyring.ErrRootUnavailable)
			require.ErrorIs(t, err, c.kind)
			require.Equal(t, old, primary(t, ring))
			_, err = ring.Key(t.Context(), old)
			require.NoError(t, err, "the ring goes on with what it has")
		})
	}

	t.Run("another key", func(t *testing.T) {
		fake := kmstest.NewFake("root", "other")
		sealed, err := kmsRoot(t, fake, "root", nil).EncryptWithContext(t.Context(), []byte("keyset"), nil)
		require.NoError(t, err)
		_, err = kmsRoot(t, fake, "other", nil).DecryptWithContext(t.Context(), sealed, nil)
		require.ErrorIs(t, err, keyring.ErrRoot)
		require.ErrorIs(t, err, kms.ErrCiphertext)
		require.ErrorContains(t, err, fmt.Sprintf("under key %q, the root is key %q", kmstest.ARN("root"), "other"))
	})

	t.Run("ctx", func(t *testing.T) {
		fakeclock.Test(t, func(t *testing.T) {
			fake := kmstest.NewFake("root")
			root := kmsRoot(t, fake, "root", nil)
			sealed, err := root.EncryptWithContext(t.Context(), []byte("keyset"), nil)
			require.NoError(t, err)
			fake.SetLatency(time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			_, err = root.DecryptWithContext(ctx, sealed, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, keyring.ErrRootUnavailable)
			_, err = root.EncryptWithContext(ctx, []byte("keyset"), nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(start))
		})
	})
}

func noPlaintext(f *kmstest.Fake) { f.AnswerPlaintext(func([]byte) []byte { return nil }) }

// clearKey clears data keys before they are used.
func clearKey(f *kmstest.Fake) {
	f.AnswerKey(func(k *kms.DataKey) *kms.DataKey {
		k.Clear()
		return k
	})
}

func hugeKey(f *kmstest.Fake) {
	f.AnswerKey(func(k *kms.DataKey) *kms.DataKey {
		k.Ciphertext = make([]byte, 6145)
		return k
	})
}

// An attacker who can write to the store, and has a key in the same service, cannot make the
// ring open a document under that key: the root never asks for the key that a document names.
func TestKMSRootAsksOnlyItsOwnKey(t *testing.T) {
	fake := kmstest.NewFake("root", "mallory")
	root := kmsRoot(t, fake, "root", nil)
	store := keyring.NewMemStore()
	_, err := keyring.Create(t.Context(), store, kmsRoot(t, fake, "mallory", nil), nil)
	require.NoError(t, err)
	fake.Forget()
	_, err = keyring.Open(t.Context(), store, root, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	for _, call := range fake.Calls() {
		require.Equal(t, "root", call.KeyID)
	}
}

func TestKMSRootByAlias(t *testing.T) {
	fake := kmstest.NewFake("k1", "k2")
	fake.SetAlias("alias/root", "k1")
	root := kmsRoot(t, fake, "alias/root", nil)
	store := keyring.NewMemStore()
	_, err := keyring.Create(t.Context(), store, root, nil)
	require.NoError(t, err)
	ring, err := keyring.Open(t.Context(), store, kmsRoot(t, fake, "k1", nil), nil)
	require.NoError(t, err, "the alias and what it stands for are one root")

	fake.SetAlias("alias/root", "k2")
	_, err = keyring.Open(t.Context(), store, root, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	require.ErrorContains(t, err, fmt.Sprintf("under key %q, the root is key %q", kmstest.ARN("k1"), "alias/root"))

	// The key itself still opens it, and moves it to where the alias now points.
	require.NoError(t, ring.ChangeRoot(t.Context(), root))
	again, err := keyring.Open(t.Context(), store, root, nil)
	require.NoError(t, err)
	require.Equal(t, ring.ID(), again.ID())
}

// A ring moves from each kind of root to each other. The former root then returns ErrRoot.
func TestChangeRootAmongServices(t *testing.T) {
	passphrase, err := keyring.NewPassphraseRoot([]byte("correct horse battery staple"), &keyring.PassphraseParams{Time: 2, Memory: 19 << 10})
	require.NoError(t, err)
	roots := []struct {
		name string
		tink.AEADWithContext
	}{
		{"fake", kmsRoot(t, kmstest.NewFake("root"), "root", nil)},
		{"another fake", kmsRoot(t, kmstest.NewFake("root"), "root", nil)},
		{"tink", kmsRoot(t, tinkClient(t, "root"), "root", nil)},
		{"key", keyRoot(t, 1)},
		{"passphrase", passphrase},
	}
	store := keyring.NewMemStore()
	ring, err := keyring.Create(t.Context(), store, roots[0], nil)
	require.NoError(t, err)
	keys := ring.Versions()
	at := 0
	for i := range roots { // from each to each
		for j := range roots {
			for _, next := range []int{i, j} {
				if next == at {
					continue
				}
				require.NoError(t, ring.ChangeRoot(t.Context(), roots[next]), "%s to %s", roots[at].name, roots[next].name)
				_, err := keyring.Open(t.Context(), store, roots[at], nil)
				require.ErrorIs(t, err, keyring.ErrRoot, "%s after the change to %s", roots[at].name, roots[next].name)
				again, err := keyring.Open(t.Context(), store, roots[next], nil)
				require.NoError(t, err)
				require.Equal(t, keys, again.Versions())
				at = next
			}
		}
	}
}

// A replica follows the ring to another service even if the old service is gone by then.
func TestChangeRootAwayFromAServiceThatIsGone(t *testing.T) {
	for name, leave := range map[string]func(*kmstest.Fake){
		"unavailable": func(f *kmstest.Fake) { f.Fail(kms.ErrUnavailable, -1) },
		"disabled":    func(f *kmstest.Fake) { f.Disable("root") },
		"deleted":     func(f *kmstest.Fake) { f.RemoveKey("root") },
	} {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake("root")
			old, next := kmsRoot(t, fake, "root", nil), kmsRoot(t, tinkClient(t, "root"), "root", nil)
			store := keyring.NewMemStore()
			ring, err := keyring.Create(t.Context(), store, old, nil)
			require.NoError(t, err)
			replica, err := keyring.Open(t.Context(), store, old, nil)
			require.NoError(t, err)
			require.NoError(t, ring.ChangeRoot(t.Context(), next))
			leave(fake)
			id := rotate(t, ring)

			require.ErrorIs(t, replica.Refresh(t.Context()), keyring.ErrRootUnavailable)
			require.NoError(t, replica.ChangeRoot(t.Context(), next))
			require.Equal(t, id, primary(t, replica))
			require.NoError(t, replica.Refresh(t.Context()))
		})
	}
}

func TestKMSRootPrintsNoKey(t *testing.T) {
	root := kmsRoot(t, kmstest.NewFake("root"), "root", nil)
	var b captured.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "root", root)
	for _, text := range []string{fmt.Sprint(root), fmt.Sprintf("%+v %#v %s %q", root, root, root, root), b.String()} {
		require.NotContains(t, text, "fakeKey")
	}
}

func TestKMSRootConcurrently(t *testing.T) {
	fake := kmstest.NewFake("root")
	root := kmsRoot(t, fake, "root", nil)
	store := keyring.NewMemStore()
	ring, err := keyring.Create(t.Context(), store, root, nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			replica, err := keyring.Open(t.Context(), store, root, nil)
			if err == nil {
				_, err = replica.Rotate(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, ring.Refresh(t.Context()))
	require.GreaterOrEqual(t, len(ring.Versions()), 2)
}
