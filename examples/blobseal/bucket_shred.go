package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

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
	if err := cmd.check(); err != nil {
		return err
	}
	if !cmd.Yes && !c.isTerminal(c.stdin) {
		return usagef("shredding cannot be undone: give --yes, or ask on a terminal")
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	var k *keys
	var victim blob.KeyRef
	var destroyer blob.KeyDestroyer
	if cmd.KeyID != "" {
		var err error
		if k, err = cmd.source().open(ctx, c); err != nil {
			return err
		}
		defer k.Close()
		if victim, destroyer, err = cmd.victim(ctx, k); err != nil {
			return err
		}
	}
	open := cmd.openWhole
	if len(cmd.Keys) > 0 {
		open = cmd.open
	}
	b, err := open(ctx, blob.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	if !cmd.Yes {
		if err := c.confirm(ctx, fmt.Sprintf("Shred %s?\nNothing can read that afterwards.\nType yes to shred it: ", cmd.what(b))); err != nil {
			return err
		}
	}
	record, err := openRecord(cmd.Record)
	if err != nil {
		return about(cmd.Record, err)
	}
	defer record.Close()
	switch {
	case k != nil:
		return cmd.shredKey(ctx, c, b, k, victim, destroyer, record)
	case cmd.Prefix != "":
		return cmd.shredPrefix(ctx, c, b, record)
	}
	return forEach(ctx, cmd.Keys, func(name string) error {
		err := b.ShredObject(ctx, name, record)
		switch {
		case errors.Is(err, blob.ErrPlain):
			return problemf(err, "%s: not encrypted, so that deleting it shreds nothing", name)
		case err != nil:
			return b.aboutObject(name, blob.KeyRef{}, err)
		}
		return c.printf("%s: shredded\n", printable(name))
	})
}

func (cmd bucketShredCmd) check() error {
	source := cmd.source()
	given := 0
	for _, is := range []bool{len(cmd.Keys) > 0, cmd.Prefix != "", cmd.KeyID != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return usagef("give one of these: keys of objects, --prefix, or --key-id")
	case source.kms == "" && cmd.Days != 0:
		return usagef("--days: give --kms with it")
	case cmd.KeyID != "" && (source.customer != "" || source.kmsKey != ""):
		return usagef("--key-id names a key of --ring or of --kms")
	case cmd.KeyID == "" && cmd.keyFlags != (keyFlags{}):
		return usagef("objects are shredded without a key: give --key-id with --ring or --kms, or neither")
	case cmd.KeyID != "":
		if err := source.check(); err != nil {
			return err
		}
	}
	return cmp.Or(checkDays("--days", cmd.Days, localkms.MinDeletionDays, localkms.MaxDeletionDays), cmd.paceFlags.check())
}

// what names what is to be shredded.
func (cmd bucketShredCmd) what(b *bucket) string {
	switch {
	case cmd.KeyID != "":
		return fmt.Sprintf("all that key %s sealed, in %s and wherever else", printable(cmd.KeyID), b.shown)
	case cmd.Prefix != "":
		return fmt.Sprintf("all objects of %s whose keys begin with %q", b.shown, cmd.Prefix)
	}
	return fmt.Sprintf("%s of %s", objects(int64(len(cmd.Keys))), b.shown)
}

func (cmd bucketShredCmd) options() *blob.ShredOptions {
	return &blob.ShredOptions{Workers: cmd.Workers, Limit: cmd.limit()}
}

func (cmd bucketShredCmd) shredKey(ctx context.Context, c *console, b *bucket, k *keys, victim blob.KeyRef, destroyer blob.KeyDestroyer, record recordFile) error {
	report, err := blob.ShredKey(ctx, victim, destroyer, record, cmd.options(), b.Bucket)
	switch {
	case errors.Is(err, context.Canceled):
		return problemf(err, "interrupted before key %s was destroyed; it is disabled, unless it had not come to that: repeat the command, or enable the key", victim.KeyID)
	case err != nil && (k.fails(err) || ringError(err)):
		return k.aboutSealing(err)
	case err != nil:
		return b.about(err)
	}
	fate := "destroyed"
	if k.service != nil {
		fate = "disabled, and is deleted after some days; see: blobseal kms describe --kms " + k.service.dir
	}
	if err := c.printf("%s: %s sealed %s here; the key is %s\n", b.shown, sealName(victim), objects(report.Objects), fate); err != nil {
		return err
	}
	if report.Failed > 0 {
		return problemf(nil, "%s: %s did not tell what key they are under; see %s", b.shown, objects(report.Failed), cmd.Record)
	}
	return nil
}

func (cmd bucketShredCmd) shredPrefix(ctx context.Context, c *console, b *bucket, record recordFile) error {
	report, err := b.ShredPrefix(ctx, cmd.Prefix, record, cmd.options())
	switch {
	case errors.Is(err, context.Canceled):
		return problemf(err, "interrupted after %s; see %s", objects(report.Objects), cmd.Record)
	case err != nil && !errors.Is(err, blob.ErrIncomplete):
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
	if err = d.service.about(localkms.OpScheduleKeyDeletion, d.arn, err); err != nil {
		return problemf(err, "%s; the key is disabled", oneLine(err))
	}
	return nil
}

// recordFile is the record of shredding.
type recordFile struct {
	*os.File
	name string
}

// openRecord opens a record to add to it. It spares files of other kinds, and ends a
// line that was torn off.
func openRecord(name string) (recordFile, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return recordFile{}, err
	}
	var first, last [1]byte
	if info, statErr := file.Stat(); statErr == nil && info.Mode().IsRegular() && info.Size() > 0 {
		file.ReadAt(first[:], 0)
		file.ReadAt(last[:], info.Size()-1)
		switch {
		case first[0] != '{':
			err = errors.New("is not a record of what was shredded")
		case last[0] != '\n':
			_, err = file.WriteString("\n")
		}
	}
	if err != nil {
		file.Close()
	}
	return recordFile{file, name}, err
}

func (f recordFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, about(f.name, err)
}

func (f recordFile) Sync() error { return about(f.name, f.File.Sync()) }
