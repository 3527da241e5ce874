package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// replaceInFile edits a file as a person with an editor does.
func replaceInFile(name, old, with string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, bytes.ReplaceAll(b, []byte(old), []byte(with)), 0o600)
}

func openSink(t testing.TB, path string, opts *audit.FileSinkOptions) *audit.FileSink {
	t.Helper()
	s, err := audit.OpenFileSink(path, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func auditPath(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.jsonl") }

// record returns a record of a principal called name.
func record(name string) audit.Record {
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: name})
	return audit.NewRecord(ctx, kms.OpDecrypt, "key", kms.Context{"blobseal:object": "photos/" + name}, nil)
}

func write(t testing.TB, s *audit.FileSink, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, s.Write(t.Context(), record(name)))
	}
}

// names returns the principal of each record in the trail at path.
func names(t testing.TB, path string) []string {
	t.Helper()
	var out []string
	for e, err := range audit.Read(path, nil) {
		require.NoError(t, err)
		if e.Record != nil {
			out = append(out, e.Record.Principal.ID)
		}
	}
	return out
}

func mustVerify(t testing.TB, path string) audit.VerifyResult {
	t.Helper()
	v, err := audit.Verify(path, nil)
	require.NoError(t, err)
	return v
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func TestFileSink(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	require.EqualValues(t, 0, s.Last().Seq)
	client := audit.NewClient(kmstest.NewFake("key"), s)
	k, err := client.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	_, err = client.Decrypt(as(t, bob), "key", k.Ciphertext, kms.Context{"wrong": "<&>\n\"\u2028"})
	require.ErrorIs(t, err, kms.ErrCiphertext)
	last := s.Last()
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Write(t.Context(), record("late")), os.ErrClosed)

	var got []audit.Record
	for e, err := range audit.Read(path, nil) {
		require.NoError(t, err)
		require.Equal(t, path, e.File)
		require.EqualValues(t, e.Line, e.Seq)
		require.Nil(t, e.Note)
		got = append(got, *e.Record)
	}
	require.Len(t, got, 2)
	require.Equal(t, alice, got[0].Principal)
	require.Equal(t, photo, got[0].Context)
	require.Equal(t, kms.Context{"wrong": "<&>\n\"\u2028"}, got[1].Context)
	require.Equal(t, "InvalidCiphertext", got[1].ErrorCode)
	v := mustVerify(t, path)
	require.Equal(t, audit.VerifyResult{Last: last, Records: 2}, v)

	// Each line is JSON, and its hash is the documented one.
	prev := strings.Repeat("0", 64)
	for i, line := range strings.Split(strings.TrimSpace(string(readFile(t, path))), "\n") {
		var l struct {
			Seq        int
			Prev, Hash string
			Record     map[string]any
		}
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		sum := sha256.Sum256([]byte("blobseal audit v1\x00" + line[:strings.LastIndex(line, `,"hash"`)]))
		require.Equal(t, hex.EncodeToString(sum[:]), l.Hash)
		require.Equal(t, prev, l.Prev)
		require.Equal(t, i+1, l.Seq)
		require.Contains(t, l.Record, "eventTime")
		prev = l.Hash
		for _, secret := range []string{string(k.Plaintext()), hex.EncodeToString(k.Plaintext()), hex.EncodeToString(k.Ciphertext)} {
			require.NotContains(t, line, secret)
		}
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
}

func TestFileSinkRefuses(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	_, err := audit.OpenFileSink(path, nil)
	require.ErrorIs(t, err, audit.ErrInUse)
	year := record("far")
	year.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	require.Error(t, s.Write(t.Context(), year))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Write(ended, record("ended")), context.Canceled)
	write(t, s, "a")
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a"}, names(t, path))
	require.NoError(t, openSink(t, path, nil).Close())
	_, err = audit.OpenFileSink(filepath.Join(path, "below"), nil)
	require.Error(t, err)
	_, err = audit.OpenFileSink(filepath.Join(t.TempDir(), "missing", "audit"), nil)
	require.Error(t, err)
}

// TestHugeRecords: a record that exceeds a line is shortened, never dropped.
func TestHugeRecords(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{FoldWindow: -1})
	fake := kmstest.NewFake("key")
	client := audit.NewClient(fake, s)
	huge, control := strings.Repeat("é", 400<<10), strings.Repeat("\x01", 300<<10)
	many := make(kms.Context)
	for i := range 100_000 {
		many[fmt.Sprint(i)] = huge[:10]
	}
	for name, ask := range map[string]struct {
		principal, resource, key string
		ec                       kms.Context
	}{
		"principal":     {principal: huge},
		"resource":      {resource: control},
		"key":           {key: huge},
		"context value": {ec: kms.Context{"x": control, "y": huge}},
		"context name":  {ec: kms.Context{control: "x", control + "y": "x"}},
		"many pairs":    {ec: many},
		"all":           {huge, control, huge, many},
	} {
		t.Run(name, func(t *testing.T) {
			fake.Fail(fmt.Errorf("%w: %s", kms.ErrDenied, control), 1)
			ctx := kms.WithResource(as(t, kms.Principal{ID: ask.principal, Type: ask.principal}), ask.resource)
			_, err := client.Decrypt(ctx, ask.key, nil, ask.ec)
			require.ErrorIs(t, err, kms.ErrDenied)
			require.NotErrorIs(t, err, audit.ErrNotRecorded)
			var last audit.Record
			for e, err := range audit.Read(path, nil) {
				require.NoError(t, err)
				last = *e.Record
			}
			require.Equal(t, "Denied", last.ErrorCode)
			require.Equal(t, kms.OpDecrypt, last.Operation)
			if len(ask.key) > 0 {
				require.Contains(t, last.RequestedKeyID, fmt.Sprintf("… (%d bytes, sha256 %x)", len(huge), sha256.Sum256([]byte(huge))))
			}
			if len(ask.ec) > 2 {
				require.Contains(t, last.Context["…"], "of 100000 pairs omitted")
			} else {
				require.Len(t, last.Context, len(ask.ec))
			}
		})
	}
}

// TestTimeout: a Write on a disk that hangs returns, and the sink works again
// when the disk does.
func TestTimeout(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{Timeout: 50 * time.Millisecond})
	f := faulty(s)
	release := make(chan struct{})
	f.hang = release
	err := s.Write(t.Context(), record("slow"))
	require.ErrorContains(t, err, "disk did not respond within 50ms")
	require.NotErrorIs(t, err, context.DeadlineExceeded, "which would seem to be the caller's")
	require.Error(t, s.Write(t.Context(), record("withdrawn")))
	ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Write(ended, record("withdrawn")), context.DeadlineExceeded)
	require.Error(t, s.Reopen())
	require.Zero(t, s.Last().Seq, "known without the disk")
	require.Error(t, s.Close(), "disk hangs")
	close(release)
	require.Eventually(t, func() bool { return s.Close() == nil }, time.Minute, time.Millisecond, "close after the disk came back")
	require.Equal(t, []string{"slow"}, names(t, path))
}

// TestSetAside: files end at their size, and the trail continues through files and
// restarts.
func TestSetAside(t *testing.T) {
	path := auditPath(t)
	var want []string
	for restart := range 4 {
		s := openSink(t, path, &audit.FileSinkOptions{MaxSize: 1500})
		for i := range 10 {
			name := fmt.Sprintf("%d-%d", restart, i)
			write(t, s, name)
			want = append(want, name)
		}
		require.NoError(t, s.Close())
	}
	files, err := filepath.Glob(path + ".0*")
	require.NoError(t, err)
	require.Greater(t, len(files), 9)
	require.Equal(t, path+".000001", files[0])
	require.Equal(t, want, names(t, path))
	for _, name := range append(files, path) {
		require.LessOrEqual(t, len(readFile(t, name)), 1500)
	}
	v := mustVerify(t, path)
	require.Equal(t, 40, v.Records)

	// A trail whose first files were archived continues from its anchor.
	half, err := audit.VerifyFiles(nil, readFile(t, files[0]), readFile(t, files[1]))
	require.NoError(t, err)
	require.NoError(t, os.Remove(files[0]))
	require.NoError(t, os.Remove(files[1]))
	var broken *audit.ChainError
	_, err = audit.Verify(path, nil)
	require.ErrorAs(t, err, &broken)
	require.Equal(t, audit.ChainMissing, broken.Kind)
	rest, err := audit.Verify(path, &audit.VerifyOptions{First: &half.Last, Last: &v.Last})
	require.NoError(t, err)
	require.Equal(t, 40, half.Records+rest.Records)
	require.Equal(t, v.Last, rest.Last)
	wrong := half.Last
	wrong.Hash = strings.Repeat("a", 64)
	_, err = audit.Verify(path, &audit.VerifyOptions{First: &wrong})
	require.ErrorAs(t, err, &broken)

	// The sink continues, too, without any older file.
	for _, name := range files[2:] {
		require.NoError(t, os.Remove(name))
	}
	s := openSink(t, path, nil)
	write(t, s, "last")
	require.Equal(t, v.Last.Seq+1, s.Last().Seq)
	require.NoError(t, s.Close())
}

// TestAnchors: an archived trail's anchor is not forgotten.
func TestAnchors(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "a", "b", "c")
	last := s.Last()
	require.NoError(t, s.Close())
	all, err := audit.Verify(path, nil)
	require.NoError(t, err)

	// Nothing follows First, so First is what the next verification starts from.
	none, err := audit.VerifyFiles(&audit.VerifyOptions{First: &last}, nil)
	require.NoError(t, err)
	require.Equal(t, last, none.Last)

	// Last is compared also when nothing follows First.
	other := audit.Anchor{Seq: last.Seq, Hash: strings.Repeat("a", 64)}
	_, err = audit.VerifyFiles(&audit.VerifyOptions{First: &last, Last: &last}, nil)
	require.NoError(t, err)
	_, err = audit.VerifyFiles(&audit.VerifyOptions{First: &other, Last: &last}, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))
	_, err = audit.VerifyFiles(&audit.VerifyOptions{First: &last, Last: &audit.Anchor{Seq: 1, Hash: other.Hash}}, nil)
	require.ErrorIs(t, err, kms.ErrInvalid, "Last cannot be compared")
	require.Equal(t, last, all.Last)
}

// TestWritersShareFlushes: many writers need few flushes and lose no record.
func TestWritersShareFlushes(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{MaxSize: 20 << 10})
	f := faulty(s)
	f.slow = 2 * time.Millisecond
	const writers, each = 16, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := s.Write(t.Context(), record(fmt.Sprintf("%d-%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Less(t, f.syncs, writers*each/2)
	require.NoError(t, s.Close())
	got := names(t, path)
	require.Len(t, got, writers*each)
	next := make(map[string]int) // each writer's records keep their order
	for _, name := range got {
		w, i, _ := strings.Cut(name, "-")
		require.Equal(t, fmt.Sprint(next[w]), i)
		next[w]++
	}
}

// TestClockBackwards: a clock that goes back changes times, not the order.
func TestClockBackwards(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	for i := range 5 {
		r := record(fmt.Sprint(i))
		r.Time = time.Date(2026, 1, 1, 0, 0, -i, 0, time.UTC)
		require.NoError(t, s.Write(t.Context(), r))
	}
	require.NoError(t, s.Close())
	require.Equal(t, []string{"0", "1", "2", "3", "4"}, names(t, path))
}

func BenchmarkFileSink(b *testing.B) {
	s := openSink(b, auditPath(b), nil)
	r := record("alice")
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Write(context.Background(), r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
