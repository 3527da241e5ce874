package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// ErrCheckpoint means that the checkpoint belongs to another job, or is damaged. A job
// that continued where another stopped would skip objects.
var ErrCheckpoint = errors.New("blob: checkpoint is not of this job")

const (
	checkpointFormat = 1

	// defaultSaveEvery is how often a job saves its progress. After a crash, the next
	// run looks again at the objects since.
	defaultSaveEvery = time.Second

	// maxFailedBytes bounds the keys of failed objects, so that the checkpoint fits
	// into a [keyring.Store].
	maxFailedBytes = keyring.MaxDocumentSize / 4
)

// jobSpec is what a caller asked of a job. A checkpoint serves the same job only.
type jobSpec struct {
	Operation string `json:"operation"`
	Bucket    string `json:"bucket"`
	Filter    Filter `json:"filter"`
	Mode      string `json:"mode"` // of the target
	Force     bool   `json:"force,omitempty"`
}

// String returns the job's JSON, which is equal for equal jobs.
func (j jobSpec) String() string {
	text, err := json.Marshal(j)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// checkpoint is the progress of a job. Its document is JSON.
type checkpoint struct {
	Format int     `json:"format"`
	Job    jobSpec `json:"job"`

	// Target is the key that objects move to. If it is no longer the target, because
	// the ring was rotated, the job starts again. Probe is an envelope without a body
	// that tells customer keys apart, which have no ids.
	Target KeyRef        `json:"target"`
	Probe  *sse.Envelope `json:"probe,omitempty"`

	// Moved means that the ring was rotated during the job, which must move again what
	// it moved before.
	Moved bool `json:"moved,omitempty"`

	// Done means that nothing is left to do. The next job starts again.
	Done bool `json:"done"`

	// After is the last key, in the order of the listing, that the job has finished.
	// Failed are those that failed, for another attempt. Unordered means that the
	// store does not list in the order of keys, or has keys that are not UTF-8: After
	// and Failed then mean nothing.
	After     string   `json:"after"`
	Unordered bool     `json:"unordered,omitempty"`
	Failed    []string `json:"failed,omitempty"`

	Counts Counts `json:"counts"`

	documents keyring.Store
	version   string
	saved     time.Time
}

// openCheckpoint loads the checkpoint of a job, or begins one. resumed reports whether
// there is earlier work to continue. If documents is nil, nothing is kept.
func openCheckpoint(ctx context.Context, documents keyring.Store, job jobSpec) (c *checkpoint, resumed bool, err error) {
	fresh := &checkpoint{Format: checkpointFormat, Job: job, documents: documents}
	if documents == nil {
		return fresh, false, nil
	}
	data, version, err := documents.Load(ctx)
	switch {
	case errors.Is(err, keyring.ErrNotExist):
		return fresh, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("blob: checkpoint: %w", err)
	}
	c = &checkpoint{documents: documents, version: version}
	var head struct{ Format int } // first, because another format may have other fields
	err = json.Unmarshal(data, &head)
	if err == nil && head.Format != checkpointFormat {
		return nil, false, fmt.Errorf("%w: format %d, this release knows %d (install the release that wrote it, or pass another Checkpoint)",
			ErrCheckpoint, head.Format, checkpointFormat)
	}
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %v", ErrCheckpoint, err)
	}
	if c.Done {
		fresh.version = version
		return fresh, false, nil
	}
	if has, asked := c.Job.String(), job.String(); has != asked {
		return nil, false, fmt.Errorf("%w: saved by %s, used for %s (pass another Checkpoint)", ErrCheckpoint, has, asked)
	}
	if c.Unordered {
		c.restart() // envelopes show what is done
	}
	return c, true, nil
}

// restart forgets all progress.
func (c *checkpoint) restart() {
	c.Moved, c.After, c.Unordered, c.Failed, c.Counts = false, "", false, nil, Counts{}
}

// saveIfDue saves unless the last save was less than every ago.
func (c *checkpoint) saveIfDue(ctx context.Context, every time.Duration) error {
	if time.Since(c.saved) < every {
		return nil
	}
	return c.save(ctx)
}

// save saves the checkpoint. If another process uses it too, the error is
// [keyring.ErrConflict].
func (c *checkpoint) save(ctx context.Context) error {
	if c.documents == nil {
		return nil
	}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("blob: checkpoint: %w", err)
	}
	if c.version, err = c.documents.Swap(ctx, c.version, data); err != nil {
		return fmt.Errorf("blob: checkpoint: %w", err)
	}
	c.saved = time.Now()
	return nil
}

// recordResult notes that the job has finished a key, and whether it failed. Its error
// is [ErrTooManyFailures] if a checkpoint cannot hold more failures.
func (c *checkpoint) recordResult(key string, failed bool, maxFailures int) error {
	if i := slices.Index(c.Failed, key); i >= 0 { // another attempt
		if !failed {
			c.Failed = slices.Delete(c.Failed, i, i+1)
		}
		return nil
	}
	if key <= c.After || !utf8.ValidString(key) { // JSON would not keep it
		c.Unordered = true
	}
	c.After = key
	if !failed {
		return nil
	}
	c.Failed = append(c.Failed, key)
	size := 0
	for _, k := range c.Failed {
		size += len(k)
	}
	if len(c.Failed) >= maxFailures || size > maxFailedBytes {
		return fmt.Errorf("%w: %d", ErrTooManyFailures, len(c.Failed))
	}
	return nil
}

// skipFinished returns a list that visits what failed in an earlier run, and leaves out
// what that run finished, which is the beginning of objects for as long as keys ascend
// and do not exceed After.
func (c *checkpoint) skipFinished(objects list) list {
	after, failed := c.After, slices.Clone(c.Failed)
	return func(ctx context.Context, visit func(store.Listed) error) error {
		again := make(map[string]bool, len(failed))
		for _, key := range failed {
			again[key] = true
			if err := visit(store.Listed{Key: key, Size: -1}); err != nil {
				return err
			}
		}
		skipping, last := true, ""
		return objects(ctx, func(object store.Listed) error {
			skipping = skipping && last < object.Key && object.Key <= after
			last = object.Key
			if skipping || again[object.Key] {
				return nil
			}
			return visit(object)
		})
	}
}
