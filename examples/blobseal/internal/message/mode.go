package message

import (
	"io/fs"
	"runtime"
)

// OthersMayRead reports whether the group or others may read a file. On Windows, modes
// do not say.
func OthersMayRead(info fs.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}

// OthersMayWrite reports whether the group or others may write a file.
func OthersMayWrite(info fs.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0
}
