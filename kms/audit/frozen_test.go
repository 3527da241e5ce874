package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms/audit"
)

// TestFrozenTrail: a signed trail that the first version wrote, through a rotation
// and a crash, is read, verified and continued for ever. Its files never change.
func TestFrozenTrail(t *testing.T) {
	path := auditPath(t)
	for _, suffix := range []string{"", ".000001", ".000002"} {
		require.NoError(t, os.WriteFile(path+suffix, readFile(t, filepath.Join("testdata", "v1.jsonl"+suffix)), 0o600))
	}
	verifier, err := note.NewVerifier(historyVerifier)
	require.NoError(t, err)
	opts := &audit.VerifyOptions{
		Verifier: verifier,
		Last:     &audit.Anchor{Seq: 15, Hash: "b75b6495060e00ca56b912e0dc61206644dc3df593e4a14c2a9e61268dccbbfd"},
	}
	v, err := audit.Verify(path, opts)
	require.NoError(t, err)
	require.Equal(t, *opts.Last, v.Last)
	require.EqualValues(t, 14, v.Signed.Seq)
	require.Equal(t, 6, v.Records)
	require.Len(t, v.Recoveries, 1)
	require.Equal(t, `{"seq":99,"pr`, string(v.Recoveries[0].Note.Torn))

	var got []string
	for e, err := range audit.Read(path, opts) {
		require.NoError(t, err)
		if r := e.Record; r != nil {
			got = append(got, fmt.Sprintf("%s %s %s %s%s %d", r.Principal.ID, r.Operation, r.Resource, r.Outcome, r.ErrorCode, r.Count))
		}
	}
	require.Equal(t, []string{
		"alice GenerateDataKey photos/cat.jpg success 0",
		"bob Decrypt  failureInvalidCiphertext 0",
		"alice GenerateDataKey photos/cat.jpg success 0",
		"alice GenerateDataKey photos/cat.jpg success 0",
		"bob Decrypt  failureInvalidCiphertext 2",
		"carol Decrypt photos/carol success 0",
	}, got)

	signer, err := audit.NewSigner(historySigner)
	require.NoError(t, err)
	s := openSink(t, path, &audit.FileSinkOptions{Signer: signer, CheckpointEvery: 3})
	write(t, s, "dave")
	require.NoError(t, s.Close())
	_, err = audit.Verify(path, opts)
	require.NoError(t, err)
}
