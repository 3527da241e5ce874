package audit_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
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
	fakeclock.Test(t, func(t *testing.T) {
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
		require.ErrorIs(t, s.Write(t.Context(), refusal("intruder", "a", kms.ErrDenied)), os.ErrClosed)
	})
	mustVerify(t, path)
}

// TestFoldedRefusalsNeedNoNextRecord: the count is on the disk when its window ends, so
// that a process that is killed later does not lose it.
func TestFoldedRefusalsNeedNoNextRecord(t *testing.T) {
	path := auditPath(t)
	fakeclock.Test(t, func(t *testing.T) {
		s := openSink(t, path, nil)
		put := func(principal string) {
			require.NoError(t, s.Write(t.Context(), refusal(principal, "a", kms.ErrDenied)))
		}
		put("first")
		time.Sleep(20 * time.Second)
		put("second")
		put("second")
		put("first")
		put("first")
		at := func(wait time.Duration, count int) {
			time.Sleep(wait)
			synctest.Wait()
			require.Len(t, records(t, path), count)
		}
		at(40*time.Second-1, 2)
		at(1, 3)
		at(20*time.Second-1, 3)
		at(1, 4)
		require.NoError(t, s.Abandon())
		seen := records(t, path)
		require.Equal(t, []string{"first", "second"}, []string{seen[2].Principal.ID, seen[3].Principal.ID})
		require.Equal(t, []int{2, 1}, []int{seen[2].Count, seen[3].Count})
	})
	mustVerify(t, path)
}

// TestFoldedRefusalsAreRetried: a full disk at the end of the window costs another
// window, and no count.
func TestFoldedRefusalsAreRetried(t *testing.T) {
	path := auditPath(t)
	fakeclock.Test(t, func(t *testing.T) {
		s := openSink(t, path, nil)
		f := faulty(s)
		setRoom := func(n int) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.room = n
		}
		for range 4 {
			require.NoError(t, s.Write(t.Context(), refusal("intruder", "a", kms.ErrDenied)))
		}
		setRoom(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, records(t, path), 1)
		setRoom(-1)
		time.Sleep(time.Minute)
		synctest.Wait()
		seen := records(t, path)
		require.Len(t, seen, 2)
		require.Equal(t, 3, seen[1].Count)
	})
}

// TestCloseAtTheEndOfAWindow: whoever comes first writes the count, and nothing runs
// after Close. The bubble fails if a goroutine stays.
func TestCloseAtTheEndOfAWindow(t *testing.T) {
	for _, before := range []time.Duration{0, 1, time.Second} {
		for i := range 20 {
			path := auditPath(t)
			fakeclock.Test(t, func(t *testing.T) {
				s := openSink(t, path, nil)
				for range 4 {
					require.NoError(t, s.Write(t.Context(), refusal("intruder", "a", kms.ErrDenied)))
				}
				time.Sleep(time.Minute - before)
				if i%2 == 0 {
					_ = s.Write(t.Context(), record("user"))
				}
				require.NoError(t, s.Close())
				closed := readFile(t, path)
				time.Sleep(time.Hour)
				require.Equal(t, closed, readFile(t, path))
			})
			total := 0
			for _, r := range records(t, path) {
				if r.Outcome == "failure" {
					total += max(1, r.Count)
				}
			}
			require.Equal(t, 4, total)
		}
	}
}

// TestFoldingIsBounded: an attacker who changes names with each refusal gets no
// more records, and no more memory.
func TestFoldingIsBounded(t *testing.T) {
	path := auditPath(t)
	fakeclock.Test(t, func(t *testing.T) {
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
