package localkms_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// The tests of this file are the facts of AWS KMS that this service promises,
// one by one.

// uses are the ways to use a key; ciphertext is under it, with an empty context.
func uses(s *service, id string, ciphertext []byte) map[kms.Operation]func() error {
	ctx := s.t.Context()
	return map[kms.Operation]func() error{
		kms.OpGenerateDataKey: func() error { _, err := s.GenerateDataKey(ctx, id, nil); return err },
		localkms.OpGenerateDataKeyWithoutPlaintext: func() error {
			_, err := s.GenerateDataKeyWithoutPlaintext(ctx, id, nil)
			return err
		},
		localkms.OpEncrypt: func() error { _, err := s.Encrypt(ctx, id, []byte("x"), nil); return err },
		kms.OpDecrypt:      func() error { _, err := s.Decrypt(ctx, id, ciphertext, nil); return err },
		"ReEncrypt": func() error {
			_, err := s.ReEncrypt(ctx, &localkms.ReEncryptInput{Ciphertext: ciphertext, SourceKeyID: id, KeyID: id})
			return err
		},
		"Authorize": func() error { return s.Authorize(ctx, kms.OpDecrypt, id, nil) },
	}
}

func TestADisabledKeyRefusesEveryUse(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	ciphertext := s.encrypt(id, "x", nil)
	require.NoError(t, s.DisableKey(t.Context(), id))
	require.Equal(t, localkms.Disabled, s.describe(id).State)
	for range 2 {
		for op, use := range uses(s, id, ciphertext) {
			isKind(t, kms.ErrDisabled, use())
			_ = op
		}
		s.restart()
	}
	require.NoError(t, s.EnableKey(t.Context(), id))
	for op, use := range uses(s, id, ciphertext) {
		require.NoError(t, use(), op)
	}
}

func TestAPendingDeletionKeyRefusesEveryUse(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	ciphertext := s.encrypt(id, "x", nil)
	_, err := s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	for range 2 {
		for _, use := range uses(s, id, ciphertext) {
			isKind(t, kms.ErrPendingDeletion, use())
		}
		isKind(t, kms.ErrPendingDeletion, s.EnableKey(t.Context(), id))
		isKind(t, kms.ErrPendingDeletion, s.DisableKey(t.Context(), id))
		s.restart()
	}
}

func TestAPendingDeletionKeyIsNotChanged(t *testing.T) {
	// What can be done with a key that waits: to look at it, and to take names,
	// grants and the deletion itself away.
	outcomes := map[kms.Operation]error{
		localkms.OpDescribeKey: nil, kms.Operation("GetKeyPolicy"): nil, kms.Operation("ListGrants"): nil, kms.Operation("ListKeyRotations"): nil,
		kms.Operation("CancelKeyDeletion"): nil, kms.Operation("DeleteAlias"): nil,
		localkms.OpRevokeGrant: kms.ErrNotFound, // of a grant that is not there
	}
	for op := range administration(t, open(t, nil, nil), "") {
		s := open(t, nil, nil)
		id, other := s.key(), s.key()
		require.NoError(t, s.CreateAlias(t.Context(), "alias/old", other))
		if op == kms.Operation("DeleteAlias") {
			require.NoError(t, s.UpdateAlias(t.Context(), "alias/old", id))
		}
		deletion, err := s.ScheduleKeyDeletion(t.Context(), id, 7)
		require.NoError(t, err)
		s.clock.Advance(day)
		want, listed := outcomes[op]
		if !listed {
			want = kms.ErrPendingDeletion
		}
		err = administration(t, s, id)[op]("anyone")
		if want == nil {
			require.NoError(t, err, op)
		} else {
			isKind(t, want, err)
		}
		if op != kms.Operation("CancelKeyDeletion") {
			require.Equal(t, deletion, s.describe(id).Deletion, op)
		}
	}
}

func TestScheduleKeyDeletionWindowIs7To30Days(t *testing.T) {
	for days, want := range map[int]int{0: 30, 7: 7, 30: 30, 8: 8} {
		s := open(t, nil, nil)
		id := s.key()
		deletion, err := s.ScheduleKeyDeletion(t.Context(), id, days)
		require.NoError(t, err)
		require.Equal(t, s.clock.Now().AddDate(0, 0, want), deletion)
		require.Equal(t, deletion, s.describe(id).Deletion)
	}
	s := open(t, nil, nil)
	id := s.key()
	for _, days := range []int{-1, 1, 6, 31, 1 << 30} {
		_, err := s.ScheduleKeyDeletion(t.Context(), id, days)
		isKind(t, kms.ErrInvalid, err)
	}
	require.Equal(t, localkms.Enabled, s.describe(id).State)
}

func TestCancelKeyDeletionLeavesTheKeyDisabled(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	ciphertext := s.encrypt(id, "x", nil)
	isKind(t, kms.ErrInvalid, s.CancelKeyDeletion(t.Context(), id))
	_, err := s.ScheduleKeyDeletion(t.Context(), id, 0)
	require.NoError(t, err)
	s.clock.Advance(30*day - 1)
	s.restart()
	require.NoError(t, s.CancelKeyDeletion(t.Context(), id))
	info := s.describe(id)
	require.Equal(t, localkms.Disabled, info.State)
	require.Zero(t, info.Deletion)
	s.clock.Advance(30 * day)
	s.restart()
	require.NoError(t, s.EnableKey(t.Context(), id))
	s.decrypts(ciphertext, "x", nil)
}

func TestDeletingRemovesAliases(t *testing.T) {
	s := open(t, nil, nil)
	id, other := s.key(), s.key()
	require.NoError(t, s.CreateAlias(t.Context(), "alias/a", id))
	require.NoError(t, s.CreateAlias(t.Context(), "alias/b", id))
	require.NoError(t, s.CreateAlias(t.Context(), "alias/c", other))
	_, err := s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	require.Equal(t, id, s.describe("alias/a").ID)
	s.clock.Advance(7 * day)
	_, err = s.DescribeKey(t.Context(), "alias/a")
	isKind(t, kms.ErrNotFound, err)
	aliases, err := collect(s.ListAliases(t.Context(), ""))
	require.NoError(t, err)
	require.Len(t, aliases, 1)
	require.NoError(t, s.CreateAlias(t.Context(), "alias/a", other))
	s.restart()
	require.Equal(t, other, s.describe("alias/a").ID)
}

func TestAliasesOfDeletedKeysAreNotListedThoughTheStoreRefuses(t *testing.T) {
	store := &swapless{faultyStore: faultyStore{Store: keyring.NewMemStore()}}
	s := open(t, store, nil)
	id := s.key()
	require.NoError(t, s.CreateAlias(t.Context(), "alias/a", id))
	_, err := s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	store.refuse.Store(true)
	for _, want := range []int{1, 0} {
		aliases, err := collect(s.ListAliases(t.Context(), ""))
		require.NoError(t, err)
		require.Len(t, aliases, want)
		keys, err := collect(s.ListKeys(t.Context()))
		require.NoError(t, err)
		require.Len(t, keys, want)
		s.clock.Advance(7 * day)
	}
}

func TestAfterTheWindowTheKeyIsGone(t *testing.T) {
	s := open(t, nil, nil)
	id, other := s.key(), s.key()
	ciphertext := s.encrypt(id, "x", nil)
	_, err := s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	s.clock.Advance(7*day - 1)
	require.Equal(t, localkms.PendingDeletion, s.describe(id).State)
	s.clock.Advance(1)
	isKind(t, kms.ErrNotFound, s.CancelKeyDeletion(t.Context(), id))
	isKind(t, kms.ErrNotFound, s.EnableKey(t.Context(), id))
	for _, use := range uses(s, id, ciphertext) {
		isKind(t, kms.ErrNotFound, use())
	}
	keys, err := collect(s.ListKeys(t.Context()))
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, other, keys[0].ID)
}

func TestEncryptTakes1To4096Bytes(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	for _, n := range []int{1, 2, 4095, 4096} {
		s.decrypts(s.encrypt(id, strings.Repeat("x", n), nil), strings.Repeat("x", n), nil)
	}
	for _, n := range []int{0, 4097, 1 << 20} {
		_, err := s.Encrypt(t.Context(), id, make([]byte, n), nil)
		isKind(t, kms.ErrInvalid, err)
	}
}

func TestRotationIsEvery365DaysByDefaultAnd90To2560Settable(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	require.Zero(t, s.describe(id).Rotation.Days)
	require.NoError(t, s.EnableKeyRotation(t.Context(), id, 0))
	require.Equal(t, 365, s.describe(id).Rotation.Days)
	for _, days := range []int{90, 2560} {
		require.NoError(t, s.EnableKeyRotation(t.Context(), id, days))
		require.Equal(t, s.clock.Now().AddDate(0, 0, days), s.describe(id).Rotation.Next)
	}
	next := s.describe(id).Rotation.Next
	s.clock.Advance(day)
	require.NoError(t, s.EnableKeyRotation(t.Context(), id, 2560))
	require.Equal(t, next, s.describe(id).Rotation.Next, "the same period moves nothing")
	for _, days := range []int{-1, 1, 89, 2561} {
		isKind(t, kms.ErrInvalid, s.EnableKeyRotation(t.Context(), id, days))
		_, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: days})
		isKind(t, kms.ErrInvalid, err)
	}
	require.NoError(t, s.DisableKeyRotation(t.Context(), id))
	s.clock.Advance(10000 * day)
	require.Equal(t, 1, s.describe(id).Rotation.Versions)
}

func TestOnDemandRotationDoesNotMoveTheSchedule(t *testing.T) {
	s := open(t, nil, nil)
	info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	s.clock.Advance(50 * day)
	v, err := s.RotateKey(t.Context(), info.ID)
	require.NoError(t, err)
	require.Equal(t, localkms.Version{Number: 2, Created: s.clock.Now(), Origin: localkms.OnDemandRotation}, v)
	require.Equal(t, info.Rotation.Next, s.describe(info.ID).Rotation.Next)
	s.clock.Advance(40 * day)
	rotation := s.describe(info.ID).Rotation
	require.Equal(t, 3, rotation.Versions)
	require.Equal(t, info.Rotation.Next.Add(90*day), rotation.Next)
	// Long after, one version is made, and the next date stays in step.
	s.clock.Advance(1000 * day)
	s.restart()
	rotation = s.describe(info.ID).Rotation
	require.Equal(t, 4, rotation.Versions)
	require.Equal(t, info.Rotation.Next.Add(12*90*day), rotation.Next)
	versions, err := s.ListKeyRotations(t.Context(), info.ID)
	require.NoError(t, err)
	require.Equal(t, "[created on demand scheduled scheduled]", fmt.Sprint([]localkms.Origin{
		versions[0].Origin, versions[1].Origin, versions[2].Origin, versions[3].Origin}))
}

func TestOldMaterialKeepsDecryptingAndTheKeyIDStays(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	var ciphertexts [][]byte
	var versions []string
	for i := range 5 {
		var report kms.Report
		dk, err := s.GenerateDataKey(kms.WithReport(t.Context(), &report), id, nil)
		require.NoError(t, err)
		require.Equal(t, s.describe(id).ARN, dk.KeyID)
		require.Equal(t, dk.KeyID, report.KeyID)
		versions = append(versions, report.KeyVersion)
		ciphertexts = append(ciphertexts, s.encrypt(id, fmt.Sprint(i), nil))
		if i == 2 {
			require.NoError(t, s.EnableKeyRotation(t.Context(), id, 90))
			s.clock.Advance(90 * day) // rotates when next used
		} else {
			_, err = s.RotateKey(t.Context(), id)
			require.NoError(t, err)
		}
	}
	require.Equal(t, []string{"1", "2", "3", "4", "5"}, versions)
	for range 2 {
		for i, c := range ciphertexts {
			var report kms.Report
			plaintext, err := s.Decrypt(kms.WithReport(t.Context(), &report), id, c, nil)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(plaintext))
			require.Equal(t, versions[i], report.KeyVersion)
			require.NotEmpty(t, report.RequestID)
		}
		s.restart()
	}
}

func TestAliasesBeginWithAliasSlash(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	for _, name := range []string{"", "a", "alias", "alias/", "Alias/a", "alias/a b", "alias/a:b", "alias/ä",
		"alias/" + strings.Repeat("x", 251), id, s.describe(id).ARN} {
		isKind(t, kms.ErrInvalid, s.CreateAlias(t.Context(), name, id))
	}
	for _, name := range []string{"alias/a", "alias/a/b_c-d.E9", "alias/" + strings.Repeat("x", 250)} {
		require.NoError(t, s.CreateAlias(t.Context(), name, id))
		require.Equal(t, id, s.describe(name).ID)
	}
}

func TestTheAliasPrefixOfTheServiceIsReserved(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	for _, name := range []string{"alias/blobseal/x", localkms.DefaultAlias} {
		for range 2 {
			for _, err := range []error{
				s.CreateAlias(t.Context(), name, id), s.UpdateAlias(t.Context(), name, id), s.DeleteAlias(t.Context(), name),
			} {
				isKind(t, kms.ErrInvalid, err)
				require.ErrorIs(t, err, localkms.ErrReserved)
			}
			s.describe(localkms.DefaultAlias) // once more, with the default key there
		}
	}
}

func TestTheDefaultKeyIsMadeOnFirstUsePerAccountAndRegion(t *testing.T) {
	s := open(t, nil, nil)
	seen := map[string]bool{}
	for _, account := range []string{"111122223333", "444455556666"} {
		for _, region := range []string{"eu-1", "us-1"} {
			c := s.client(account, region)
			_, err := c.Decrypt(t.Context(), localkms.DefaultAlias, s.encrypt(s.key(), "x", nil), nil)
			isKind(t, kms.ErrNotFound, err) // what was never used decrypts nothing
			dk, err := c.GenerateDataKey(t.Context(), localkms.DefaultAlias, nil)
			require.NoError(t, err)
			require.False(t, seen[dk.KeyID])
			seen[dk.KeyID] = true
			again, err := c.GenerateDataKey(t.Context(), localkms.DefaultAlias, nil)
			require.NoError(t, err)
			require.Equal(t, dk.KeyID, again.KeyID)
			info, err := c.DescribeKey(t.Context(), localkms.DefaultAlias)
			require.NoError(t, err)
			require.Equal(t, "arn:blobseal:kms:"+region+":"+account+":key/"+info.ID, info.ARN)
			require.Equal(t, dk.KeyID, info.ARN)
			require.True(t, info.Default)
			require.Equal(t, 365, info.Rotation.Days)
			_, err = c.ScheduleKeyDeletion(t.Context(), localkms.DefaultAlias, 0)
			require.ErrorIs(t, err, localkms.ErrReserved)
		}
	}
	// No one else's.
	_, err := s.GenerateDataKey(t.Context(), "arn:blobseal:kms:eu-1:999:alias/blobseal/default", nil)
	isKind(t, kms.ErrDenied, err)
}

func TestTheEncryptionContextMatchesExactlyWithCaseAndWithoutOrder(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	ec := kms.Context{"a": "1", "B": "2", "": ""}
	ciphertext := s.encrypt(id, "x", ec)
	for range 20 { // maps have no order
		s.decrypts(ciphertext, "x", kms.Context{"": "", "B": "2", "a": "1"})
	}
	for name, other := range map[string]kms.Context{
		"none": nil, "empty": {}, "fewer": {"a": "1", "B": "2"}, "more": {"a": "1", "B": "2", "": "", "c": ""},
		"name's case": {"a": "1", "b": "2", "": ""}, "value": {"a": "1", "B": "3", "": ""},
		"shifted": {"a1": "", "B": "2", "": ""}, "swapped": {"a": "2", "B": "1", "": ""},
	} {
		_, err := s.Decrypt(t.Context(), id, ciphertext, other)
		isKind(t, kms.ErrCiphertext, err)
		_ = name
	}
	s.decrypts(s.encrypt(id, "x", nil), "x", kms.Context{})
	s.decrypts(s.encrypt(id, "x", kms.Context{}), "x", nil)
	upper := s.encrypt(id, "x", kms.Context{"k": "Value"})
	_, err := s.Decrypt(t.Context(), id, upper, kms.Context{"k": "value"})
	isKind(t, kms.ErrCiphertext, err)
}

func TestS3NeedsGenerateDataKeyToWriteAndDecryptToRead(t *testing.T) {
	s := open(t, nil, nil)
	info, err := s.CreateKey(as(t, "admin"), &localkms.CreateKeyInput{Policy: `
		permit (principal == Principal::"writer", action == Action::"GenerateDataKey", resource);
		permit (principal == Principal::"reader", action == Action::"Decrypt", resource);
		permit (principal == Principal::"admin", action in Action::"Administer", resource);`})
	require.NoError(t, err)
	for range 2 {
		dk, err := s.GenerateDataKey(as(t, "writer"), info.ID, nil)
		require.NoError(t, err)
		_, err = s.Decrypt(as(t, "writer"), info.ID, dk.Ciphertext, nil)
		isKind(t, kms.ErrDenied, err)
		plaintext, err := s.Decrypt(as(t, "reader"), info.ID, dk.Ciphertext, nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, dk.Plaintext()))
		_, err = s.GenerateDataKey(as(t, "reader"), info.ID, nil)
		isKind(t, kms.ErrDenied, err)
		for _, who := range []string{"admin", "", "Writer", "writer "} {
			_, err = s.GenerateDataKey(as(t, who), info.ID, nil)
			isKind(t, kms.ErrDenied, err)
			_, err = s.Decrypt(as(t, who), info.ID, dk.Ciphertext, nil)
			isKind(t, kms.ErrDenied, err)
		}
		s.restart()
	}
}

// TestAnAliasOfAKeyPastItsDeadlineIsFree: even if the key could not be deleted.
func TestAnAliasOfAKeyPastItsDeadlineIsFree(t *testing.T) {
	s := open(t, nil, nil)
	old, next := s.key(), s.key()
	require.NoError(t, s.CreateAlias(t.Context(), "alias/x", old))
	_, err := s.ScheduleKeyDeletion(t.Context(), old, 7)
	require.NoError(t, err)
	s.clock.Advance(7 * day)
	isKind(t, kms.ErrNotFound, s.UpdateAlias(t.Context(), "alias/x", next))
	require.NoError(t, s.CreateAlias(t.Context(), "alias/x", next))
	require.Equal(t, next, s.describe("alias/x").ID)
	s.restart()
	require.Equal(t, next, s.describe("alias/x").ID)
}

// TestAClockThatIsBehindDeletesNoKeyEarly: a process a year behind schedules a
// deletion, and the key waits for its days by everyone's clock.
func TestAClockThatIsBehindDeletesNoKeyEarly(t *testing.T) {
	s := open(t, nil, nil)
	behind := open(t, s.store, nil)
	behind.clock.Advance(-365 * day)
	id := s.key()
	deletion, err := behind.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	require.Equal(t, s.clock.Now().Add(7*day), deletion)
	require.NoError(t, s.Refresh(t.Context()))
	require.Equal(t, localkms.PendingDeletion, s.describe(id).State)
	require.NoError(t, s.CancelKeyDeletion(t.Context(), id))
}
