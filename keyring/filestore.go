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
	"time"

	"github.com/gofrs/flock"

	"github.com/blobseal/blobseal/internal/atomicfile"
)

// maxFileSize is the largest document of a file store in bytes. Rings are smaller
// ([MaxDocumentSize]); the documents of package localkms may need it.
const maxFileSize = 64 << 20

// lockRetry is the pause between attempts to take a lock that someone else holds.
const lockRetry = 5 * time.Millisecond

// fileStore is the [Store] of [NewFileStore].
type fileStore struct{ path string }

var _ Clock = (*fileStore)(nil)

// NewFileStore returns a [Store] in one file, for any number of processes on one machine.
// NewFileStore does not touch the file, which need not exist. The directory must exist when
// the store is used. An empty path is [ErrInvalid]. The store holds nothing open. It is a
// [Clock] that tells the time of the file system.
//
// A writer writes a temporary file (".NAME.DIGITS.tmp"), syncs it, renames it over the old
// one, and syncs the directory. If the process is killed or the disk is full, the file
// holds the old document or the new one. The next writer removes temporary files that
// killed writers left. Writers hold an advisory lock on NAME.lock, an empty file that
// stays: if you remove it while they write, two of them can write at once.
//
// A new file has mode 0600. An existing file keeps its owner, group and mode, and the lock
// file gets the same, so root's cron may rotate the ring of a service. A process that
// cannot keep the owner does not write. If the path is a symbolic link, writers replace its
// target, and the lock is beside the target.
//
// The directory must be on a local file system, with locks, atomic renames and syncs.
// Backups may copy the file at any time.
//
// A missing file is [ErrNotExist]; a missing directory and a symbolic link to nothing are
// other errors. A file larger than 64 MiB is [ErrDamaged], and is not read.
func NewFileStore(path string) (Store, error) {
	if path == "" {
		return nil, invalid("empty path")
	}
	abs, err := filepath.Abs(path) // the working directory may change
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return &fileStore{path: abs}, nil
}

// Load implements [Store].
func (s *fileStore) Load(ctx context.Context) ([]byte, string, error) {
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
func (s *fileStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(data) == 0 || len(data) > maxFileSize {
		return "", fmt.Errorf("document of %d bytes, want 1 to %d", len(data), maxFileSize)
	}
	target, err := s.target()
	if err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, target)
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
	atomicfile.RemoveStale(target)
	if err := atomicfile.Replace(target, bytes.NewReader(data)); err != nil {
		return "", err
	}
	return contentVersion(data), nil
}

// Now implements [Clock]. It creates a temporary file in the directory and returns its
// time, which is by the clock of the file system.
func (s *fileStore) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	target, err := s.target()
	if err != nil {
		return time.Time{}, err
	}
	return atomicfile.Now(target)
}

// MaxSize returns the size of the largest document in bytes. Package localkms asks for it.
func (s *fileStore) MaxSize() int { return maxFileSize }

// lockFile returns the lock on the file at target, which the caller closes.
func lockFile(ctx context.Context, target string) (*flock.Flock, error) {
	path := target + ".lock"
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // opening a pipe would wait
		return nil, fmt.Errorf("lock %s is not a regular file", path)
	}
	lock := flock.New(path, flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	atomicfile.ShareLock(path, target)
	return lock, nil
}

// target returns the path of the file itself, without symbolic links.
func (s *fileStore) target() (string, error) {
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

// readDocument reads a file of bounded size. The version is a hash of the content: no two
// documents of a ring are equal, because each has its own generation.
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
	if info.Size() > maxFileSize {
		return nil, "", fmt.Errorf("%w: %s is larger than %d bytes", ErrDamaged, path, maxFileSize)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	// The file is never written in place, so the buffer for its size, and for the read
	// that finds its end, rarely has to grow.
	buf := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(f, maxFileSize+1)); err != nil {
		return nil, "", err
	}
	data := buf.Bytes()
	if len(data) > maxFileSize {
		return nil, "", fmt.Errorf("%w: %s is larger than %d bytes", ErrDamaged, path, maxFileSize)
	}
	return data, contentVersion(data), nil
}

func contentVersion(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
