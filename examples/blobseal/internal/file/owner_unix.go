//go:build unix

package file

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// ownerOf returns the user id of a file's owner.
func ownerOf(info fs.FileInfo) (uid int, known bool) {
	s, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 0, false
	}
	return int(s.Uid), true
}

// keepOwner gives f the owner and the group of another file.
func keepOwner(f *os.File, other fs.FileInfo) error {
	want, known := other.Sys().(*syscall.Stat_t)
	if !known {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if has, known := info.Sys().(*syscall.Stat_t); known && has.Uid == want.Uid && has.Gid == want.Gid {
		return nil
	}
	if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("cannot keep its owner %d and group %d (rewrap as that user, or as root): %s", want.Uid, want.Gid, message.Plain(err))
	}
	return nil
}
