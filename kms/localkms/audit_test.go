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

// TestEveryOperationThatIsNotAClientsLeavesOneRecord is long because it is one
// history of one trail.
func TestEveryOperationThatIsNotAClientsLeavesOneRecord(t *testing.T) {
	sink := new(trail)
	s := open(t, nil, func(o *localkms.Options) { o.Audit = sink })
	other := s.key()
	require.NoError(t, s.CreateAlias(t.Context(), "alias/old", other))
	for op := range administration(t, s, "") {
		info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{Policy: permitAll + `forbid (principal == Principal::"bad", action, resource);`})
		require.NoError(t, err)
		if op == kms.Operation("DeleteAlias") {
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
			require.Equal(t, s.clock.Now(), r.Time)
			require.NotEmpty(t, r.RequestID)
			require.NotEmpty(t, r.EventID)
			require.Equal(t, audit.ErrorCode(err), r.ErrorCode)
			require.Equal(t, err == nil, r.Outcome == "success")
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
	require.Equal(t, kms.Operation("CreateKey"), records[0].Operation)
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
	s.clock.Advance(90 * day)
	_, err = s.GenerateDataKey(as(t, "app"), rotating.ID, nil)
	require.NoError(t, err)
	records := sink.take()
	require.Len(t, records, 2)
	for i, want := range []audit.Record{
		{Operation: kms.Operation("DeleteKey"), KeyID: deleted.ARN}, {Operation: kms.Operation("RotateKey"), KeyID: rotating.ARN, KeyVersion: "2"},
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
	before := s.Stats().Generation
	s.clock.Advance(90 * day)
	sink.fail(errors.New("audit disk is full"))
	var report kms.Report
	_, err = s.GenerateDataKey(kms.WithReport(t.Context(), &report), rotating.ID, nil)
	require.NoError(t, err)
	require.Equal(t, "1", report.KeyVersion)
	_, err = s.GenerateDataKey(t.Context(), id, nil)
	isKind(t, kms.ErrNotFound, err)
	s.restart()
	require.Equal(t, before, s.Stats().Generation)

	sink.fail(nil)
	s.restart()
	require.Equal(t, before+2, s.Stats().Generation, "a deletion and a rotation")
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
		before := s.Stats().Generation
		sink.fail(full)
		err := administration(t, s, id)[op]("anyone")
		require.ErrorIs(t, err, audit.ErrNotRecorded, op)
		require.ErrorIs(t, err, full)
		require.Equal(t, before, s.Stats().Generation, op)
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
		require.Equal(t, before, s.Stats().Generation, op)
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
	require.Equal(t, "success", records[0].Outcome)
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
