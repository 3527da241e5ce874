package audit_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms/audit"
)

// TestNewerCheckpoint: this release does not take a checkpoint of a newer format for
// one that it knows. Nobody verifies or continues the trail, and the trail stays as it
// is.
func TestNewerCheckpoint(t *testing.T) {
	signerKey, verifierKey, err := note.GenerateKey(rand.Reader, trailName)
	require.NoError(t, err)
	signer, err := audit.NewSigner(signerKey)
	require.NoError(t, err)
	verifier, err := note.NewVerifier(verifierKey)
	require.NoError(t, err)
	path := auditPath(t)
	s := openSink(t, path, &audit.FileSinkOptions{Signer: signer, CheckpointEvery: 3})
	write(t, s, "a", "b", "c", "d")
	require.NoError(t, s.Close())

	// Lines: checkpoint, a, b, c, checkpoint, d, checkpoint.
	lines := bytes.SplitAfter(bytes.TrimSuffix(readFile(t, path), []byte("\n")), []byte("\n"))
	lines[len(lines)-1] = append(lines[len(lines)-1], '\n')
	key, err := note.NewSigner(signerKey)
	require.NoError(t, err)
	newer, err := note.Sign(&note.Note{Text: "blobseal audit checkpoint v2\n" + trailName + "\nwhat nobody knows yet\n"}, key)
	require.NoError(t, err)
	var entry struct {
		Note struct{ Signed string }
	}
	require.NoError(t, json.Unmarshal(lines[4], &entry))
	was, err := json.Marshal(entry.Note.Signed)
	require.NoError(t, err)
	is, err := json.Marshal(string(newer))
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(lines[4], was))
	lines[4] = bytes.Replace(lines[4], was, is, 1)
	trail := bytes.Join(rechain(t, lines), nil)
	require.NoError(t, os.WriteFile(path, trail, 0o600))

	_, err = audit.Verify(path, &audit.VerifyOptions{Verifier: verifier})
	require.ErrorContains(t, err, `the checkpoint has format "v2", this release knows v1`)
	_, err = audit.OpenFileSink(path, &audit.FileSinkOptions{Signer: signer, CheckpointEvery: 3})
	require.ErrorContains(t, err, `the checkpoint has format "v2", this release knows v1`)
	require.Equal(t, string(trail), string(readFile(t, path)))
}
