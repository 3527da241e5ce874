package localkms_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
)

func TestEveryOperationThatIsNotAClientsLeavesOneRecord(t *testing.T) {
	sink := new(trail)
	s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
	other := s.key()
	require.NoError(t, s.CreateAlias(t.Context(), "alias/old", other))
	for op := range administration(t, s, "") {
		info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{Policy: permitAll + `forbid (principal == Principal::"bad", action, resource);`})
		require.NoError(t, err)
		if op == localkms.OpDeleteAlias {
			require.NoError(t, s.UpdateAlias(t.Context(), "alias/old", info.ID))
		}
		do := administration(t, s, info.ID)[op]
		for _, who := range []string{"bad", "good"} {
			sink.take()
			err := do(who)
			records := sink.take()
			require.Len(t, records, 1, op)
			r := records[0]
			require.Equal(t, op, r.Operation)
			require.Equal(t, kms.Principal{ID: who, Type: "Role"}, r.Principal)
			require.Equal(t, info.ARN, r.KeyID)
			require.Equal(t, s.clock.now(), r.Time)
			require.NotEmpty(t, r.RequestID)
			require.NotEmpty(t, r.EventID)
			require.Equal(t, audit.ErrorCode(err), r.ErrorCode)
			require.Equal(t, err == nil, r.Outcome == audit.OutcomeSuccess)
			require.Equal(t, who == "bad", errors.Is(err, kms.ErrDenied), op)
		}
	}

	id := s.key()
	ec := kms.Context{"a": "b"}
	ciphertext := s.encrypt(id, "the plaintext", ec)
	dk, err := s.GenerateDataKeyWithoutPlaintext(as(t, "app"), id, ec)
	require.NoError(t, err)
	require.Empty(t, dk.Plaintext())
	out, err := s.ReEncrypt(as(t, "app"), &localkms.ReEncryptInput{Ciphertext: ciphertext, SourceKeyID: id, SourceContext: ec, KeyID: other, Context: kms.Context{"c": "d"}})
	require.NoError(t, err)
	_, err = s.ReEncrypt(as(t, "app"), &localkms.ReEncryptInput{Ciphertext: ciphertext, SourceKeyID: id, KeyID: other})
	isKind(t, kms.ErrCiphertext, err)
	_, err = s.ReEncrypt(as(t, "app"), &localkms.ReEncryptInput{Ciphertext: ciphertext, SourceKeyID: id, SourceContext: ec, KeyID: "none"})
	isKind(t, kms.ErrNotFound, err)
	_, err = collect(s.ListKeys(t.Context()))
	require.NoError(t, err)
	_, err = collect(s.ListAliases(t.Context(), ""))
	require.NoError(t, err)
	_, err = s.DescribeKey(t.Context(), "alias/none")
	isKind(t, kms.ErrNotFound, err)
	records := sink.take()
	var ops []string
	for _, r := range records {
		ops = append(ops, string(r.Operation)+" "+r.ErrorCode)
	}
	require.Equal(t, []string{"CreateKey ", "Encrypt ", "GenerateDataKeyWithoutPlaintext ", "ReEncryptFrom ", "ReEncryptTo ",
		"ReEncryptFrom InvalidCiphertext", "ReEncryptFrom ", "ReEncryptTo NotFound", "ListKeys ", "ListAliases ", "DescribeKey NotFound"}, ops)
	require.Equal(t, ec, records[1].Context)
	require.Equal(t, "1", records[1].KeyVersion)
	from, to := records[3], records[4]
	require.Equal(t, []string{out.SourceKeyID, out.KeyID}, []string{from.KeyID, to.KeyID})
	require.Equal(t, []kms.Context{ec, {"c": "d"}}, []kms.Context{from.Context, to.Context})
	require.Equal(t, []string{"1", "1"}, []string{from.KeyVersion, to.KeyVersion})
	require.Equal(t, from.RequestID, to.RequestID)
	require.NotEqual(t, from.EventID, to.EventID)
	text, err := json.Marshal(records)
	require.NoError(t, err)
	require.NotContains(t, string(text), "the plaintext")

	// The service's own clients are audit.NewClient's to record.
	_, err = s.GenerateDataKey(t.Context(), id, nil)
	require.NoError(t, err)
	require.Empty(t, sink.take())
	_, err = s.GenerateDataKey(as(t, "first"), localkms.DefaultAlias, nil)
	require.NoError(t, err)
	records = sink.take()
	require.Len(t, records, 1)
	require.Equal(t, localkms.OpCreateKey, records[0].Operation)
	require.Equal(t, "first", records[0].Principal.ID)
	require.Equal(t, localkms.DefaultAlias, records[0].RequestedKeyID)
}

// TestADefaultKeyThatIsNotMadeLeavesNoRecordOfIt: who may not use it is refused by
// the operation, and whoever finds it made by someone else has made none.
func TestADefaultKeyThatIsNotMadeLeavesNoRecordOfIt(t *testing.T) {
	sink := new(trail)
	store := &meddled{Store: keyring.NewMemStore()}
	s := open(t, store, func(o *localkms.Options) {
		o.Audit, o.RefreshInterval = sink, time.Hour
		o.Policy = `permit (principal == Principal::"app", action in Action::"Use", resource);`
	})
	other := open(t, store.Store, nil)
	_, err := s.Encrypt(as(t, "guest"), localkms.DefaultAlias, []byte("x"), nil)
	isKind(t, kms.ErrDenied, err)
	_, err = s.GenerateDataKey(as(t, "guest"), localkms.DefaultAlias, nil)
	isKind(t, kms.ErrDenied, err)
	records := sink.take()
	require.Len(t, records, 1)
	require.Equal(t, localkms.OpEncrypt, records[0].Operation)
	require.Equal(t, "Denied", records[0].ErrorCode)

	var made *localkms.Info // before the load of the edit that would make it
	store.load = 1
	store.before = func() { made = other.describe(localkms.DefaultAlias) }
	dk, err := s.GenerateDataKey(as(t, "app"), localkms.DefaultAlias, nil)
	require.NoError(t, err)
	require.Equal(t, made.ARN, dk.KeyID)
	require.Empty(t, sink.take())
}

// TestRecordsHoldNamesWhole: every name that a key can have, and of what is none
// no more than that.
func TestRecordsHoldNamesWhole(t *testing.T) {
	sink := new(trail)
	s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
	c := s.client(strings.Repeat("a", 64), strings.Repeat("r", 64))
	info, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	alias := "alias/" + strings.Repeat("x", 250)
	require.NoError(t, c.CreateAlias(t.Context(), alias, info.ID))
	arn := strings.TrimSuffix(info.ARN, "key/"+info.ID) + alias
	for _, name := range []string{alias, arn, info.ARN, info.ID} {
		sink.take()
		_, err := c.DescribeKey(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, name, sink.take()[0].RequestedKeyID)
	}
	_, err = c.DescribeKey(t.Context(), arn[:len(arn)-1])
	isKind(t, kms.ErrNotFound, err)
	require.Equal(t, arn[:len(arn)-1], sink.take()[0].RequestedKeyID)
	isKind(t, kms.ErrInvalid, c.DeleteAlias(t.Context(), arn+"x"))
	require.Less(t, len(sink.take()[0].RequestedKeyID), len(arn)+4)
	_, err = c.Encrypt(t.Context(), alias, []byte("x"), kms.Context{"a": strings.Repeat("x", 1<<20)})
	isKind(t, kms.ErrInvalid, err)
	text, err := json.Marshal(sink.take())
	require.NoError(t, err)
	require.Less(t, len(text), 4096)
	require.Contains(t, string(text), "encryption context is 1048585 bytes")
}

func TestWhatIsDueLeavesARecord(t *testing.T) {
	sink := new(trail)
	s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
	id := s.key()
	rotating, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	deleted := s.describe(id)
	_, err = s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	sink.take()
	s.clock.add(90 * day)
	_, err = s.GenerateDataKey(as(t, "app"), rotating.ID, nil)
	require.NoError(t, err)
	records := sink.take()
	require.Len(t, records, 2)
	for i, want := range []audit.Record{
		{Operation: localkms.OpDeleteKey, KeyID: deleted.ARN}, {Operation: localkms.OpRotateKey, KeyID: rotating.ARN, KeyVersion: "2"},
	} {
		require.Equal(t, want.Operation, records[i].Operation)
		require.Equal(t, want.KeyID, records[i].KeyID)
		require.Equal(t, want.KeyVersion, records[i].KeyVersion)
		require.Equal(t, "localkms", records[i].Principal.ID)
	}
	_, err = s.RotateKey(as(t, "app"), rotating.ID) // not due, but a rotation as well
	require.NoError(t, err)
	records = sink.take()
	require.Len(t, records, 1)
	require.Equal(t, "3", records[0].KeyVersion)
}

// What is due is not done either if it cannot be recorded: a key goes on with the
// version that it has, and one that is to be deleted is refused all the same.
func TestWhatIsDueAndCannotBeRecordedIsNotDone(t *testing.T) {
	sink := new(trail)
	s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
	id := s.key()
	rotating, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	_, err = s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	before := s.Generation()
	s.clock.add(90 * day)
	sink.fail(errors.New("audit disk is full"))
	var report kms.Report
	_, err = s.GenerateDataKey(kms.WithReport(t.Context(), &report), rotating.ID, nil)
	require.NoError(t, err)
	require.Equal(t, "1", report.KeyVersion)
	_, err = s.GenerateDataKey(t.Context(), id, nil)
	isKind(t, kms.ErrNotFound, err)
	s.restart()
	require.Equal(t, before, s.Generation())

	sink.fail(nil)
	s.restart()
	require.Equal(t, before+2, s.Generation(), "a deletion and a rotation")
	_, err = s.GenerateDataKey(kms.WithReport(t.Context(), &report), rotating.ID, nil)
	require.NoError(t, err)
	require.Equal(t, "2", report.KeyVersion)
}

func TestAnOperationThatCannotBeRecordedFailsAndChangesNothing(t *testing.T) {
	full := errors.New("audit disk is full")
	for op := range administration(t, open(t, nil, nil), "") {
		sink := new(trail)
		s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
		id := s.key()
		require.NoError(t, s.CreateAlias(t.Context(), "alias/old", id))
		before := s.Generation()
		sink.fail(full)
		err := administration(t, s, id)[op]("anyone")
		require.ErrorIs(t, err, audit.ErrNotRecorded, op)
		require.ErrorIs(t, err, full)
		require.Equal(t, before, s.Generation(), op)
		_, err = s.CreateKey(t.Context(), nil)
		require.ErrorIs(t, err, audit.ErrNotRecorded)
		ciphertext, err := s.Encrypt(t.Context(), id, []byte("x"), nil)
		require.ErrorIs(t, err, audit.ErrNotRecorded)
		require.Nil(t, ciphertext)
		_, err = s.GenerateDataKey(t.Context(), localkms.DefaultAlias, nil)
		require.ErrorIs(t, err, audit.ErrNotRecorded)
		_, err = s.DescribeKey(t.Context(), "alias/none")
		require.ErrorIs(t, err, audit.ErrNotRecorded)
		require.ErrorIs(t, err, full)
		require.ErrorIs(t, err, kms.ErrNotFound, "why it failed is there as well")
		require.Equal(t, before, s.Generation(), op)
	}

}

func TestAChangeThatTheStoreRefusesAfterItsRecordIsRecordedAsFailed(t *testing.T) {
	sink := new(trail)
	store := &swapless{faultyStore: faultyStore{Store: open(t, nil, nil).store}}
	s := open(t, store, func(o *localkms.Options) { o.Audit = sink })
	id := s.key()
	sink.take()
	store.refuse.Store(true)
	isKind(t, kms.ErrUnavailable, s.DisableKey(t.Context(), id))
	records := sink.take()
	require.Len(t, records, 2)
	require.Equal(t, records[0].RequestID, records[1].RequestID)
	require.Equal(t, audit.OutcomeSuccess, records[0].Outcome)
	require.Equal(t, "Unavailable", records[1].ErrorCode)
}

func TestAnOperationThatItsCallerGaveUpIsRecordedToo(t *testing.T) {
	sink := new(trail)
	s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
	id := s.key()
	sink.take()
	ctx, cancel := context.WithCancel(as(t, "app"))
	cancel()
	require.ErrorIs(t, s.DisableKey(ctx, id), context.Canceled)
	_, err := s.Encrypt(ctx, id, []byte("x"), nil)
	require.ErrorIs(t, err, context.Canceled)
	records := sink.take()
	require.Len(t, records, 2)
	for _, r := range records {
		require.Equal(t, "Canceled", r.ErrorCode)
		require.Equal(t, "app", r.Principal.ID)
	}
	require.Equal(t, localkms.Enabled, s.describe(id).State)
}

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
			require.Equal(t, localkms.OpCreateKey, r.Operation)
			require.NotEqual(t, others, r.KeyID, "made by the other one")
			require.Equal(t, records[0].KeyID, r.KeyID)
			require.Equal(t, records[0].RequestID, r.RequestID)
		}
		require.Equal(t, audit.OutcomeSuccess, records[0].Outcome)
		require.Equal(t, audit.OutcomeFailure, records[1].Outcome, "it was not made after all")
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
		require.Equal(t, []string{"success", "failure", "success"}, []string{string(records[0].Outcome), string(records[1].Outcome), string(records[2].Outcome)})
		require.Equal(t, records[0].RequestID, records[1].RequestID)
		require.Equal(t, records[0].RequestID, records[2].RequestID)
	})

	t.Run("what is due", func(t *testing.T) {
		id := s.key()
		rotating, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
		require.NoError(t, err)
		sink.take()
		store.before = func() { // becomes due while the first try is under way
			s.clock.add(90 * day)
			require.NoError(t, other.Tag(t.Context(), id, map[string]string{"a": "b"}))
		}
		require.NoError(t, s.DisableKey(as(t, "app"), id))
		records := sink.take()
		require.Len(t, records, 2)
		require.Equal(t, localkms.OpDisableKey, records[0].Operation)
		require.Equal(t, localkms.OpRotateKey, records[1].Operation)
		require.Equal(t, rotating.ARN, records[1].KeyID)

		s.clock.add(90 * day) // due at the first try and at the second
		store.before = func() { require.NoError(t, other.Tag(t.Context(), id, map[string]string{"a": "c"})) }
		require.NoError(t, s.EnableKey(as(t, "app"), id))
		require.Equal(t, 3, s.describe(rotating.ID).Rotation.Versions)
		records = sink.take()
		require.Len(t, records, 3)
		require.Equal(t, localkms.OpEnableKey, records[0].Operation)
		require.Equal(t, localkms.OpRotateKey, records[1].Operation)
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
		case r.Outcome == audit.OutcomeSuccess:
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
	s.clock.add(7 * day)
	store.refuse.Store(true)
	sink.take()
	for range 3 {
		s.restart()
	}
	records := sink.take()
	require.Len(t, records, 6)
	for i, r := range records {
		require.Equal(t, localkms.OpDeleteKey, r.Operation)
		require.Equal(t, arn, r.KeyID)
		require.NotEmpty(t, r.RequestID)
		require.Equal(t, records[i/2*2].RequestID, r.RequestID)
	}
	require.Zero(t, done(records, localkms.OpDeleteKey))
	require.Equal(t, "Unavailable", records[1].ErrorCode)
	store.refuse.Store(false)
	s.restart()
	require.Equal(t, 1, done(sink.take(), localkms.OpDeleteKey))
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
		s.clock.add(90 * day)
	}
	sink.take()
	store.before = func() { winner.describe(other) }
	loser.describe(other)
	records := sink.take()
	require.Equal(t, 1, done(records, localkms.OpDeleteKey))
	require.Equal(t, 1, done(records, localkms.OpRotateKey))
}
