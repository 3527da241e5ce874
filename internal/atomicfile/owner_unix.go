//go:build unix

package atomicfile

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives f the owner and group of the file that info describes.
func keepOwner(f *os.File, info fs.FileInfo) error {
	own, err := f.Stat()
	if err != nil || sameOwner(own, info) {
		return err
	}
	want := info.Sys().(*syscall.Stat_t)
	return f.Chown(int(want.Uid), int(want.Gid))
}

// ShareLock gives the empty lock file at path the owner, group and mode of the file that it
// locks, because everyone who may write a file must be able to open its lock. It does
// nothing to a file that this process does not own, or that someone else could have put there.
func ShareLock(path, locked string) {
	share(path, locked, func(lock fs.FileInfo) bool { return lock.Size() == 0 })
}

// Share gives the file at path the owner, group and mode of the file that it continues, if
// this process owns it.
func Share(path, continues string) {
	share(path, continues, func(fs.FileInfo) bool { return true })
}

// share gives the file at path the owner, group and mode of model, as far as it can. The
// file must be regular, have one name, belong to this process, and suit the caller.
func share(path, model string, suits func(fs.FileInfo) bool) {
	info, err := os.Stat(model)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	own, err := f.Stat()
	if err != nil || !own.Mode().IsRegular() || !suits(own) {
		return
	}
	stat := own.Sys().(*syscall.Stat_t)
	if stat.Nlink == 1 && int(stat.Uid) == os.Geteuid() && keepOwner(f, info) == nil {
		f.Chmod(info.Mode().Perm())
	}
}

func sameOwner(a, b fs.FileInfo) bool {
	x, y := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
	return x.Uid == y.Uid && x.Gid == y.Gid
}

// SyncDir makes changes in a directory durable.
func SyncDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
