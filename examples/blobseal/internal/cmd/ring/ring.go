// Package ring has the commands on key rings.
package ring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// Commands are the commands on a ring.
type Commands struct {
	Create     createCmd     `cmd:"" help:"Make a ring with one key."`
	List       listCmd       `cmd:"" help:"List the keys of a ring; shows nothing secret."`
	Rotate     rotateCmd     `cmd:"" help:"Add a key, which seals from then on; old keys go on opening."`
	Disable    disableCmd    `cmd:"" help:"Refuse what a key sealed, until it is enabled again."`
	Enable     enableCmd     `cmd:"" help:"Let a disabled key open again."`
	Destroy    destroyCmd    `cmd:"" help:"Destroy a key, and with it all that it sealed, for ever."`
	Merge      mergeCmd      `cmd:"" help:"Add the keys of other copies of the ring, such as backups."`
	ChangeRoot changeRootCmd `cmd:"" help:"Encrypt the ring under another root: a key file, a passphrase or a key service's key."`
}

func (Commands) Help() string {
	return `A ring is a file of keys, encrypted under its root, which is one of three: a key file (--root-key-file), a passphrase (--passphrase-file or BLOBSEAL_PASSPHRASE), or a key in a key service (--root-kms-key), whose permissions then open and close the ring. The service is asked when a command opens or changes the ring. A ring does not say where its root is, or whoever can write the file could have you ask a key of theirs: each command needs the same root. An alias must go on to stand for the same key; after a move, name the old key by its id, and change-root to the alias.

    awskms:///alias/rings?region=eu-west-1               AWS KMS: an id, an ARN (which says the region), an alias or its ARN; ?profile=NAME
    gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/KEY
    azurekeyvault://NAME.vault.azure.net/keys/KEY        or NAME.managedhsm.azure.net, there with ?algorithm=A256KW for a symmetric key
    hashivault://KEY, hashivault://MOUNT/keys/KEY        Transit of Vault or OpenBao; the key is made with derived=true
    localkms://DIR?key=alias/rings                       a key service made by kms init; by default alias/blobseal/default

Address and credentials are those that each vendor's own tools use: AWS_PROFILE, AWS_ACCESS_KEY_ID and the rest of the AWS SDK's; Google's application default credentials; Azure's default credential (AZURE_CLIENT_ID, az login, a managed identity); VAULT_ADDR, VAULT_NAMESPACE, VAULT_TOKEN or what vault login left. A service in a directory has a root of its own, --root-key-file or a passphrase, which is given beside --root-kms-key; it is asked by --principal.

    blobseal ring create --ring my.ring --root-kms-key 'awskms:///alias/rings?region=eu-west-1'
    blobseal encrypt --ring my.ring --root-kms-key 'awskms:///alias/rings?region=eu-west-1' photo.jpg photo.enc
    blobseal ring change-root --ring my.ring --root-key-file root.key --new-root-kms-key hashivault://rings
    blobseal ring change-root --ring my.ring --root-kms-key hashivault://rings --new-root-kms-key 'localkms://my.kms?key=alias/rings' --new-root-key-file kms.key`
}

type createCmd struct {
	keys.RingFlags
	GenerateRootKey string `group:"root" placeholder:"FILE" help:"Make a new root key in FILE, as keygen does, and use it."`
}

func (createCmd) Help() string {
	return `The ring is a file, encrypted under its root: a key file, a passphrase or a key in a key service; see ring. Keep copies of both, apart from each other: without either, nothing opens what the ring seals. A ring that exists is refused.

    blobseal ring create --ring my.ring --generate-root-key root.key
    blobseal ring create --ring my.ring --root-kms-key 'awskms:///alias/rings?region=eu-west-1'`
}

func (cmd createCmd) Run(ctx context.Context, c *console.Console) (err error) {
	if cmd.Principal != "" && !cmd.Source().Local() {
		return keys.ErrNoLocalRoot
	}
	root, undo, err := keys.NewRoot(keys.AsPrincipal(ctx, cmd.Principal), c, cmd.Source(), cmd.GenerateRootKey, "ring", func() error {
		if _, err := os.Lstat(cmd.Ring); err == nil {
			return message.Ring(cmd.Ring, ErrRingExists)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ring, err := keys.OpenRing(ctx, cmd.Ring, root, func(s keyring.Store) keyring.Store {
		return keys.NewStore{Store: s, Name: cmd.Ring, Exists: ErrRingExists}
	})
	if err != nil {
		undo()
		return err
	}
	return c.Printf("%s: created, with key %s\n", message.Printable(cmd.Ring), primary(ring))
}

var ErrRingExists = errors.New("already exists, and a ring is never overwritten")

// primary is the id of the ring's newest key.
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
	JSON bool `name:"json" help:"Write JSON."`
}

func (listCmd) Help() string {
	return `The primary is the key that seals; it is replaced by rotation. Which key a file needs is shown by inspect.

    blobseal ring list --ring my.ring --root-key-file root.key`
}

// Listing of a ring. Its JSON is a contract.
type Listing struct {
	Ring          string            `json:"ring"`
	Generation    uint64            `json:"generation"`
	PeriodSeconds int64             `json:"period_seconds"`
	Keys          []keyring.Version `json:"keys"`
}

func (cmd listCmd) Run(ctx context.Context, c *console.Console) error {
	ring, err := cmd.Open(ctx, c)
	if err != nil {
		return err
	}
	keys := ring.Versions()
	if cmd.JSON {
		return c.WriteJSON(Listing{ring.ID(), ring.Generation(), int64(ring.Period() / time.Second), keys})
	}
	var text strings.Builder
	fmt.Fprintf(&text, "ring %s, a new key every %s\n\n", ring.ID(), Days(ring.Period()))
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSTATE\tCREATED\tCHANGED")
	for _, key := range keys {
		state := key.State.String()
		if key.Primary {
			state += ", primary"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", key.ID, state, key.Created.Format(time.RFC3339), key.Changed.Format(time.RFC3339))
	}
	w.Flush()
	return c.Printf("%s", text.String())
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

type rotateCmd struct{ keys.RingFlags }

func (rotateCmd) Help() string {
	return `New files are sealed under the new key. Old files keep opening under the old ones; rewrap moves them to the new one. Encrypting also rotates, when the newest key is older than the ring's period.

    blobseal ring rotate --ring my.ring --root-key-file root.key`
}

func (cmd rotateCmd) Run(ctx context.Context, c *console.Console) error {
	ring, err := cmd.Open(ctx, c)
	if err != nil {
		return err
	}
	info, err := ring.Rotate(ctx)
	if err != nil {
		return message.Ring(cmd.Ring, err)
	}
	return c.Printf("%s: rotated, to key %s\n", message.Printable(cmd.Ring), info.ID)
}

type disableCmd struct {
	keys.RingFlags
	keys.VersionArg
}

func (disableCmd) Help() string {
	return `Nothing is lost: enable takes it back. Disable a key some time before you destroy it, to find out who still needs it.

    blobseal ring disable --ring my.ring --root-key-file root.key 5b2c8e01`
}

func (cmd disableCmd) Run(ctx context.Context, c *console.Console) error {
	return set(ctx, c, cmd.RingFlags, cmd.VersionArg, keyring.Disabled, "disabled")
}

type enableCmd struct {
	keys.RingFlags
	keys.VersionArg
}

func (enableCmd) Help() string {
	return `Files that it sealed open again. A destroyed key stays destroyed.

    blobseal ring enable --ring my.ring --root-key-file root.key 5b2c8e01`
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
	Yes bool `help:"Do not ask."`
}

func (destroyCmd) Help() string {
	return `What the key sealed and was not rewrapped since can never be opened again, by anyone who has no older copy of the ring: that is the way to erase files everywhere at once. It asks on a terminal, and needs --yes elsewhere.

    blobseal ring destroy --ring my.ring --root-key-file root.key 5b2c8e01`
}

func (cmd destroyCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Check(); err != nil {
		return err
	}
	if !cmd.Yes && !c.IsTerminal(c.Stdin) {
		return message.Usagef("destroying a key cannot be undone: give --yes, or ask on a terminal")
	}
	ring, err := cmd.Open(ctx, c)
	if err != nil {
		return err
	}
	id := cmd.ID(ring)
	if err := keys.Destroyable(ring, id); err != nil {
		return message.Ring(cmd.Ring, err)
	}
	if !cmd.Yes {
		if err := c.Confirm(ctx, fmt.Sprintf("Destroy key %s of %s?\nFiles sealed under it that were not rewrapped can never be opened again.\nType yes to destroy it: ", id, message.Printable(cmd.Ring))); err != nil {
			return err
		}
	}
	return setState(ctx, c, cmd.RingFlags, ring, id, keyring.Destroyed, "destroyed; what it sealed and was not rewrapped is lost")
}

type changeRootCmd struct {
	keys.RingFlags
	NewRootKeyFile    string `placeholder:"FILE" help:"New root key."`
	NewPassphraseFile string `placeholder:"FILE" help:"New passphrase, without its line end. Or set BLOBSEAL_NEW_PASSPHRASE."`
	NewRootKMSKey     string `name:"new-root-kms-key" placeholder:"URL" help:"New root key in a key service, such as awskms:///alias/rings; see ring."`
}

func (changeRootCmd) Help() string {
	return `The keys stay as they are, and so does every file. Copies of the ring from before still open with the old root: remove them, or rotate too if the old root is known to others. It may be repeated after a crash.

    blobseal keygen new.key
    blobseal ring change-root --ring my.ring --root-key-file root.key --new-root-key-file new.key
    blobseal ring change-root --ring my.ring --root-key-file new.key --new-root-kms-key 'awskms:///alias/rings?region=eu-west-1'`
}

func (cmd changeRootCmd) Run(ctx context.Context, c *console.Console) error {
	next := keys.RootSource{KeyFile: cmd.NewRootKeyFile, PassphraseFile: cmd.NewPassphraseFile, KMSKey: cmd.NewRootKMSKey, Prefix: "new-", Variable: "BLOBSEAL_NEW_PASSPHRASE"}
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
		return message.Ring(cmd.Ring, err)
	}
	return c.Printf("%s: the root is changed; copies of the ring from before still open with the old one\n", message.Printable(cmd.Ring))
}

func setState(ctx context.Context, c *console.Console, f keys.RingFlags, ring *keyring.Ring, id string, state keyring.State, done string) error {
	info, err := ring.SetState(ctx, id, state)
	if err != nil {
		return message.Ring(f.Ring, err)
	}
	return c.Printf("%s: key %s is %s\n", message.Printable(f.Ring), info.ID, done)
}
