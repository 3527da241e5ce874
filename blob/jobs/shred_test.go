package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// journal is a record that knows what was synced.
type journal struct {
	bytes.Buffer
	synced int
}

func (j *journal) Sync() error { j.synced = j.Len(); return nil }

// lines parses the record, each line as "event name" or "event name: error".
func (j *journal) lines(t testing.TB) (lines []string) {
	for line := range strings.Lines(j.String()) {
		var r jobs.ShredRecord
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		require.False(t, r.Time.IsZero())
		name := r.Key
		if name == "" {
			name = r.Mode
		} else {
			require.Equal(t, "photos", r.Bucket)
		}
		lines = append(lines, string(r.Event)+" "+name)
	}
	return lines
}

func TestShredPrefix(t *testing.T) {
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			w := newWorld(t, store.Open(t))
			for _, key := range []string{"ann/1", "ann/2", "bob/1"} {
				w.put(t, key, 10, nil)
			}
			require.NoError(t, w.Inner().WriteAll(ctx, "ann/3", blobtest.Content(3), nil))
			require.NoError(t, w.Inner().WriteAll(ctx, "ann/4", []byte(later), nil))
			record := new(journal)
			w.store.set(func(op, key string) error {
				if op == "delete" {
					require.Positive(t, record.synced, "the record comes first")
					require.Contains(t, record.String()[:record.synced], fmt.Sprintf("%q", key))
				}
				return nil
			})
			report, err := jobs.ShredPrefix(ctx, w.Bucket, "ann/", record, nil)
			require.ErrorIs(t, err, jobs.ErrIncomplete)
			require.Equal(t, &jobs.ShredReport{Objects: 3, Failed: 1}, report)
			require.Equal(t, []string{
				"shred ann/1", "shred ann/2", "shred ann/3", "shred ann/4",
				"shredded ann/1", "shredded ann/2", "failed ann/3", "shredded ann/4",
			}, record.lines(t))
			require.Equal(t, record.Len(), record.synced)
			w.store.set(nil)
			for _, key := range []string{"ann/1", "ann/2", "ann/4"} {
				_, err := w.Inner().Attributes(ctx, key)
				require.Equal(t, gcerrors.NotFound, gcerrors.Code(err))
			}
			require.Equal(t, blobtest.Content(3), blobtest.ReadAll(t, w.Inner(), "ann/3"))
			w.requireUnchanged(t, "bob/1", 10)
		})
	}
}

func TestShredManyInBatches(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for i := range 600 {
		w.put(t, fmt.Sprintf("a/%03d", i), 1, nil)
	}
	record := new(journal)
	report, err := jobs.ShredPrefix(ctx, w.Bucket, "a/", record, nil)
	require.NoError(t, err)
	require.EqualValues(t, 600, report.Objects)
	require.Len(t, record.lines(t), 1200)
}

func TestShredObject(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	record := new(journal)
	require.NoError(t, jobs.ShredObject(ctx, w.Bucket, "a", record))
	require.Equal(t, []string{"shred a", "shredded a"}, record.lines(t))
	require.Equal(t, gcerrors.NotFound, gcerrors.Code(jobs.ShredObject(ctx, w.Bucket, "a", record)))

	require.NoError(t, w.Inner().WriteAll(ctx, "plain", blobtest.Content(3), nil))
	require.ErrorIs(t, jobs.ShredObject(ctx, w.Bucket, "plain", record), blob.ErrPlain)
	w.put(t, "b", 10, nil)
	w.store.set(func(op, _ string) error {
		if op == "delete" {
			return errRigged
		}
		return nil
	})
	require.ErrorIs(t, jobs.ShredObject(ctx, w.Bucket, "b", record), errRigged)
	require.Equal(t, []string{"shred plain", "failed plain", "shred b", "failed b"}, record.lines(t)[2:])
	w.store.set(nil)
	w.requireUnchanged(t, "b", 10)
}

// What cannot be recorded is not shredded, and neither is what was replaced since
// it was recorded.
func TestShredIsCareful(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a/1", 10, nil)
	_, err := jobs.ShredPrefix(ctx, w.Bucket, "a/", brokenWriter{}, nil)
	require.ErrorIs(t, err, errRigged)
	require.ErrorIs(t, jobs.ShredObject(ctx, w.Bucket, "a/1", brokenWriter{}), errRigged)
	_, err = jobs.ShredPrefix(ctx, w.Bucket, "", new(journal), nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	w.requireUnchanged(t, "a/1", 10)

	opened := 0
	w.store.set(func(op, _ string) error {
		if op == "open" {
			if opened++; opened == 2 { // the look before the deletion
				return w.store.Bucket.Copy(ctx, "a/1", "other", nil)
			}
		}
		return nil
	})
	require.NoError(t, w.WriteAll(ctx, "other", blobtest.Content(5), nil))
	record := new(journal)
	_, err = jobs.ShredPrefix(ctx, w.Bucket, "a/", record, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.Equal(t, []string{"shred a/1", "failed a/1"}, record.lines(t))
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errRigged }

func TestShredKey(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	old := primary(t, w.ring)
	w.put(t, "a", 10, nil)
	w.put(t, "b", 10, nil)
	kept := blobtest.ReadAll(t, w.Inner(), "a") // as a backup has it
	require.NoError(t, w.Inner().WriteAll(ctx, "x", []byte(later), nil))
	key := jobs.KeyRef{Mode: sse.ModeManaged, KeyID: old}
	record := new(journal)
	_, err := jobs.ShredKey(ctx, key, jobs.RingKeyDestroyer(w.ring, old), record, nil, w.Bucket)
	require.ErrorIs(t, err, keyring.ErrPrimary)
	require.Empty(t, record.lines(t))

	w.rotate(t)
	w.put(t, "c", 10, nil)
	_, err = jobs.ShredKey(ctx, key, jobs.RingKeyDestroyer(w.ring, old), brokenWriter{}, nil, w.Bucket)
	require.ErrorIs(t, err, errRigged)
	require.Equal(t, keyring.Disabled, w.state(old), "nothing is lost yet")

	report, err := jobs.ShredKey(ctx, key, jobs.RingKeyDestroyer(w.ring, old), record, nil, w.Bucket)
	require.NoError(t, err)
	require.Equal(t, &jobs.ShredReport{Objects: 2, Failed: 1}, report)
	require.Equal(t, []string{"shred a", "shred b", "failed x", "shred SSE-S3", "shredded SSE-S3"}, record.lines(t))
	require.Equal(t, keyring.Destroyed, w.state(old))
	require.NoError(t, w.Inner().WriteAll(ctx, "a", kept, nil))
	for _, key := range []string{"a", "b"} {
		_, err := w.ReadAll(ctx, key)
		require.ErrorIs(t, err, keyring.ErrDestroyed)
	}
	w.requireUnchanged(t, "c", 10)
}

func TestShredKeyOfAService(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.kms)
	w.put(t, "b", 10, w.kmsKey(t, "arn:k2"))
	key := jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "arn:k1"}
	record := new(journal)
	d := &serviceKey{disable: func() error { w.fake.Disable("arn:k1"); return nil }, destroy: func() error {
		require.Contains(t, record.String()[:record.synced], `"a"`)
		return errRigged
	}}
	_, err := jobs.ShredKey(ctx, key, d, record, nil, w.Bucket)
	require.ErrorIs(t, err, errRigged)
	require.Equal(t, []string{"shred a", "shred SSE-KMS", "failed SSE-KMS"}, record.lines(t))
	d.destroy = func() error { w.fake.ScheduleDeletion("arn:k1"); return nil }
	report, err := jobs.ShredKey(ctx, key, d, record, nil, w.Bucket)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Objects)
	w.requireUnchanged(t, "b", 10)
	_, err = w.ReadAll(ctx, "a")
	require.Error(t, err)
}

type serviceKey struct{ disable, destroy func() error }

func (s *serviceKey) Disable(context.Context) error { return s.disable() }
func (s *serviceKey) Destroy(context.Context) error { return s.destroy() }

// The same for an object that was damaged when it was recorded, and of which
// somebody has written a good one since.
func TestShredOfWhatWasMended(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a/1", 10, nil)
	mended := blobtest.ReadAll(t, w.Inner(), "a/1")
	require.NoError(t, w.Inner().WriteAll(ctx, "a/1", []byte(later), nil))
	record := new(journal)
	opened := 0
	w.store.set(func(op, _ string) error {
		if op == "open" {
			if opened++; opened == 2 { // the look before the deletion
				require.NoError(t, w.store.Bucket.WriteAll(ctx, "a/1", mended, nil))
			}
		}
		return nil
	})
	_, err := jobs.ShredPrefix(ctx, w.Bucket, "a/", record, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.Equal(t, []string{"shred a/1", "failed a/1"}, record.lines(t))
	require.Equal(t, blobtest.Content(10), blobtest.ReadAll(t, w.Bucket.Bucket, "a/1"))
	require.NoError(t, jobs.ShredObject(ctx, w.Bucket, "a/1", record))
}
