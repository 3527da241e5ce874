package file

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

// Rewrapping in place overwrites the envelope at the head of a file, which no
// file system does in one piece. So the new envelope is first made durable in a
// journal beside the file:
//
//  1. write the journal; sync it and the directory
//  2. overwrite the envelope, but for its head; sync the file
//  3. remove the journal; sync the directory
//
// Whoever opens the file looks for a journal first. One that is whole was there
// before the file was touched, and its envelope counts, whatever the file's own
// bytes are. One that is not whole means that the file was not touched.
//
// A journal is bound to its file by the envelope's head, the last 56 bytes: they
// hold a random salt and a commitment to the data key, belong to the body, and
// are the one part of the envelope that rewrapping neither changes nor writes.
// A file with that head at that place is followed by the body that the journal's
// envelope is for. A journal of another file is not used and not removed: it
// may be all that opens that file.
//
// Readers and rewrappers hold a lock on the file against each other. A file with
// several hard links must be opened, after a crash, by the name that it was
// rewrapped under.
const (
	journalMagic   = "blobseal rewrap journal 1\n"
	HeadSize       = 56
	maxJournalSize = len(journalMagic) + sse.MaxEnvelopeSize + sha256.Size
)

type journalState int

const (
	journalNone    journalState = iota
	JournalPartial              // not whole: the file was not touched
	JournalPending              // counts
	JournalForeign              // of another file
)

type Journal struct {
	Path  string
	State journalState
	Env   *sse.Envelope // if pending
	data  []byte        // env's encoding
}

// JournalPath is where the journal of a file is; the path is without links.
func JournalPath(path string) string { return hidden(path, ".blobseal-rewrap") }

// FindJournal looks for the journal of an open file.
func FindJournal(name string, f io.ReaderAt) (*Journal, error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	j := &Journal{Path: JournalPath(path)}
	text, err := readJournal(j.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) { // there is none with such a name
		return j, nil
	}
	if err != nil { // it may count: go no further
		return nil, message.Problemf(err, "%s: its rewrap journal %s cannot be read: %s", name, j.Path, message.Plain(err))
	}
	if j.Env, j.data = parseJournal(text); j.Env == nil {
		j.State = JournalPartial
		return j, nil
	}
	head := make([]byte, HeadSize)
	if n, err := f.ReadAt(head, int64(len(j.data)-HeadSize)); n < HeadSize && !errors.Is(err, io.EOF) {
		return nil, err
	}
	j.State = JournalForeign
	if bytes.Equal(head, j.data[len(j.data)-HeadSize:]) {
		j.State = JournalPending
	}
	return j, nil
}

func readJournal(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(maxJournalSize)+1))
}

// parseJournal returns the envelope of a journal, or nil if it is not whole.
func parseJournal(text []byte) (*sse.Envelope, []byte) {
	rest, found := bytes.CutPrefix(text, []byte(journalMagic))
	if !found || len(rest) < sha256.Size {
		return nil, nil
	}
	end := len(text) - sha256.Size
	if sum := sha256.Sum256(text[:end]); !bytes.Equal(sum[:], text[end:]) {
		return nil, nil
	}
	data := rest[:len(rest)-sha256.Size]
	env := new(sse.Envelope)
	if env.UnmarshalBinary(data) != nil {
		return nil, nil
	}
	return env, data
}

func JournalText(data []byte) []byte {
	text := append([]byte(journalMagic), data...)
	sum := sha256.Sum256(text)
	return append(text, sum[:]...)
}

// Write is step 1. After an error there is no journal. Who may read the file may
// read the journal.
func (j *Journal) Write(data []byte, info fs.FileInfo) (err error) {
	f, err := os.OpenFile(j.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(j.Path)
		}
	}()
	keepOwner(f, info)
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.Write(JournalText(data)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(j.Path)); err != nil {
		return err
	}
	j.data, j.State = data, JournalPending
	return nil
}

// Apply is steps 2 and 3. After an error the journal is still there.
func (j *Journal) Apply(f *os.File) error {
	if _, err := f.WriteAt(j.data[:len(j.data)-HeadSize], 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return j.remove()
}

func (j *Journal) remove() error {
	if err := os.Remove(j.Path); err != nil {
		return err
	}
	j.State = journalNone
	return syncDir(filepath.Dir(j.Path))
}

// Settle finishes or forgets what an earlier rewrap left. The caller holds the
// file's lock.
func (j *Journal) Settle(name string, f *os.File) error {
	switch j.State {
	case JournalPending:
		if err := j.Apply(f); err != nil {
			return Unfinished(name, err)
		}
	case JournalPartial:
		return j.remove()
	case JournalForeign:
		return message.Problemf(nil, "%s: %s is the rewrap journal of another file: move it beside that file, or remove it", name, j.Path)
	}
	return nil
}

func Unfinished(name string, err error) error {
	return message.Problemf(err, "%s: rewrap is not finished: %s; the file opens all the same, and the next rewrap finishes it", name, message.Plain(err))
}
