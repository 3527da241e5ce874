package localkms_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
)

// meddled is a store in which something else happens before the next swap, or
// before that load if it is set.
type meddled struct {
	keyring.Store
	load   int // from 1
	before func()
}

func (s *meddled) meddle() {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
}

func (s *meddled) Load(ctx context.Context) ([]byte, string, error) {
	if s.load > 0 {
		if s.load--; s.load == 0 {
			s.meddle()
		}
	}
	return s.Store.Load(ctx)
}

func (s *meddled) Swap(ctx context.Context, version string, data []byte) (string, error) {
	s.meddle()
	return s.Store.Swap(ctx, version, data)
}

// TestRecordsSayWhatHappenedThoughSomeoneElseCameBetween: a change is recorded
// before it is stored, and may turn out to be another when it is tried again.
func TestRecordsSayWhatHappenedThoughSomeoneElseCameBetween(t *testing.T) {
	sink := new(trail)
	other := open(t, nil, nil)
	store := &meddled{Store: other.store}
	s := open(t, store, func(o *localkms.Options) { o.Audit = sink })

	t.Run("the default key", func(t *testing.T) {
		var others string
		store.before = func() { others = other.describe(localkms.DefaultAlias).ARN }
		dk, err := s.GenerateDataKey(as(t, "app"), localkms.DefaultAlias, nil)
		require.NoError(t, err)
		require.Equal(t, others, dk.KeyID)
		records := sink.take()
		require.Len(t, records, 2)
		for _, r := range records {
			require.Equal(t, kms.Operation("CreateKey"), r.Operation)
			require.NotEqual(t, others, r.KeyID, "made by the other one")
			require.Equal(t, records[0].KeyID, r.KeyID)
			require.Equal(t, records[0].RequestID, r.RequestID)
		}
		require.Equal(t, "success", records[0].Outcome)
		require.Equal(t, "failure", records[1].Outcome, "it was not made after all")
		_, err = s.DescribeKey(t.Context(), records[0].KeyID)
		isKind(t, kms.ErrNotFound, err)
		sink.take()
	})

	t.Run("an alias", func(t *testing.T) {
		a, b := other.describe(other.key()), other.describe(other.key())
		require.NoError(t, other.CreateAlias(t.Context(), "alias/x", a.ID))
		store.before = func() { require.NoError(t, other.UpdateAlias(t.Context(), "alias/x", b.ID)) }
		require.NoError(t, s.DisableKey(as(t, "app"), "alias/x"))
		require.Equal(t, localkms.Enabled, s.describe(a.ID).State)
		require.Equal(t, localkms.Disabled, s.describe(b.ID).State)
		records := sink.take()
		require.Len(t, records, 5) // and those of describe
		require.Equal(t, []string{a.ARN, a.ARN, b.ARN}, []string{records[0].KeyID, records[1].KeyID, records[2].KeyID})
		require.Equal(t, []string{"success", "failure", "success"}, []string{records[0].Outcome, records[1].Outcome, records[2].Outcome})
		require.Equal(t, records[0].RequestID, records[1].RequestID)
		require.Equal(t, records[0].RequestID, records[2].RequestID)
	})

	t.Run("what is due", func(t *testing.T) {
		id := s.key()
		rotating, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
		require.NoError(t, err)
		sink.take()
		store.before = func() { // becomes due while the first try is under way
			s.clock.Advance(90 * day)
			require.NoError(t, other.Tag(t.Context(), id, map[string]string{"a": "b"}))
		}
		require.NoError(t, s.DisableKey(as(t, "app"), id))
		records := sink.take()
		require.Len(t, records, 2)
		require.Equal(t, kms.Operation("DisableKey"), records[0].Operation)
		require.Equal(t, kms.Operation("RotateKey"), records[1].Operation)
		require.Equal(t, rotating.ARN, records[1].KeyID)

		s.clock.Advance(90 * day) // due at the first try and at the second
		store.before = func() { require.NoError(t, other.Tag(t.Context(), id, map[string]string{"a": "c"})) }
		require.NoError(t, s.EnableKey(as(t, "app"), id))
		require.Equal(t, 3, s.describe(rotating.ID).Rotation.Versions)
		records = sink.take()
		require.Len(t, records, 3)
		require.Equal(t, kms.Operation("EnableKey"), records[0].Operation)
		require.Equal(t, kms.Operation("RotateKey"), records[1].Operation)
	})
}

// done returns how often the trail says that an operation was done: its
// successes without those that a failure of the same request takes back.
func done(records []audit.Record, op kms.Operation) (count int) {
	for _, r := range records {
		if r.Operation != op {
			continue
		}
		switch {
		case r.Outcome == "success":
			count++
		case r.Retracts:
			count--
		}
	}
	return count
}

// TestADeletionThatDoesNotHappenIsNotRecordedAsDone: the store refuses it, time
// and again, and the key lives on until the store takes it.
func TestADeletionThatDoesNotHappenIsNotRecordedAsDone(t *testing.T) {
	sink := new(trail)
	store := &swapless{faultyStore: faultyStore{Store: keyring.NewMemStore()}}
	s := open(t, store, func(o *localkms.Options) { o.Audit = sink })
	id, arn := s.key(), ""
	arn = s.describe(id).ARN
	_, err := s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	s.clock.Advance(7 * day)
	store.refuse.Store(true)
	sink.take()
	for range 3 {
		s.restart()
	}
	records := sink.take()
	require.Len(t, records, 6)
	for i, r := range records {
		require.Equal(t, kms.Operation("DeleteKey"), r.Operation)
		require.Equal(t, arn, r.KeyID)
		require.NotEmpty(t, r.RequestID)
		require.Equal(t, records[i/2*2].RequestID, r.RequestID)
	}
	require.Zero(t, done(records, kms.Operation("DeleteKey")))
	require.Equal(t, "Unavailable", records[1].ErrorCode)
	store.refuse.Store(false)
	s.restart()
	require.Equal(t, 1, done(sink.take(), kms.Operation("DeleteKey")))
}

// TestProcessesThatFindTheSameThingDueRecordItOnce: those that lose the race take
// their record back.
func TestProcessesThatFindTheSameThingDueRecordItOnce(t *testing.T) {
	sink := new(trail)
	first := open(t, nil, nil)
	id, other := first.key(), first.key()
	_, err := first.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	_, err = first.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	store := &meddled{Store: first.store}
	winner := open(t, first.store, func(o *localkms.Options) { o.Audit = sink })
	loser := open(t, store, func(o *localkms.Options) { o.Audit = sink })
	for _, s := range []*service{winner, loser} {
		s.clock.Advance(90 * day)
	}
	sink.take()
	store.before = func() { winner.describe(other) }
	loser.describe(other)
	records := sink.take()
	require.Equal(t, 1, done(records, kms.Operation("DeleteKey")))
	require.Equal(t, 1, done(records, kms.Operation("RotateKey")))
}
