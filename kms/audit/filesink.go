package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"github.com/blobseal/blobseal/internal/atomicfile"
)

// ErrInUse means that another sink, in this process or another, has the file.
var ErrInUse = errors.New("audit: file is in use by another sink")

var errClosed = fmt.Errorf("audit: sink: %w", os.ErrClosed)

// FileSinkOptions are the options of [OpenFileSink]. Zero fields mean defaults.
type FileSinkOptions struct {
	// MaxSize is the size in bytes at which the sink sets a file aside and starts
	// the next: 64 MiB by default. A file may exceed it by the records that are
	// written together. A negative value means no limit, for files that logrotate
	// rotates.
	MaxSize int64

	// Timeout bounds how long Write and Close wait for the disk: 10 seconds by
	// default. A negative value means no limit. A record that was late may be written
	// still.
	Timeout time.Duration

	// FoldWindow is the time over which repeated failures of one kind become one
	// record: one minute by default. A process that is killed loses the counts of
	// its last window. A negative value means that every failure has its own record,
	// and an attacker who can provoke failures can fill the disk.
	FoldWindow time.Duration

	// Signer signs checkpoints. Without one, the trail has none.
	Signer *Signer

	// CheckpointEvery and CheckpointInterval say how many entries, and for how
	// long, the trail may go on without a new checkpoint: 1000 entries and one
	// minute by default. Close writes a checkpoint, too.
	CheckpointEvery    int
	CheckpointInterval time.Duration
}

const (
	defaultMaxSize            = 64 << 20
	defaultTimeout            = 10 * time.Second
	defaultFoldWindow         = time.Minute
	defaultCheckpointEvery    = 1000
	defaultCheckpointInterval = time.Minute
)

// FileSink writes records to a file; see [OpenFileSink].
type FileSink struct {
	path     string
	timeout  time.Duration
	interval time.Duration
	lock     *flock.Flock
	last     atomic.Pointer[Anchor]

	mu     sync.Mutex // guards what follows
	folder folder
	queue  []*pending
	busy   bool // a goroutine writes the queue
	closed bool
	unfold *time.Timer // until a window of the folder ends; nil if nothing is folded

	turn  chan struct{} // holds one token; the goroutine that takes it owns what follows
	trail *trail
	timer *time.Timer // until the next checkpoint; nil if none is due
}

// pending are records that wait to be written together.
type pending struct {
	records []Record
	bodies  [][]byte
	done    chan error // has room for the result
}

// OpenFileSink opens or creates the audit trail at path. Only one sink at a time
// can have a trail: it holds a lock on path.lock until Close, and a second sink
// fails with [ErrInUse].
//
// # Format
//
// Each line of the file is one JSON object:
//
//	{"seq":7,"prev":"…","record":{…},"hash":"…"}
//
// prev is the hash of the line before. hash is the SHA-256, in hexadecimal, of
// "blobseal audit v1", a zero byte, and the line up to but excluding `,"hash"`.
// Numbers and hashes continue from file to file. A line may hold a note about the
// trail instead of a record:
//
//	{"seq":8,"prev":"…","note":{"type":"continue","time":"…"},"hash":"…"}
//	{"seq":9,"prev":"…","note":{"type":"recovery","time":"…","size":…,"sha256":"…","torn":"…"},"hash":"…"}
//	{"seq":10,"prev":"…","note":{"type":"checkpoint","time":"…","signed":"…"},"hash":"…"}
//
// The first begins every file but the oldest. The second replaces a line that a
// crash cut short; its record was never acknowledged. The third is a signed note
// (c2sp.org/signed-note) whose text has five lines: "blobseal audit checkpoint
// v1", the key's name, the number of entries so far, the hash of the last one,
// and "every N", the greatest number of entries until the next checkpoint.
//
// # Rotation
//
// A full file becomes path.000001, the next path.000002, and so on. To rotate by
// logrotate instead, set MaxSize to -1 and let logrotate rename the file:
//
//	/var/log/photos/audit.jsonl {
//		daily
//		rotate 3650
//		nocreate
//		missingok
//		nodateext
//	}
//
// No signal is needed. When the file was renamed, removed or changed, the next
// Write starts a new file that continues the trail, and sets aside what it
// finds at path. Lines that are gone show as missing in [Verify]. Do not use
// copytruncate: it loses records.
//
// # Repeated failures
//
// The sink folds failures of one kind: of one principal, operation, key and error
// code. It writes the first at once. Those of the following minute become one
// record with a Count, which it writes at the end of the minute or at Close. Until
// then the count is in memory only: a process that is killed loses the counts of its
// last minute, and a disk that fails keeps them in memory for another minute. The
// sink writes at most 150 records of failures
// in a minute: beyond 64 kinds, it folds by error code alone. It never folds a
// record with Retracts.
//
// # Failures of the disk
//
// Write returns once the record is on the disk. Concurrent writes share a flush.
// A write that fails, for example on a full disk, leaves nothing behind, and
// later writes can succeed. After a failed flush, every Write fails until
// [FileSink.Reopen].
//
// A sink does not continue a file that it cannot verify, because its records
// would seem to vouch for the file.
func OpenFileSink(path string, opts *FileSinkOptions) (*FileSink, error) {
	var o FileSinkOptions
	if opts != nil {
		o = *opts
	}
	s := &FileSink{
		path:     path,
		timeout:  valueOr(o.Timeout, defaultTimeout),
		interval: valueOr(o.CheckpointInterval, defaultCheckpointInterval),
		lock:     flock.New(path + ".lock"),
		folder:   folder{window: valueOr(o.FoldWindow, defaultFoldWindow), kinds: make(map[foldKind]*folded)},
		turn:     make(chan struct{}, 1),
		trail: &trail{
			path: path, maxSize: valueOr(o.MaxSize, defaultMaxSize),
			signer: o.Signer, every: valueOr(o.CheckpointEvery, defaultCheckpointEvery),
		},
	}
	if s.trail.every < 0 || s.interval < 0 {
		return nil, errors.New("audit: CheckpointEvery and CheckpointInterval must not be negative (leave Signer nil for no checkpoints)")
	}
	locked, err := s.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	}
	if err := s.trail.open(); err != nil {
		_ = s.lock.Unlock()
		if broken, ok := errors.AsType[*ChainError](err); ok {
			return nil, fmt.Errorf("%w (find out why; then move %s and its rotated files to another directory, to start a new trail)", broken, path)
		}
		return nil, err
	}
	atomicfile.ShareLock(path+".lock", path)
	s.release()
	return s, nil
}

func valueOr[T int | int64 | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// acquire takes the turn to use the trail. It fails if the disk hangs.
func (s *FileSink) acquire() error {
	ctx, cancel := s.withTimeout(context.Background())
	defer cancel()
	select {
	case <-s.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release publishes the end of the trail and gives the turn to the next.
func (s *FileSink) release() {
	last := s.trail.last
	s.last.Store(&last)
	s.turn <- struct{}{}
}

// withTimeout returns a ctx that ends after the sink's timeout. Its cause is not
// context.DeadlineExceeded, which would seem to be the caller's.
func (s *FileSink) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.timeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("audit: %s: disk did not respond within %v", s.path, s.timeout))
}

// Write implements [Sink]. It returns soon after ctx or the timeout ends, but the
// record may be written nevertheless.
func (s *FileSink) Write(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := s.enqueue(func(now time.Time) []Record { return s.folder.add(r, now) })
	if err != nil {
		return err
	}
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		s.withdraw(p)
		return context.Cause(ctx)
	}
}

// enqueue moves records from the folder to the queue. It holds the lock throughout, so
// that Close finds each folded failure in one of them.
func (s *FileSink) enqueue(take func(now time.Time) []Record) (p *pending, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	defer s.scheduleUnfold()
	p = &pending{records: take(time.Now()), done: make(chan error, 1)}
	if p.bodies, err = recordBodies(p.records); err != nil {
		s.folder.restore(p.records, time.Now())
		return nil, err
	}
	s.queue = append(s.queue, p)
	if !s.busy {
		s.busy = true
		go s.writeInBackground()
	}
	return p, nil
}

// withdraw takes back what nobody waits for, if it is not being written.
func (s *FileSink) withdraw(p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.queue, p); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
		s.folder.restore(p.records, time.Now())
		s.scheduleUnfold()
	}
}

// writeInBackground writes the queue until it is empty. It runs apart from the
// callers because they stop waiting when the disk hangs.
func (s *FileSink) writeInBackground() {
	for {
		<-s.turn
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		if len(batch) == 0 {
			s.busy = false
			s.mu.Unlock()
			s.release()
			return
		}
		s.mu.Unlock()
		err := s.writeBatch(batch)
		s.scheduleCheckpoint()
		s.release()
		for _, p := range batch {
			p.done <- err
		}
	}
}

// writeBatch writes a batch, or takes it back to the folder. Its caller has the turn.
func (s *FileSink) writeBatch(batch []*pending) error {
	var bodies [][]byte
	for _, p := range batch {
		bodies = append(bodies, p.bodies...)
	}
	err := s.trail.write(bodies)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range batch {
			s.folder.restore(p.records, time.Now())
		}
		s.scheduleUnfold()
	}
	return err
}

// scheduleCheckpoint starts the timer of the next checkpoint if one is due.
func (s *FileSink) scheduleCheckpoint() {
	if s.trail.signer != nil && s.trail.unsigned > 0 && s.timer == nil {
		s.timer = time.AfterFunc(s.interval, s.checkpointInBackground)
	}
}

func (s *FileSink) checkpointInBackground() {
	<-s.turn
	s.timer = nil
	if !s.isClosed() && s.trail.checkpoint() != nil {
		s.scheduleCheckpoint() // the next Write reports the failure, too
	}
	s.release()
}

func (s *FileSink) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Last returns the last entry that was written. Keep it where the writer of the
// trail cannot change it, for VerifyOptions.Last.
func (s *FileSink) Last() Anchor { return *s.last.Load() }

// Reopen closes the file and opens path again. Call it after a failed flush, once
// the disk is sound. You need not call it after a rotation, but may, for example
// on SIGHUP: the renamed file is then closed at once.
func (s *FileSink) Reopen() error {
	if err := s.acquire(); err != nil {
		return err
	}
	defer s.release()
	if s.isClosed() {
		return errClosed
	}
	return s.trail.reopen()
}

// Close writes what was folded, and a checkpoint if the sink has a Signer. It
// closes the file and releases its lock. Later Writes fail with [os.ErrClosed]. Closing again does
// nothing, unless the disk did not respond before.
func (s *FileSink) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.unfold != nil {
		s.unfold.Stop()
		s.unfold = nil
	}
	s.mu.Unlock()
	if err := s.acquire(); err != nil {
		return err
	}
	defer s.release()
	s.writeQueue()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if errors.Is(s.trail.failure, errClosed) {
		return nil
	}
	var err error
	if s.trail.failure == nil {
		err = s.writeFolded()
	}
	err = errors.Join(err, s.trail.close())
	s.trail.failure = errClosed
	return errors.Join(err, s.lock.Unlock())
}

// writeFolded writes what was folded when the sink is closed. Its caller has the turn.
func (s *FileSink) writeFolded() error {
	s.mu.Lock()
	folded := s.folder.flush()
	s.mu.Unlock()
	bodies, err := recordBodies(folded)
	if err != nil || len(bodies) == 0 {
		return err
	}
	return s.trail.write(bodies)
}

// writeQueue writes what waits when the sink is closed. Its caller has the turn.
func (s *FileSink) writeQueue() {
	s.mu.Lock()
	batch := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := s.writeBatch(batch)
	for _, p := range batch {
		p.done <- err
	}
}

func recordBodies(records []Record) ([][]byte, error) {
	bodies := make([][]byte, 0, len(records))
	for _, r := range records {
		body, err := recordBody(r)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// recordBody returns the part of a line that holds r.
func recordBody(r Record) ([]byte, error) {
	b, err := json.Marshal(r)
	for limit := maxRecord / 8; err == nil && len(b) > maxRecord; limit /= 2 {
		b, err = json.Marshal(shorten(r, limit))
	}
	if err != nil {
		return nil, fmt.Errorf("audit: record: %w", err)
	}
	return append([]byte(recordPart), b...), nil
}
