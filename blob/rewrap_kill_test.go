package blob_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// What tells a process that it is to be killed.
const (
	killDir  = "BLOBSEAL_TEST_REWRAP_DIR"
	killBare = "BLOBSEAL_TEST_REWRAP_BARE"
)

// openKillBucket opens the bucket and the ring in dir, which processes share.
// bare says that the bucket keeps no attributes.
func openKillBucket(dir string, bare bool) (*blob.Bucket, *keyring.Ring, error) {
	store, err := keyring.NewFileStore(filepath.Join(dir, "ring"))
	if err != nil {
		return nil, nil, err
	}
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		return nil, nil, err
	}
	ring, err := keyring.Open(context.Background(), store, root, &keyring.Options{Create: true})
	if err != nil {
		return nil, nil, err
	}
	opts := &fileblob.Options{CreateDir: true}
	if bare {
		opts.Metadata = fileblob.MetadataDontWrite
	}
	inner, err := fileblob.OpenBucket(filepath.Join(dir, "bucket"), opts)
	if err != nil {
		return nil, nil, err
	}
	b, err := blob.NewBucket(inner, "photos", sse.NewManaged(ring), nil)
	return b, ring, err
}

// rewrapUntilKilled is the process that is killed. It says what it has done.
func rewrapUntilKilled(dir string) error {
	b, _, err := openKillBucket(dir, os.Getenv(killBare) != "")
	if err != nil {
		return err
	}
	ckpt, err := keyring.NewFileStore(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	job := blob.Job{
		Checkpoint: ckpt, Workers: 4,
		Object: func(r blob.Result) { fmt.Printf("object %s %v\n", r.Key, r.Outcome) },
	}
	job.SaveEvery(3 * time.Millisecond)
	_, err = b.Rewrap(context.Background(), &blob.RewrapOptions{Job: job})
	if err == nil {
		fmt.Println("complete")
	}
	return err
}

// TestRewrapKilled: a process that rewraps a bucket of files is killed 100 times,
// each time somewhere else, and another goes on each time. Nothing is lost, with
// its attributes, nothing is damaged, and nothing that was done is done again.
func TestRewrapKilled(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := rewrapUntilKilled(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	t.Run("attributes", func(t *testing.T) { killRewraps(t, false, 100) })
	t.Run("bare", func(t *testing.T) { killRewraps(t, true, 30) })
}

func killRewraps(t *testing.T, bare bool, kills int) {
	const objects = 100
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	require.NoError(t, os.Mkdir(tmp, 0o700))
	b, ring, err := openKillBucket(dir, bare)
	require.NoError(t, err)
	defer b.Inner().Close()
	defer b.Close()
	size := func(i int) int { return i * 997 % 40_000 }
	for i := range objects {
		require.NoError(t, b.WriteAll(ctx, fmt.Sprintf("%d/%03d", i%3, i), content(size(i)), &gcblob.WriterOptions{
			ContentType: "image/png", Metadata: map[string]string{"owner": fmt.Sprint(i)},
		}))
	}

	var target string
	var sealed map[string]time.Time // what is under target, and since when
	rotate := func() {
		info, err := ring.Rotate(ctx)
		require.NoError(t, err)
		target, sealed = info.ID, map[string]time.Time{}
	}
	look := func() {
		n := 0
		for f, err := range b.Check(ctx, &blob.CheckOptions{Depth: blob.CheckBodies}) {
			require.NoError(t, err)
			require.Equal(t, blob.VerdictGood, f.Verdict, "%s: %v", f.Key, f.Err)
			n++
			if since, ok := sealed[f.Key]; ok {
				require.Equal(t, target, f.Seal.KeyID)
				require.Equal(t, since, f.ModTime, "%s was done again", f.Key)
			} else if f.Seal.KeyID == target {
				sealed[f.Key] = f.ModTime
			}
		}
		require.Equal(t, objects, n)
	}
	rotate()
	killed, rounds := 0, 0
	for killed < kills || rounds == 0 {
		child := exec.Command(os.Args[0], "-test.run=^TestRewrapKilled$")
		child.Env = append(os.Environ(), killDir+"="+dir, "TMPDIR="+tmp)
		if bare {
			child.Env = append(child.Env, killBare+"=1")
		}
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines, complete := bufio.NewScanner(out), false
		for n := rand.IntN(30); n > 0 && lines.Scan(); n-- {
			require.NotContains(t, lines.Text(), "error")
			complete = lines.Text() == "complete"
		}
		if !complete {
			time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond) // within an object
			require.NoError(t, child.Process.Kill())
			killed++
		}
		child.Wait() // it was killed
		look()
		if len(sealed) == objects {
			rounds++
			rotate()
		}
	}
	for i := range objects {
		key := fmt.Sprintf("%d/%03d", i%3, i)
		require.Equal(t, content(size(i)), readAll(t, b.Bucket, key))
		if !bare {
			attrs, err := b.Attributes(ctx, key)
			require.NoError(t, err)
			require.Equal(t, "image/png", attrs.ContentType)
			require.Equal(t, map[string]string{"owner": fmt.Sprint(i)}, attrs.Metadata)
		}
	}
	t.Logf("%d kills, %d rewraps completed", killed, rounds)
}
