package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

type bucketRetireCmd struct {
	Bucket []string `required:"" group:"bucket" sep:"none" placeholder:"URL" help:"Bucket; repeat it for every bucket that the ring seals for."`
	ringFlags
	keyArg
	Destroy    bool          `help:"Destroy the key, once it has been disabled for --quarantine."`
	Quarantine time.Duration `default:"168h" placeholder:"DURATION" help:"How long it must be disabled before it is destroyed, as 72h; by default a week. Longer than the longest upload, and than any service goes on without having read the ring anew. 0 is for where nobody else writes."`
	Yes        bool          `help:"Do not ask before it is destroyed."`
	paceFlags
	JSON bool `name:"json" help:"Write JSON: one object."`
}

func (bucketRetireCmd) Help() string {
	return `It reads the head of every object in the buckets. If one is under the key, or does not tell, the command names it and changes nothing. Otherwise it disables the key, looks once more, and enables it again if an object has come in between. With --destroy, run again after the quarantine, it then destroys the key, which cannot be undone.

Give all buckets that the ring seals for. What is not in them, such as older versions in the store, backups and sealed files, it does not see, and nothing opens that any more.

    blobseal bucket retire --bucket file:///srv/photos --ring my.ring --root-key-file root.key 5b2c8e01
    blobseal bucket retire --bucket file:///srv/photos --bucket file:///srv/thumbs --ring my.ring --root-key-file root.key --destroy 5b2c8e01`
}

// retirement is what became of a key. Its JSON is a contract.
type retirement struct {
	KeyID        string            `json:"key_id"`
	State        string            `json:"state"` // enabled, disabled or destroyed
	Objects      int64             `json:"objects"`
	Names        []blob.ObjectName `json:"names"` // the first that are under it
	Unclear      int64             `json:"unclear"`
	UnclearNames []blob.ObjectName `json:"unclear_names"` // the first that do not tell what they are under
}

func (cmd bucketRetireCmd) Run(ctx context.Context, c *console) error {
	if err := errors.Join(cmd.source().check("ring"), cmd.paceFlags.check()); err != nil {
		return err
	}
	switch {
	case cmd.Quarantine < 0:
		return usagef("--quarantine %v: want 0 or more", cmd.Quarantine)
	case cmd.Destroy && !cmd.Yes && !c.isTerminal(c.stdin):
		return usagef("destroying a key cannot be undone: give --yes, or ask on a terminal")
	}
	ring, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	id := cmd.id(ring)
	if err := destroyable(ring, id); err != nil {
		return aboutRing(cmd.Ring, err)
	}
	var all []*blob.Bucket
	var shown []string
	var last *bucket
	for _, url := range cmd.Bucket {
		b, err := bucketFlags{Bucket: url}.open(ctx, blob.Options{})
		if err != nil {
			return err
		}
		defer b.Close()
		all, shown, last = append(all, b.Bucket), append(shown, b.shown), b
	}
	if cmd.Destroy && !cmd.Yes {
		if err := c.confirm(ctx, fmt.Sprintf("Destroy key %s of %s, if nothing in %s needs it?\nWhatever else it sealed can never be opened again.\nType yes to destroy it: ", id, printable(cmd.Ring), printable(strings.Join(shown, ", ")))); err != nil {
			return err
		}
	}
	opts := &blob.RetireOptions{Destroy: cmd.Destroy, Quarantine: cmd.Quarantine, Workers: cmd.Workers, Limit: cmd.limit()}
	if cmd.Quarantine == 0 {
		opts.Quarantine = blob.NoQuarantine
	}
	info, err := blob.Retire(ctx, ring, id, opts, all...)
	var used *blob.InUseError
	inUse := errors.As(err, &used)
	if err == nil || inUse || errors.Is(err, blob.ErrQuarantine) {
		if err := cmd.show(c, info, used); err != nil {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case inUse && info.State == keyring.Disabled:
		return problemf(err, "%s: key %s is needed, by %s: it was disabled before this command, or could not be enabled again", cmd.Ring, id, neededBy(used))
	case inUse:
		return problemf(err, "%s: key %s stays as it is: %s", cmd.Ring, id, neededBy(used))
	case errors.Is(err, blob.ErrQuarantine):
		return problemf(err, "%s: key %s is not destroyed yet: it is disabled since %s; repeat the command from %s on", cmd.Ring, id,
			info.Changed.Format(time.RFC3339), info.Changed.Add(cmd.Quarantine).Format(time.RFC3339))
	case ringError(err):
		return aboutRing(cmd.Ring, err)
	}
	return last.about(err)
}

// ringError tells whether an error is one of a ring.
func ringError(err error) bool {
	for _, kind := range []error{keyring.ErrStore, keyring.ErrRoot, keyring.ErrDamaged, keyring.ErrVersion, keyring.ErrNotExist, keyring.ErrUnknownKey, keyring.ErrPrimary, keyring.ErrDestroyed, keyring.ErrConflict} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// neededBy counts what stands against retiring a key.
func neededBy(used *blob.InUseError) string {
	var parts []string
	if used.Objects > 0 {
		parts = append(parts, objects(used.Objects)+" under it, which rewrap moves")
	}
	if used.Unclear > 0 {
		parts = append(parts, objects(used.Unclear)+" that may be, which check explains")
	}
	return strings.Join(parts, ", and ")
}

func (cmd bucketRetireCmd) show(c *console, info keyring.Info, used *blob.InUseError) error {
	if cmd.JSON {
		line := retirement{KeyID: info.ID, State: info.State.String(), Names: []blob.ObjectName{}, UnclearNames: []blob.ObjectName{}}
		if used != nil {
			line.Objects, line.Unclear = used.Objects, used.Unclear
			line.Names, line.UnclearNames = append(line.Names, used.Names...), append(line.UnclearNames, used.UnclearNames...)
		}
		return c.writeJSON(line)
	}
	if used == nil {
		return c.printf("%s: key %s is %s: no object needs it\n", printable(cmd.Ring), info.ID, info.State)
	}
	var text strings.Builder
	list := func(names []blob.ObjectName, all int64, says string) {
		for _, name := range names {
			fmt.Fprintf(&text, "%s: %s\n", printable(name.String()), says)
		}
		if rest := all - int64(len(names)); rest > 0 {
			fmt.Fprintf(&text, "and %d more\n", rest)
		}
	}
	list(used.Names, used.Objects, "is under the key")
	list(used.UnclearNames, used.Unclear, "does not tell what key it is under")
	return c.printf("%s", text.String())
}

type bucketShredCmd struct {
	bucketFlags
	Record string   `required:"" placeholder:"FILE" help:"Where to record what becomes unreadable, before it does: JSON, one object a line, added to FILE."`
	Prefix string   `placeholder:"PREFIX" help:"Shred all objects whose keys begin so."`
	KeyID  string   `name:"key-id" placeholder:"ID" help:"Shred all that this key sealed, wherever there are copies: destroy a key of --ring, or schedule that of a key of --kms."`
	Days   int      `placeholder:"N" help:"With --kms: delete the key after so many days, 7 to 30; by default 30. Until then it can be taken back."`
	Yes    bool     `help:"Do not ask."`
	Keys   []string `arg:"" optional:"" name:"key" help:"Object to shred."`
	keyFlags
	paceFlags
}

func (bucketShredCmd) Help() string {
	return `An object or a prefix is shredded by deleting it with its sealed data key. That is as good as the store's deletion: older versions, replicas and backups still open. A key reaches those, too: give what is to be forgotten together a key of its own, and shred that. Copies of a ring from before still have its keys.

It asks on a terminal, and needs --yes elsewhere.

    blobseal bucket shred --bucket file:///srv/photos --record shredded.jsonl users/7/cat.jpg
    blobseal bucket shred --bucket file:///srv/photos --record shredded.jsonl --prefix users/7/ --yes
    blobseal bucket shred --bucket file:///srv/photos --record shredded.jsonl --key-id alias/user-7 --kms my.kms --root-key-file root.key`
}

func (cmd bucketShredCmd) Run(ctx context.Context, c *console) error {
	source := cmd.source()
	what := fmt.Sprintf("%s of %s", objects(int64(len(cmd.Keys))), printable(cmd.Bucket))
	given := 0
	if len(cmd.Keys) > 0 {
		given++
	}
	if cmd.Prefix != "" {
		given++
		what = fmt.Sprintf("all objects of %s whose keys begin with %q", printable(cmd.Bucket), cmd.Prefix)
	}
	if cmd.KeyID != "" {
		given++
		what = fmt.Sprintf("all that key %s sealed, in %s and wherever else", printable(cmd.KeyID), printable(cmd.Bucket))
	}
	switch {
	case given != 1:
		return usagef("give one of these: keys of objects, --prefix, or --key-id")
	case cmd.KeyID == "" && (source.ring != "" || source.kms != "" || source.customer != "" || source.root.keyFile != "" || source.root.passphraseFile != ""):
		return usagef("objects are shredded without a key: give --key-id with --ring or --kms, or neither")
	case cmd.KeyID != "" && (source.customer != "" || source.kmsKey != ""):
		return usagef("--key-id names a key of --ring or of --kms")
	case source.kms == "" && cmd.Days != 0:
		return usagef("--days: give --kms with it")
	}
	if cmd.KeyID != "" {
		if err := source.check(); err != nil {
			return err
		}
	}
	if err := errors.Join(checkDays("--days", cmd.Days, localkms.MinDeletionDays, localkms.MaxDeletionDays), cmd.paceFlags.check()); err != nil {
		return err
	}
	if !cmd.Yes && !c.isTerminal(c.stdin) {
		return usagef("shredding cannot be undone: give --yes, or ask on a terminal")
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	var k *keys
	var key blob.KeyRef
	var destroyer blob.KeyDestroyer
	if cmd.KeyID != "" {
		var err error
		if k, err = source.open(ctx, c); err != nil {
			return err
		}
		defer k.Close()
		if key, destroyer, err = cmd.victim(ctx, k); err != nil {
			return err
		}
	}
	b, err := cmd.bucketFlags.open(ctx, blob.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	if !cmd.Yes {
		if err := c.confirm(ctx, fmt.Sprintf("Shred %s?\nNothing can read that afterwards.\nType yes to shred it: ", what)); err != nil {
			return err
		}
	}
	record, err := os.OpenFile(cmd.Record, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return about(cmd.Record, err)
	}
	defer record.Close()
	opts := &blob.ShredOptions{Workers: cmd.Workers, Limit: cmd.limit()}
	switch {
	case cmd.KeyID != "":
		report, err := blob.ShredKey(ctx, key, destroyer, recordFile{record, cmd.Record}, opts, b.Bucket)
		if err != nil {
			switch {
			case errors.Is(err, context.Canceled):
				return problemf(err, "interrupted before key %s was destroyed; it is disabled, unless it had not come to that: repeat the command, or enable the key", key.KeyID)
			case k.fails(err) || ringError(err):
				return k.aboutSealing(err)
			}
			return b.about(err)
		}
		if err := c.printf("%s: %s sealed %s here; the key is %s\n", b.shown, sealName(key), objects(report.Objects), cmd.fate(source)); err != nil {
			return err
		}
		if report.Failed > 0 {
			return problemf(nil, "%s: %s did not tell what key they are under; see %s", b.shown, objects(report.Failed), cmd.Record)
		}
		return nil
	case cmd.Prefix != "":
		report, err := b.ShredPrefix(ctx, cmd.Prefix, recordFile{record, cmd.Record}, opts)
		if err != nil && !errors.Is(err, blob.ErrIncomplete) {
			if errors.Is(err, context.Canceled) {
				return problemf(err, "interrupted after %s; see %s", objects(report.Objects), cmd.Record)
			}
			return b.about(err)
		}
		if err := c.printf("%s: %s shredded\n", b.shown, objects(report.Objects)); err != nil {
			return err
		}
		if err != nil {
			return problemf(err, "%s: %s not shredded; see %s", b.shown, objects(report.Failed), cmd.Record)
		}
		return nil
	}
	return forEach(ctx, cmd.Keys, func(name string) error {
		if err := b.ShredObject(ctx, name, recordFile{record, cmd.Record}); err != nil {
			if errors.Is(err, blob.ErrPlain) {
				return problemf(err, "%s: not encrypted, so that deleting it shreds nothing", name)
			}
			return b.aboutObject(name, blob.KeyRef{}, err)
		}
		return c.printf("%s: shredded\n", printable(name))
	})
}

// victim is the key to destroy.
func (cmd bucketShredCmd) victim(ctx context.Context, k *keys) (blob.KeyRef, blob.KeyDestroyer, error) {
	if k.ring != nil {
		id := keyArg{cmd.KeyID}.id(k.ring)
		if err := destroyable(k.ring, id); err != nil {
			return blob.KeyRef{}, nil, aboutRing(k.ringPath, err)
		}
		return blob.KeyRef{Mode: sse.ModeManaged, KeyID: id}, blob.Version(k.ring, id), nil
	}
	arn, err := k.service.resolve(ctx, cmd.KeyID)
	if err != nil {
		return blob.KeyRef{}, nil, k.service.about(kms.OpDecrypt, cmd.KeyID, err)
	}
	return blob.KeyRef{Mode: sse.ModeKMS, KeyID: arn}, serviceKeyDestroyer{k.service, arn, cmd.Days}, nil
}

func (cmd bucketShredCmd) fate(source keySource) string {
	if source.ring != "" {
		return "destroyed"
	}
	return "disabled, and is deleted after some days; see: blobseal kms describe --kms " + source.kms
}

// serviceKeyDestroyer is a key of a key service.
type serviceKeyDestroyer struct {
	service *keyService
	arn     string
	days    int
}

func (d serviceKeyDestroyer) Disable(ctx context.Context) error {
	return d.service.about(localkms.OpDisableKey, d.arn, d.service.DisableKey(ctx, d.arn))
}

func (d serviceKeyDestroyer) Destroy(ctx context.Context) error {
	_, err := d.service.ScheduleKeyDeletion(ctx, d.arn, d.days)
	return d.service.about(localkms.OpScheduleKeyDeletion, d.arn, err)
}

// recordFile is the record of shredding.
type recordFile struct {
	*os.File
	name string
}

func (f recordFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, about(f.name, err)
}

func (f recordFile) Sync() error { return about(f.name, f.File.Sync()) }
