package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/blobseal/blobseal/internal/atomicfile"
)

// trail appends entries to the files of a trail. It is not safe for concurrent
// use.
type trail struct {
	path    string
	maxSize int64 // at most zero: no limit
	signer  *Signer
	every   int // entries between checkpoints

	file  sinkFile
	size  int64 // of the whole lines in the file
	head  int64 // of the lines that begin the file
	dirty bool  // a failed write may have left something behind them
	tail

	failure error // why nothing can be written until reopen

	wrap func(sinkFile) sinkFile // for tests; may be nil
}

// tail is the state at the end of a trail.
type tail struct {
	last     Anchor
	promised int // by the last checkpoint: at most so many entries until the next
	unsigned int // entries since the last checkpoint
}

// sinkFile is what a trail needs of an [os.File].
type sinkFile interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

// lines are entries that are not written yet.
type lines struct {
	tail
	buf    []byte
	signer *Signer
	every  int
}

func (t *trail) newLines() *lines { return &lines{tail: t.tail, signer: t.signer, every: t.every} }

// add appends a record or note, and the checkpoints that are due.
func (l *lines) add(body []byte) error {
	if l.signer != nil && l.promised != l.every {
		if err := l.checkpoint(); err != nil {
			return err
		}
	}
	l.buf, l.last = l.last.appendLine(l.buf, body)
	l.unsigned++
	if l.signer != nil && l.unsigned >= l.every {
		return l.checkpoint()
	}
	return nil
}

// continueTrail appends what begins every file but the first.
func (l *lines) continueTrail() error {
	l.buf, l.last = l.last.appendLine(l.buf, noteBody(Note{Type: noteContinue}))
	return l.checkpoint()
}

// checkpoint signs the entries so far, if there is a signer.
func (l *lines) checkpoint() error {
	if l.signer == nil {
		return nil
	}
	signed, err := l.signer.sign(checkpoint{l.last, l.every})
	if err != nil {
		return fmt.Errorf("audit: sign checkpoint: %w", err)
	}
	l.buf, l.last = l.last.appendLine(l.buf, noteBody(Note{Type: noteCheckpoint, Signed: signed}))
	l.promised, l.unsigned = l.every, 0
	return nil
}

// open finds the end of the trail, repairs what a crash left there, and opens
// the current file.
func (t *trail) open() error {
	atomicfile.RemoveStale(t.path)
	torn, follows, err := t.load(nil)
	if err != nil {
		return err
	}
	if torn != nil || t.size == 0 && follows {
		if err := t.repair(torn, follows); err != nil {
			return err
		}
	}
	return t.openFile()
}

// openFile opens the file at path in place of the one that is open.
func (t *trail) openFile() error {
	f, err := os.OpenFile(t.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if t.file != nil {
		_ = t.file.Close() // what matters in it is flushed
	}
	t.file, t.dirty = f, false
	if t.wrap != nil {
		t.file = t.wrap(f)
	}
	// The process before may have left this to the operating system.
	if err := errors.Join(t.file.Sync(), atomicfile.SyncDir(filepath.Dir(t.path))); err != nil {
		return errors.Join(t.fail(err), t.file.Close())
	}
	return nil
}

// load verifies the current file, or without entries there the file before, and
// sets the state at the end. torn describes what follows the last whole line.
// follows reports that the trail continues older files. known is an entry that
// the current file must not contradict, or nil.
func (t *trail) load(known *Anchor) (torn *Note, follows bool, err error) {
	t.size, t.head, t.tail = 0, 0, tail{last: origin}
	v := t.newVerifier()
	v.last = known
	torn, err = t.scan(v)
	if err != nil || t.size > 0 {
		return torn, false, err
	}
	name, err := lastRotated(t.path)
	if err != nil || name == "" {
		return torn, false, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, false, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	v = t.newVerifier()
	for e, err := range v.read(name, f) {
		if err := t.checkSigner(&e, err); err != nil {
			return nil, false, err
		}
	}
	if v.at.Seq == 0 {
		return nil, false, &ChainError{Kind: ChainMissing, File: name, Line: 1, Seq: 1, Detail: "the file has no entries"}
	}
	t.tail = tail{last: v.at, promised: v.every, unsigned: v.unsigned}
	return torn, true, nil
}

func (t *trail) newVerifier() *verifier {
	v := &verifier{at: origin, signed: origin, anyStart: true}
	if t.signer != nil {
		v.key = t.signer.verifier
	}
	return v
}

// checkSigner refuses to continue a signed trail without its signer.
func (t *trail) checkSigner(e *Entry, err error) error {
	if err == nil && t.signer == nil && e.Note != nil && e.Note.Type == noteCheckpoint {
		return fmt.Errorf("audit: %s:%d: the trail is signed (set FileSinkOptions.Signer)", e.File, e.Line)
	}
	return err
}

// scan verifies the current file from its first entry on.
func (t *trail) scan(v *verifier) (torn *Note, err error) {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	for e, err := range v.read(t.path, f) {
		if broken, ok := errors.AsType[*ChainError](err); ok && broken.torn {
			return describeTorn(f, t.size)
		}
		if err := t.checkSigner(&e, err); err != nil {
			return nil, err
		}
		t.size += e.size
		t.tail = tail{last: e.anchor(), promised: v.every, unsigned: v.unsigned}
	}
	if v.unexpected != nil {
		return nil, v.unexpected
	}
	return nil, nil
}

// describeTorn returns a note on what f holds from offset off on.
func describeTorn(f *os.File, off int64) (*Note, error) {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	kept, sum := make([]byte, maxTorn), sha256.New()
	n, err := io.ReadFull(f, kept)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("audit: %w", err)
	}
	sum.Write(kept[:n])
	more, err := io.Copy(sum, f)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return &Note{Type: noteRecovery, Size: int64(n) + more, SHA256: hex.EncodeToString(sum.Sum(nil)), Torn: kept[:n]}, nil
}

// repair atomically replaces the current file by its whole lines and notes on
// what happened, so that a crash meanwhile loses nothing.
func (t *trail) repair(torn *Note, follows bool) error {
	l := t.newLines()
	var err error
	switch {
	case t.size == 0 && follows:
		err = l.continueTrail()
	case l.unsigned > 0:
		err = l.checkpoint() // makes room for the note
	}
	if err == nil && torn != nil {
		err = l.add(noteBody(*torn))
	}
	if err != nil {
		return err
	}
	whole := io.Reader(bytes.NewReader(nil))
	if t.size > 0 {
		f, err := os.Open(t.path)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		defer f.Close()
		whole = io.LimitReader(f, t.size)
	}
	if err := atomicfile.Replace(t.path, io.MultiReader(whole, bytes.NewReader(l.buf))); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	t.size += int64(len(l.buf))
	t.tail = l.tail
	return nil
}

// write appends records and flushes them: all or none.
func (t *trail) write(records [][]byte) error {
	if err := t.ensureFile(); err != nil || len(records) == 0 {
		return err
	}
	l, err := t.format(records)
	if err == nil && t.maxSize > 0 && t.size > t.head && t.size+int64(len(l.buf)) > t.maxSize {
		if err = t.startFile(); err == nil {
			l, err = t.format(records)
		}
	}
	if err != nil {
		return err
	}
	return t.append(l)
}

func (t *trail) format(records [][]byte) (*lines, error) {
	l := t.newLines()
	for _, r := range records {
		if err := l.add(r); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// append writes and flushes lines.
func (t *trail) append(l *lines) error {
	if _, err := t.file.Write(l.buf); err != nil {
		t.dirty = true
		_ = t.truncate() // or before the next write
		return fmt.Errorf("audit: %w", err)
	}
	if err := t.file.Sync(); err != nil {
		_ = t.file.Truncate(t.size)
		return t.fail(err)
	}
	t.size += int64(len(l.buf))
	t.tail = l.tail
	return nil
}

// checkpoint signs the entries since the last checkpoint, if there are any.
func (t *trail) checkpoint() error {
	if t.signer == nil || t.unsigned == 0 {
		return nil
	}
	if err := t.ensureFile(); err != nil {
		return err
	}
	l := t.newLines()
	if err := l.checkpoint(); err != nil {
		return err
	}
	return t.append(l)
}

// truncate removes what a failed write left.
func (t *trail) truncate() error {
	if !t.dirty {
		return nil
	}
	if err := t.file.Truncate(t.size); err != nil {
		return fmt.Errorf("audit: after a failed write: %w", err)
	}
	t.dirty = false
	return nil
}

// ensureFile makes sure that the current file is what this trail wrote. If someone
// renamed, removed, replaced or changed it, a new file continues the trail.
func (t *trail) ensureFile() error {
	if t.failure != nil {
		return t.failure
	}
	if err := t.truncate(); err != nil {
		return err
	}
	ours, err := t.file.Stat()
	if err != nil {
		return t.fail(err)
	}
	current, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return t.startFile()
	case err != nil:
		return fmt.Errorf("audit: %w", err)
	case !os.SameFile(ours, current) || ours.Size() != t.size:
		return t.startFile()
	}
	return nil
}

// fail reports that nobody knows what is on the disk.
func (t *trail) fail(err error) error {
	t.failure = fmt.Errorf("audit: %s: contents unknown after an error (call Reopen): %w", t.path, err)
	return t.failure
}

// startFile sets the file at path aside, if it is not empty, and continues the
// trail in a new one. If it fails, the next write tries again.
func (t *trail) startFile() error {
	l := t.newLines()
	if err := l.continueTrail(); err != nil {
		return err
	}
	_ = t.file.Close() // Windows renames no open file; everything in it is flushed
	aside, err := t.setAside()
	if err == nil {
		err = atomicfile.Replace(t.path, bytes.NewReader(l.buf))
	}
	if err == nil && aside != "" {
		atomicfile.Share(t.path, aside) // a service goes on after root wrote to its trail
	}
	if err != nil {
		return errors.Join(fmt.Errorf("audit: %w", err), t.openFile())
	}
	if err := t.openFile(); err != nil {
		return err
	}
	t.size, t.tail = int64(len(l.buf)), l.tail
	t.head = t.size
	return nil
}

// setAside renames the file at path unless it is empty, and returns its new path.
func (t *trail) setAside() (string, error) {
	info, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return "", nil
	}
	aside, err := nextAside(t.path)
	if err != nil {
		return "", err
	}
	return aside, os.Rename(t.path, aside)
}

// reopen opens the current file again after fail, or after someone moved it.
// Entries that were acknowledged are never numbered again: if the disk lost
// them, they are missing from the trail.
func (t *trail) reopen() error {
	known := t.tail
	_, _, err := t.load(&known.last)
	_, broken := errors.AsType[*ChainError](err)
	if err != nil && !broken {
		t.tail = known
		return err
	}
	if broken || t.last.Seq < known.last.Seq || t.last.Seq == known.last.Seq && t.last != known.last {
		t.tail = known
		err = t.startFile()
	} else {
		err = t.open()
	}
	if err != nil {
		return err
	}
	t.failure = nil
	return nil
}

func (t *trail) close() error {
	err := t.truncate()
	if t.failure == nil {
		err = errors.Join(err, t.checkpoint(), t.file.Sync())
	}
	if closing := t.file.Close(); !errors.Is(closing, os.ErrClosed) {
		err = errors.Join(err, closing)
	}
	return err
}
