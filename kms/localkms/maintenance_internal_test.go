package localkms

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

func TestMaterialIsGoneFromTheStoreAfterTheWindow(t *testing.T) {
	for name, end := range map[string]func(c *Client, other string, reopen func() *Client){
		"at the next open": func(_ *Client, _ string, reopen func() *Client) { reopen() },
		"at the next use": func(c *Client, other string, _ func() *Client) {
			_, err := c.GenerateDataKey(t.Context(), other, nil)
			require.NoError(t, err)
		},
		"with the next change": func(c *Client, other string, _ func() *Client) {
			require.NoError(t, c.UpdateDescription(t.Context(), other, "x"))
		},
		"in Run": func(c *Client, _ string, _ func() *Client) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c.service.opts.RefreshInterval = time.Millisecond
			before := c.service.Stats().Generation
			go func() {
				for c.service.Stats().Generation == before && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				cancel()
			}()
			c.service.Run(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := keyring.NewMemStore()
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			c := testClient(t, store, &now)
			doomed, err := c.CreateKey(t.Context(), &CreateKeyInput{Description: "doomed description"})
			require.NoError(t, err)
			other, err := c.CreateKey(t.Context(), nil)
			require.NoError(t, err)
			_, err = c.RotateKey(t.Context(), doomed.ID)
			require.NoError(t, err)
			id, _ := uuid.Parse(doomed.ID)
			var secrets [][]byte
			for _, v := range c.service.doc.State().keys[id].versions {
				secrets = append(secrets, bytes.Clone(v.key.Bytes()))
			}
			secrets = append(secrets, []byte("doomed description"))
			_, err = c.ScheduleKeyDeletion(t.Context(), doomed.ID, 7)
			require.NoError(t, err)
			now = now.Add(7*24*time.Hour - time.Millisecond)
			c = testClient(t, store, &now)
			_, err = c.GenerateDataKey(t.Context(), other.ID, nil)
			require.NoError(t, err)
			for _, s := range secrets {
				require.Contains(t, string(plaintext(t, store)), string(s))
			}
			now = now.Add(time.Millisecond)
			end(c, other.ID, func() *Client { return testClient(t, store, &now) })
			for _, s := range secrets {
				require.NotContains(t, string(plaintext(t, store)), string(s))
			}
		})
	}
}

// TestAClockThatGoesBackBringsNoKeyBack: not even while the store refuses to
// forget it.
func TestAClockThatGoesBackBringsNoKeyBack(t *testing.T) {
	store := &stubborn{Store: keyring.NewMemStore()}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := testClient(t, store, &now)
	k, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	other, err := c.CreateKey(t.Context(), &CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	_, err = c.ScheduleKeyDeletion(t.Context(), k.ID, 7)
	require.NoError(t, err)
	store.refuse = true
	now = now.Add(7 * 24 * time.Hour)
	_, err = c.DescribeKey(t.Context(), k.ID)
	require.ErrorIs(t, err, kms.ErrNotFound)
	now = now.Add(-6 * 24 * time.Hour)
	_, err = c.DescribeKey(t.Context(), k.ID)
	require.ErrorIs(t, err, kms.ErrNotFound)
	store.refuse = false
	require.ErrorIs(t, c.CancelKeyDeletion(t.Context(), k.ID), kms.ErrNotFound)
	require.NoError(t, c.UpdateDescription(t.Context(), other.ID, "x")) // and writes it away
	id, _ := uuid.Parse(k.ID)
	require.NotContains(t, testClient(t, store, &now).service.doc.State().keys, id)

	// Everything else goes on at any time.
	for _, at := range []time.Time{{}, time.Unix(-1, 0), time.Unix(0, 0), now.AddDate(-20, 0, 0), now.AddDate(9000, 0, 0), now} {
		now = at
		dk, err := c.GenerateDataKey(t.Context(), other.ID, nil)
		require.NoError(t, err)
		_, err = c.RotateKey(t.Context(), other.ID)
		require.NoError(t, err)
		fresh, err := c.CreateKey(t.Context(), &CreateKeyInput{RotationDays: 2560})
		require.NoError(t, err)
		_, err = c.ScheduleKeyDeletion(t.Context(), fresh.ID, 7)
		require.NoError(t, err)
		c = testClient(t, store, &now)
		_, err = c.Decrypt(t.Context(), other.ID, dk.Ciphertext, nil)
		require.NoError(t, err)
	}
	versions, err := c.ListKeyRotations(t.Context(), other.ID)
	require.NoError(t, err)
	require.True(t, slices.IsSortedFunc(versions, func(a, b Version) int { return a.Created.Compare(b.Created) }))
}

// stubborn is a store that does not take anything while it refuses.
type stubborn struct {
	keyring.Store
	refuse bool
}

func (s *stubborn) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if s.refuse {
		return "", fmt.Errorf("refused")
	}
	return s.Store.Swap(ctx, version, data)
}

// TestWhatIsDueAndFailsIsNotTriedByEachUse: uses go on, and do not wait.
func TestWhatIsDueAndFailsIsNotTriedByEachUse(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, c *Client, store *stubborn, id keyID){
		"the store refuses": func(_ *testing.T, _ *Client, store *stubborn, _ keyID) { store.refuse = true },
		"the key has all its versions": func(t *testing.T, c *Client, _ *stubborn, id keyID) {
			require.NoError(t, c.service.update(t.Context(), func(d *draft) error {
				for len(d.keys[id].versions) < maxVersions {
					d.rotate(d.keys[id], OnDemandRotation)
				}
				return nil
			}, func() error { return nil }))
			_, err := c.RotateKey(t.Context(), id.String())
			require.ErrorIs(t, err, ErrLimit)
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &stubborn{Store: keyring.NewMemStore()}
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			c := testClient(t, store, &now)
			k, err := c.CreateKey(t.Context(), &CreateKeyInput{RotationDays: 90})
			require.NoError(t, err)
			id, _ := uuid.Parse(k.ID)
			fail(t, c, store, id)
			now = now.AddDate(0, 0, 90)
			_, err = c.GenerateDataKey(t.Context(), k.ID, nil)
			require.NoError(t, err)
			began := c.service.doc.Verified()
			for range 10 {
				_, err = c.GenerateDataKey(t.Context(), k.ID, nil)
				require.NoError(t, err)
			}
			require.Equal(t, began, c.service.doc.Verified(), "the store was asked again")
			require.Equal(t, store.refuse, c.service.doc.State().keys[id].current().number == 1)
		})
	}
}

// Keys that were deleted are no sign of an older document: whoever has seen them
// wait for it, or did not look for as long as that takes, lets them go.
func TestDeletedKeysAreLetGo(t *testing.T) {
	for _, looked := range []bool{true, false} {
		store := keyring.NewMemStore()
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		c, other := testClient(t, store, &now), testClient(t, store, &now)
		k, err := c.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		_, err = other.ScheduleKeyDeletion(t.Context(), k.ID, MinDeletionDays)
		require.NoError(t, err)
		if looked {
			require.NoError(t, c.service.Refresh(t.Context()))
		}
		now = now.Add(MinDeletionDays * 24 * time.Hour)
		_, err = other.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, c.service.Refresh(t.Context()))
		_, err = c.DescribeKey(t.Context(), k.ID)
		require.ErrorIs(t, err, kms.ErrNotFound)
	}
}
