package audit_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// refusal returns the record of a use of key that was refused.
func refusal(principal, key string, kind error) audit.Record {
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: principal})
	ctx = kms.WithReport(ctx, &kms.Report{KeyID: key, RequestID: "request"})
	return audit.NewRecord(ctx, kms.OpDecrypt, "alias/"+key, nil, kind)
}

func records(t testing.TB, path string) (all []audit.Record) {
	t.Helper()
	for e, err := range audit.Read(path, nil) {
		require.NoError(t, err)
		if e.Record != nil {
			all = append(all, *e.Record)
		}
	}
	return all
}

// TestRepeatedRefusalsAreFolded: nobody fills the disk by being refused. The
// first refusal is on the disk at once, and the others are counted.
func TestRepeatedRefusalsAreFolded(t *testing.T) {
	path := auditPath(t)
	var seen []audit.Record
	synctest.Test(t, func(t *testing.T) {
		s := openSink(t, path, nil)
		put := func(r audit.Record) { require.NoError(t, s.Write(t.Context(), r)) }
		began := time.Now()
		for i := range 1000 {
			put(refusal("intruder", "a", kms.ErrDenied))
			if i == 0 {
				require.Len(t, records(t, path), 1)
			}
			time.Sleep(10 * time.Millisecond)
		}
		put(refusal("intruder", "a", kms.ErrDisabled))
		put(refusal("intruder", "b", kms.ErrDenied))
		put(refusal("other", "a", kms.ErrDenied))
		put(record("user"))
		require.Len(t, records(t, path), 5)
		retracted := refusal("intruder", "a", kms.ErrDenied)
		retracted.Retracts = true
		put(retracted)
		put(retracted)
		require.Len(t, records(t, path), 7, "every change that did not happen has its record")

		time.Sleep(time.Minute)
		put(record("user"))
		seen = records(t, path)
		require.Len(t, seen, 9)
		folded := seen[7]
		require.Equal(t, 999, folded.Count)
		require.Equal(t, "intruder", folded.Principal.ID)
		require.Equal(t, "a", folded.KeyID)
		require.Equal(t, "Denied", folded.ErrorCode)
		require.NotEqual(t, seen[0].EventID, folded.EventID)
		require.WithinDuration(t, began.Add(10*time.Millisecond), folded.FirstTime, 0)
		require.WithinDuration(t, began.Add(9990*time.Millisecond), folded.Time, 0)

		put(refusal("intruder", "a", kms.ErrDenied))
		require.Len(t, records(t, path), 10, "the first of the next minute is recorded at once")
		put(refusal("intruder", "a", kms.ErrDenied))
		put(refusal("intruder", "a", kms.ErrDenied))
		require.NoError(t, s.Close())
		seen = records(t, path)
		require.Len(t, seen, 11, "Close writes what was folded")
		require.Equal(t, 2, seen[10].Count)
		require.ErrorIs(t, s.Write(t.Context(), refusal("intruder", "a", kms.ErrDenied)), audit.ErrClosed)
	})
	mustVerify(t, path)
}

// TestFoldingIsBounded: an attacker who changes names with each refusal gets no
// more records, and no more memory.
func TestFoldingIsBounded(t *testing.T) {
	path := auditPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openSink(t, path, nil)
		for i := range 5000 {
			require.NoError(t, s.Write(t.Context(), refusal(fmt.Sprint("name ", i), fmt.Sprint("key ", i), kms.ErrDenied)))
		}
		require.NoError(t, s.Close())
	})
	seen := records(t, path)
	require.Less(t, len(seen), 150)
	total := 0
	for _, r := range seen {
		total += max(1, r.Count)
	}
	require.Equal(t, 5000, total)
	last := seen[len(seen)-1]
	require.Empty(t, last.Principal.ID)
	require.Empty(t, last.KeyID)
	require.Equal(t, "Denied", last.ErrorCode)
}

func TestFoldingCanBeTurnedOff(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{FoldWindow: -1})
	for range 3 {
		require.NoError(t, s.Write(t.Context(), refusal("intruder", "a", kms.ErrDenied)))
	}
	require.Len(t, records(t, path), 3)
}

// TestFoldedRefusalsSurviveAFullDisk: a write that fails loses no count, and the
// refusal that could not be recorded is not counted as recorded.
func TestFoldedRefusalsSurviveAFullDisk(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	f := faulty(s)
	put := func() error { return s.Write(t.Context(), refusal("intruder", "a", kms.ErrDenied)) }
	f.room = 0
	require.Error(t, put())
	f.room = -1
	require.NoError(t, put())
	require.Len(t, records(t, path), 1, "the first that can be recorded is")
	require.NoError(t, put())
	require.NoError(t, s.Close())
	seen := records(t, path)
	require.Len(t, seen, 2)
	require.Equal(t, 1, seen[1].Count)
}
