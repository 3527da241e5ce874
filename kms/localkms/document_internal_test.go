package localkms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

func testRoot(t testing.TB, b byte) tink.AEADWithContext {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return root
}

// testClient is a client of a service with a clock that the test sets.
func testClient(t testing.TB, store keyring.Store, now *time.Time) *Client {
	opts := &Options{Now: func() time.Time { return *now }, Logger: slog.New(slog.DiscardHandler)}
	s, err := Open(t.Context(), store, testRoot(t, 1), opts)
	if errors.Is(err, keyring.ErrNotExist) {
		s, err = Create(t.Context(), store, testRoot(t, 1), opts)
	}
	require.NoError(t, err)
	c, err := s.Client("", "")
	require.NoError(t, err)
	return c
}

// plaintext returns the decrypted contents of the store's document.
func plaintext(t testing.TB, store keyring.Store) []byte {
	data, _, err := store.Load(t.Context())
	require.NoError(t, err)
	h, body, err := parseDocument(data)
	require.NoError(t, err)
	dek, err := h.open(t.Context(), testRoot(t, 1))
	require.NoError(t, err)
	text, err := chunked.OpenMessage(dek.Bytes(), append([]byte(documentLabel), h.marshal()...), body)
	require.NoError(t, err)
	return text
}

// full makes a service with some of everything.
func full(t testing.TB, store keyring.Store) *Client {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := testClient(t, store, &now)
	ctx := t.Context()
	policy := `permit (principal, action, resource);`
	for i := range 3 {
		k, err := c.CreateKey(ctx, &CreateKeyInput{
			Description: fmt.Sprint("key ", i), Tags: map[string]string{"a": "b", "c": ""}, RotationDays: 90, Policy: policy})
		require.NoError(t, err)
		_, err = c.CreateGrant(ctx, k.ID, &CreateGrantInput{
			Grantee: "g", Name: "n", RetiringPrincipal: "r", Operations: []kms.Operation{kms.OpDecrypt}, ContextSubset: kms.Context{"x": "y", "z": ""}})
		require.NoError(t, err)
		_, err = c.RotateKey(ctx, k.ID)
		require.NoError(t, err)
		require.NoError(t, c.CreateAlias(ctx, fmt.Sprint("alias/", i), k.ID))
		policy += fmt.Sprintln("//", i)
		if i == 1 {
			_, err = c.ScheduleKeyDeletion(ctx, k.ID, 7)
			require.NoError(t, err)
		}
	}
	_, err := c.DescribeKey(ctx, DefaultAlias)
	require.NoError(t, err)
	return c
}

// closing is a root that does not open what it sealed.
type closing struct{ tink.AEADWithContext }

func (closing) DecryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return nil, errors.New("cannot")
}

func TestNothingIsStoredThatTheRootDoesNotOpen(t *testing.T) {
	store := keyring.NewMemStore()
	_, err := Create(t.Context(), store, closing{testRoot(t, 1)}, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	_, _, err = store.Load(t.Context())
	require.ErrorIs(t, err, keyring.ErrNotExist)
}

func TestEveryDamageOfADocumentIsFound(t *testing.T) {
	store := keyring.NewMemStore()
	full(t, store)
	data, _, err := store.Load(t.Context())
	require.NoError(t, err)
	try := func(data []byte, root tink.AEADWithContext) error {
		_, err := openDocument(t.Context(), root, data, nil)
		return err
	}
	require.NoError(t, try(data, testRoot(t, 1)))
	require.ErrorIs(t, try(data, testRoot(t, 2)), keyring.ErrRoot)
	for i := 0; i < len(data); i += 1 + i/100 {
		require.ErrorIs(t, try(data[:i], testRoot(t, 1)), keyring.ErrDamaged, "cut at %d", i)
		changed := bytes.Clone(data)
		changed[i] ^= 1
		err := try(changed, testRoot(t, 1))
		if i == len(documentMagic) {
			require.ErrorIs(t, err, keyring.ErrVersion)
		} else {
			require.ErrorIs(t, err, keyring.ErrDamaged)
		}
		if i < len(data)-sha256.Size && i > len(documentMagic) { // on purpose, with the right checksum
			sum := sha256.Sum256(changed[:len(data)-sha256.Size])
			copy(changed[len(data)-sha256.Size:], sum[:])
			require.Error(t, try(changed, testRoot(t, 1)))
		}
	}
	require.ErrorIs(t, try(make([]byte, maxDocumentSize+1), testRoot(t, 1)), keyring.ErrDamaged)
}

func TestAnOlderDocumentIsHealed(t *testing.T) {
	store := keyring.NewMemStore()
	c := full(t, store)
	old, _, err := store.Load(t.Context())
	require.NoError(t, err)
	k, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	put := func(data []byte) {
		_, version, err := store.Load(t.Context())
		require.NoError(t, err)
		_, err = store.Swap(t.Context(), version, data)
		require.NoError(t, err)
	}
	current, _, err := store.Load(t.Context())
	require.NoError(t, err)
	put(old)
	require.NoError(t, c.service.Refresh(t.Context()))
	healed, _, err := store.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, current, healed, "put back what it knew")
	put(old)
	require.NoError(t, c.DisableKey(t.Context(), k.ID))
	require.NoError(t, c.EnableKey(t.Context(), k.ID))
	other := keyring.NewMemStore()
	full(t, other)
	foreign, _, err := other.Load(t.Context())
	require.NoError(t, err)
	put(foreign)
	require.ErrorIs(t, c.service.Refresh(t.Context()), keyring.ErrOtherRing)
	put(old) // of which another process, that did not see the change, makes another one
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fork := testClient(t, store, &now)
	for fork.service.Stats().Generation < c.service.Stats().Generation {
		_, err = fork.CreateKey(t.Context(), nil)
		require.NoError(t, err)
	}
	require.NoError(t, c.service.Refresh(t.Context()))
	require.Greater(t, c.service.Stats().Generation, fork.service.Stats().Generation, "merged")
	require.NoError(t, fork.service.Refresh(t.Context()))
	require.NoError(t, fork.DisableKey(t.Context(), k.ID))
}

// TestTheRootIsAskedOnce: it may be slow, and away.
func TestTheRootIsAskedOnce(t *testing.T) {
	store := keyring.NewMemStore()
	full(t, store)
	root := &countedRoot{AEADWithContext: testRoot(t, 1)}
	s, err := Open(t.Context(), store, root, nil)
	require.NoError(t, err)
	c, err := s.Client("", "")
	require.NoError(t, err)
	now := time.Now()
	other := testClient(t, store, &now)
	for range 3 {
		_, err := other.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		k, err := c.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		_, err = c.GenerateDataKey(t.Context(), k.ID, nil)
		require.NoError(t, err)
	}
	require.Equal(t, 1, root.calls)
}

type countedRoot struct {
	tink.AEADWithContext
	calls int
}

func (r *countedRoot) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	r.calls++
	return r.AEADWithContext.EncryptWithContext(ctx, plaintext, ad)
}

func (r *countedRoot) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	r.calls++
	return r.AEADWithContext.DecryptWithContext(ctx, ciphertext, ad)
}

func TestADocumentThatGrowsTooLargeIsRefusedWhole(t *testing.T) {
	store := keyring.NewMemStore()
	now := time.Now()
	c := testClient(t, store, &now)
	k, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	err = c.service.update(t.Context(), func(d *draft) error {
		for i := range maxDocumentSize/maxDescription + 1 {
			id := keyID{byte(i >> 8), byte(i)}
			d.put(&key{scope: c.scope, id: id, state: Enabled, description: strings.Repeat("x", maxDescription),
				versions: []material{{number: 1, origin: Created, key: secret.Random()}}})
		}
		return nil
	}, func() error { return nil })
	require.ErrorIs(t, err, ErrFull)
	require.NoError(t, c.service.Refresh(t.Context()))
	_, err = c.GenerateDataKey(t.Context(), k.ID, nil)
	require.NoError(t, err)
}

// FuzzDocument: no document makes opening panic, or take memory out of proportion.
func FuzzDocument(f *testing.F) {
	store := keyring.NewMemStore()
	full(f, store)
	data, _, err := store.Load(f.Context())
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		for range 2 { // as it is, and with the right checksum
			h, body, err := parseDocument(data)
			if err == nil {
				require.Equal(t, data[:len(data)-len(body)-sha256.Size], h.marshal())
				openDocument(t.Context(), testRoot(t, 1), data, nil)
				return
			}
			if len(data) < sha256.Size {
				return
			}
			sum := sha256.Sum256(data[:len(data)-sha256.Size])
			data = append(bytes.Clone(data[:len(data)-sha256.Size]), sum[:]...)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		"", "permit (principal, action, resource);",
		`forbid (principal == Principal::"a", action in [Action::"Use"], resource in Account::"1") when { context.encryptionContext.a like "b*" };`,
		`@id("x") permit (principal is Principal, action, resource is Key) unless { if true then [1,2].contains(3) else {"a":-1}["a"] < 4 };`,
		`permit (principal, action, resource) when { ip("1.2.3.4").isInRange(ip("1.2.0.0/16")) && decimal("1.0") == decimal("1.00") };`,
	} {
		f.Add(text)
	}
	c := &Client{service: &Service{}, scope: scope{"1", "r"}}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := newPolicy(text)
		if err != nil {
			require.ErrorIs(t, err, ErrPolicy)
			return
		}
		k := (&key{scope: c.scope, policies: []keyPolicy{{policy: p}}}).finish()
		for _, op := range []kms.Operation{kms.OpDecrypt, opPutKeyPolicy} {
			c.authorize(t.Context(), op, k, kms.Context{"a": "bc"})
		}
	})
}

func FuzzCiphertext(f *testing.F) {
	store := keyring.NewMemStore()
	now := time.Now()
	c := testClient(f, store, &now)
	k, err := c.CreateKey(f.Context(), nil)
	require.NoError(f, err)
	good, err := c.Encrypt(f.Context(), k.ID, []byte("plaintext"), nil)
	require.NoError(f, err)
	f.Add(good)
	f.Add(append(bytes.Clone(good[:ciphertextHead]), make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		plaintext, err := c.Decrypt(t.Context(), k.ID, data, nil)
		if !bytes.Equal(data, good) {
			require.ErrorIs(t, err, kms.ErrCiphertext)
			require.Nil(t, plaintext)
		}
	})
}

// draftOf returns a draft of the document that c knows, at a time.
func draftOf(c *Client, now int64) *draft {
	d, _ := c.service.format.Draft(c.service.doc.State())
	d.now = now
	return d
}
