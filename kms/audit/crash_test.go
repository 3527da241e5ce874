package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/audit"
)

// TestTornTail: after a crash within a line, the file continues with a note that
// holds what was torn.
func TestTornTail(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	write(t, s, "a", "b", "c")
	require.NoError(t, s.Close())
	whole := readFile(t, path)
	begin := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	tails := make([][]byte, 0, len(whole)-begin)
	for n := begin + 1; n < len(whole); n += 7 {
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

// TestKilledWhileSettingAside: a sink opens each state that a crash can leave between
// two files.
func TestKilledWhileSettingAside(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, path string){
		"next file not in place": func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".000001"))
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), ".audit.jsonl.123.tmp"), []byte("half a li"), 0o600))
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
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), ".audit.jsonl.123.tmp"), []byte("half a li"), 0o600))
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
			require.NoFileExists(t, filepath.Join(filepath.Dir(path), ".audit.jsonl.123.tmp"))
			if _, err := os.Stat(path + ".000001"); err == nil {
				require.Contains(t, string(readFile(t, path)), `"note":{"type":"continue"`)
			}
		})
	}
}

// TestLinks: links at predictable names of temporary files are not followed.
func TestLinks(t *testing.T) {
	path := auditPath(t)
	target := filepath.Join(t.TempDir(), "target")
	require.NoError(t, os.WriteFile(target, []byte("precious"), 0o600))
	s := openSink(t, path, &audit.FileSinkOptions{MaxSize: 1})
	write(t, s, "a")
	require.NoError(t, os.Symlink(target, path+".tmp"))
	write(t, s, "b") // sets the file aside
	require.NoError(t, s.Close())
	require.Equal(t, "precious", string(readFile(t, target)))
	require.Equal(t, []string{"a", "b"}, names(t, path))
	require.FileExists(t, path+".000001")
}

// TestBrokenTrailIsNotOpened: a sink does not continue a file that it cannot verify.
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
	// A line that is too long, but has a newline, is not torn.
	long := slices.Concat(whole, bytes.Repeat([]byte("x"), 2<<20), []byte("\nx"))
	require.NoError(t, os.WriteFile(path, long, 0o600))
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorAs(t, err, new(*audit.ChainError))
	require.True(t, bytes.Equal(long, readFile(t, path)))
	// A trail does not begin with its second entry, unless the first file is gone.
	_, headless, _ := bytes.Cut(whole, []byte("\n"))
	require.NoError(t, os.WriteFile(path, headless, 0o600))
	_, err = audit.OpenFileSink(path, nil)
	var broken *audit.ChainError
	require.ErrorAs(t, err, &broken)
	require.Equal(t, audit.ChainMissing, broken.Kind)
	require.EqualValues(t, 1, broken.Seq)
	require.ErrorContains(t, err, "to another directory, to start a new trail")
	require.Equal(t, headless, readFile(t, path))
	// A trail does not begin before its first entry.
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

// TestKill: no acknowledged record is lost when a process is killed while it writes,
// and a note says if a line was torn. Every second process is killed at a random
// moment; the others stop within a line to be killed.
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
		left := 1 + rand.IntN(60) // records until shortly before it is killed
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
// number left.
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
	left := 0 // writes of up to 4 records until one stops half-way
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

// TestLockedByAnotherProcess: the lock ends when its process does.
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

// FuzzOpenFileSink: a sink opens what it can verify. Otherwise it returns an error
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
