package audit_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms/audit"
)

const trailName = "photos.example.com/audit"

// newKey returns a signer and its verifier.
func newKey(t testing.TB, name string) (*audit.Signer, note.Verifier) {
	t.Helper()
	signerKey, verifierKey, err := note.GenerateKey(rand.Reader, name)
	require.NoError(t, err)
	signer, err := audit.NewSigner(signerKey + "\n")
	require.NoError(t, err)
	verifier, err := note.NewVerifier(verifierKey)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", signer, *signer, signer), signerKey[len(signerKey)-20:])
	return signer, verifier
}

// rechain renumbers and rehashes lines from the first on, as an attacker without
// the signer's key can.
func rechain(t testing.TB, lines [][]byte) [][]byte {
	t.Helper()
	prev := strings.Repeat("0", 64)
	var out [][]byte
	for i, line := range lines {
		var l struct {
			Seq  uint64
			Prev string
		}
		require.NoError(t, json.Unmarshal(line, &l))
		line = bytes.Replace(line, fmt.Appendf(nil, `{"seq":%d,"prev":"%s"`, l.Seq, l.Prev), fmt.Appendf(nil, `{"seq":%d,"prev":"%s"`, i+1, prev), 1)
		line = rehash(line)
		prev = string(line[len(line)-len("\"}\n")-64 : len(line)-len("\"}\n")])
		out = append(out, line)
	}
	return out
}

// TestCheckpoints: with the verifier's key, changes before a checkpoint are found
// although all hashes after them were computed again.
func TestCheckpoints(t *testing.T) {
	signer, verifier := newKey(t, trailName)
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{Signer: signer, CheckpointEvery: 3})
	write(t, s, "a", "b", "c", "d", "e", "f", "g")
	require.NoError(t, s.Close())
	// Lines: checkpoint, a, b, c, checkpoint, d, e, f, checkpoint, g, checkpoint.
	whole := bytes.SplitAfter(bytes.TrimSuffix(readFile(t, path), []byte("\n")), []byte("\n"))
	whole[len(whole)-1] = append(whole[len(whole)-1], '\n')
	require.Len(t, whole, 11)
	opts := &audit.VerifyOptions{Verifier: verifier}
	v, err := audit.VerifyFiles(opts, bytes.Join(whole, nil))
	require.NoError(t, err)
	require.Equal(t, 7, v.Records)
	require.EqualValues(t, 10, v.Signed.Seq)
	require.EqualValues(t, 11, v.Last.Seq)

	rename := func(line []byte) []byte {
		return bytes.Replace(line, []byte(`"userIdentity":{"id":"`), []byte(`"userIdentity":{"id":"x`), 1)
	}
	for name, c := range map[string]struct {
		edit func(lines [][]byte) [][]byte
		kind audit.ChainKind
		seq  uint64 // of the first entry in doubt
		line int    // that contradicts
	}{
		"edit":                    {func(l [][]byte) [][]byte { l[6] = rename(l[6]); return l }, audit.ChainEdited, 5, 9},
		"removal":                 {func(l [][]byte) [][]byte { return slices.Delete(l, 6, 7) }, audit.ChainMissing, 5, 8},
		"insertion":               {func(l [][]byte) [][]byte { return slices.Insert(l, 9, l[1]) }, audit.ChainEdited, 9, 12},
		"much inserted":           {func(l [][]byte) [][]byte { return slices.Insert(l, 2, l[1]) }, audit.ChainUnsigned, 5, 5},
		"swap":                    {func(l [][]byte) [][]byte { l[5], l[6] = l[6], l[5]; return l }, audit.ChainEdited, 5, 9},
		"checkpoint removed":      {func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, audit.ChainUnsigned, 5, 5},
		"all checkpoints removed": {func(l [][]byte) [][]byte { return [][]byte{l[1], l[2]} }, audit.ChainUnsigned, 1, 1},
		"checkpoint moved":        {func(l [][]byte) [][]byte { l[8], l[7] = l[7], l[8]; return l }, audit.ChainMissing, 5, 8},
		"checkpoint forged": {func(l [][]byte) [][]byte {
			l[8] = bytes.Replace(l[8], []byte(`\n8\n`), []byte(`\n7\n`), 1)
			return slices.Delete(l, 6, 7)
		}, audit.ChainEdited, 8, 8},
		"extended promise": {func(l [][]byte) [][]byte {
			l[0] = bytes.Replace(l[0], []byte(`every 3`), []byte(`every 30`), 1)
			return l
		}, audit.ChainEdited, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			edited := bytes.Join(rechain(t, c.edit(slices.Clone(whole))), nil)
			_, err := audit.VerifyFiles(nil, edited)
			require.NoError(t, err, "hashes without a key")
			_, err = audit.VerifyFiles(opts, edited)
			var broken *audit.ChainError
			require.ErrorAs(t, err, &broken)
			broken.Detail, broken.File = "", ""
			require.Equal(t, audit.ChainError{Kind: c.kind, Line: c.line, Seq: c.seq}, *broken)
			require.NoError(t, os.WriteFile(path, edited, 0o600))
			_, err = audit.OpenFileSink(path, &audit.FileSinkOptions{Signer: signer, CheckpointEvery: 3})
			require.ErrorAs(t, err, &broken, "a sink that would sign the forgery")
		})
	}
	require.NoError(t, os.WriteFile(path, bytes.Join(whole, nil), 0o600))

	// A key of the same name is not the same key, nor is a trail without one.
	other, stranger := newKey(t, trailName)
	_, err = audit.Verify(path, &audit.VerifyOptions{Verifier: stranger})
	require.ErrorAs(t, err, new(*audit.ChainError))
	_, err = audit.OpenFileSink(path, &audit.FileSinkOptions{Signer: other})
	require.ErrorAs(t, err, new(*audit.ChainError))
	_, err = audit.OpenFileSink(path, nil)
	require.ErrorContains(t, err, "set FileSinkOptions.Signer")
	unsigned := auditPath(t)
	s = openSink(t, unsigned, nil)
	write(t, s, "a")
	require.NoError(t, s.Close())
	_, err = audit.OpenFileSink(unsigned, &audit.FileSinkOptions{Signer: signer})
	require.ErrorAs(t, err, new(*audit.ChainError))
}

// TestFork: two trails that one key signed, such as after a restore from a backup,
// are told from an edit.
func TestFork(t *testing.T) {
	signer, verifier := newKey(t, trailName)
	path := auditPath(t)
	opts := &audit.FileSinkOptions{Signer: signer}
	s := openSink(t, path, opts)
	write(t, s, "a", "b")
	require.NoError(t, s.Close())
	backup := readFile(t, path)
	s = openSink(t, path, opts)
	write(t, s, "c")
	kept := s.Last()
	require.NoError(t, s.Close())
	_, err := audit.Verify(path, &audit.VerifyOptions{Verifier: verifier, Last: &kept})
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(path, backup, 0o600))
	_, err = audit.Verify(path, &audit.VerifyOptions{Verifier: verifier, Last: &kept})
	var broken *audit.ChainError
	require.ErrorAs(t, err, &broken)
	require.Equal(t, audit.ChainTruncated, broken.Kind)
	s = openSink(t, path, opts)
	write(t, s, "d", "e")
	require.NoError(t, s.Close())
	_, err = audit.Verify(path, &audit.VerifyOptions{Verifier: verifier, Last: &kept})
	require.ErrorAs(t, err, &broken)
	require.Equal(t, audit.ChainForked, broken.Kind)
	require.Equal(t, kept.Seq, broken.Seq)

	// Without a signature of the other trail, somebody edited this one.
	lines := bytes.SplitAfter(readFile(t, path), []byte("\n"))
	edited := bytes.Join(lines[:kept.Seq], nil)
	_, err = audit.VerifyFiles(&audit.VerifyOptions{Verifier: verifier, Last: &kept}, edited)
	require.ErrorAs(t, err, &broken)
	require.Equal(t, audit.ChainEdited, broken.Kind)
}

// TestCheckpointsThroughFiles: every file begins with a checkpoint, so that older
// ones can be archived, and options may change between processes.
func TestCheckpointsThroughFiles(t *testing.T) {
	signer, verifier := newKey(t, trailName)
	path := auditPath(t)
	var want []string
	for restart := range 9 {
		s := openSink(t, path, &audit.FileSinkOptions{Signer: signer, CheckpointEvery: 1 + restart*4%5, MaxSize: 4000})
		for i := range 5 {
			name := fmt.Sprint(restart, "-", i)
			write(t, s, name)
			want = append(want, name)
		}
		if restart%3 > 0 {
			require.NoError(t, s.Close())
			continue
		}
		// A crash within a line, and without a last checkpoint.
		crashed := readFile(t, path)
		require.NoError(t, s.Close())
		require.NoError(t, os.WriteFile(path, append(crashed, "torn"...), 0o600))
	}
	opts := &audit.VerifyOptions{Verifier: verifier}
	_, err := audit.Verify(path, opts)
	require.NoError(t, err)
	require.Equal(t, want, names(t, path))
	first := readFile(t, path+".000001")
	archived, err := audit.VerifyFiles(opts, first)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path+".000001"))
	rest, err := audit.Verify(path, &audit.VerifyOptions{Verifier: verifier, First: &archived.Last})
	require.NoError(t, err)
	require.Equal(t, len(want), archived.Records+rest.Records)
}

// TestCheckpointInterval: an idle trail is signed after the interval.
func TestCheckpointInterval(t *testing.T) {
	signer, verifier := newKey(t, trailName)
	path := auditPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := audit.OpenFileSink(path, &audit.FileSinkOptions{Signer: signer, CheckpointInterval: 5 * time.Second})
		require.NoError(t, err)
		signed := func() uint64 {
			v, err := audit.Verify(path, &audit.VerifyOptions{Verifier: verifier})
			require.NoError(t, err)
			return v.Signed.Seq
		}
		for range 3 {
			write(t, s, "a")
			last := s.Last()
			time.Sleep(4 * time.Second)
			require.Less(t, signed(), last.Seq)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			require.Equal(t, last.Seq, signed())
			time.Sleep(time.Hour)
			require.Equal(t, last.Seq+1, s.Last().Seq, "one checkpoint, and no more while nothing happens")
		}
		require.NoError(t, s.Close())
	})
}

func TestMalformedSignerKey(t *testing.T) {
	_, verifierKey, err := note.GenerateKey(rand.Reader, trailName)
	require.NoError(t, err)
	_, err = audit.NewSigner(verifierKey)
	require.ErrorContains(t, err, "malformed signer key")
	_, err = audit.NewSigner("")
	require.ErrorContains(t, err, "malformed signer key")
}
