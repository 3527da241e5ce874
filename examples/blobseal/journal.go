package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

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
	headSize       = 56
	maxJournalSize = len(journalMagic) + sse.MaxEnvelopeSize + sha256.Size
)

type journalState int

const (
	journalNone    journalState = iota
	journalPartial              // not whole: the file was not touched
	journalPending              // counts
	journalForeign              // of another file
)

type journal struct {
	path  string
	state journalState
	env   *sse.Envelope // if pending
	data  []byte        // env's encoding
}

// journalPath is where the journal of a file is; the path is without links.
func journalPath(path string) string { return hidden(path, ".blobseal-rewrap") }

// findJournal looks for the journal of an open file.
func findJournal(name string, f io.ReaderAt) (*journal, error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	j := &journal{path: journalPath(path)}
	text, err := readJournal(j.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) { // there is none with such a name
		return j, nil
	}
	if err != nil { // it may count: go no further
		return nil, problemf(err, "%s: its rewrap journal %s cannot be read: %s", name, j.path, plain(err))
	}
	if j.env, j.data = parseJournal(text); j.env == nil {
		j.state = journalPartial
		return j, nil
	}
	head := make([]byte, headSize)
	if n, err := f.ReadAt(head, int64(len(j.data)-headSize)); n < headSize && !errors.Is(err, io.EOF) {
		return nil, err
	}
	j.state = journalForeign
	if bytes.Equal(head, j.data[len(j.data)-headSize:]) {
		j.state = journalPending
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

func journalText(data []byte) []byte {
	text := append([]byte(journalMagic), data...)
	sum := sha256.Sum256(text)
	return append(text, sum[:]...)
}

// write is step 1. After an error there is no journal. Who may read the file may
// read the journal.
func (j *journal) write(data []byte, info fs.FileInfo) (err error) {
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(j.path)
		}
	}()
	keepOwner(f, info)
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.Write(journalText(data)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(j.path)); err != nil {
		return err
	}
	j.data, j.state = data, journalPending
	return nil
}

// apply is steps 2 and 3. After an error the journal is still there.
func (j *journal) apply(f *os.File) error {
	if _, err := f.WriteAt(j.data[:len(j.data)-headSize], 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return j.remove()
}

func (j *journal) remove() error {
	if err := os.Remove(j.path); err != nil {
		return err
	}
	j.state = journalNone
	return syncDir(filepath.Dir(j.path))
}

// settle finishes or forgets what an earlier rewrap left. The caller holds the
// file's lock.
func (j *journal) settle(name string, f *os.File) error {
	switch j.state {
	case journalPending:
		if err := j.apply(f); err != nil {
			return unfinished(name, err)
		}
	case journalPartial:
		return j.remove()
	case journalForeign:
		return problemf(nil, "%s: %s is the rewrap journal of another file: move it beside that file, or remove it", name, j.path)
	}
	return nil
}

func unfinished(name string, err error) error {
	return problemf(err, "%s: rewrap is not finished: %s; the file opens all the same, and the next rewrap finishes it", name, plain(err))
}

// describe names what an envelope is sealed under. The version is that of a key
// service's key.
func describe(env *sse.Envelope, version string) string {
	text := "a customer key"
	if id := env.KeyID(); id != "" {
		text = "key " + id
	}
	if version != "" {
		text += " version " + version
	}
	if env.BucketKey() {
		text += " (bucket key)"
	}
	return text
}
