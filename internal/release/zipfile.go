package main

import (
	"bytes"
	"io"
	"os"
)

// A zipFile is a file of a module: its name in the module, and where its bytes are.
type zipFile struct{ name, source string }

func (f zipFile) Path() string                 { return f.name }
func (f zipFile) Lstat() (os.FileInfo, error)  { return os.Lstat(f.source) }
func (f zipFile) Open() (io.ReadCloser, error) { return os.Open(f.source) }

// openBytes opens every name as the same data.
func openBytes(data []byte) func(string) (io.ReadCloser, error) {
	return func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}
