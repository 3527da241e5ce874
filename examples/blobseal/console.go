package main

import (
	"context"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/alecthomas/kong"
	"golang.org/x/term"
	"google.golang.org/api/option"
)

// console is what a command talks to.
type console struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	parser     *kong.Kong // of command lines; nil for one of its own
	isTerminal func(stream any) bool
	patience   time.Duration // before a progress bar shows
	auditWait  time.Duration // for an audit trail that another process writes
	rootWait   time.Duration // for the key service of a root

	// How the clients of vendors' key services are made.
	google          []option.ClientOption
	azure           *azkeys.ClientOptions
	azureCredential func() (azcore.TokenCredential, error)

	ends []func() // of what the command has opened
}

func newConsole(stdin io.Reader, stdout, stderr io.Writer) *console {
	return &console{
		stdin: stdin, stdout: stdout, stderr: stderr,
		isTerminal: isTerminal, patience: time.Second, auditWait: auditWait, rootWait: rootWait,
		azureCredential: func() (azcore.TokenCredential, error) { return azidentity.NewDefaultAzureCredential(nil) },
	}
}

// atEnd has a function called when the command is done.
func (c *console) atEnd(end func()) { c.ends = append(c.ends, end) }

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// open opens a file to read; "-" is standard input. The size is -1 if it is not
// that of a regular file.
func (c *console) open(ctx context.Context, name string) (*input, error) {
	if name == "-" {
		in := &input{name: "standard input", size: -1}
		in.r = &abandoningReader{ctx: ctx, src: c.stdin}
		return in, nil
	}
	f, err := abandon(ctx, func() (*os.File, error) { return os.Open(name) })
	if err != nil {
		return nil, about(name, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = errIsDirectory
	case info.Mode().IsRegular():
		return &input{name: name, r: f, file: f, info: info, size: info.Size()}, nil
	default: // a pipe or a device, which may block
		return &input{name: name, r: &abandoningReader{ctx: ctx, src: f}, file: f, info: info, size: -1}, nil
	}
	f.Close()
	return nil, about(name, err)
}

// input is a file that is open to read, or standard input.
type input struct {
	name string
	r    io.Reader
	file *os.File    // nil for standard input
	info fs.FileInfo // of file
	size int64
}

// regular tells whether the input can be read at random.
func (in *input) regular() bool { return in.size >= 0 }

func (in *input) Close() {
	if in.file != nil {
		in.file.Close()
	}
}

// abandon calls f, which may block for ever, as pipes do. When ctx ends it returns,
// and leaves the call behind for the process to end.
func abandon[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
}

// abandoningReader reads from a source that may block for ever.
type abandoningReader struct {
	ctx context.Context
	src io.Reader
	buf []byte
}

func (r *abandoningReader) Read(p []byte) (int, error) {
	if len(p) > len(r.buf) {
		r.buf = make([]byte, len(p))
	}
	buf := r.buf[:len(p)] // p is the caller's again once we return
	n, err := abandon(r.ctx, func() (int, error) { return r.src.Read(buf) })
	return copy(p, buf[:n]), err
}

// abandoningWriter is the same for a destination.
type abandoningWriter struct {
	ctx context.Context
	dst io.Writer
	buf []byte
}

func (w *abandoningWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	w.buf = append(w.buf[:0], p...)
	buf := w.buf
	return abandon(w.ctx, func() (int, error) { return w.dst.Write(buf) })
}
