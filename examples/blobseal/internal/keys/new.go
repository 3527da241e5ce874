package keys

import (
	"context"
	"os"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// NewRoot opens the root of a ring or a key service that is about to be created, from a
// source or from a new key file. It calls refuse first, which reports what stands in the
// way. If the creation fails, undo removes the new key file.
func NewRoot(ctx context.Context, c *console.Console, source RootSource, file, what string, refuse func() error) (root tink.AEADWithContext, undo func(), err error) {
	undo = func() {}
	source.New = true
	if file != "" {
		if given := source.Given(); len(given) > 0 {
			return nil, nil, message.Usagef("--generate-root-key and %s: give one of them only", given[0])
		}
		source.KeyFile = file
	} else if len(source.Given()) == 0 {
		return nil, nil, message.Usagef("the %s needs a root: give %s, or --generate-root-key", what, source.Flags())
	}
	if err := source.Check(what); err != nil {
		return nil, nil, err
	}
	if err := refuse(); err != nil {
		return nil, nil, err
	}
	if file != "" {
		if err := GenerateKey(ctx, c, file); err != nil {
			return nil, nil, err
		}
		undo = func() { os.Remove(file) }
	}
	if root, err = source.Open(ctx, c); err != nil {
		undo()
	}
	return root, undo, err
}
