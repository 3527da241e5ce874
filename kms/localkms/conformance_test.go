package localkms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/localkms"
)

var errDown = errors.New("disk is away")

// faultyStore fails or stalls when told to.
type faultyStore struct {
	keyring.Store
	down, slow   atomic.Bool
	loads, swaps atomic.Int64
}

func (s *faultyStore) fault(ctx context.Context) error {
	if s.slow.Load() {
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.down.Load() {
		return errDown
	}
	return nil
}

func (s *faultyStore) Load(ctx context.Context) ([]byte, string, error) {
	s.loads.Add(1)
	if err := s.fault(ctx); err != nil {
		return nil, "", err
	}
	return s.Store.Load(ctx)
}

func (s *faultyStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	s.swaps.Add(1)
	if err := s.fault(ctx); err != nil {
		return "", err
	}
	return s.Store.Swap(ctx, version, data)
}

func TestConformance(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kmstest.Subject {
		store := &faultyStore{Store: keyring.NewMemStore()}
		s := open(t, store, func(o *localkms.Options) {
			o.RefreshInterval, o.MaxStaleness = 1, 1 // so that each use needs the store
			o.Now = time.Now
		})
		key, err := s.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		other, err := s.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, s.CreateAlias(t.Context(), "alias/kmstest", key.ID))
		policy := "permit (principal, action, resource);"
		return kmstest.Subject{
			Client: s.Client, KeyID: key.ARN, Alias: "alias/kmstest", OtherKeyID: other.ARN,
			UnknownKeyID: "arn:blobseal:kms:local:000000000000:key/00000000-0000-4000-8000-000000000000",
			Disable:      func(t *testing.T) { require.NoError(t, s.DisableKey(t.Context(), key.ID)) },
			Enable: func(t *testing.T) {
				if s.describe(key.ID).State == localkms.PendingDeletion {
					require.NoError(t, s.CancelKeyDeletion(t.Context(), key.ID))
				}
				require.NoError(t, s.EnableKey(t.Context(), key.ID))
			},
			ScheduleDeletion: func(t *testing.T) {
				_, err := s.ScheduleKeyDeletion(t.Context(), key.ID, 7)
				require.NoError(t, err)
			},
			Deny: func(t *testing.T, p kms.Principal, op kms.Operation) {
				policy += fmt.Sprintf("forbid (principal == Principal::%q, action == Action::%q, resource);", p.ID, op)
				require.NoError(t, s.PutKeyPolicy(t.Context(), key.ID, policy, nil))
			},
			Break:  func(*testing.T) { store.down.Store(true) },
			Repair: func(*testing.T) { store.down.Store(false) },
			Stall:  func(*testing.T) { store.slow.Store(true) },
		}
	})
}

func TestTheServiceGoesOnWhileTheStoreIsDownAndThenRefuses(t *testing.T) {
	synctest.Test(t, goesOnAndThenRefuses)
}

func goesOnAndThenRefuses(t *testing.T) {
	store := &faultyStore{Store: keyring.NewMemStore()}
	s := open(t, store, func(o *localkms.Options) {
		o.RefreshInterval, o.MaxStaleness = 10*time.Millisecond, 300*time.Millisecond
	})
	id := s.key()
	store.down.Store(true)
	time.Sleep(20 * time.Millisecond)
	dk, err := s.GenerateDataKey(t.Context(), id, nil)
	require.NoError(t, err)
	isKind(t, kms.ErrUnavailable, s.DisableKey(t.Context(), id))
	_, err = s.CreateKey(t.Context(), nil)
	isKind(t, kms.ErrUnavailable, err)
	_, err = s.GenerateDataKey(t.Context(), "alias/unknown", nil)
	isKind(t, kms.ErrUnavailable, err)
	require.ErrorIs(t, err, errDown)
	_, err = s.GenerateDataKey(t.Context(), localkms.DefaultAlias, nil)
	isKind(t, kms.ErrUnavailable, err)
	newer := bytes.Clone(dk.Ciphertext) // by a version that may have been made elsewhere
	newer[20]++
	_, err = s.Decrypt(t.Context(), id, newer, nil)
	isKind(t, kms.ErrUnavailable, err)
	time.Sleep(300 * time.Millisecond)
	_, err = s.Decrypt(t.Context(), id, dk.Ciphertext, nil)
	isKind(t, kms.ErrUnavailable, err)
	require.ErrorIs(t, err, errDown)
	store.down.Store(false)
	_, err = s.Decrypt(t.Context(), id, dk.Ciphertext, nil)
	require.NoError(t, err)
}

func TestASlowStoreStopsNoOneBeyondTheirContext(t *testing.T) {
	synctest.Test(t, stopsNoOne)
}

func stopsNoOne(t *testing.T) {
	store := &faultyStore{Store: keyring.NewMemStore()}
	s := open(t, store, func(o *localkms.Options) { o.RefreshInterval = 10 * time.Millisecond })
	id := s.key()
	require.NoError(t, s.EnableKeyRotation(t.Context(), id, 90))
	store.slow.Store(true)
	time.Sleep(30 * time.Millisecond)
	s.clock.Advance(90 * day) // due, and the store to be loaded: neither stops a use
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := s.GenerateDataKey(ctx, id, nil)
		cancel()
		require.NoError(t, err)
	}
	for _, use := range []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := s.GenerateDataKey(ctx, "alias/unknown", nil); return err },
		func(ctx context.Context) error { return s.DisableKey(ctx, id) },
		func(ctx context.Context) error { return s.Refresh(ctx) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		began := time.Now()
		err := use(ctx)
		cancel()
		isKind(t, kms.ErrUnavailable, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 20*time.Millisecond, time.Since(began))
	}
	time.Sleep(time.Minute) // until the loads that hang have ended
}

func TestChangesOfAnotherProcessAreSeenWithinTheRefreshInterval(t *testing.T) {
	synctest.Test(t, seenWithinTheInterval)
}

func seenWithinTheInterval(t *testing.T) {
	a := open(t, nil, func(o *localkms.Options) { o.RefreshInterval = time.Hour })
	b := open(t, a.store, func(o *localkms.Options) { o.RefreshInterval = 50 * time.Millisecond })
	id := a.key()
	dk, err := b.GenerateDataKey(t.Context(), id, nil) // at once: it was not known
	require.NoError(t, err)
	require.NoError(t, a.DisableKey(t.Context(), id))
	_, err = a.Decrypt(t.Context(), id, dk.Ciphertext, nil)
	isKind(t, kms.ErrDisabled, err)
	time.Sleep(50*time.Millisecond - 1)
	_, err = b.Decrypt(t.Context(), id, dk.Ciphertext, nil)
	require.NoError(t, err, "not yet")
	time.Sleep(time.Nanosecond)
	_, err = b.Decrypt(t.Context(), id, dk.Ciphertext, nil)
	isKind(t, kms.ErrDisabled, err)

	// What one encrypts under a new version the other decrypts at once.
	require.NoError(t, b.EnableKey(t.Context(), id))
	_, err = b.RotateKey(t.Context(), id)
	require.NoError(t, err)
	ciphertext := b.encrypt(id, "x", nil)
	require.NoError(t, a.Refresh(t.Context()))
	_, err = b.RotateKey(t.Context(), id)
	require.NoError(t, err)
	newer := b.encrypt(id, "y", nil)
	a.decrypts(ciphertext, "x", nil)
	a.decrypts(newer, "y", nil)

	// Nor is it decrypted by what was known before the store was asked.
	_, err = b.RotateKey(t.Context(), id)
	require.NoError(t, err)
	newest := b.encrypt(id, "z", nil)
	require.NoError(t, b.DisableKey(t.Context(), id))
	_, err = a.Decrypt(t.Context(), id, newest, nil)
	isKind(t, kms.ErrDisabled, err)
}

func TestMissesDoNotFloodTheStore(t *testing.T) {
	synctest.Test(t, missesDoNotFlood)
}

// unknown returns an alias that does not exist, another one each time: the service
// remembers for a second that one does not.
func unknown() string { return fmt.Sprint("alias/unknown-", unknowns.Add(1)) }

var unknowns atomic.Int64

func missesDoNotFlood(t *testing.T) {
	store := &faultyStore{Store: keyring.NewMemStore()}
	s := open(t, store, func(o *localkms.Options) { o.RefreshInterval = time.Hour })
	before := store.loads.Load()
	ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.GenerateDataKey(ctx, unknown(), nil)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 20+10, store.loads.Load()-before, "a burst, and one in each second")
}

// Who asks for what is not there waits for a turn. Nobody waits for them: whoever
// disables a key does so at once.
func TestMissesHoldNobodyUp(t *testing.T) {
	synctest.Test(t, missesHoldNobodyUp)
}

func missesHoldNobodyUp(t *testing.T) {
	s := open(t, nil, func(o *localkms.Options) { o.RefreshInterval = time.Hour })
	other := open(t, s.store, func(o *localkms.Options) { o.RefreshInterval = time.Hour })
	id := s.key()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.GenerateDataKey(ctx, unknown(), nil)
			}
		})
	}
	time.Sleep(5300 * time.Millisecond) // in the middle of a pause
	synctest.Wait()
	for _, change := range []func() error{
		func() error { return s.DisableKey(t.Context(), id) },
		func() error { return s.Refresh(t.Context()) },
		func() error { return s.EnableKey(t.Context(), id) },
	} {
		began := time.Now()
		require.NoError(t, change())
		require.Zero(t, time.Since(began))
	}
	made := other.key() // and who has a turn finds what is there
	began := time.Now()
	_, err := s.GenerateDataKey(t.Context(), made, nil)
	require.NoError(t, err)
	require.LessOrEqual(t, time.Since(began), 2*time.Second)
	wg.Wait()
}

func TestRunRefreshesRotatesAndDeletes(t *testing.T) {
	synctest.Test(t, runRefreshesRotatesAndDeletes)
}

func runRefreshesRotatesAndDeletes(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	_, err = s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	runner := open(t, s.store, func(o *localkms.Options) { o.RefreshInterval, o.Now = 10*time.Millisecond, s.clock.Now })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	before := runner.Stats().Generation
	s.clock.Advance(90 * day)
	time.Sleep(time.Second)
	synctest.Wait()
	require.Equal(t, before+2, runner.Stats().Generation, "a deletion and a rotation")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.NoError(t, s.Refresh(t.Context()))
	require.Equal(t, before+2, s.Stats().Generation)
	require.Equal(t, 2, s.describe(info.ID).Rotation.Versions)
	keys, err := collect(s.ListKeys(t.Context()))
	require.NoError(t, err)
	require.Len(t, keys, 1)
}

func TestLists(t *testing.T) {
	s := open(t, nil, nil)
	other := s.client("other", "")
	var want []string
	for i := range 25 {
		id := s.key()
		want = append(want, id)
		require.NoError(t, s.CreateAlias(t.Context(), fmt.Sprintf("alias/%02d", i), id))
		_, err := other.CreateKey(t.Context(), nil)
		require.NoError(t, err)
	}
	slices.Sort(want)
	var keys, aliases []string
	for k, err := range s.ListKeys(t.Context()) {
		require.NoError(t, err)
		keys = append(keys, k.ID)
		if len(keys) == 1 {
			s.key() // does not disturb the list
		}
	}
	require.Equal(t, want, keys)
	for a, err := range s.ListAliases(t.Context(), "") {
		require.NoError(t, err)
		aliases = append(aliases, a.Name)
	}
	require.Len(t, aliases, 25)
	require.True(t, slices.IsSorted(aliases))
	for k := range s.ListKeys(t.Context()) {
		require.Equal(t, min(k.ID, want[0]), k.ID, "stops when the loop does")
		break
	}
	_, err := collect(s.ListAliases(t.Context(), "alias/none"))
	isKind(t, kms.ErrNotFound, err)
	found, err := collect(s.ListAliases(t.Context(), want[3]))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, want[3], found[0].KeyID)
}

// Those who miss something while the store is down learn it together, and not one
// after the other.
func TestMissesShareAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &faultyStore{Store: keyring.NewMemStore()}
		s := open(t, store, func(o *localkms.Options) { o.RefreshInterval = time.Hour })
		for range 20 { // the burst is over
			_, err := s.GenerateDataKey(t.Context(), unknown(), nil)
			isKind(t, kms.ErrNotFound, err)
		}
		store.down.Store(true)
		began := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := s.GenerateDataKey(t.Context(), unknown(), nil); !errors.Is(err, errDown) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, time.Second, time.Since(began))
	})
}

// A store that fails is asked again once in a while, and not by each use; and one
// that works is not said to fail.
func TestUsesSpareAStoreThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said captured.Buffer
		store := &faultyStore{Store: keyring.NewMemStore()}
		s := open(t, store, func(o *localkms.Options) {
			o.RefreshInterval, o.Logger = time.Second, textLogger(&said)
		})
		said.Reset()
		id := s.key()
		use := func(seconds int) (loads int64) {
			before := store.loads.Load()
			for range seconds * 100 {
				time.Sleep(10 * time.Millisecond)
				_, err := s.GenerateDataKey(t.Context(), id, nil)
				require.NoError(t, err)
			}
			return store.loads.Load() - before
		}
		require.InDelta(t, 20, use(20), 1)
		require.Empty(t, said.String())
		store.down.Store(true)
		require.InDelta(t, 20, use(20), 1)
		require.InDelta(t, 20, strings.Count(said.String(), "refresh failed"), 1)
		store.down.Store(false)
		said.Reset()
		require.InDelta(t, 20, use(20), 1)
		require.Empty(t, said.String())
	})
}
