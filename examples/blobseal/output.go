package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// output is where a command writes. A file appears under its name only when it
// is complete and durable: until commit it is a temporary file beside it, and
// discard removes that. Only a process that is killed leaves one behind, hidden:
// ".NAME.blobseal-*.tmp". Standard output, devices and pipes are written directly.
type output struct {
	ctx    context.Context
	name   string // as the caller wrote it
	w      io.Writer
	file   *os.File // nil for standard output
	temp   string   // path of the temporary file; empty if written directly
	target string   // where it goes
	force  bool     // over what is there
}

// create starts an output. "-" is standard output. Unless force is set, a file
// that exists is refused, now and in commit. The file has the mode perm, but for
// the umask.
func (c *console) create(ctx context.Context, name string, perm fs.FileMode, force bool) (*output, error) {
	if name == "-" {
		return &output{ctx: ctx, name: "standard output", w: &abandoningWriter{ctx: ctx, dst: c.stdout}}, nil
	}
	o := &output{ctx: ctx, name: name, target: name, force: force}
	info, err := os.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(name)
		if err == nil && info.Mode().IsRegular() { // /dev/stdout may lead to a pipe, which has no path
			o.target, err = filepath.EvalSymlinks(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, problemf(err, "%s: is a symbolic link to nothing", name)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, about(name, err)
	case info.IsDir():
		return nil, about(name, errIsDirectory)
	case !info.Mode().IsRegular():
		f, err := abandon(ctx, func() (*os.File, error) { return os.OpenFile(name, os.O_WRONLY, 0) })
		if err != nil {
			return nil, about(name, err)
		}
		o.file, o.w = f, &abandoningWriter{ctx: ctx, dst: f}
		return o, nil
	case !force:
		return nil, o.exists(nil)
	}
	if err := o.createTemp(perm); err != nil {
		return nil, about(name, err)
	}
	return o, nil
}

// replacement starts an output that takes the place of a file, with its mode
// and, where that is allowed, its owner.
func replacement(ctx context.Context, name, path string, info fs.FileInfo) (*output, error) {
	o := &output{ctx: ctx, name: name, target: path, force: true}
	if err := o.createTemp(0o600); err != nil {
		return nil, about(name, err)
	}
	keepOwner(o.file, info)
	if err := o.file.Chmod(info.Mode().Perm()); err != nil {
		o.discard()
		return nil, about(name, err)
	}
	return o, nil
}

func (o *output) createTemp(perm fs.FileMode) error {
	temp := hidden(o.target, ".blobseal-"+rand.Text()[:10]+".tmp")
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	o.file, o.w, o.temp = f, f, temp
	return nil
}

// hidden is the path of a hidden file beside another one, for which it is. A name
// that would be too long with that is hashed.
func hidden(path, suffix string) string {
	const longest = 255
	dir, base := filepath.Split(path)
	if len(".")+len(base)+len(suffix) > longest {
		sum := sha256.Sum256([]byte(base))
		base = hex.EncodeToString(sum[:])
	}
	return dir + "." + base + suffix
}

// atomic tells whether the output appears as a whole or not at all.
func (o *output) atomic() bool { return o.temp != "" }

func (o *output) exists(err error) error {
	return problemf(err, "%s: already exists; --force replaces it", o.name)
}

func (o *output) Write(p []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	return n, about(o.name, err)
}

// commit makes what was written durable and gives it its name. After an error
// nothing has changed there, unless the error says so.
func (o *output) commit() error {
	if err := o.ctx.Err(); err != nil {
		return about(o.name, err)
	}
	if o.file == nil {
		return nil
	}
	defer o.discard()
	if o.temp == "" {
		f := o.file
		o.file = nil
		return about(o.name, f.Close())
	}
	if err := o.file.Sync(); err != nil {
		return about(o.name, err)
	}
	if err := o.file.Close(); err != nil {
		return about(o.name, err)
	}
	if err := o.publish(); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(o.target)); err != nil {
		return problemf(err, "%s: written, but it may not survive a power failure: %s", o.name, plain(err))
	}
	return nil
}

// publish gives the temporary file its name. A link, unlike a rename, does not
// replace a file that has come in between.
func (o *output) publish() error {
	if !o.force {
		switch err := os.Link(o.temp, o.target); {
		case err == nil:
			return about(o.name, os.Remove(o.temp))
		case errors.Is(err, fs.ErrExist):
			return o.exists(err)
		} // else a file system without links
		if _, err := os.Lstat(o.target); !errors.Is(err, fs.ErrNotExist) {
			return o.exists(err)
		}
	}
	return about(o.name, os.Rename(o.temp, o.target))
}

// discard removes what was not committed.
func (o *output) discard() {
	if o.file == nil {
		return
	}
	o.file.Close()
	if o.temp != "" {
		os.Remove(o.temp)
	}
	o.file = nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	if runtime.GOOS == "windows" { // which has no such call
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
