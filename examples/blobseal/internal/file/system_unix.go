//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// errLocked: another process holds the lock for longer than anyone should.
var errLocked = errors.New("another blobseal is rewrapping it")

// lockWait is how long to wait for a lock.
const lockWait = 10 * time.Second

// Lock takes an advisory lock on an open file, for reading its envelope or
// for changing it. Closing the file releases it. File systems without locks do
// without.
func Lock(ctx context.Context, f *os.File, exclusive bool) error {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	for end := time.Now().Add(lockWait); ; {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil // locked, or no locks here
		case time.Now().After(end):
			return errLocked
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func Unlock(f *os.File) { syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// keepOwner gives f the owner of another file, if that is allowed.
func keepOwner(f *os.File, info fs.FileInfo) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Chown(int(s.Uid), int(s.Gid)) // else it is the caller's
	}
}
