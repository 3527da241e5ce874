// Package file opens files to read and replaces files as a whole.
package file

import (
	"context"
	"io"
	"io/fs"
	"os"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// open opens a file to read; "-" is standard input. The size is -1 if it is not
// that of a regular file.
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

// Input is a file that is open to read, or standard input.
type Input struct {
	Name string
	R    io.Reader
	File *os.File    // nil for standard input
	Info fs.FileInfo // of file
	Size int64
}

// Regular tells whether the input can be read at random.
func (in *Input) Regular() bool { return in.Size >= 0 }

func (in *Input) Close() {
	if in.File != nil {
		in.File.Close()
	}
}
