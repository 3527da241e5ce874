package jobs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// What tells a process that it is to be killed.
const (
	killDir  = "BLOBSEAL_TEST_KILL_DIR"
	killBare = "BLOBSEAL_TEST_KILL_BARE"
)

// killedJob is a job that a process runs until it is killed.
type killedJob struct {
	run func(b *blob.Bucket, job jobs.Job) error

	// begin gives the job something to do in a bucket of objects, of which nothing,
	// or all, was done. It returns a test of what is done.
	begin func(t *testing.T, b *blob.Bucket, ring *keyring.Ring, objects []killedObject) func(jobs.Finding) bool
}

// killedObject is an object in the bucket.
type killedObject struct {
	key  string
	size int
	opts gcblob.WriterOptions
}

var killedRewrap = killedJob{
	run: func(b *blob.Bucket, job jobs.Job) error {
		_, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Job: job})
		return err
	},
	begin: func(t *testing.T, b *blob.Bucket, ring *keyring.Ring, objects []killedObject) func(jobs.Finding) bool {
		if ok, err := b.Exists(ctx, objects[0].key); err == nil && !ok {
			for i, o := range objects {
				if i%5 != 1 {
					require.NoError(t, b.WriteAll(ctx, o.key, blobtest.Content(o.size), &o.opts))
					continue
				}
				u := blobtest.StartUpload(t, sse.NewManaged(ring), o.key)
				p := blobtest.Content(o.size)
				u.Part(t, 1, p[:(len(p)+1)/2])
				u.Part(t, 2, p[(len(p)+1)/2:])
				u.PutAs(t, b.Inner(), o.opts)
			}
		}
		info, err := ring.Rotate(ctx)
		require.NoError(t, err)
		return func(f jobs.Finding) bool { return f.Seal.KeyID == info.ID }
	},
}

var killedEncryption = killedJob{
	run: func(b *blob.Bucket, job jobs.Job) error {
		_, err := jobs.EncryptExisting(ctx, b, &jobs.EncryptOptions{Job: job})
		return err
	},
	begin: func(t *testing.T, b *blob.Bucket, _ *keyring.Ring, objects []killedObject) func(jobs.Finding) bool {
		for _, o := range objects {
			require.NoError(t, b.Inner().WriteAll(ctx, o.key, blobtest.Content(o.size), &o.opts))
		}
		return func(f jobs.Finding) bool { return f.Verdict == jobs.VerdictGood }
	},
}

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
	ring, err := keyring.Open(context.Background(), store, root, nil)
	if errors.Is(err, keyring.ErrNotExist) {
		ring, err = keyring.Create(context.Background(), store, root, nil)
	}
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
	b, err := blob.NewBucket(inner, "photos", sse.NewManaged(ring), &blob.Options{AllowPlain: true})
	return b, ring, err
}

// untilKilled is the process that is killed. It says what it has done.
func (k killedJob) untilKilled(dir string) error {
	b, _, err := openKillBucket(dir, os.Getenv(killBare) != "")
	if err != nil {
		return err
	}
	ckpt, err := keyring.NewFileStore(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	job := jobs.Job{
		Checkpoint: ckpt, Workers: 4,
		Object: func(r jobs.Result) { fmt.Printf("object %s %v\n", r.Key, r.Outcome) },
	}
	job.SaveEvery(3 * time.Millisecond)
	if err = k.run(b, job); err == nil {
		fmt.Println("complete")
	}
	return err
}

// test has a process do the job in a bucket of files, kills it, each time somewhere
// else, and has another go on, until as many as kills were killed and the job was
// completed. Nothing is lost, with its attributes, nothing is damaged, and nothing
// that was done is done again. bare buckets keep no attributes.
func (k killedJob) test(t *testing.T, kills, bareKills int) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := k.untilKilled(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	test := "^" + t.Name() + "$"
	t.Run("attributes", func(t *testing.T) { k.kill(t, test, false, kills) })
	t.Run("bare", func(t *testing.T) { k.kill(t, test, true, bareKills) })
}

func TestRewrapKilled(t *testing.T)          { killedRewrap.test(t, 100, 30) }
func TestEncryptExistingKilled(t *testing.T) { killedEncryption.test(t, 60, 20) }

func (k killedJob) kill(t *testing.T, test string, bare bool, kills int) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	b, ring, err := openKillBucket(dir, bare)
	require.NoError(t, err)
	defer b.Inner().Close()
	defer b.Close()
	objects := make([]killedObject, 100)
	for i := range objects {
		objects[i] = killedObject{fmt.Sprintf("%d/%03d", i%3, i), i * 997 % 40_000, gcblob.WriterOptions{
			ContentType: "image/png", ContentEncoding: "br", Metadata: map[string]string{"owner": fmt.Sprint(i)},
		}}
	}
	done := k.begin(t, b, ring, objects)
	since := map[string]time.Time{} // what is done, and since when
	look := func() {
		n := 0
		for f, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
			require.NoError(t, err)
			require.NoError(t, f.Err, f.Key)
			n++
			if was, ok := since[f.Key]; ok {
				require.True(t, done(f), f.Key)
				require.Equal(t, was, f.ModTime, "%s was done again", f.Key)
			} else if done(f) {
				since[f.Key] = f.ModTime
			}
		}
		require.Equal(t, len(objects), n)
	}
	whole := func() {
		for _, o := range objects {
			require.Equal(t, blobtest.Content(o.size), blobtest.ReadAll(t, b.Bucket, o.key))
			if !bare {
				attrs, err := b.Attributes(ctx, o.key)
				require.NoError(t, err)
				require.Equal(t, o.opts.ContentType, attrs.ContentType)
				require.Equal(t, o.opts.ContentEncoding, attrs.ContentEncoding)
				require.Equal(t, o.opts.Metadata, attrs.Metadata)
			}
		}
	}
	killed, rounds := 0, 0
	for killed < kills || rounds == 0 {
		if killChild(t, test, dir, bare) {
			killed++
		}
		look()
		if len(since) == len(objects) {
			whole()
			rounds++
			since = map[string]time.Time{}
			done = k.begin(t, b, ring, objects)
		}
	}
	whole()
	t.Logf("%d kills, %d jobs completed", killed, rounds)
}

// killChild runs the job in a process, and reports whether it killed the process
// before the job was complete.
func killChild(t *testing.T, test, dir string, bare bool) bool {
	child := exec.Command(os.Args[0], "-test.run="+test)
	child.Env = append(os.Environ(), killDir+"="+dir, "TMPDIR="+filepath.Join(dir, "tmp"))
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
	}
	child.Wait() // it was killed
	return !complete
}
