package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
)

type retireCmd struct {
	Bucket []string `required:"" group:"bucket" sep:"none" placeholder:"URL" help:"Bucket. Repeat it for every bucket that the ring seals for."`
	keys.RingFlags
	keys.VersionArg
	Destroy    bool          `help:"Destroy the version, after it was disabled for --quarantine."`
	Quarantine time.Duration `default:"168h" placeholder:"DURATION" help:"How long the version must have been disabled; by default 168h. Choose more than your longest upload and refresh. 0 means none: only if nobody else writes."`
	console.ConfirmFlag
	AllowEmpty bool `help:"Accept a bucket without objects. Without this flag, an empty bucket is an error."`
	paceFlags
}

// Retirement is the result of retiring a version. Scripts rely on its JSON.
type Retirement struct {
	KeyID        string            `json:"key_id"`
	State        string            `json:"state"` // enabled, disabled or destroyed
	Objects      int64             `json:"objects"`
	Names        []jobs.ObjectName `json:"names"` // the first that need it
	Unclear      int64             `json:"unclear"`
	UnclearNames []unclearName     `json:"unclear_names"` // the first that may need it
}

// unclearName is an object that may need the version.
type unclearName struct {
	jobs.ObjectName
	Error string `json:"error"`
}

func (cmd retireCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmp.Or(cmd.RingFlags.Check(), cmd.paceFlags.check()); err != nil {
		return err
	}
	switch {
	case cmd.Quarantine < 0:
		return message.Usagef("--quarantine %v: want 0 or more", cmd.Quarantine)
	case cmd.Destroy:
		if err := cmd.CheckConfirm(c, "destroying a version"); err != nil {
			return err
		}
	}
	ring, id, err := cmd.OpenToDestroy(ctx, c, cmd.VersionArg)
	if err != nil {
		return err
	}
	buckets, err := cmd.openBuckets(ctx)
	defer closeBuckets(buckets)
	if err != nil {
		return err
	}
	var all []*blob.Bucket
	var shown []string
	for _, b := range buckets {
		all, shown = append(all, b.Bucket), append(shown, b.shown)
	}
	if cmd.Destroy {
		err := cmd.Confirm(ctx, c, "Destroy version %s of %s, if nothing in %s needs it?\nNobody can open what else it sealed.\n"+
			"Type yes to destroy it: ", id, message.Printable(cmd.Ring), message.Printable(strings.Join(shown, ", ")))
		if err != nil {
			return err
		}
	}
	opts := &jobs.RetireOptions{Destroy: cmd.Destroy, Quarantine: cmd.Quarantine, Workers: cmd.Workers, Limit: cmd.limit()}
	if cmd.Quarantine == 0 { // the flag's default is 168h, so 0 can mean none
		opts.Quarantine = jobs.NoQuarantine
	}
	info, err := jobs.Retire(ctx, ring, id, opts, all...)
	used, _ := errors.AsType[*jobs.InUseError](err)
	if err == nil || used != nil || errors.Is(err, jobs.ErrQuarantine) {
		if err := cmd.show(c, info, used); err != nil {
			return err
		}
	}
	return cmd.about(info, strings.Join(shown, ", "), used, err)
}

// about returns an error of retiring a version as a [message.Problem].
func (cmd retireCmd) about(info keyring.Version, buckets string, used *jobs.InUseError, err error) error {
	switch {
	case err == nil:
		return nil
	case used != nil && info.State == keyring.Disabled:
		return message.Advise(err, cmd.Ring, message.Words{
			Text: fmt.Sprintf("version %s is disabled but still needed: %s", info.ID, neededBy(used)),
			Does: "enable it", Advice: message.Attempt{Ring: cmd.Ring, Root: cmd.RingFlags.Source().Args()}.Command([]string{"ring", "enable"}, info.ID)})
	case used != nil:
		return message.Problemf(err, cmd.Ring, "version %s is still needed: %s", info.ID, neededBy(used))
	case errors.Is(err, jobs.ErrQuarantine):
		return message.Problemf(err, cmd.Ring, "version %s is not destroyed yet: it was disabled at %s (repeat the command after %s)",
			info.ID, info.Changed.Format(time.RFC3339), info.Changed.Add(cmd.Quarantine).Format(time.RFC3339))
	case message.IsKeys(err):
		return cmd.About(err)
	}
	return message.Bucket(buckets, err) // an inventory's error does not say of which bucket it is
}

// openBuckets opens the buckets, which must have objects unless AllowEmpty is set. The
// caller closes them, also after an error.
func (cmd retireCmd) openBuckets(ctx context.Context) (all []*bucket, err error) {
	for _, url := range cmd.Bucket {
		if strings.HasPrefix(url, "mem:") {
			return all, message.Usagef("--bucket %s: a bucket in memory is always empty, so it proves nothing", url)
		}
		b, err := bucketFlags{Bucket: url}.openWhole(ctx, blob.Options{})
		if err != nil {
			return all, err
		}
		all = append(all, b)
		if cmd.AllowEmpty {
			continue
		}
		some, _, err := b.Inner().ListPage(ctx, gcblob.FirstPageToken, 1, nil)
		switch {
		case err != nil:
			return all, b.about(err)
		case len(some) == 0:
			return all, message.Problemf(message.ErrRefused, b.shown, "has no objects: is it the right bucket? (--allow-empty accepts it)")
		}
	}
	return all, nil
}

func closeBuckets(all []*bucket) {
	for _, b := range all {
		b.Close()
	}
}

// neededBy says which objects keep a version from being retired.
func neededBy(used *jobs.InUseError) string {
	var parts []string
	if used.Objects > 0 {
		parts = append(parts, message.Count(used.Objects, "object")+" under it (run bucket rewrap)")
	}
	if used.Unclear > 0 {
		parts = append(parts, message.Count(used.Unclear, "object")+" that may be (run bucket check)")
	}
	return strings.Join(parts, ", and ")
}

func (cmd retireCmd) show(c *console.Console, info keyring.Version, used *jobs.InUseError) error {
	if c.JSON {
		line := Retirement{KeyID: info.ID, State: string(info.State), Names: []jobs.ObjectName{}, UnclearNames: []unclearName{}}
		if used != nil {
			line.Objects, line.Unclear = used.Objects, used.Unclear
			line.Names = append(line.Names, used.Names...)
			for _, object := range used.UnclearObjects {
				line.UnclearNames = append(line.UnclearNames, unclearName{object.ObjectName, object.Err.Error()})
			}
		}
		return c.WriteJSON(line)
	}
	if used == nil {
		return c.Printf("%s: version %s is %s: no object needs it\n", message.Printable(cmd.Ring), info.ID, info.State)
	}
	var text strings.Builder
	more := func(all int64, shown int) {
		if rest := all - int64(shown); rest > 0 {
			fmt.Fprintf(&text, "and %d more\n", rest)
		}
	}
	for _, name := range used.Names {
		fmt.Fprintf(&text, "%s: is under the version\n", message.Printable(name.String()))
	}
	more(used.Objects, len(used.Names))
	for _, object := range used.UnclearObjects {
		fmt.Fprintf(&text, "%s: may be under the version: %s\n", message.Printable(object.String()), message.Printable(message.OneLine(object.Err)))
	}
	more(used.Unclear, len(used.UnclearObjects))
	return c.Printf("%s", text.String())
}
