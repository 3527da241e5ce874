package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// MaxFileSize is the largest document of a [FileStore] in bytes. It is more than
// a ring may hold ([MaxDocumentSize]), for documents of other kinds.
const MaxFileSize = 64 << 20

// lockRetry is how often a writer asks for the lock that another one holds.
const lockRetry = 5 * time.Millisecond

// FileStore is a [Store] in one file, for any number of processes on one
// machine. It is safe for concurrent use and holds nothing open.
//
// A write goes to a temporary file beside it (".NAME.*.tmp"), which is synced
// and then renamed over the old one, and the directory is synced: whenever the
// process is killed or the disk is full, the file holds the old document or the
// new one. What a killed process left behind, the next writer removes. Writers
// hold an advisory lock on NAME.lock, which stays there, empty: who removes it
// while they write lets two of them write at once.
//
// The file is made with mode 0600. A file that others may read is not refused,
// since the document is encrypted, but the next write makes it 0600 again. If the path
// is a symbolic link, what it points to is replaced, and the lock is there.
//
// The directory must be on a local file system: it takes locks, atomic renames
// and syncs. Backups may copy the file at any time.
type FileStore struct{ path string }

// NewFileStore returns the store in the file at path. It does not touch the
// file: that need not exist, but its directory must when the store is used. An empty
// path is [ErrInvalid].
func NewFileStore(path string) (*FileStore, error) {
	if path == "" {
		return nil, invalid("empty path")
	}
	abs, err := filepath.Abs(path) // whatever the working directory becomes
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return &FileStore{path: abs}, nil
}

// Load implements [Store]. The file's absence is [ErrNotExist]; that of its
// directory, or of what a symbolic link points to, is another error. A file
// beyond [MaxFileSize] is [ErrDamaged], unread.
func (s *FileStore) Load(ctx context.Context) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	target, err := s.target()
	if err != nil {
		return nil, "", err
	}
	return readDocument(target)
}

// Swap implements [Store].
func (s *FileStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(data) == 0 || len(data) > MaxFileSize {
		return "", fmt.Errorf("document of %d bytes, want 1 to %d", len(data), MaxFileSize)
	}
	target, err := s.target()
	if err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, target+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()

	_, current, err := readDocument(target)
	if err != nil && !errors.Is(err, ErrNotExist) {
		return "", err
	}
	if current != version {
		return "", ErrConflict
	}
	removeStale(target)
	if err := replaceFile(target, data); err != nil {
		return "", err
	}
	return contentVersion(data), nil
}

// MaxSize implements [Sizer].
func (s *FileStore) MaxSize() int { return MaxFileSize }

// lockFile returns the lock on the file at path, which the caller closes.
func lockFile(ctx context.Context, path string) (*flock.Flock, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // opening a pipe would wait
		return nil, fmt.Errorf("lock %s is not a regular file", path)
	}
	lock := flock.New(path)
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return lock, nil
}

// target is the path of the file itself, without symbolic links.
func (s *FileStore) target() (string, error) {
	target, err := filepath.EvalSymlinks(s.path)
	if err == nil {
		return target, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", s.path, err)
	}
	if info, err := os.Lstat(s.path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "", fmt.Errorf("%s is a symbolic link to nothing", s.path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(s.path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(s.path)), nil
}

// readDocument reads a file of bounded size. Its version is a hash of what it
// holds: no two documents of a ring are the same, as each has its generation.
func readDocument(path string) ([]byte, string, error) {
	info, err := os.Stat(path) // before opening, which waits if it is a pipe
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", ErrNotExist
	case err != nil:
		return nil, "", err
	case !info.Mode().IsRegular():
		return nil, "", fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > MaxFileSize {
		return nil, "", fmt.Errorf("%w: %s is larger than %d bytes", ErrDamaged, path, MaxFileSize)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	// The file is never written in place, so its size hardly changes: room for
	// it, and for the read that finds its end, is made once.
	buf := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(f, MaxFileSize+1)); err != nil {
		return nil, "", err
	}
	data := buf.Bytes()
	if len(data) > MaxFileSize {
		return nil, "", fmt.Errorf("%w: %s is larger than %d bytes", ErrDamaged, path, MaxFileSize)
	}
	return data, contentVersion(data), nil
}

func contentVersion(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// replaceFile makes data the contents of the file at path, or leaves it as it is.
func replaceFile(path string, data []byte) (err error) {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, tempPrefix(name)+"*"+tempSuffix) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name()) // or else the next writer does
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Temporary files are ".NAME.DIGITS.tmp", so that no other file's are mistaken
// for ours, not even those of a ring beside this one.
const tempSuffix = ".tmp"

func tempPrefix(name string) string { return "." + name + "." }

// removeStale removes the temporary files of writers that were killed, as far as
// it can. The caller holds the lock, so there are no others.
func removeStale(path string) {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // a directory that can be written but not listed
	}
	for _, entry := range entries {
		digits, isTemp := strings.CutPrefix(entry.Name(), tempPrefix(name))
		digits, hasSuffix := strings.CutSuffix(digits, tempSuffix)
		if isTemp && hasSuffix && digits != "" && strings.Trim(digits, "0123456789") == "" && entry.Type().IsRegular() {
			os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
