//go:build linux

package jobs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

const syncDir = "JOBS_SYNC_DIR"

// TestSyncedBeforeTheCheckpoint traces the system calls of a rewrap in a directory.
// A power cut loses what was not synced, so the job syncs each file before it renames
// it, and the file's directory before a checkpoint calls the object done.
func TestSyncedBeforeTheCheckpoint(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace: apt-get install strace")
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	child := exec.Command(strace, "-f", "-y", "-o", trace, "-e", "trace=fsync,fdatasync,rename,renameat,renameat2",
		os.Args[0], "-test.run=^TestChild$", "-test.timeout=2m")
	child.Env = append(os.Environ(), syncDir+"="+dir)
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(trace)
	require.NoError(t, err)

	var (
		synced    = make(map[string]bool) // files and directories, since the last rename in the latter
		renamed   = 0
		unsynced  = make(map[string]bool) // directories in which something was renamed
		fsync     = regexp.MustCompile(`f(?:data)?sync\(\d+<([^>]+)>`)
		rename    = regexp.MustCompile(`rename(?:at2?)?\((?:AT_FDCWD(?:<[^>]+>)?, )?"([^"]+)", (?:AT_FDCWD(?:<[^>]+>)?, )?"([^"]+)"`)
		objects   = filepath.Join(dir, "objects")
		saved     = 0
		inObjects = func(path string) bool { return strings.HasPrefix(path, objects+"/") }
	)
	for _, line := range strings.Split(string(text), "\n") {
		if m := fsync.FindStringSubmatch(line); m != nil {
			synced[m[1]] = true
			delete(unsynced, m[1])
		}
		m := rename.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		from, to := m[1], m[2]
		switch {
		case to == filepath.Join(dir, "checkpoint"):
			saved++
			require.Empty(t, unsynced, "the checkpoint was saved before these directories were synced")
		case inObjects(to) && !strings.HasSuffix(to, ".attrs"):
			if renamed++; renamed <= 3 {
				continue // by the bucket's writer: fileblob syncs nothing
			}
			require.True(t, synced[from], "%s was renamed to %s before it was synced", from, to)
			unsynced[filepath.Dir(to)] = true
		}
	}
	require.Equal(t, 6, renamed, "%s", text) // three objects, written and rewrapped
	require.NotZero(t, saved)
}

// TestChild is the process that TestSyncedBeforeTheCheckpoint traces.
func TestChild(t *testing.T) {
	dir := os.Getenv(syncDir)
	if dir == "" {
		t.Skip("not started by TestSyncedBeforeTheCheckpoint")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	inner, err := fileblob.OpenBucket(filepath.Join(dir, "objects"), &fileblob.Options{CreateDir: true})
	require.NoError(t, err)
	ring := blobtest.NewRing(t)
	b := blobtest.NewBucketWith(t, inner, sse.NewManaged(ring), &blob.Options{})
	for i := range 3 {
		require.NoError(t, b.WriteAll(ctx, fmt.Sprintf("dir%d/k", i), blobtest.Content(20_000), nil))
	}
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	store, err := keyring.NewFileStore(filepath.Join(dir, "checkpoint"))
	require.NoError(t, err)
	report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Job: jobs.Job{Checkpoint: store}})
	require.NoError(t, err)
	require.EqualValues(t, 3, report.Done)
}
