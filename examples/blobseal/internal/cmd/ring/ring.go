// Package ring has the commands on key rings.
package ring

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// Commands are the commands on a ring.
type Commands struct {
	Create     createCmd     `cmd:"" help:"Create a ring with one version."`
	List       listCmd       `cmd:"" help:"List the versions of a ring. Shows nothing secret."`
	Rotate     rotateCmd     `cmd:"" help:"Add a version, which seals new files. Older versions still open."`
	Disable    disableCmd    `cmd:"" help:"Refuse what a version sealed, until you enable it again."`
	Enable     enableCmd     `cmd:"" help:"Let a disabled version open again."`
	Destroy    destroyCmd    `cmd:"" help:"Destroy a version, and all that it sealed, for ever."`
	Merge      mergeCmd      `cmd:"" aliases:"rescue" help:"Rescue a ring: merge other copies, such as backups, into it."`
	SetPeriod  setPeriodCmd  `cmd:"" help:"Change how often the ring rotates."`
	ChangeRoot changeRootCmd `cmd:"" help:"Encrypt the ring under another root."`
}

type createCmd struct {
	keys.RingFlags
	GenerateRootKey string `group:"root" placeholder:"FILE" help:"Create a root key in FILE, and use it."`
	Period          period `placeholder:"DURATION" help:"Age at which the newest version is replaced, such as 30d or 52w; by default 90d."`
}

func (cmd createCmd) Run(ctx context.Context, c *console.Console) (err error) {
	if cmd.Principal != "" && !cmd.Source().Local() {
		return keys.ErrNoLocalRoot
	}
	root, undo, err := keys.NewRoot(keys.AsPrincipal(ctx, cmd.Principal), c, cmd.Source(), cmd.GenerateRootKey, "ring", func() error {
		if _, err := os.Lstat(cmd.Ring); err == nil {
			return cmd.About(keyring.ErrExist)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ring, err := keys.CreateRing(ctx, cmd.Ring, root, time.Duration(cmd.Period))
	if err != nil {
		undo()
		return err
	}
	return c.ReportChange(change{cmd.Ring, "created", primary(ring)}, "%s: created, with version %s\n", message.Printable(cmd.Ring), primary(ring))
}

// primary returns the id of the ring's newest version.
func primary(ring *keyring.Ring) string {
	for _, key := range ring.Versions() {
		if key.Primary {
			return key.ID
		}
	}
	return ""
}

type listCmd struct {
	keys.RingFlags
}

// Listing is the description of a ring. Scripts rely on its JSON.
type Listing struct {
	Ring          string            `json:"ring"`
	Generation    uint64            `json:"generation"`
	PeriodSeconds int64             `json:"period_seconds"`
	Versions      []keyring.Version `json:"versions"`
}

func (cmd listCmd) Run(ctx context.Context, c *console.Console) error {
	ring, err := cmd.Open(ctx, c)
	if err != nil {
		return err
	}
	keys := ring.Versions()
	if c.JSON {
		return c.WriteJSON(Listing{ring.ID(), ring.Stats().Generation, int64(ring.Period() / time.Second), keys})
	}
	if err := c.Printf("ring %s, a new version every %s\n\n", ring.ID(), Days(ring.Period())); err != nil {
		return err
	}
	return c.Table(func(w io.Writer) {
		fmt.Fprintln(w, "VERSION\tSTATE\tCREATED\tCHANGED")
		for _, key := range keys {
			state := string(key.State)
			if key.Primary {
				state += ", primary"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", key.ID, state, key.Created.Format(time.RFC3339), key.Changed.Format(time.RFC3339))
		}
	})
}

func Days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "day"
	case d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// change is what a command did to a ring, in JSON. Scripts rely on it.
type change struct {
	Ring    string `json:"ring"`
	Done    string `json:"done"`
	Version string `json:"version,omitempty"`
}

type rotateCmd struct{ keys.RingFlags }

func (cmd rotateCmd) Run(ctx context.Context, c *console.Console) error {
	ring, err := cmd.Open(ctx, c)
	if err != nil {
		return err
	}
	info, err := ring.Rotate(ctx)
	if err != nil {
		return cmd.About(err)
	}
	return c.ReportChange(change{cmd.Ring, "rotated", info.ID}, "%s: rotated, to version %s\n", message.Printable(cmd.Ring), info.ID)
}

type disableCmd struct {
	keys.RingFlags
	keys.VersionArg
}

func (cmd disableCmd) Run(ctx context.Context, c *console.Console) error {
	return set(ctx, c, cmd.RingFlags, cmd.VersionArg, keyring.Disabled, "disabled")
}

type enableCmd struct {
	keys.RingFlags
	keys.VersionArg
}

func (cmd enableCmd) Run(ctx context.Context, c *console.Console) error {
	return set(ctx, c, cmd.RingFlags, cmd.VersionArg, keyring.Enabled, "enabled")
}

func set(ctx context.Context, c *console.Console, f keys.RingFlags, key keys.VersionArg, state keyring.State, done string) error {
	ring, err := f.Open(ctx, c)
	if err != nil {
		return err
	}
	return setState(ctx, c, f, ring, key.ID(ring), state, done)
}

type destroyCmd struct {
	keys.RingFlags
	keys.VersionArg
	console.ConfirmFlag
}

func (cmd destroyCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Check(); err != nil {
		return err
	}
	if err := cmd.CheckConfirm(c, "destroying a version"); err != nil {
		return err
	}
	ring, id, err := cmd.OpenToDestroy(ctx, c, cmd.VersionArg)
	if err != nil {
		return err
	}
	err = cmd.Confirm(ctx, c, "Destroy version %s of %s?\nNobody can open files that it sealed and that were not rewrapped.\n"+
		"Type yes to destroy it: ", id, message.Printable(cmd.Ring))
	if err != nil {
		return err
	}
	return setState(ctx, c, cmd.RingFlags, ring, id, keyring.Destroyed, "destroyed; what it sealed and was not rewrapped is lost")
}

type changeRootCmd struct {
	keys.RingFlags
	keys.NewRootFlags
}

func (cmd changeRootCmd) Run(ctx context.Context, c *console.Console) error {
	next := cmd.NewSource()
	if err := cmd.Source().Check("ring"); err != nil {
		return err
	}
	if len(next.Given()) == 0 {
		return message.Usagef("the ring needs a new root: give %s", next.Flags())
	}
	if err := next.Check("ring"); err != nil {
		return err
	}
	if cmd.Principal != "" && !cmd.Source().Local() && !next.Local() {
		return message.Usagef("--principal: give --root-kms-key or --new-root-kms-key localkms://DIR with it")
	}
	newRoot, err := next.Open(keys.AsPrincipal(ctx, cmd.Principal), c)
	if err != nil {
		return err
	}
	ring, err := cmd.OpenRing(ctx, c)
	if err != nil {
		return err
	}
	if err := ring.ChangeRoot(ctx, newRoot); err != nil {
		return cmd.About(err)
	}
	return c.ReportChange(change{cmd.Ring, "root changed", ""}, "%s: the root was changed; older copies still open with the old one\n", message.Printable(cmd.Ring))
}

func setState(ctx context.Context, c *console.Console, f keys.RingFlags, ring *keyring.Ring, id string, state keyring.State, done string) error {
	info, err := ring.SetState(ctx, id, state)
	if err != nil {
		return f.About(err)
	}
	return c.ReportChange(change{f.Ring, string(state), info.ID}, "%s: version %s is %s\n", message.Printable(f.Ring), info.ID, done)
}
