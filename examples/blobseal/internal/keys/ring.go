package keys

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// RingFlags name a ring and its root.
type RingFlags struct {
	Ring string `required:"" group:"root" placeholder:"FILE" help:"Key ring."`
	RootFlags
	Principal string `group:"root" placeholder:"ID" help:"Who asks a localkms:// service; by default user:NAME, your user name."`
}

var ErrNoLocalRoot = message.Usagef("--principal: give --root-kms-key localkms://DIR with it")

func (f RingFlags) Check() error {
	if f.Principal != "" && !f.Source().Local() {
		return ErrNoLocalRoot
	}
	return f.Source().Check("ring")
}

func (f RingFlags) Open(ctx context.Context, c *console.Console) (*keyring.Ring, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	return f.OpenRing(ctx, c)
}

func (f RingFlags) OpenRing(ctx context.Context, c *console.Console) (*keyring.Ring, error) {
	if _, err := os.Stat(f.Ring); errors.Is(err, os.ErrNotExist) { // before opening the root, which takes time
		return nil, f.About(keyring.ErrNotExist)
	}
	root, err := f.Source().Open(AsPrincipal(ctx, f.Principal), c)
	if err != nil {
		return nil, err
	}
	return OpenRing(ctx, f.Ring, root, f.Source().Args()...)
}

// About returns an error of the ring as a [message.Problem].
func (f RingFlags) About(err error) error {
	return message.Ring(f.Ring, err, f.Source().Args()...)
}

// VersionArg names a version of a ring.
type VersionArg struct {
	Key string `arg:"" help:"Version: its id, or the part after the dot (see ring list)."`
}

// ID returns the whole id of the version.
func (a VersionArg) ID(ring *keyring.Ring) string {
	if strings.Contains(a.Key, ".") {
		return a.Key
	}
	return ring.ID() + "." + a.Key
}

// OpenToDestroy opens the ring, and returns the id of a version that can be destroyed.
func (f RingFlags) OpenToDestroy(ctx context.Context, c *console.Console, version VersionArg) (ring *keyring.Ring, id string, err error) {
	if ring, err = f.Open(ctx, c); err != nil {
		return nil, "", err
	}
	id = version.ID(ring)
	return ring, id, f.About(CheckDestroyable(ring, id))
}

// CheckDestroyable returns the error that destroying a version would have, before the user
// is asked to confirm it.
func CheckDestroyable(ring *keyring.Ring, id string) error {
	for _, key := range ring.Versions() {
		switch {
		case key.ID != id:
		case key.Primary:
			return &keyring.VersionError{ID: id, Err: keyring.ErrPrimary}
		default:
			return nil
		}
	}
	return &keyring.VersionError{ID: id, Err: keyring.ErrUnknownKey}
}
