package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
)

// ringCmd are the commands on a ring.
type ringCmd struct {
	Create     ringCreateCmd     `cmd:"" help:"Make a ring with one key."`
	List       ringListCmd       `cmd:"" help:"List the keys of a ring; shows nothing secret."`
	Rotate     ringRotateCmd     `cmd:"" help:"Add a key, which seals from then on; old keys go on opening."`
	Disable    ringDisableCmd    `cmd:"" help:"Refuse what a key sealed, until it is enabled again."`
	Enable     ringEnableCmd     `cmd:"" help:"Let a disabled key open again."`
	Destroy    ringDestroyCmd    `cmd:"" help:"Destroy a key, and with it all that it sealed, for ever."`
	ChangeRoot ringChangeRootCmd `cmd:"" help:"Encrypt the ring under another root: a key file, a passphrase or a key service's key."`
}

func (ringCmd) Help() string {
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

// ringFlags name a ring and its root.
type ringFlags struct {
	Ring string `required:"" group:"root" placeholder:"FILE" help:"Key ring."`
	rootFlags
	Principal string `group:"root" placeholder:"ID" help:"Who asks a localkms:// service; by default user:NAME, the user that you are."`
}

var errNoLocalRoot = usagef("--principal: give --root-kms-key localkms://DIR with it")

func (f ringFlags) check() error {
	if f.Principal != "" && !f.source().local() {
		return errNoLocalRoot
	}
	return f.source().check("ring")
}

func (f ringFlags) open(ctx context.Context, c *console) (*keyring.Ring, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.openRing(ctx, c)
}

func (f ringFlags) openRing(ctx context.Context, c *console) (*keyring.Ring, error) {
	if _, err := os.Stat(f.Ring); errors.Is(err, os.ErrNotExist) { // before the root, which costs
		return nil, aboutRing(f.Ring, keyring.ErrNotExist)
	}
	root, err := f.source().open(asPrincipal(ctx, f.Principal), c)
	if err != nil {
		return nil, err
	}
	return openRing(ctx, f.Ring, root, nil)
}

type ringCreateCmd struct {
	ringFlags
	GenerateRootKey string `group:"root" placeholder:"FILE" help:"Make a new root key in FILE, as keygen does, and use it."`
}

func (ringCreateCmd) Help() string {
	return `The ring is a file, encrypted under its root: a key file, a passphrase or a key in a key service; see ring. Keep copies of both, apart from each other: without either, nothing opens what the ring seals. A ring that exists is refused.

    blobseal ring create --ring my.ring --generate-root-key root.key
    blobseal ring create --ring my.ring --root-kms-key 'awskms:///alias/rings?region=eu-west-1'`
}

func (cmd ringCreateCmd) Run(ctx context.Context, c *console) (err error) {
	if cmd.Principal != "" && !cmd.source().local() {
		return errNoLocalRoot
	}
	root, undo, err := newRoot(asPrincipal(ctx, cmd.Principal), c, cmd.source(), cmd.GenerateRootKey, "ring", func() error {
		if _, err := os.Lstat(cmd.Ring); err == nil {
			return aboutRing(cmd.Ring, errRingExists)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ring, err := openRing(ctx, cmd.Ring, root, func(s keyring.Store) keyring.Store { return newStore{s, cmd.Ring, errRingExists} })
	if err != nil {
		undo()
		return err
	}
	return c.printf("%s: created, with key %s\n", printable(cmd.Ring), primary(ring))
}

var errRingExists = errors.New("already exists, and a ring is never overwritten")

// newRoot opens the root of a ring or a key service that is about to be made,
// from a source or from a new key file. Refuse tells early what stands in the way.
// undo takes the key file back, which nothing is under.
func newRoot(ctx context.Context, c *console, source rootSource, file, what string, refuse func() error) (root tink.AEADWithContext, undo func(), err error) {
	undo = func() {}
	if file != "" {
		if given := source.given(); len(given) > 0 {
			return nil, nil, usagef("--generate-root-key and %s: give one of them only", given[0])
		}
		source.keyFile = file
	} else if len(source.given()) == 0 {
		return nil, nil, usagef("the %s needs a root: give %s, or --generate-root-key", what, source.flags())
	}
	if err := source.check(what); err != nil {
		return nil, nil, err
	}
	if err := refuse(); err != nil {
		return nil, nil, err
	}
	if file != "" {
		if err := generateKey(ctx, c, file); err != nil {
			return nil, nil, err
		}
		undo = func() { os.Remove(file) }
	}
	if root, err = source.open(ctx, c); err != nil {
		undo()
	}
	return root, undo, err
}

// newStore is a store that must hold no document yet.
type newStore struct {
	keyring.Store
	name   string
	exists error
}

func (s newStore) Load(ctx context.Context) ([]byte, string, error) {
	data, version, err := s.Store.Load(ctx)
	if err == nil {
		return nil, "", problemf(s.exists, "%s: %s", s.name, s.exists)
	}
	return data, version, err
}

// primary is the id of the ring's newest key.
func primary(ring *keyring.Ring) string {
	for _, key := range ring.Keys() {
		if key.Primary {
			return key.ID
		}
	}
	return ""
}

type ringListCmd struct {
	ringFlags
	JSON bool `name:"json" help:"Write JSON."`
}

func (ringListCmd) Help() string {
	return `The primary is the key that seals; it is replaced by rotation. Which key a file needs is shown by inspect.

    blobseal ring list --ring my.ring --root-key-file root.key`
}

// listing of a ring. Its JSON is a contract.
type listing struct {
	Ring          string         `json:"ring"`
	Generation    uint64         `json:"generation"`
	PeriodSeconds int64          `json:"period_seconds"`
	Keys          []keyring.Info `json:"keys"`
}

func (cmd ringListCmd) Run(ctx context.Context, c *console) error {
	ring, err := cmd.open(ctx, c)
	if err != nil {
		return err
	}
	keys := ring.Keys()
	if cmd.JSON {
		e := json.NewEncoder(c.stdout)
		e.SetIndent("", "  ")
		return about("standard output", e.Encode(listing{ring.ID(), ring.Generation(), int64(ring.Period() / time.Second), keys}))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "ring %s, a new key every %s\n\n", ring.ID(), days(ring.Period()))
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
	return c.printf("%s", text.String())
}

func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "day"
	case d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

type ringRotateCmd struct{ ringFlags }

func (ringRotateCmd) Help() string {
	return `New files are sealed under the new key. Old files keep opening under the old ones; rewrap moves them to the new one. Encrypting also rotates, when the newest key is older than the ring's period.

    blobseal ring rotate --ring my.ring --root-key-file root.key`
}

func (cmd ringRotateCmd) Run(ctx context.Context, c *console) error {
	ring, err := cmd.open(ctx, c)
	if err != nil {
		return err
	}
	info, err := ring.Rotate(ctx)
	if err != nil {
		return aboutRing(cmd.Ring, err)
	}
	return c.printf("%s: rotated, to key %s\n", printable(cmd.Ring), info.ID)
}

// keyArg names a key of a ring.
type keyArg struct {
	Key string `arg:"" help:"Key id, or the part behind its dot; see ring list."`
}

// id is the whole id.
func (a keyArg) id(ring *keyring.Ring) string {
	if strings.Contains(a.Key, ".") {
		return a.Key
	}
	return ring.ID() + "." + a.Key
}

type ringDisableCmd struct {
	ringFlags
	keyArg
}

func (ringDisableCmd) Help() string {
	return `Nothing is lost: enable takes it back. Disable a key some time before you destroy it, to find out who still needs it.

    blobseal ring disable --ring my.ring --root-key-file root.key 5b2c8e01`
}

func (cmd ringDisableCmd) Run(ctx context.Context, c *console) error {
	return cmd.set(ctx, c, cmd.keyArg, keyring.Disabled, "disabled")
}

type ringEnableCmd struct {
	ringFlags
	keyArg
}

func (ringEnableCmd) Help() string {
	return `Files that it sealed open again. A destroyed key stays destroyed.

    blobseal ring enable --ring my.ring --root-key-file root.key 5b2c8e01`
}

func (cmd ringEnableCmd) Run(ctx context.Context, c *console) error {
	return cmd.set(ctx, c, cmd.keyArg, keyring.Enabled, "enabled")
}

func (f ringFlags) set(ctx context.Context, c *console, key keyArg, state keyring.State, done string) error {
	ring, err := f.open(ctx, c)
	if err != nil {
		return err
	}
	return f.setState(ctx, c, ring, key.id(ring), state, done)
}

func (f ringFlags) setState(ctx context.Context, c *console, ring *keyring.Ring, id string, state keyring.State, done string) error {
	info, err := ring.SetState(ctx, id, state)
	if err != nil {
		return aboutRing(f.Ring, err)
	}
	return c.printf("%s: key %s is %s\n", printable(f.Ring), info.ID, done)
}

type ringDestroyCmd struct {
	ringFlags
	keyArg
	Yes bool `help:"Do not ask."`
}

func (ringDestroyCmd) Help() string {
	return `What the key sealed and was not rewrapped since can never be opened again, by anyone who has no older copy of the ring: that is the way to erase files everywhere at once. It asks on a terminal, and needs --yes elsewhere.

    blobseal ring destroy --ring my.ring --root-key-file root.key 5b2c8e01`
}

func (cmd ringDestroyCmd) Run(ctx context.Context, c *console) error {
	if err := cmd.check(); err != nil {
		return err
	}
	if !cmd.Yes && !c.isTerminal(c.stdin) {
		return usagef("destroying a key cannot be undone: give --yes, or ask on a terminal")
	}
	ring, err := cmd.open(ctx, c)
	if err != nil {
		return err
	}
	id := cmd.id(ring)
	if err := destroyable(ring, id); err != nil {
		return aboutRing(cmd.Ring, err)
	}
	if !cmd.Yes {
		if err := c.confirm(ctx, fmt.Sprintf("Destroy key %s of %s?\nFiles sealed under it that were not rewrapped can never be opened again.\nType yes to destroy it: ", id, printable(cmd.Ring))); err != nil {
			return err
		}
	}
	return cmd.setState(ctx, c, ring, id, keyring.Destroyed, "destroyed; what it sealed and was not rewrapped is lost")
}

// destroyable tells early what SetState would refuse.
func destroyable(ring *keyring.Ring, id string) error {
	for _, key := range ring.Keys() {
		switch {
		case key.ID != id:
		case key.Primary:
			return keyring.ErrPrimary
		default:
			return nil
		}
	}
	return keyring.ErrUnknownKey
}

// confirm asks on the terminal.
func (c *console) confirm(ctx context.Context, question string) error {
	fmt.Fprint(c.stderr, question)
	answer, err := bufio.NewReader(&abandoningReader{ctx: ctx, src: c.stdin}).ReadString('\n')
	if err != nil {
		fmt.Fprintln(c.stderr)
		if !errors.Is(err, io.EOF) {
			return about("standard input", err)
		}
	}
	if strings.TrimSpace(answer) != "yes" {
		return problemf(nil, "not confirmed: nothing was changed")
	}
	return nil
}

type ringChangeRootCmd struct {
	ringFlags
	NewRootKeyFile    string `placeholder:"FILE" help:"New root key."`
	NewPassphraseFile string `placeholder:"FILE" help:"New passphrase, without its line end. Or set BLOBSEAL_NEW_PASSPHRASE."`
	NewRootKMSKey     string `name:"new-root-kms-key" placeholder:"URL" help:"New root key in a key service, such as awskms:///alias/rings; see ring."`
}

func (ringChangeRootCmd) Help() string {
	return `The keys stay as they are, and so does every file. Copies of the ring from before still open with the old root: remove them, or rotate too if the old root is known to others. It may be repeated after a crash.

    blobseal keygen new.key
    blobseal ring change-root --ring my.ring --root-key-file root.key --new-root-key-file new.key
    blobseal ring change-root --ring my.ring --root-key-file new.key --new-root-kms-key 'awskms:///alias/rings?region=eu-west-1'`
}

func (cmd ringChangeRootCmd) Run(ctx context.Context, c *console) error {
	next := rootSource{cmd.NewRootKeyFile, cmd.NewPassphraseFile, cmd.NewRootKMSKey, "new-", "BLOBSEAL_NEW_PASSPHRASE"}
	if err := cmd.source().check("ring"); err != nil {
		return err
	}
	if len(next.given()) == 0 {
		return usagef("the ring needs a new root: give %s", next.flags())
	}
	if err := next.check("ring"); err != nil {
		return err
	}
	if cmd.Principal != "" && !cmd.source().local() && !next.local() {
		return usagef("--principal: give --root-kms-key or --new-root-kms-key localkms://DIR with it")
	}
	newRoot, err := next.open(asPrincipal(ctx, cmd.Principal), c)
	if err != nil {
		return err
	}
	ring, err := cmd.openRing(ctx, c)
	if err != nil {
		return err
	}
	if err := ring.ChangeRoot(ctx, newRoot); err != nil {
		return aboutRing(cmd.Ring, err)
	}
	return c.printf("%s: the root is changed; copies of the ring from before still open with the old one\n", printable(cmd.Ring))
}
