package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// replaceInFile edits a file, as someone with an editor would.
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

// record returns a record that says name.
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

// names returns who asked, of each record in the trail at path.
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
	require.ErrorIs(t, s.Write(t.Context(), record("late")), audit.ErrClosed)

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

	// Each line is JSON to others, and its hash is what the documentation says.
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
	big := record("big")
	big.Context = kms.Context{"x": strings.Repeat("x", 300<<10)}
	require.ErrorIs(t, s.Write(t.Context(), big), kms.ErrInvalid)
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

// TestSetAside: files end at their size, and the trail goes on through them and
// through restarts.
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

	// A trail whose first files were archived goes on from its anchor.
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

	// And so does the sink, with no aside file left at all.
	for _, name := range files[2:] {
		require.NoError(t, os.Remove(name))
	}
	s := openSink(t, path, nil)
	write(t, s, "last")
	require.Equal(t, v.Last.Seq+1, s.Last().Seq)
	require.NoError(t, s.Close())
}

// TestEveryEdit: any one line edited, removed, repeated, moved or cut is found,
// and named by file, line and number.
func TestEveryEdit(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{MaxSize: 1600})
	for i := range 7 {
		write(t, s, fmt.Sprint(i))
	}
	last := s.Last()
	require.NoError(t, s.Close())
	aside, err := filepath.Glob(path + ".0*")
	require.NoError(t, err)
	files := append(aside, path)
	require.Greater(t, len(files), 2)
	whole := make(map[string][][]byte) // lines by file
	seqs := make(map[string][]uint64)
	seq := uint64(0)
	for _, name := range files {
		for line := range bytes.Lines(readFile(t, name)) {
			seq++
			whole[name] = append(whole[name], line)
			seqs[name] = append(seqs[name], seq)
		}
	}
	require.Equal(t, last.Seq, seq)
	opts := &audit.VerifyOptions{Last: &last}
	_, err = audit.Verify(path, opts)
	require.NoError(t, err)
	edits := 0
	// found edits a file, and expects the error to be one of these.
	found := func(what, name string, lines [][]byte, want ...audit.ChainError) {
		t.Helper()
		edits++
		require.NoError(t, os.WriteFile(name, bytes.Join(lines, nil), 0o600))
		_, err := audit.Verify(path, opts)
		var got *audit.ChainError
		require.ErrorAs(t, err, &got, "%s of %s", what, name)
		got.Detail = ""
		ok := slices.ContainsFunc(want, func(w audit.ChainError) bool {
			return w.Kind == got.Kind && w.File == got.File && w.Line == got.Line && w.Seq == got.Seq
		})
		require.True(t, ok, "%s of %s: got %+v, want of %+v", what, name, *got, want)
		require.NoError(t, os.WriteFile(name, bytes.Join(whole[name], nil), 0o600))
	}
	for f, name := range files {
		lines := whole[name]
		for i, line := range lines {
			at := func(kind audit.ChainKind, line int, seq uint64) audit.ChainError {
				return audit.ChainError{Kind: kind, File: name, Line: line, Seq: seq}
			}
			seq := seqs[name][i]
			isLast := seq == last.Seq
			// Each byte of it changed.
			for j := range line {
				changed := slices.Clone(line)
				changed[j] ^= 0x01
				edited := slices.Clone(lines)
				edited[i] = changed
				want := []audit.ChainError{at(audit.ChainEdited, i+1, seq)}
				if j == len(line)-1 { // the newline: two lines are one, or the file ends within
					want = append(want, at(audit.ChainTruncated, i+1, seq))
				}
				found("a byte", name, edited, want...)
			}
			// It removed.
			removed := slices.Delete(slices.Clone(lines), i, i+1)
			switch {
			case isLast:
				found("removal", name, removed, at(audit.ChainTruncated, i+1, seq))
			case i == len(lines)-1:
				found("removal", name, removed, audit.ChainError{Kind: audit.ChainMissing, File: files[f+1], Line: 1, Seq: seq})
			default:
				found("removal", name, removed, at(audit.ChainMissing, i+1, seq))
			}
			// It twice.
			twice := slices.Insert(slices.Clone(lines), i, line)
			if isLast {
				found("repeat", name, twice, at(audit.ChainReordered, i+2, seq+1))
			} else {
				found("repeat", name, twice, at(audit.ChainReordered, i+2, seq+1))
			}
			// It moved.
			if i > 0 {
				swapped := slices.Clone(lines)
				swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
				found("swap", name, swapped, at(audit.ChainReordered, i, seq-1))
			}
			// It cut, at each length, with what follows and without it.
			for n := 1; n < len(line); n++ {
				cut := append(slices.Clone(lines[:i]), line[:n])
				found("cut", name, cut, at(audit.ChainTruncated, i+1, seq))
			}
			// All from it on removed.
			switch {
			case f == len(files)-1:
				found("end", name, lines[:i], at(audit.ChainTruncated, i+1, seq))
			case true:
				found("end", name, lines[:i], audit.ChainError{Kind: audit.ChainMissing, File: files[f+1], Line: 1, Seq: seq})
			}
			// Rubbish before it.
			found("insertion", name, slices.Insert(slices.Clone(lines), i, []byte("{}\n")), at(audit.ChainEdited, i+1, seq))
			found("empty line", name, slices.Insert(slices.Clone(lines), i, []byte("\n")), at(audit.ChainEdited, i+1, seq))
		}
	}
	// Whole files.
	for f, name := range files {
		require.NoError(t, os.Rename(name, name+"-away"))
		_, err := audit.Verify(path, opts)
		var got *audit.ChainError
		require.ErrorAs(t, err, &got)
		require.Equal(t, seqs[name][0], got.Seq)
		if f < len(files)-1 {
			require.Equal(t, audit.ChainMissing, got.Kind)
		} else {
			require.Equal(t, audit.ChainTruncated, got.Kind)
		}
		require.NoError(t, os.Rename(name+"-away", name))
	}
	swap := func() {
		require.NoError(t, os.Rename(files[0], files[0]+"-away"))
		require.NoError(t, os.Rename(files[1], files[0]))
		require.NoError(t, os.Rename(files[0]+"-away", files[1]))
	}
	swap()
	var got *audit.ChainError
	_, err = audit.Verify(path, opts)
	require.ErrorAs(t, err, &got)
	require.Equal(t, audit.ChainReordered, got.Kind)
	require.EqualValues(t, 1, got.Seq)
	swap()
	_, err = audit.Verify(path, opts)
	require.NoError(t, err)
	t.Logf("%d edits, each found", edits)
}

// rehash makes the hash of a line anew, after an edit.
func rehash(line []byte) []byte {
	cut := bytes.LastIndex(line, []byte(`,"hash"`))
	sum := sha256.Sum256(append([]byte("blobseal audit v1\x00"), line[:cut]...))
	return fmt.Appendf(slices.Clone(line[:cut]), ",\"hash\":\"%x\"}\n", sum)
}

// TestRehashedEdit: an edit whose own hash was made anew shows in the next entry;
// one with all the hashes after it shows against an anchor alone.
func TestRehashedEdit(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "alice", "mallory", "bob", "carol")
	last := s.Last()
	require.NoError(t, s.Close())
	lines := bytes.SplitAfter(readFile(t, path), []byte("\n"))
	lines[1] = rehash(bytes.Replace(lines[1], []byte("mallory"), []byte("alice"), 1))
	require.NoError(t, os.WriteFile(path, bytes.Join(lines, nil), 0o600))
	var got *audit.ChainError
	_, err := audit.Verify(path, nil)
	require.ErrorAs(t, err, &got)
	require.Equal(t, audit.ChainEdited, got.Kind)
	require.EqualValues(t, 2, got.Seq)
	require.Equal(t, 2, got.Line)

	var entry struct{ Hash string }
	for i := 2; i < 4; i++ {
		require.NoError(t, json.Unmarshal(lines[i-1], &entry))
		cut := len(`{"seq":3,"prev":"`)
		copy(lines[i][cut:], entry.Hash)
		lines[i] = rehash(lines[i])
	}
	require.NoError(t, os.WriteFile(path, bytes.Join(lines, nil), 0o600))
	_, err = audit.Verify(path, nil)
	require.NoError(t, err, "the limit of a chain without a key, which the documentation admits")
	_, err = audit.Verify(path, &audit.VerifyOptions{Last: &last})
	require.ErrorAs(t, err, &got)
	require.Equal(t, audit.ChainEdited, got.Kind)
	require.EqualValues(t, 4, got.Seq)
}

// TestTornTail: a file that ends within a line, at each byte, goes on with a note
// that holds what was torn.
func TestTornTail(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "a", "b", "c")
	require.NoError(t, s.Close())
	whole := readFile(t, path)
	begin := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	tails := make([][]byte, 0, len(whole)-begin)
	for n := begin + 1; n < len(whole); n++ {
		tails = append(tails, whole[begin:n])
	}
	tails = append(tails, make([]byte, 100), make([]byte, 4<<20), bytes.Repeat([]byte("x"), 3<<20), []byte("\xff\x00{"))
	for _, tail := range tails {
		require.NoError(t, os.WriteFile(path, slices.Concat(whole[:begin], tail), 0o600))
		var got *audit.ChainError
		_, err := audit.Verify(path, nil)
		require.ErrorAs(t, err, &got, "%d bytes", len(tail))
		require.EqualValues(t, 3, got.Seq)
		s := openSink(t, path, nil)
		write(t, s, "d")
		require.NoError(t, s.Close())
		v := mustVerify(t, path)
		require.Equal(t, 3, v.Records)
		require.Len(t, v.Recoveries, 1)
		note := v.Recoveries[0].Note
		sum := sha256.Sum256(tail)
		require.EqualValues(t, len(tail), note.Size)
		require.Equal(t, hex.EncodeToString(sum[:]), note.SHA256)
		require.True(t, bytes.Equal(tail[:min(len(tail), 64<<10)], note.Torn))
		require.Equal(t, []string{"a", "b", "d"}, names(t, path))
	}
}

// TestKilledWhileSettingAside: each state that a crash can leave between two
// files is one that opens.
func TestKilledWhileSettingAside(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, path string){
		"next file not in place": func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".000001"))
			require.NoError(t, os.WriteFile(path+".tmp", []byte("half a li"), 0o600))
		},
		"next file empty": func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".000001"))
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		},
		"next file torn in its first line": func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".000001"))
			require.NoError(t, os.WriteFile(path, []byte(`{"seq":3,"pr`), 0o600))
		},
		"next file not begun": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".tmp", []byte("half a li"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := auditPath(t)
			s := openSink(t, path, nil)
			write(t, s, "a", "b")
			require.NoError(t, s.Close())
			leave(t, path)
			s = openSink(t, path, nil)
			write(t, s, "c")
			require.NoError(t, s.Close())
			require.Equal(t, []string{"a", "b", "c"}, names(t, path))
			if _, err := os.Stat(path + ".000001"); err == nil {
				require.Contains(t, string(readFile(t, path)), `"note":{"type":"continue"`)
			}
		})
	}
}

// TestBrokenTrailIsNotOpened: a sink does not write after what it cannot verify.
func TestBrokenTrailIsNotOpened(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "a", "b", "c")
	require.NoError(t, s.Close())
	whole := readFile(t, path)
	edited := bytes.Replace(whole, []byte(`"id":"b"`), []byte(`"id":"x"`), 1)
	require.NoError(t, os.WriteFile(path, edited, 0o600))
	_, err := audit.OpenFileSink(path, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))
	require.Equal(t, edited, readFile(t, path))
	// A line longer than lines are is no torn one, if it has an end.
	long := slices.Concat(whole, bytes.Repeat([]byte("x"), 2<<20), []byte("\nx"))
	require.NoError(t, os.WriteFile(path, long, 0o600))
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))
	require.True(t, bytes.Equal(long, readFile(t, path)))
	// Nor does a trail begin before its first entry.
	line, _, _ := bytes.Cut(whole, []byte("\n"))
	zeroth := rehash(bytes.Replace(line, []byte(`{"seq":1,`), []byte(`{"seq":0,`), 1))
	require.NoError(t, os.WriteFile(path, zeroth, 0o600))
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))

	require.NoError(t, os.WriteFile(path+".000001", edited, 0o600))
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path+".000001", nil, 0o600))
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))
	require.NoError(t, os.WriteFile(path+".000001", whole, 0o600))
	s = openSink(t, path, nil)
	write(t, s, "d")
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a", "b", "c", "d"}, names(t, path))
}

// faultyFile fails as it is told.
type faultyFile struct {
	audit.SinkFile
	mu       sync.Mutex
	room     int // bytes that still fit; negative: all
	sync     error
	truncate error
	syncs    int
	slow     time.Duration
}

func (f *faultyFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room < 0 || f.room >= len(b) {
		return f.SinkFile.Write(b)
	}
	n, err := f.SinkFile.Write(b[:f.room])
	return n, errors.Join(err, syscall.ENOSPC)
}

func (f *faultyFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs++
	time.Sleep(f.slow)
	if f.sync != nil {
		return f.sync
	}
	return f.SinkFile.Sync()
}

func (f *faultyFile) Truncate(n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.truncate != nil {
		return f.truncate
	}
	return f.SinkFile.Truncate(n)
}

func faulty(s *audit.FileSink) *faultyFile {
	f := &faultyFile{room: -1}
	s.WrapFile(func(inner audit.SinkFile) audit.SinkFile { f.SinkFile = inner; return f })
	return f
}

// TestDiskFull: a write that does not fit, however much of it does, leaves
// nothing and fails the operation; the sink goes on when there is room.
func TestDiskFull(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	client := audit.NewClient(kmstest.NewFake("key"), s)
	write(t, s, "a")
	before := readFile(t, path)
	f := faulty(s)
	for _, room := range []int{0, 1, 17, 100, 400} {
		f.room = room
		for range 2 {
			k, err := client.GenerateDataKey(as(t, alice), "key", photo)
			require.ErrorIs(t, err, audit.ErrNotRecorded)
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.Nil(t, k)
		}
		require.Equal(t, before, readFile(t, path))
		// Not even cutting it works, until later.
		f.truncate = syscall.EIO
		require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.ENOSPC)
		if room > 0 {
			require.NotEqual(t, before, readFile(t, path))
		}
		require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.EIO)
		f.truncate = nil
	}
	f.room = -1
	write(t, s, "b")
	last := s.Last()
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a", "b"}, names(t, path))
	require.Equal(t, last, mustVerify(t, path).Last)
	require.EqualValues(t, 2, last.Seq)
}

// TestSetAsideFails: no room for the next file is an error, and the current one
// goes on.
func TestSetAsideFails(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{MaxSize: 800})
	write(t, s, "a")
	require.NoError(t, os.MkdirAll(filepath.Join(path+".tmp", "x"), 0o700))
	require.Error(t, s.Write(t.Context(), record("lost")))
	require.NoError(t, os.RemoveAll(path+".tmp"))
	write(t, s, "b", "c")
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a", "b", "c"}, names(t, path))
}

// TestFlushFails: after it the sink is over, and opens again.
func TestFlushFails(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "a")
	f := faulty(s)
	f.sync = syscall.EIO
	require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.EIO)
	f.sync = nil
	require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.EIO)
	require.NoError(t, s.Close())
	s = openSink(t, path, nil)
	write(t, s, "b")
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a", "b"}, names(t, path))
}

// TestChangedBehindOurBack: a file that someone else moved, removed or wrote ends
// the sink instead of taking records nobody will read.
func TestChangedBehindOurBack(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed":   os.Remove,
		"moved":     func(path string) error { return os.Rename(path, path+".old") },
		"truncated": func(path string) error { return os.Truncate(path, 0) },
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600))
		},
		"appended": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("x")
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := auditPath(t)
			s := openSink(t, path, nil)
			write(t, s, "a")
			require.NoError(t, change(path))
			for range 2 {
				require.Error(t, s.Write(t.Context(), record("lost")))
			}
		})
	}
}

// TestWritersShareFlushes: many writers, few flushes, and every record there.
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
	next := make(map[string]int) // each writer's records are in its order
	for _, name := range got {
		w, i, _ := strings.Cut(name, "-")
		require.Equal(t, fmt.Sprint(next[w]), i)
		next[w]++
	}
}

// TestClockBackwards: times are what the clock said; the order is the trail's.
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

// TestKill: a process that is killed while it writes loses no record that it had
// been told was written, and the trail says so if a line was torn. Every other
// process is killed at a random moment; the others stop within a line to be killed.
func TestKill(t *testing.T) {
	if path := os.Getenv("KMS_TEST_KILL"); path != "" {
		killed(path)
		return
	}
	path := auditPath(t)
	acknowledged := make(map[string]bool)
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "KMS_TEST_KILL="+path, fmt.Sprint("KMS_TEST_ROUND=", round))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		kill := func() { _ = cmd.Process.Kill() }
		left := 1 + rand.IntN(60) // records, and a little later it is killed
		for lines := bufio.NewScanner(out); lines.Scan(); {
			name, wrote := strings.CutPrefix(lines.Text(), "wrote ")
			if wrote {
				acknowledged[name] = true
				left--
			}
			switch {
			case lines.Text() == "torn":
				kill()
			case wrote && left == 0 && round%2 == 0:
				time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, kill)
			}
		}
		require.Error(t, cmd.Wait(), "it was killed")
		if _, err := audit.Verify(path, nil); err != nil {
			var broken *audit.ChainError
			require.ErrorAs(t, err, &broken)
			require.Equal(t, audit.ChainTruncated, broken.Kind)
		}
	}
	s := openSink(t, path, nil)
	require.NoError(t, s.Close())
	v := mustVerify(t, path)
	require.NotEmpty(t, acknowledged)
	for _, name := range names(t, path) {
		delete(acknowledged, name)
	}
	require.GreaterOrEqual(t, len(v.Recoveries), rounds/2, "kills that tore a line")
	require.Empty(t, acknowledged, "acknowledged records that are not in the trail")
	t.Logf("%d records in %d kills, %d recoveries", v.Records, rounds, len(v.Recoveries))
}

// piecemeal writes a little at a time, as a disk may, and stops within the write
// that leaves none over.
type piecemeal struct {
	audit.SinkFile
	left *int
}

func (f piecemeal) Write(b []byte) (n int, err error) {
	if *f.left--; *f.left == 0 {
		torn := b[:1+rand.IntN(len(b)-1)]
		_, _ = f.SinkFile.Write(bytes.TrimSuffix(torn, []byte("\n")))
		fmt.Println("torn")
		select {} // until it is killed
	}
	for part := range slices.Chunk(b, 200) {
		written, err := f.SinkFile.Write(part)
		n += written
		if err != nil {
			return n, err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return n, nil
}

// killed writes until it is killed.
func killed(path string) {
	s, err := audit.OpenFileSink(path, &audit.FileSinkOptions{MaxSize: 30 << 10})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	left := 0 // writes until one stops half-way; they are of up to 4 records
	if round, _ := strconv.Atoi(os.Getenv("KMS_TEST_ROUND")); round%2 == 1 {
		left = 1 + rand.IntN(20)
	}
	s.WrapFile(func(f audit.SinkFile) audit.SinkFile { return piecemeal{f, &left} })
	var mu sync.Mutex
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%s-%d-%d", os.Getenv("KMS_TEST_ROUND"), w, i)
				if err := s.Write(context.Background(), record(name)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println("wrote", name)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestLockedByAnotherProcess: the lock ends with its process.
func TestLockedByAnotherProcess(t *testing.T) {
	path := auditPath(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "KMS_TEST_KILL="+path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorIs(t, err, audit.ErrInUse)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	s := openSink(t, path, nil)
	write(t, s, "after")
	require.NoError(t, s.Close())
	mustVerify(t, path)
}

// FuzzVerify: whatever the files hold, reading them ends, without a panic, and
// what is accepted is what the sink would have written.
func FuzzVerify(f *testing.F) {
	path := auditPath(f)
	s := openSink(f, path, &audit.FileSinkOptions{MaxSize: 900})
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(f, s.Write(context.Background(), record(name)))
	}
	require.NoError(f, s.Close())
	first, err := os.ReadFile(path + ".000001")
	require.NoError(f, err)
	second, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(first, second)
	f.Add(second, first)
	f.Add([]byte("{\"seq\":1,\"prev\":\""), []byte("\n\n"))
	f.Add([]byte{}, make([]byte, 100))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		v, err := audit.VerifyFiles(nil, first, second)
		if _, broken := errors.AsType[*audit.ChainError](err); err != nil && !broken {
			t.Fatal(err)
		}
		if err == nil && v.Last.Seq > 0 && len(first)+len(second) == 0 {
			t.Fatal("entries from nothing")
		}
		for line := range bytes.Lines(first) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			if _, again, err := audit.ParseLine(line); err == nil && !bytes.Equal(line, again) {
				t.Fatalf("%q is written as %q", line, again)
			}
			// With its hash made anew, for the parser behind it.
			if bytes.Contains(line, []byte(`,"hash"`)) {
				line = bytes.TrimSuffix(rehash(line), []byte("\n"))
				if _, again, err := audit.ParseLine(line); err == nil && !bytes.Equal(line, again) {
					t.Fatalf("%q is written as %q", line, again)
				}
			}
		}
	})
}

// FuzzOpenFileSink: a sink opens what it can verify, and otherwise says why not
// and changes nothing.
func FuzzOpenFileSink(f *testing.F) {
	path := auditPath(f)
	s := openSink(f, path, nil)
	require.NoError(f, s.Write(context.Background(), record("a")))
	require.NoError(f, s.Close())
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:100])
	f.Add(slices.Concat(whole, []byte("torn")))
	f.Fuzz(func(t *testing.T, first []byte) {
		path := auditPath(t)
		if err := os.WriteFile(path, first, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := audit.OpenFileSink(path, nil)
		if err != nil {
			if after, _ := os.ReadFile(path); !bytes.Equal(first, after) {
				t.Fatal("changed a trail that does not open")
			}
			return
		}
		if err := errors.Join(s.Write(t.Context(), record("x")), s.Close()); err != nil {
			t.Fatal(err)
		}
	})
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
