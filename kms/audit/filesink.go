package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

var (
	// ErrInUse: another sink, of this process or another, writes the file.
	ErrInUse = errors.New("audit: file is in use")
	// ErrClosed: the sink was closed.
	ErrClosed = errors.New("audit: sink is closed")
)

// FileSinkOptions are the options of [OpenFileSink].
type FileSinkOptions struct {
	// MaxSize is the size in bytes at which a file is set aside and a new one
	// begun; zero means 64 MiB. Records that are written together stay together,
	// so that a file may be larger by one batch. Below zero, files never end.
	MaxSize int64

	// FoldWindow is the time over which failures of one kind are folded into one
	// record; zero means a minute. Below zero, every failure has its own record,
	// and whoever can provoke failures can fill the disk.
	FoldWindow time.Duration
}

const defaultMaxSize = 64 << 20

// FileSink writes records to a file; see [OpenFileSink].
type FileSink struct {
	path string
	opts FileSinkOptions
	lock *flock.Flock

	folder  folder
	pending sync.Mutex // guards batch
	batch   *batch

	io      sync.Mutex // guards the rest: one writes, for all who wait
	file    sinkFile
	size    int64 // of what is whole
	dirty   bool  // something may follow it
	last    Anchor
	failure error // the sink is over

	wrap func(sinkFile) sinkFile // for tests; may be nil
}

// sinkFile is what a sink needs of an [os.File].
type sinkFile interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

// batch is the records that are written together.
type batch struct {
	records [][]byte
	done    bool // guarded by FileSink.io, as err
	err     error
}

// OpenFileSink opens or creates an audit trail in files of JSON Lines: path, and
// those that were set aside, path.000001 and so on, the latest with the highest
// number. It holds path.lock until Close: a second sink on the same path, in any
// process, is [ErrInUse].
//
// Each line is
//
//	{"seq":7,"prev":"…","record":{…},"hash":"…"}
//
// where prev is the hash of the line before, and hash is SHA-256, in hex, over
// "blobseal audit v1", a zero byte, and the line's own bytes before `,"hash"`.
// Numbers and hashes go on from file to file. Instead of a record a line may
// have a note on the trail itself:
//
//	{"seq":8,"prev":"…","note":{"type":"continue","time":"…"},"hash":"…"}
//	{"seq":9,"prev":"…","note":{"type":"recovery","time":"…","size":…,"sha256":"…","torn":"…"},"hash":"…"}
//
// The first stands at the begin of each file but the first. The second says that
// the process before was killed while it wrote: the file ended within a line.
// No Write had returned for that record. What there was of it is in the note, up to 64 KiB in base64,
// and is not in the file any more. Nothing else is ever taken out of a file; a
// trail that is broken elsewhere is not opened, but reported as a [ChainError]:
// move its files away to begin another.
//
// Failures of one kind, which is principal, operation, key and error code, are
// folded: the first is written at once, and those of the following minute
// (FileSinkOptions.FoldWindow) as one record with a Count, when the minute has
// ended and the next record is written, or at Close. A crash loses that count.
// At most 150 records of failures are written in a minute, however many there
// are: beyond 64 kinds, failures are folded by error code alone. A record with
// Retracts is never folded.
//
// Writes of many goroutines share a flush. A write that fails, on a full disk
// for one, leaves nothing behind, and the sink goes on when there is room again.
// After a flush that failed, or if the file was changed, moved or removed by
// someone else, nobody knows what is on the disk, and the sink fails until it is
// opened again.
//
// See [Verify] for what the hashes prove, and what they cannot.
func OpenFileSink(path string, opts *FileSinkOptions) (*FileSink, error) {
	s := &FileSink{path: path, batch: new(batch), lock: flock.New(path + ".lock")}
	if opts != nil {
		s.opts = *opts
	}
	if s.folder.window = s.opts.FoldWindow; s.folder.window == 0 {
		s.folder.window = defaultFoldWindow
	}
	if s.opts.MaxSize == 0 {
		s.opts.MaxSize = defaultMaxSize
	}
	locked, err := s.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("audit: file: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	}
	if err := s.open(); err != nil {
		if s.file != nil {
			_ = s.file.Close()
		}
		_ = s.lock.Unlock()
		return nil, err
	}
	return s, nil
}

// open finds the end of the trail, repairs it where a process was killed, and
// opens its last file.
func (s *FileSink) open() error {
	before, follows, err := lastAside(s.path)
	if err != nil {
		return err
	}
	s.last = before
	torn, err := s.scan(follows)
	if err != nil {
		return err
	}
	var notes []Note
	if s.size == 0 && follows { // killed before or within its first line
		notes = append(notes, Note{Type: NoteContinue})
	}
	if torn != nil {
		notes = append(notes, *torn)
	}
	if len(notes) > 0 {
		if err := s.repair(notes); err != nil {
			return err
		}
	}
	if err := s.openFile(); err != nil {
		return err
	}
	// What the process before left to the operating system.
	if err := errors.Join(s.file.Sync(), syncDir(s.path)); err != nil {
		return fmt.Errorf("audit: file: %w", err)
	}
	return nil
}

// openFile opens the current file to append to it.
func (s *FileSink) openFile() error {
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit: file: %w", err)
	}
	s.file = f
	if s.wrap != nil {
		s.file = s.wrap(f)
	}
	return nil
}

// lastAside returns the end of the trail in the files that were set aside, if
// there are any.
func lastAside(path string) (last Anchor, follows bool, err error) {
	aside, err := asideFiles(path)
	if err != nil || len(aside) == 0 {
		return start, false, err
	}
	name := aside[len(aside)-1]
	f, err := os.Open(name)
	if err != nil {
		return start, false, fmt.Errorf("audit: file: %w", err)
	}
	defer f.Close()
	v := verifier{anyStart: true}
	for _, err := range v.read(name, f) {
		if err != nil {
			return start, false, err
		}
	}
	if v.at.Seq == 0 {
		return start, false, &ChainError{Kind: ChainMissing, File: name, Line: 1, Seq: 1, Detail: "a file without records was set aside"}
	}
	return v.at, true, nil
}

// scan verifies the current file, sets size and last, and returns the note on
// what follows the last whole line. A file whose predecessors were all moved
// away may start anywhere.
func (s *FileSink) scan(follows bool) (torn *Note, err error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit: file: %w", err)
	}
	defer f.Close()
	v := verifier{at: s.last, anyStart: !follows}
	for e, err := range v.read(s.path, f) {
		if broken, ok := errors.AsType[*ChainError](err); ok && broken.torn {
			return tornNote(f, s.size)
		}
		if err != nil {
			return nil, err
		}
		s.size += e.size
		s.last = v.at
	}
	return nil, nil
}

// tornNote describes what f holds from off on.
func tornNote(f *os.File, off int64) (*Note, error) {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return nil, fmt.Errorf("audit: file: %w", err)
	}
	kept, sum := make([]byte, maxTorn), sha256.New()
	n, err := io.ReadFull(f, kept)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("audit: file: %w", err)
	}
	sum.Write(kept[:n])
	more, err := io.Copy(sum, f)
	if err != nil {
		return nil, fmt.Errorf("audit: file: %w", err)
	}
	return &Note{Type: NoteRecovery, Size: int64(n) + more, SHA256: hex.EncodeToString(sum.Sum(nil)), Torn: kept[:n]}, nil
}

// repair replaces the current file by its whole lines and notes. It does so in
// one step, so that a crash within it takes nothing away.
func (s *FileSink) repair(notes []Note) error {
	var lines []byte
	last := s.last
	for _, n := range notes {
		lines, last = last.appendLine(lines, noteBody(n))
	}
	whole := io.Reader(bytes.NewReader(nil))
	if s.size > 0 {
		f, err := os.Open(s.path)
		if err != nil {
			return fmt.Errorf("audit: file: %w", err)
		}
		defer f.Close()
		whole = io.LimitReader(f, s.size)
	}
	next := s.path + ".tmp"
	if err := writeFile(next, io.MultiReader(whole, bytes.NewReader(lines))); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(next, s.path), syncDir(s.path)); err != nil {
		return fmt.Errorf("audit: file: %w", err)
	}
	s.size += int64(len(lines))
	s.last = last
	return nil
}

// Write implements [Sink]. It fails with ctx's error if ctx has ended before it
// begins, and does not look at ctx again.
func (s *FileSink) Write(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	records := s.folder.add(r, time.Now())
	err := s.write(records)
	if err != nil {
		s.folder.restore(records, time.Now())
	}
	return err
}

// write writes records with those of other goroutines. Without records, it
// reports whether the sink still works.
func (s *FileSink) write(records []Record) error {
	bodies, err := recordBodies(records)
	if err != nil {
		return err
	}
	s.pending.Lock()
	b := s.batch
	b.records = append(b.records, bodies...)
	s.pending.Unlock()

	s.io.Lock()
	defer s.io.Unlock()
	if len(bodies) == 0 {
		return s.failure
	}
	if !b.done { // nobody has written it for us, so it is the current one
		s.pending.Lock()
		s.batch = new(batch)
		s.pending.Unlock()
		b.err = s.commit(b.records)
		b.done = true
	}
	return b.err
}

// commit writes records, all or none. s.io is held, as for what follows.
func (s *FileSink) commit(records [][]byte) error {
	if s.failure != nil {
		return s.failure
	}
	if err := s.settle(); err != nil {
		return err
	}
	var size int64
	for _, r := range records {
		size += int64(len(r) + lineOverhead)
	}
	if s.opts.MaxSize > 0 && s.size > 0 && s.size+size > s.opts.MaxSize {
		if err := s.setAside(); err != nil {
			return err
		}
	}
	lines, last := make([]byte, 0, size), s.last
	for _, r := range records {
		lines, last = last.appendLine(lines, r)
	}
	_, err := s.file.Write(lines)
	if err != nil {
		s.dirty = true
		_ = s.settle() // or before the next write
		return fmt.Errorf("audit: file: %w", err)
	}
	if err := s.sync(); err != nil {
		_ = s.file.Truncate(s.size)
		return err
	}
	s.size += int64(len(lines))
	s.last = last
	return nil
}

// settle takes away what a failed write left, and makes sure that the file is
// what this sink wrote and still in its place.
func (s *FileSink) settle() error {
	if s.dirty {
		if err := s.file.Truncate(s.size); err != nil {
			return fmt.Errorf("audit: file: after a failed write: %w", err)
		}
		s.dirty = false
	}
	ours, err := s.file.Stat()
	if err != nil {
		return s.fail(err)
	}
	there, err := os.Stat(s.path)
	if err != nil {
		return s.fail(err)
	}
	if !os.SameFile(ours, there) {
		return s.fail(errors.New("another file is in its place"))
	}
	if ours.Size() != s.size {
		return s.fail(fmt.Errorf("someone else changed it: it has %d bytes, want %d", ours.Size(), s.size))
	}
	return nil
}

// fail ends the sink.
func (s *FileSink) fail(err error) error {
	s.failure = fmt.Errorf("audit: file %s, to be opened again: %w", s.path, err)
	return s.failure
}

func (s *FileSink) sync() error {
	if err := s.file.Sync(); err != nil {
		return s.fail(err)
	}
	return nil
}

// setAside renames the current file and begins the next.
func (s *FileSink) setAside() error {
	aside, err := asideFiles(s.path)
	if err != nil {
		return err
	}
	number := 1
	if len(aside) > 0 {
		number += asideNumber(s.path, aside[len(aside)-1])
	}
	name := fmt.Sprintf("%s.%06d", s.path, number)
	if err := s.sync(); err != nil {
		return err
	}
	next := s.path + ".tmp"
	line, last := s.last.appendLine(nil, noteBody(Note{Type: NoteContinue}))
	if err := writeFile(next, bytes.NewReader(line)); err != nil {
		return err // and the file goes on to be the current one
	}
	// From here on what fails half-way is repaired by opening.
	if err := s.file.Close(); err != nil {
		return s.fail(err)
	}
	if err := errors.Join(os.Rename(s.path, name), os.Rename(next, s.path), syncDir(s.path)); err != nil {
		return s.fail(err)
	}
	if err := s.openFile(); err != nil {
		return s.fail(err)
	}
	s.size, s.last = int64(len(line)), last
	return nil
}

// Last returns the place of the last record: an [Anchor] to keep elsewhere.
func (s *FileSink) Last() Anchor {
	s.io.Lock()
	defer s.io.Unlock()
	return s.last
}

// Close flushes and closes the file and gives up its lock. Writes that come
// later are [ErrClosed]. A second Close does nothing.
func (s *FileSink) Close() error {
	s.io.Lock()
	defer s.io.Unlock()
	if errors.Is(s.failure, ErrClosed) {
		return nil
	}
	var err error
	if s.failure == nil {
		if records := s.folder.flush(); len(records) > 0 {
			var bodies [][]byte
			if bodies, err = recordBodies(records); err == nil {
				err = s.commit(bodies)
			}
		}
	}
	if s.failure == nil {
		if s.dirty {
			err = errors.Join(err, s.settle())
		}
		err = errors.Join(err, s.file.Sync())
	}
	s.failure = ErrClosed
	if closing := s.file.Close(); !errors.Is(closing, os.ErrClosed) {
		err = errors.Join(err, closing)
	}
	return errors.Join(err, s.lock.Unlock())
}

// writeFile writes a whole new file and flushes it.
func writeFile(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit: file: %w", err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(name)
		return fmt.Errorf("audit: file: %w", err)
	}
	return nil
}

// syncDir makes changes in path's directory durable.
func syncDir(path string) error {
	if runtime.GOOS == "windows" { // has no such thing
		return nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// asideFiles returns the files of path that were set aside, the oldest first.
func asideFiles(path string) ([]string, error) {
	dir, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("audit: file: %w", err)
	}
	var names []string
	for _, e := range dir {
		if name := filepath.Join(filepath.Dir(path), e.Name()); asideNumber(path, name) > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(asideNumber(path, a), asideNumber(path, b)) })
	return names, nil
}

// asideNumber returns which file of path name is, or 0 if it is none.
func asideNumber(path, name string) int {
	digits, ok := strings.CutPrefix(filepath.Base(name), filepath.Base(path)+".")
	if !ok || len(digits) < 6 || len(digits) > 9 {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}
