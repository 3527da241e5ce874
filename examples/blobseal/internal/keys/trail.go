package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/blobseal/blobseal/kms/audit"
)

// A trail is written by one process at a time. These make it serve many, each of
// which waits for its turn.
const (
	auditTurn = 200 * time.Millisecond // after which others have theirs
	auditIdle = 20 * time.Millisecond  // without a record, after which others have theirs
	auditGap  = 15 * time.Millisecond  // that is left for others
)

// auditSize is the size at which a file of the trail is set aside. Each command
// reads the last file, to go on where it ends: so it is small.
const auditSize = 4 << 20

// trail is the audit trail of a key service, for one command. It is opened by the
// first record, and given up whenever the command does something else, such as
// streaming a large file.
type trail struct {
	ctx  context.Context // of the command: records are written whatever becomes of an operation's
	path string
	wait time.Duration

	mu     sync.Mutex
	sink   *audit.FileSink // nil while others may have it
	opened time.Time
	used   time.Time
}

// Write implements [audit.Sink].
func (t *trail) Write(ctx context.Context, r audit.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sink != nil && time.Since(t.opened) > auditTurn {
		t.release()
		time.Sleep(auditGap)
	}
	if t.sink == nil {
		if err := t.Open(); err != nil {
			return err
		}
		time.AfterFunc(auditIdle, t.rest)
	}
	err := t.sink.Write(ctx, r)
	t.used = time.Now()
	if err != nil {
		t.release() // the next record opens it anew
	}
	return err
}

// Open opens the trail once no other process has it.
func (t *trail) Open() error {
	for end := time.Now().Add(t.wait); ; {
		sink, err := audit.OpenFileSink(t.path, &audit.FileSinkOptions{MaxSize: auditSize})
		switch {
		case err == nil:
			t.sink, t.opened = sink, time.Now()
			return nil
		case !errors.Is(err, audit.ErrInUse) || time.Now().After(end):
			return err
		}
		select {
		case <-time.After(auditGap/3 + rand.N(auditGap/2)):
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
	}
}

// rest gives the trail up if it is idle, or comes back later.
func (t *trail) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch left := auditIdle - time.Since(t.used); {
	case t.sink == nil:
	case left > 0:
		time.AfterFunc(left, t.rest)
	default:
		t.release()
	}
}

func (t *trail) release() {
	_ = t.sink.Close() // every record is on the disk already
	t.sink = nil
}

// Close gives the trail up.
func (t *trail) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sink != nil {
		t.release()
	}
}
