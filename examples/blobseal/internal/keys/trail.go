package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/blobseal/blobseal/kms/audit"
)

// One process at a time writes a trail. With these, commands that run at once take turns.
const (
	auditTurn = 200 * time.Millisecond // that a command keeps the trail at most
	auditIdle = 20 * time.Millisecond  // without a record, after which it closes the trail
	auditGap  = 15 * time.Millisecond  // until it opens the trail again
)

// auditSize is the size at which the trail starts a new file. It is small because each
// command reads the last file to its end.
const auditSize = 4 << 20

// trail is the audit trail of a key service, for one command. The first record opens it.
// While the command does something else, such as streaming a large file, it is closed.
type trail struct {
	ctx  context.Context // of the command, since records are written after an operation's ctx has ended
	path string
	wait time.Duration

	signer func() (*signer, error) // opens it once

	mu     sync.Mutex
	sink   *audit.FileSink // nil while closed
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
		time.AfterFunc(auditIdle, t.closeIfIdle)
	}
	err := t.sink.Write(ctx, r)
	t.used = time.Now()
	if err != nil {
		t.release() // the next record opens it again
	}
	return err
}

// Open opens the trail when no other process has it open.
func (t *trail) Open() error {
	signer, err := t.signer()
	if err != nil {
		return err
	}
	for end := time.Now().Add(t.wait); ; {
		sink, err := audit.OpenFileSink(t.path, &audit.FileSinkOptions{MaxSize: auditSize, Signer: signer.Signer})
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

// closeIfIdle closes the trail if it is idle, or looks again later.
func (t *trail) closeIfIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch left := auditIdle - time.Since(t.used); {
	case t.sink == nil:
	case left > 0:
		time.AfterFunc(left, t.closeIfIdle)
	default:
		t.release()
	}
}

func (t *trail) release() {
	_ = t.sink.Close() // every record is on the disk already
	t.sink = nil
}

// Close closes the trail.
func (t *trail) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sink != nil {
		t.release()
	}
}
