package file

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

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// output is where a command writes. A file appears under its name only when it
// is complete and durable: until commit it is a temporary file beside it, and
// discard removes that. Only a process that is killed leaves one behind, hidden:
// ".NAME.blobseal-*.tmp". Standard output, devices and pipes are written directly.
type output struct {
	ctx    context.Context
	Name   string // as the caller wrote it
	w      io.Writer
	file   *os.File // nil for standard output
	temp   string   // path of the temporary file; empty if written directly
	target string   // where it goes
	force  bool     // over what is there
}

// Create starts an output. "-" is standard output. Unless force is set, a file
// that exists is refused, now and in commit. The file has the mode perm, but for
// the umask.
func Create(ctx context.Context, c *console.Console, name string, perm fs.FileMode, force bool) (*output, error) {
	if name == "-" {
		return &output{ctx: ctx, Name: "standard output", w: &console.AbandoningWriter{Ctx: ctx, Dst: c.Stdout}}, nil
	}
	o := &output{ctx: ctx, Name: name, target: name, force: force}
	info, err := os.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(name)
		if err == nil && info.Mode().IsRegular() { // /dev/stdout may lead to a pipe, which has no path
			o.target, err = filepath.EvalSymlinks(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, message.Problemf(err, "%s: is a symbolic link to nothing", name)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, message.About(name, err)
	case info.IsDir():
		return nil, message.About(name, message.ErrIsDirectory)
	case !info.Mode().IsRegular():
		f, err := console.Abandon(ctx, func() (*os.File, error) { return os.OpenFile(name, os.O_WRONLY, 0) })
		if err != nil {
			return nil, message.About(name, err)
		}
		o.file, o.w = f, &console.AbandoningWriter{Ctx: ctx, Dst: f}
		return o, nil
	case !force:
		return nil, o.exists(nil)
	}
	if err := o.createTemp(perm); err != nil {
		return nil, message.About(name, err)
	}
	return o, nil
}

// Replacement starts an output that takes the place of a file, with its mode
// and, where that is allowed, its owner.
func Replacement(ctx context.Context, name, path string, info fs.FileInfo) (*output, error) {
	o := &output{ctx: ctx, Name: name, target: path, force: true}
	if err := o.createTemp(0o600); err != nil {
		return nil, message.About(name, err)
	}
	keepOwner(o.file, info)
	if err := o.file.Chmod(info.Mode().Perm()); err != nil {
		o.Discard()
		return nil, message.About(name, err)
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

// Atomic tells whether the output appears as a whole or not at all.
func (o *output) Atomic() bool { return o.temp != "" }

func (o *output) exists(err error) error {
	return message.Problemf(err, "%s: already exists; --force replaces it", o.Name)
}

func (o *output) Write(p []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	return n, message.About(o.Name, err)
}

// Commit makes what was written durable and gives it its name. After an error
// nothing has changed there, unless the error says so.
func (o *output) Commit() error {
	if err := o.ctx.Err(); err != nil {
		return message.About(o.Name, err)
	}
	if o.file == nil {
		return nil
	}
	defer o.Discard()
	if o.temp == "" {
		f := o.file
		o.file = nil
		return message.About(o.Name, f.Close())
	}
	if err := o.file.Sync(); err != nil {
		return message.About(o.Name, err)
	}
	if err := o.file.Close(); err != nil {
		return message.About(o.Name, err)
	}
	if err := o.publish(); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(o.target)); err != nil {
		return message.Problemf(err, "%s: written, but it may not survive a power failure: %s", o.Name, message.Plain(err))
	}
	return nil
}

// publish gives the temporary file its name. A link, unlike a rename, does not
// replace a file that has come in between.
func (o *output) publish() error {
	if !o.force {
		switch err := os.Link(o.temp, o.target); {
		case err == nil:
			return message.About(o.Name, os.Remove(o.temp))
		case errors.Is(err, fs.ErrExist):
			return o.exists(err)
		} // else a file system without links
		if _, err := os.Lstat(o.target); !errors.Is(err, fs.ErrNotExist) {
			return o.exists(err)
		}
	}
	return message.About(o.Name, os.Rename(o.temp, o.target))
}

// Discard removes what was not committed.
func (o *output) Discard() {
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
