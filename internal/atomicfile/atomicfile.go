// Package atomicfile replaces files in such a way that after a crash a file holds either
// the old content or the new one.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Replace replaces the content of the file at path, or after an error leaves the file
// unchanged. It writes a temporary file beside it (".NAME.DIGITS.tmp"), syncs that, renames
// it over path and syncs the directory.
//
// An existing file keeps its owner, group and mode; a symbolic link itself is replaced. If
// Replace cannot keep the owner, it fails: a file that becomes root's locks out the service
// that owned it. A new file has mode 0600.
func Replace(path string, content io.Reader) (err error) {
	old, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, tempPrefix(name)+"*"+tempSuffix) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name()) // if this fails, RemoveStale removes it later
		}
	}()
	if old != nil && old.Mode().IsRegular() {
		if err := keepOwner(f, old); err != nil {
			return fmt.Errorf("%s: cannot keep the owner (run as the owner or as root): %w", path, err)
		}
		if err := f.Chmod(old.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := io.Copy(f, content); err != nil {
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
	return SyncDir(dir)
}

// Temporary files are named ".NAME.DIGITS.tmp", so that RemoveStale removes no other file,
// not even the temporary file of a file whose name begins alike.
const tempSuffix = ".tmp"

func tempPrefix(name string) string { return "." + name + "." }

// Now returns the time by the clock of the file system that holds path. It creates a
// temporary file beside path and removes it.
func Now(path string) (time.Time, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(filepath.Base(path))+"*"+tempSuffix)
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// RemoveStale removes the temporary files that killed writers of path left, as far as it
// can. The caller excludes other writers.
func RemoveStale(path string) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the directory may be writable but not readable
	}
	for _, entry := range entries {
		digits, isTemp := strings.CutPrefix(entry.Name(), tempPrefix(name))
		digits, hasSuffix := strings.CutSuffix(digits, tempSuffix)
		if isTemp && hasSuffix && digits != "" && strings.Trim(digits, "0123456789") == "" && entry.Type().IsRegular() {
			os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
