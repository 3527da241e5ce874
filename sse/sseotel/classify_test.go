package sseotel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// refusing is a Decrypter that fails.
type refusing struct{ err error }

func (r refusing) Decrypt(context.Context, sse.Object, *sse.Envelope) (*sse.Decryption, error) {
	return nil, r.err
}

// TestCodes: every error has an outcome and a code, and METRICS.md lists the code under
// the outcome. The most telling error counts, not its reason.
func TestCodes(t *testing.T) {
	text, err := os.ReadFile("METRICS.md")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(text), "Values of `error.type`:")
	require.True(t, ok)
	documented := make(map[string]string)
	for _, item := range strings.Split(strings.Split(list, "\n## ")[0], "\n- ")[1:] {
		outcome, codes, _ := strings.Cut(item, ":")
		documented[outcome] = codes
	}
	wrap := func(errs ...any) error {
		return fmt.Errorf("sse: "+strings.Repeat("%w: ", len(errs)), errs...)
	}
	for _, test := range []struct {
		err           error
		outcome, code string
	}{
		{sse.ErrKey, "refused", "WrongKey"},
		{wrap(sse.ErrKey, kms.ErrCiphertext), "refused", "InvalidCiphertext"},
		{wrap(sse.ErrKey, keyring.ErrUnknownKey), "refused", "NotFound"},
		{wrap(keyring.ErrUnknownKey, keyring.ErrStore), "failed", "StoreUnavailable"},
		{wrap(keyring.ErrTooOld, keyring.ErrStore), "failed", "TooOld"},
		{wrap(keyring.ErrRollback, keyring.ErrStore), "failed", "Rollback"},
		{wrap(audit.ErrNotRecorded, kms.ErrDenied), "failed", "NotRecorded"},
		{wrap(keyring.ErrRootUnavailable, kms.ErrDenied), "failed", "RootUnavailable"},
		{wrap(kms.ErrUnavailable, keyring.ErrStore), "failed", "Unavailable"},
		{keyring.ErrRoot, "failed", "WrongRoot"},
		{keyring.ErrOtherRing, "failed", "OtherRing"},
		{keyring.ErrDisabled, "refused", "Disabled"},
		{keyring.ErrDestroyed, "refused", "Destroyed"},
		{kms.ErrDisabled, "refused", "Disabled"},
		{kms.ErrDenied, "refused", "Denied"},
		{kms.ErrNotFound, "refused", "NotFound"},
		{kms.ErrPendingDeletion, "refused", "PendingDeletion"},
		{kms.ErrInvalid, "refused", "Invalid"},
		{kms.ErrUnavailable, "failed", "Unavailable"},
		{sse.ErrMode, "refused", "WrongMode"},
		{sse.ErrComposite, "refused", "UnknownVersion"},
		{sse.ErrFormat, "refused", "NotEncrypted"},
		{sse.ErrTruncated, "refused", "Truncated"},
		{sse.ErrCorrupt, "refused", "Corrupt"},
		{sse.ErrTooLarge, "refused", "TooLarge"},
		{sse.ErrInvalid, "refused", "Invalid"},
		{context.DeadlineExceeded, "canceled", "Canceled"},
		{errors.New("anything else"), "failed", "Internal"},
	} {
		b := newBed(t)
		_, err := b.Decrypter(refusing{test.err}).Decrypt(t.Context(), cat, nil)
		require.ErrorIs(t, err, test.err)
		require.Equal(t, "1", b.value("blobseal_key_operation_duration_seconds_count",
			fmt.Sprintf("outcome=%q", test.outcome), fmt.Sprintf("error_type=%q", test.code)), "%v", test.err)
		require.Contains(t, documented[test.outcome], "`"+test.code+"`")
	}
}
