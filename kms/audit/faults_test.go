package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// faultyFile fails on demand.
type faultyFile struct {
	audit.SinkFile
	mu       sync.Mutex
	room     int // bytes that still fit, no limit if negative
	sync     error
	truncate error
	syncs    int
	slow     time.Duration
	hang     chan struct{} // until it is closed
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
	if f.hang != nil {
		<-f.hang
	}
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

// TestDiskFull: a write that does not fit leaves nothing behind and fails the
// operation. Later writes succeed when there is room.
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
		// Truncating fails, too, until later.
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

// TestSetAsideFails: a failure to set the file aside is an error, and the file
// goes on.
func TestSetAsideFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("a", 249)) // too long with .000001
	s := openSink(t, path, &audit.FileSinkOptions{MaxSize: 800})
	write(t, s, "a")
	require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.ENAMETOOLONG)
	require.NoError(t, s.Close())
	s = openSink(t, path, nil)
	write(t, s, "b", "c")
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a", "b", "c"}, names(t, path))
}

// TestFlushFails: after a failed flush, every write fails until the sink is opened
// again.
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

// TestReopen: after a failed flush the sink works again once it is reopened, and
// does not number an acknowledged entry twice.
func TestReopen(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "a", "b")
	f := faulty(s)
	f.sync = syscall.EIO
	require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.EIO)
	require.ErrorIs(t, s.Reopen(), syscall.EIO, "opening flushes")
	f.sync = nil
	require.ErrorContains(t, s.Write(t.Context(), record("lost")), "call Reopen")
	require.NoError(t, s.Reopen())
	write(t, s, "c")
	require.Equal(t, []string{"a", "b", "c"}, names(t, path))

	// The disk lost the last record: it is missing, and nothing takes its number.
	whole := readFile(t, path)
	f.sync = syscall.EIO
	require.ErrorIs(t, s.Write(t.Context(), record("lost")), syscall.EIO)
	f.sync = nil
	lines := bytes.SplitAfter(whole, []byte("\n"))
	require.NoError(t, os.WriteFile(path, bytes.Join(lines[:2], nil), 0o600))
	require.NoError(t, s.Reopen())
	write(t, s, "d")
	var broken *audit.ChainError
	_, err := audit.Verify(path, nil)
	require.ErrorAs(t, err, &broken)
	require.Equal(t, audit.ChainMissing, broken.Kind)
	require.EqualValues(t, 3, broken.Seq)

	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Reopen(), os.ErrClosed)
}

// TestChangedByOthers: when someone renames, removes or changes the file, the
// sink continues in a new one, and the trail shows what is missing.
func TestChangedByOthers(t *testing.T) {
	replace := func(content string) func(path string) error {
		return func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, []byte(content), 0o600))
		}
	}
	for name, c := range map[string]struct {
		change func(path string) error
		kind   audit.ChainKind // that Verify reports; "" if all is there
		seq    uint64
	}{
		"removed":                    {os.Remove, audit.ChainMissing, 1},
		"renamed by logrotate":       {func(path string) error { return os.Rename(path, path+".1") }, "", 0},
		"renamed":                    {func(path string) error { return os.Rename(path, path+".old") }, audit.ChainMissing, 1},
		"truncated":                  {func(path string) error { return os.Truncate(path, 0) }, audit.ChainMissing, 1},
		"truncated within a line":    {func(path string) error { return os.Truncate(path, 700) }, audit.ChainTruncated, 2},
		"replaced by an empty file":  {replace(""), audit.ChainMissing, 1},
		"replaced by something else": {replace("something else\n"), audit.ChainEdited, 1},
		"appended to": {func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("x")
			return errors.Join(err, f.Close())
		}, audit.ChainTruncated, 3},
	} {
		for _, reopen := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " reopened ", reopen), func(t *testing.T) {
				path := auditPath(t)
				s := openSink(t, path, nil)
				write(t, s, "a", "b")
				require.NoError(t, c.change(path))
				if reopen {
					require.NoError(t, s.Reopen())
				}
				write(t, s, "c", "d")
				require.EqualValues(t, 5, s.Last().Seq, "two records, a note, two records")
				require.NoError(t, s.Close())
				_, err := audit.Verify(path, nil)
				var broken *audit.ChainError
				switch {
				case name == "appended to" && reopen: // looks torn, so a recovery note describes it
					require.NoError(t, err)
				case c.kind == "":
					require.NoError(t, err)
					require.Equal(t, []string{"a", "b", "c", "d"}, names(t, path))
				default:
					require.ErrorAs(t, err, &broken)
					require.Equal(t, c.kind, broken.Kind)
					require.EqualValues(t, c.seq, broken.Seq)
				}
				// What is there now is sound, and the next process continues it.
				s = openSink(t, path, nil)
				write(t, s, "e")
				require.EqualValues(t, 6, s.Last().Seq)
			})
		}
	}
}

// TestLogrotate runs logrotate with the configuration of OpenFileSink's
// documentation, while a sink writes and while none does.
func TestLogrotate(t *testing.T) {
	logrotate, err := exec.LookPath("logrotate")
	if err != nil {
		if logrotate, err = exec.LookPath("/usr/sbin/logrotate"); err != nil {
			t.Skip("no logrotate")
		}
	}
	source := string(readFile(t, "filesink.go"))
	_, recipe, _ := strings.Cut(source, "//\t/var/log/photos/audit.jsonl {\n")
	recipe, _, found := strings.Cut(recipe, "//\t}\n")
	require.True(t, found, "the recipe in the documentation of OpenFileSink")
	path := auditPath(t)
	dir := filepath.Dir(path)
	require.NoError(t, os.Chmod(dir, 0o700)) // logrotate refuses others
	config := path + " {\n" + strings.ReplaceAll(recipe, "//\t", "") + "}\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600))
	rotate := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, logrotate, "--force", "--state", filepath.Join(dir, "state"), filepath.Join(dir, "config")).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	opts := &audit.FileSinkOptions{MaxSize: -1}
	var want []string
	for round := range 12 { // so that the suffixes have one and two digits
		s := openSink(t, path, opts)
		for _, name := range []string{"a", "b"} {
			name = fmt.Sprint(round, name)
			write(t, s, name)
			want = append(want, name)
			if name != "0a" {
				rotate()
			}
		}
		require.NoError(t, s.Close())
	}
	require.FileExists(t, path+".12")
	require.Equal(t, want, names(t, path))
	require.Equal(t, 24, mustVerify(t, path).Records)
}

// mortalFile writes through to a file until its process is killed.
type mortalFile struct {
	audit.SinkFile
	left int   // bytes until the process is killed or the disk is full; no limit if negative
	full error // what happens then
	sync error // of the next flush
	dead bool
}

var errKilled = errors.New("the process was killed")

func (f *mortalFile) Write(b []byte) (int, error) {
	switch {
	case f.dead:
		return 0, errKilled
	case f.left < 0 || len(b) <= f.left:
		if f.left > 0 {
			f.left -= len(b)
		}
		return f.SinkFile.Write(b)
	}
	n, err := f.SinkFile.Write(b[:f.left])
	f.dead = f.full == errKilled
	return n, errors.Join(err, f.full)
}

func (f *mortalFile) Sync() error {
	if f.dead {
		return errKilled
	}
	if err := f.sync; err != nil {
		f.sync = nil
		return err
	}
	return f.SinkFile.Sync()
}

func (f *mortalFile) Truncate(n int64) error {
	if f.dead {
		return errKilled
	}
	return f.SinkFile.Truncate(n)
}
