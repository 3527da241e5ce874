package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

const (
	lockWait  = 10 * time.Second
	lockRetry = 5 * time.Millisecond
)

var errLocked = errors.New("another blobseal is rewrapping it")

// OpenToReplace opens a regular file that is about to be replaced, as soon as no
// other process replaces it. The input's Path has no symbolic links, so replacing
// the file keeps a link that led there. Closing the input releases the lock.
//
// Readers need no lock: they keep the old file open until they are done.
func OpenToReplace(ctx context.Context, name string) (*Input, error) {
	for {
		path, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			return nil, message.ErrIsDirectory
		case !info.Mode().IsRegular(): // opening a pipe would wait
			return nil, errors.New("not a regular file")
		}
		lock, err := lockFile(ctx, path)
		if err != nil {
			return nil, err
		}
		in, err := openLocked(name, path, lock)
		if err != errReplaced {
			return in, err
		}
	}
}

// lockFile locks the file at path against other processes that replace it. On a
// file system or an operating system without suitable locks the lock is nil.
func lockFile(ctx context.Context, path string) (*flock.Flock, error) {
	if runtime.GOOS == "windows" { // a lock there would keep us from reading the file
		return nil, nil
	}
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	locked, err := lock.TryLockContext(wait, lockRetry)
	if locked {
		return lock, nil
	}
	lock.Close()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case wait.Err() != nil:
		return nil, errLocked
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return nil, nil
}

var errReplaced = errors.New("the file was replaced before it was locked")

// openLocked opens the file at path. errReplaced means that lock, which it then
// releases, is a lock on an earlier file of that name.
func openLocked(name, path string, lock *flock.Flock) (_ *Input, err error) {
	in := &Input{Name: name, Path: path, lock: lock}
	defer func() {
		if err != nil {
			in.Close()
		}
	}()
	if in.File, err = os.Open(path); err != nil {
		return nil, err
	}
	if in.Info, err = in.File.Stat(); err != nil {
		return nil, err
	}
	in.R, in.Size = in.File, in.Info.Size()
	if lock == nil {
		return in, nil
	}
	locked, err := lock.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(locked, in.Info) {
		return nil, errReplaced
	}
	return in, nil
}
