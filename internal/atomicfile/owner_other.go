//go:build !unix

package atomicfile

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: a new file inherits the permissions of its directory.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// ShareLock does nothing.
func ShareLock(path, locked string) {}

// SyncDir does nothing: Windows does not sync directories.
func SyncDir(string) error { return nil }

// Share does nothing: files have no owners here.
func Share(path, continues string) {}
