// Package file reads files and replaces them as a whole.
package file

import (
	"context"
	"io"
	"io/fs"
	"os"

	"github.com/gofrs/flock"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Input is a file that is open for reading, or standard input.
type Input struct {
	Name string // as the user wrote it
	R    io.Reader
	Size int64 // -1 unless the input is a regular file

	File *os.File    // nil for standard input
	Info fs.FileInfo // of File

	// Of OpenToReplace only:
	Path string       // without symbolic links
	lock *flock.Flock // may be nil
}

// Open opens a file for reading. "-" is standard input. The caller closes the input.
func Open(ctx context.Context, c *console.Console, name string) (*Input, error) {
	if name == "-" {
		in := &Input{Name: "standard input", Size: -1}
		in.R = &console.AbandoningReader{Ctx: ctx, Src: c.Stdin}
		return in, nil
	}
	f, err := console.Abandon(ctx, func() (*os.File, error) { return os.Open(name) })
	if err != nil {
		return nil, message.About(name, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = message.ErrIsDirectory
	case info.Mode().IsRegular():
		return &Input{Name: name, R: f, File: f, Info: info, Size: info.Size()}, nil
	default: // a pipe or a device, which may block
		return &Input{Name: name, R: &console.AbandoningReader{Ctx: ctx, Src: f}, File: f, Info: info, Size: -1}, nil
	}
	f.Close()
	return nil, message.About(name, err)
}

// Regular reports whether the input is a regular file, which can be read at any offset.
func (in *Input) Regular() bool { return in.Size >= 0 }

// Close closes the file and releases its lock.
func (in *Input) Close() {
	if in.File != nil {
		in.File.Close()
	}
	if in.lock != nil {
		in.lock.Close()
	}
}

// isFile reports whether name leads to the input's file.
func (in *Input) isFile(name string) bool {
	if in.File == nil || name == "-" {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && os.SameFile(in.Info, info)
}
