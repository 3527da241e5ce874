package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms/audit"
)

// trailFiles is a trail of several files, for tests that edit them.
type trailFiles struct {
	path  string
	files []string            // in order
	lines map[string][][]byte // by file
	seqs  map[string][]uint64
	opts  *audit.VerifyOptions
	last  audit.Anchor
	edits int
}

func newTrailFiles(t *testing.T) *trailFiles {
	f := &trailFiles{path: auditPath(t), lines: make(map[string][][]byte), seqs: make(map[string][]uint64)}
	s := openSink(t, f.path, &audit.FileSinkOptions{MaxSize: 1600})
	for i := range 7 {
		write(t, s, fmt.Sprint(i))
	}
	f.last = s.Last()
	require.NoError(t, s.Close())
	aside, err := filepath.Glob(f.path + ".0*")
	require.NoError(t, err)
	f.files = append(aside, f.path)
	require.Greater(t, len(f.files), 2)
	seq := uint64(0)
	for _, name := range f.files {
		for line := range bytes.Lines(readFile(t, name)) {
			seq++
			f.lines[name] = append(f.lines[name], line)
			f.seqs[name] = append(f.seqs[name], seq)
		}
	}
	require.Equal(t, f.last.Seq, seq)
	f.opts = &audit.VerifyOptions{Last: &f.last}
	_, err = audit.Verify(f.path, f.opts)
	require.NoError(t, err)
	return f
}

// found replaces the lines of a file, and expects one of these errors.
func (f *trailFiles) found(t *testing.T, what, name string, lines [][]byte, want ...audit.ChainError) {
	t.Helper()
	f.edits++
	var contents [][]byte // in memory, since there are thousands of edits
	for _, other := range f.files {
		if other == name {
			contents = append(contents, bytes.Join(lines, nil))
		} else {
			contents = append(contents, bytes.Join(f.lines[other], nil))
		}
	}
	_, err := audit.VerifyFiles(f.opts, contents...)
	var got *audit.ChainError
	require.ErrorAs(t, err, &got, "%s of %s", what, name)
	got.Detail = ""
	ok := slices.ContainsFunc(want, func(w audit.ChainError) bool {
		return w.Kind == got.Kind && w.File == f.files[int(got.File[0]-'1')] && w.Line == got.Line && w.Seq == got.Seq
	})
	require.True(t, ok, "%s of %s: got %+v, want of %+v", what, name, *got, want)
}

// TestEveryEdit: Verify finds every line that was edited, removed, repeated, moved or
// cut, and names its file, line and number.
func TestEveryEdit(t *testing.T) {
	f := newTrailFiles(t)
	for n, name := range f.files {
		lines := f.lines[name]
		for i, line := range lines {
			at := func(kind audit.ChainKind, line int, seq uint64) audit.ChainError {
				return audit.ChainError{Kind: kind, File: name, Line: line, Seq: seq}
			}
			// gone is what an end without this line looks like: the next file tells, if there is one.
			seq, gone := f.seqs[name][i], at(audit.ChainTruncated, i+1, f.seqs[name][i])
			if n < len(f.files)-1 {
				gone = audit.ChainError{Kind: audit.ChainMissing, File: f.files[n+1], Line: 1, Seq: seq}
			}
			for j := range line {
				edited := slices.Clone(lines)
				edited[i] = slices.Clone(line)
				edited[i][j] ^= 0x01
				want := []audit.ChainError{at(audit.ChainEdited, i+1, seq)}
				if j == len(line)-1 { // without its newline, two lines are one, or the file ends within the line
					want = append(want, at(audit.ChainTruncated, i+1, seq))
				}
				f.found(t, "a byte", name, edited, want...)
			}
			removed := slices.Delete(slices.Clone(lines), i, i+1)
			if i == len(lines)-1 {
				f.found(t, "removal", name, removed, gone)
			} else {
				f.found(t, "removal", name, removed, at(audit.ChainMissing, i+1, seq))
			}
			f.found(t, "repeat", name, slices.Insert(slices.Clone(lines), i, line), at(audit.ChainReordered, i+2, seq+1))
			if i > 0 {
				swapped := slices.Clone(lines)
				swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
				f.found(t, "swap", name, swapped, at(audit.ChainReordered, i, seq-1))
			}
			for size := 1; size < len(line); size++ {
				cut := append(slices.Clone(lines[:i]), line[:size])
				f.found(t, "cut", name, cut, at(audit.ChainTruncated, i+1, seq))
			}
			f.found(t, "end", name, lines[:i], gone)
			f.found(t, "insertion", name, slices.Insert(slices.Clone(lines), i, []byte("{}\n")), at(audit.ChainEdited, i+1, seq))
			f.found(t, "empty line", name, slices.Insert(slices.Clone(lines), i, []byte("\n")), at(audit.ChainEdited, i+1, seq))
		}
	}
	t.Logf("%d edits, each found", f.edits)
}

// TestEveryFile: Verify finds a file that was removed, and files that were swapped.
func TestEveryFile(t *testing.T) {
	f := newTrailFiles(t)
	for i, name := range f.files {
		require.NoError(t, os.Rename(name, name+"-away"))
		_, err := audit.Verify(f.path, f.opts)
		var got *audit.ChainError
		require.ErrorAs(t, err, &got)
		require.Equal(t, f.seqs[name][0], got.Seq)
		if i < len(f.files)-1 {
			require.Equal(t, audit.ChainMissing, got.Kind)
		} else {
			require.Equal(t, audit.ChainTruncated, got.Kind)
		}
		require.NoError(t, os.Rename(name+"-away", name))
	}
	swap := func() {
		require.NoError(t, os.Rename(f.files[0], f.files[0]+"-away"))
		require.NoError(t, os.Rename(f.files[1], f.files[0]))
		require.NoError(t, os.Rename(f.files[0]+"-away", f.files[1]))
	}
	swap()
	var got *audit.ChainError
	_, err := audit.Verify(f.path, f.opts)
	require.ErrorAs(t, err, &got)
	require.Equal(t, audit.ChainReordered, got.Kind)
	require.EqualValues(t, 1, got.Seq)
	swap()
	_, err = audit.Verify(f.path, f.opts)
	require.NoError(t, err)
}

// rehash recomputes the hash of a line after an edit.
func rehash(line []byte) []byte {
	cut := bytes.LastIndex(line, []byte(`,"hash"`))
	sum := sha256.Sum256(append([]byte("blobseal audit v1\x00"), line[:cut]...))
	return fmt.Appendf(slices.Clone(line[:cut]), ",\"hash\":\"%x\"}\n", sum)
}

// TestRehashedEdit: if the hash of an edited line is recomputed, the next entry shows
// it. If all later hashes are recomputed, only an anchor does.
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

// FuzzVerify: reading any files ends without a panic, and accepted lines are lines
// that a sink writes.
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
	f.Add(readFile(f, "testdata/v1.jsonl.000001"), readFile(f, "testdata/v1.jsonl.000002"))
	verifier, err := note.NewVerifier(historyVerifier)
	require.NoError(f, err)
	f.Add([]byte("{\"seq\":1,\"prev\":\""), []byte("\n\n"))
	f.Add([]byte{}, make([]byte, 100))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		v, err := audit.VerifyFiles(nil, first, second)
		if _, broken := errors.AsType[*audit.ChainError](err); err != nil && !broken {
			t.Fatal(err)
		}
		_, signed := audit.VerifyFiles(&audit.VerifyOptions{Verifier: verifier}, first, second)
		if _, broken := errors.AsType[*audit.ChainError](signed); signed != nil && !broken || signed == nil && err != nil {
			t.Fatal(signed, err)
		}
		if err == nil && v.Last.Seq > 0 && len(first)+len(second) == 0 {
			t.Fatal("entries from nothing")
		}
		for line := range bytes.Lines(first) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			if _, again, err := audit.ParseLine(line); err == nil && !bytes.Equal(line, again) {
				t.Fatalf("%q is written as %q", line, again)
			}
			// Recompute the hash, to reach the parser behind it.
			if bytes.Contains(line, []byte(`,"hash"`)) {
				line = bytes.TrimSuffix(rehash(line), []byte("\n"))
				if _, again, err := audit.ParseLine(line); err == nil && !bytes.Equal(line, again) {
					t.Fatalf("%q is written as %q", line, again)
				}
			}
		}
	})
}
