package file

import (
	"cmp"
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

// Output is where a command writes. A regular file appears under its name only
// when it is complete and on the disk: until Commit it is a hidden temporary file
// in the same directory, ".NAME.blobseal-*.tmp", which Discard removes. A process
// that is killed leaves the temporary file behind. Standard output, devices and
// pipes are written directly.
type Output struct {
	Name string // as the user wrote it

	ctx    context.Context
	w      io.Writer
	file   *os.File // nil for standard output
	temp   string   // path of the temporary file; empty if written directly
	target string   // path that Commit gives it
	force  bool     // replace what is there
}

// Create starts an output. "-" is standard output. Without force, Create and
// Commit refuse a file that exists, and Create refuses a named pipe of another
// user. A new file gets the mode perm, less the umask.
func Create(ctx context.Context, c *console.Console, name string, perm fs.FileMode, force bool) (*Output, error) {
	if name == "-" {
		return &Output{ctx: ctx, Name: "standard output", w: &console.AbandoningWriter{Ctx: ctx, Dst: c.Stdout}}, nil
	}
	o := &Output{ctx: ctx, Name: name, target: name, force: force}
	info, err := os.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(name)
		if err == nil && info.Mode().IsRegular() { // /dev/stdout may lead to a pipe, which has no path
			o.target, err = filepath.EvalSymlinks(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, message.Problemf(err, name, "is a symbolic link to a file that does not exist")
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, message.About(name, err)
	case info.IsDir():
		return nil, message.About(name, message.ErrIsDirectory)
	case !info.Mode().IsRegular():
		if err := o.openSpecial(info); err != nil {
			return nil, message.About(name, err)
		}
		return o, nil
	case !force:
		return nil, o.exists(nil)
	}
	if err := o.createTemp(perm); err != nil {
		return nil, message.About(name, err)
	}
	return o, nil
}

// CreateFor starts the output of a command that reads in. The output must be
// another file than the input.
func CreateFor(ctx context.Context, c *console.Console, in *Input, name string, perm fs.FileMode, force bool) (*Output, error) {
	if in.isFile(name) {
		return nil, message.Usagef("%s and %s are the same file: write to another one", in.Name, name)
	}
	return Create(ctx, c, name, perm, force)
}

// Replace starts an output that takes the place of an input of [OpenToReplace],
// with its owner, group and mode.
func Replace(ctx context.Context, in *Input) (*Output, error) {
	o := &Output{ctx: ctx, Name: in.Name, target: in.Path, force: true}
	err := o.createTemp(0o600)
	if err == nil {
		err = keepOwner(o.file, in.Info)
	}
	if err == nil { // after the owner, whose change may clear bits of the mode
		err = o.file.Chmod(in.Info.Mode().Perm())
	}
	if err != nil {
		o.Discard()
		return nil, err
	}
	return o, nil
}

func (o *Output) createTemp(perm fs.FileMode) error {
	temp := hiddenPath(o.target, ".blobseal-"+rand.Text()[:10]+".tmp")
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	o.file, o.w, o.temp = f, f, temp
	return nil
}

// openSpecial opens a pipe or a device, which info describes. It refuses a named
// pipe of another user, who would read what we write.
func (o *Output) openSpecial(info fs.FileInfo) error {
	if !o.force && foreignPipe(o.Name, info) {
		return errors.New("is a named pipe of another user, who would read it; --force writes to it")
	}
	f, err := console.Abandon(o.ctx, func() (*os.File, error) { return os.OpenFile(o.Name, os.O_WRONLY, 0) })
	if err != nil {
		return err
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(opened, info) {
		f.Close()
		return errors.New("was replaced while it was opened (retry)")
	}
	o.file, o.w = f, &console.AbandoningWriter{Ctx: o.ctx, Dst: f}
	return nil
}

// foreignPipe reports whether name leads to a named pipe of another user. A pipe
// without a path, such as the shell's behind /dev/stdout, is not a named pipe.
func foreignPipe(name string, info fs.FileInfo) bool {
	if info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		return false
	}
	if _, err := filepath.EvalSymlinks(name); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	uid, known := ownerOf(info)
	return known && uid != os.Geteuid()
}

// hiddenPath returns the path of a hidden file in the directory of path. It hashes a
// name that would become too long.
func hiddenPath(path, suffix string) string {
	const longest = 255
	dir, base := filepath.Split(path)
	if len(".")+len(base)+len(suffix) > longest {
		sum := sha256.Sum256([]byte(base))
		base = hex.EncodeToString(sum[:])
	}
	return dir + "." + base + suffix
}

// Atomic reports whether the output appears as a whole or not at all.
func (o *Output) Atomic() bool { return o.temp != "" }

func (o *Output) exists(err error) error {
	return message.Problemf(cmp.Or(err, fs.ErrExist), o.Name, "already exists; --force replaces it")
}

// Write writes to the output until the command's context ends.
func (o *Output) Write(p []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	return n, message.About(o.Name, err)
}

// Commit syncs the output and gives it its name. After an error, what had the name
// before still has it, unless the error says otherwise.
func (o *Output) Commit() error {
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
		return message.Problemf(err, o.Name, "written, but may not survive a power failure: %s", message.Plain(err))
	}
	return nil
}

// publish gives the temporary file its name. Without force it links instead of
// renaming: a link never replaces a file that another process has just made.
func (o *Output) publish() error {
	if !o.force {
		switch err := os.Link(o.temp, o.target); {
		case err == nil:
			return message.About(o.Name, os.Remove(o.temp))
		case errors.Is(err, fs.ErrExist):
			return o.exists(err)
		} // else the file system has no links
		if _, err := os.Lstat(o.target); !errors.Is(err, fs.ErrNotExist) {
			return o.exists(err)
		}
	}
	return message.About(o.Name, os.Rename(o.temp, o.target))
}

// Discard removes what was not committed.
func (o *Output) Discard() {
	if o.file == nil {
		return
	}
	o.file.Close()
	if o.temp != "" {
		os.Remove(o.temp)
	}
	o.file = nil
}

// syncDir writes the names in a directory to the disk.
func syncDir(path string) error {
	if runtime.GOOS == "windows" { // which cannot sync a directory
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
