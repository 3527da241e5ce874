package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

type shredCmd struct {
	bucketFlags
	Record string   `required:"" placeholder:"FILE" help:"Append a record of what becomes unreadable to FILE, before it does: lines of JSON."`
	Prefix string   `placeholder:"PREFIX" help:"Shred all objects whose keys begin with PREFIX."`
	KeyID  string   `name:"key-id" placeholder:"ID" help:"Shred all that this key sealed, copies included: a version of --ring, or a key of --kms."`
	Days   int      `placeholder:"N" help:"With --kms: delete the key after N days, 7 to 30; by default 30. Until then you can cancel that."`
	Keys   []string `arg:"" optional:"" name:"key" help:"Object to shred."`
	console.ConfirmFlag
	keys.Flags
	paceFlags
}

func (cmd shredCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.check(); err != nil {
		return err
	}
	if err := cmd.CheckConfirm(c, "shredding"); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	var k *keys.Keys
	var victim jobs.KeyRef
	var destroyer jobs.KeyDestroyer
	if cmd.KeyID != "" {
		var err error
		if k, err = cmd.Source().Open(ctx, c); err != nil {
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
	if err := cmd.Confirm(ctx, c, "Shred %s?\nNothing can read that afterwards.\nType yes to shred it: ", cmd.describe(b)); err != nil {
		return err
	}
	record, err := openRecord(cmd.Record)
	if err != nil {
		return message.About(cmd.Record, err)
	}
	defer record.Close()
	switch {
	case k != nil:
		return cmd.shredKey(ctx, c, b, k, victim, destroyer, record)
	case cmd.Prefix != "":
		return cmd.shredPrefix(ctx, c, b, record)
	}
	return console.ForEach(ctx, cmd.Keys, func(name string) error {
		err := jobs.ShredObject(ctx, b.Bucket, name, record)
		switch {
		case errors.Is(err, blob.ErrPlain):
			return message.Problemf(err, name, "not encrypted: deleting it would shred nothing")
		case err != nil:
			return b.aboutObject(name, jobs.KeyRef{}, err)
		}
		return c.ReportChange(shredded{Bucket: b.shown, Key: name, Objects: 1}, "%s: shredded\n", message.Printable(name))
	})
}

func (cmd shredCmd) check() error {
	source := cmd.Source()
	given := 0
	for _, is := range []bool{len(cmd.Keys) > 0, cmd.Prefix != "", cmd.KeyID != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return message.Usagef("give one of these: keys of objects, --prefix, or --key-id")
	case source.KMS == "" && cmd.Days != 0:
		return message.Usagef("--days: give --kms with it")
	case cmd.KeyID != "" && (source.Customer != "" || len(source.KMSKeys) > 0):
		return message.Usagef("--key-id names a key of --ring or of --kms")
	case cmd.KeyID == "" && !reflect.ValueOf(cmd.Flags).IsZero():
		return message.Usagef("objects are shredded without a key: give --key-id with --ring or --kms, or neither")
	case cmd.KeyID != "":
		if err := source.Check(); err != nil {
			return err
		}
	}
	return cmp.Or(console.CheckDays("--days", cmd.Days, localkms.MinDeletionDays, localkms.MaxDeletionDays), cmd.paceFlags.check())
}

// describe names what the command shreds.
func (cmd shredCmd) describe(b *bucket) string {
	switch {
	case cmd.KeyID != "":
		return fmt.Sprintf("all that key %s sealed, in %s and wherever else", message.Printable(cmd.KeyID), b.shown)
	case cmd.Prefix != "":
		return fmt.Sprintf("all objects of %s whose keys begin with %q", b.shown, cmd.Prefix)
	}
	return fmt.Sprintf("%s of %s", message.Count(len(cmd.Keys), "object"), b.shown)
}

func (cmd shredCmd) options() *jobs.ShredOptions {
	return &jobs.ShredOptions{Workers: cmd.Workers, Limit: cmd.limit()}
}

func (cmd shredCmd) shredKey(ctx context.Context, c *console.Console, b *bucket, k *keys.Keys,
	victim jobs.KeyRef, destroyer jobs.KeyDestroyer, record recordFile) error {
	report, err := jobs.ShredKey(ctx, victim, destroyer, record, cmd.options(), b.Bucket)
	switch {
	case errors.Is(err, context.Canceled):
		return message.Problemf(err, "", "interrupted; key %s may be disabled, but is not destroyed (repeat the command, or enable the key)", victim.KeyID)
	case err != nil && message.IsKeys(err):
		return k.AboutSealing(err)
	case err != nil:
		return b.about(err)
	}
	fate := "destroyed"
	if k.Service != nil {
		fate = "disabled, and is deleted after some days; see: " + k.Service.Command("describe", message.ShortKey(victim.KeyID))
	}
	if err := c.ReportChange(shredded{Bucket: b.shown, KeyID: victim.KeyID, Objects: report.Objects, Failed: report.Failed}, "%s: %s sealed %s here; the key is %s\n", b.shown, sealName(victim), message.Count(report.Objects, "object"), fate); err != nil {
		return err
	}
	if report.Failed > 0 {
		return message.Problemf(nil, b.shown, "%s with an unknown key; see %s", message.Count(report.Failed, "object"), cmd.Record)
	}
	return nil
}

func (cmd shredCmd) shredPrefix(ctx context.Context, c *console.Console, b *bucket, record recordFile) error {
	report, err := jobs.ShredPrefix(ctx, b.Bucket, cmd.Prefix, record, cmd.options())
	switch {
	case errors.Is(err, context.Canceled):
		return message.Problemf(err, "", "interrupted after %s; see %s", message.Count(report.Objects, "object"), cmd.Record)
	case err != nil && !errors.Is(err, jobs.ErrIncomplete):
		return b.about(err)
	}
	if err := c.ReportChange(shredded{Bucket: b.shown, Objects: report.Objects, Failed: report.Failed}, "%s: %s shredded\n", b.shown, message.Count(report.Objects, "object")); err != nil {
		return err
	}
	if err != nil {
		// err also has the first failure, whose kind the others may not share.
		return message.Problemf(jobs.ErrIncomplete, b.shown, "%s not shredded; see %s", message.Count(report.Failed, "object"), cmd.Record)
	}
	return nil
}

// victim returns the key to destroy.
func (cmd shredCmd) victim(ctx context.Context, k *keys.Keys) (jobs.KeyRef, jobs.KeyDestroyer, error) {
	if k.Ring != nil {
		id := keys.VersionArg{Key: cmd.KeyID}.ID(k.Ring)
		if err := keys.CheckDestroyable(k.Ring, id); err != nil {
			return jobs.KeyRef{}, nil, k.AboutRing(err)
		}
		return jobs.KeyRef{Mode: sse.ModeManaged, KeyID: id}, jobs.RingKeyDestroyer(k.Ring, id), nil
	}
	arn, err := k.Service.Resolve(ctx, cmd.KeyID)
	if err != nil {
		return jobs.KeyRef{}, nil, k.Service.About(cmd.KeyID, err)
	}
	return jobs.KeyRef{Mode: sse.ModeKMS, KeyID: arn}, serviceKeyDestroyer{k.Service, arn, cmd.Days}, nil
}

// serviceKeyDestroyer destroys a key of a key service.
type serviceKeyDestroyer struct {
	service *keys.Service
	arn     string
	days    int
}

func (d serviceKeyDestroyer) Disable(ctx context.Context) error {
	return d.service.About(d.arn, d.service.DisableKey(ctx, d.arn))
}

func (d serviceKeyDestroyer) Destroy(ctx context.Context) error {
	_, err := d.service.ScheduleKeyDeletion(ctx, d.arn, d.days)
	if err = d.service.About(d.arn, err); err != nil {
		return message.Problemf(err, "", "%s; the key is disabled", message.OneLine(err))
	}
	return nil
}

// shredded is what a command shredded, in JSON. Scripts rely on it.
type shredded struct {
	Bucket  string `json:"bucket"`
	Key     string `json:"key,omitempty"`    // of the object
	KeyID   string `json:"key_id,omitempty"` // of what was destroyed
	Objects int64  `json:"objects"`
	Failed  int64  `json:"failed"`
}

// recordFile is the file that records what was shredded.
type recordFile struct {
	*os.File
	name string
}

// openRecord opens a record to append to it. It refuses files of other kinds, and ends a
// line that a crash left incomplete.
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
	return n, message.About(f.name, err)
}

func (f recordFile) Sync() error { return message.About(f.name, f.File.Sync()) }
