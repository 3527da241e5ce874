package file

import (
	"context"
	"io/fs"
	"os"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// same tells whether two names lead to one file.
func same(in *Input, name string) bool {
	if in.File == nil || name == "-" {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && os.SameFile(in.Info, info)
}

// CreateFor starts the output of a command that reads in, which must be another file.
func CreateFor(ctx context.Context, c *console.Console, in *Input, name string, perm fs.FileMode, force bool) (*output, error) {
	if same(in, name) {
		return nil, message.Usagef("%s and %s are the same file: write to another one", in.Name, name)
	}
	return Create(ctx, c, name, perm, force)
}
