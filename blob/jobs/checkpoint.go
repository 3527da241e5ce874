package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// ErrCheckpoint: the checkpoint is of another job, or is none. A job that goes
// where another one got to would leave objects out.
var ErrCheckpoint = errors.New("blob: checkpoint is not of this job")

const (
	checkpointFormat = 1

	// defaultSaveEvery is how often a job saves how far it got. What was done since
	// is, after a crash, looked at again.
	defaultSaveEvery = time.Second

	// maxFailedBytes bounds the keys of failed objects in a checkpoint, which has
	// to fit into a [keyring.Store].
	maxFailedBytes = keyring.MaxDocumentSize / 4
)

// jobSpec is what was asked of a job, which a checkpoint is good for.
type jobSpec struct {
	Operation string `json:"operation"`
	Bucket    string `json:"bucket"`
	Filter    Filter `json:"filter"`
	Mode      string `json:"mode"` // of the target
	Force     bool   `json:"force,omitempty"`
}

// String is the job's JSON, in which two equal jobs are equal.
func (j jobSpec) String() string {
	text, err := json.Marshal(j)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// checkpoint is how far a job got. Its document is JSON.
type checkpoint struct {
	Format int     `json:"format"`
	Job    jobSpec `json:"job"`

	// Target is the key that the objects go under. When it is no longer what is
	// asked for, since the ring was rotated, the job begins anew. Probe tells
	// customer keys apart, which have no ids: an envelope of nothing.
	Target KeyRef        `json:"target"`
	Probe  *sse.Envelope `json:"probe,omitempty"`

	// Moved: the ring was rotated during the job, and what was done before that is
	// to be done again.
	Moved bool `json:"moved,omitempty"`

	// Done: nothing is left to do, and the next job begins anew.
	Done bool `json:"done"`

	// After is the last key, in the order of the listing, that the job is through
	// with, and Failed those of them that failed, to be tried again. Unordered:
	// the store does not list in the order of keys, or has keys that are not UTF-8,
	// so that After and Failed say nothing.
	After     string   `json:"after"`
	Unordered bool     `json:"unordered,omitempty"`
	Failed    []string `json:"failed,omitempty"`

	Counts Counts `json:"counts"`

	store   keyring.Store
	version string
	saved   time.Time
}

// openCheckpoint loads the checkpoint of a job, or begins one. resumed reports
// that there is work to go on from. A nil store keeps nothing.
func openCheckpoint(ctx context.Context, store keyring.Store, job jobSpec) (c *checkpoint, resumed bool, err error) {
	fresh := &checkpoint{Format: checkpointFormat, Job: job, store: store}
	if store == nil {
		return fresh, false, nil
	}
	data, version, err := store.Load(ctx)
	switch {
	case errors.Is(err, keyring.ErrNotExist):
		return fresh, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("blob: checkpoint: %w", err)
	}
	c = &checkpoint{store: store, version: version}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, false, fmt.Errorf("%w: %v", ErrCheckpoint, err)
	}
	if c.Format != checkpointFormat {
		return nil, false, fmt.Errorf("%w: format %d, this package knows %d", ErrCheckpoint, c.Format, checkpointFormat)
	}
	if c.Done {
		fresh.version = version
		return fresh, false, nil
	}
	if has, asked := c.Job.String(), job.String(); has != asked {
		return nil, false, fmt.Errorf("%w: it is of %s, asked for is %s", ErrCheckpoint, has, asked)
	}
	if c.Unordered {
		c.restart() // what is done shows in its envelope
	}
	return c, true, nil
}

// restart begins anew.
func (c *checkpoint) restart() {
	c.Moved, c.After, c.Unordered, c.Failed, c.Counts = false, "", false, nil, Counts{}
}

// saveIfDue saves if the last time was long enough ago.
func (c *checkpoint) saveIfDue(ctx context.Context, every time.Duration) error {
	if time.Since(c.saved) < every {
		return nil
	}
	return c.save(ctx)
}

// save saves. Another process that works with the same checkpoint is
// [keyring.ErrConflict].
func (c *checkpoint) save(ctx context.Context) error {
	if c.store == nil {
		return nil
	}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("blob: checkpoint: %w", err)
	}
	if c.version, err = c.store.Swap(ctx, c.version, data); err != nil {
		return fmt.Errorf("blob: checkpoint: %w", err)
	}
	c.saved = time.Now()
	return nil
}

// through takes note that the job is through with a key, well or not. It fails if
// there are more failures than a checkpoint holds.
func (c *checkpoint) through(key string, failed, again bool, maxFailures int) error {
	if again {
		if !failed {
			c.Failed = slices.DeleteFunc(c.Failed, func(k string) bool { return k == key })
		}
		return nil
	}
	if key <= c.After || !utf8.ValidString(key) { // which JSON would not keep
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

// rest wraps a lister so that it leaves out what an earlier run is through with:
// the first of what is listed, as long as that ascends and is not behind After.
func (c *checkpoint) rest(list func(context.Context, func(listed) error) error) func(context.Context, func(listed) error) error {
	after, failed := c.After, slices.Clone(c.Failed)
	return func(ctx context.Context, visit func(listed) error) error {
		again := make(map[string]bool, len(failed))
		for _, key := range failed {
			again[key] = true
			if err := visit(listed{key: key, size: -1, again: true}); err != nil {
				return err
			}
		}
		skipping, last := true, ""
		return list(ctx, func(object listed) error {
			skipping = skipping && last < object.key && object.key <= after
			last = object.key
			if skipping || again[object.key] {
				return nil
			}
			return visit(object)
		})
	}
}
