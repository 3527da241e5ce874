package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// kmsCmd are the commands on a key service.
type kmsCmd struct {
	Init             kmsInitCmd             `cmd:"" help:"Make a key service, in a directory."`
	CreateKey        kmsCreateKeyCmd        `cmd:"" help:"Make a key."`
	List             kmsListCmd             `cmd:"" help:"List the keys; shows nothing secret."`
	Describe         kmsDescribeCmd         `cmd:"" help:"Show all that is known of a key; nothing secret."`
	Enable           kmsEnableCmd           `cmd:"" help:"Let a disabled key serve again."`
	Disable          kmsDisableCmd          `cmd:"" help:"Refuse every use of a key at once, until it is enabled again."`
	ScheduleDeletion kmsScheduleDeletionCmd `cmd:"" help:"Refuse every use of a key at once, and delete it after some days."`
	CancelDeletion   kmsCancelDeletionCmd   `cmd:"" help:"Take schedule-deletion back; the key is disabled then."`
	Rotate           kmsRotateCmd           `cmd:"" help:"Give a key new material now; what the old one encrypted still opens."`
	Rotation         kmsRotationCmd         `cmd:"" help:"Rotate a key by schedule."`
	Alias            kmsAliasCmd            `cmd:"" help:"Give keys names that can be moved from one to another."`
	Policy           kmsPolicyCmd           `cmd:"" help:"Say who may do what with a key."`
	Grant            kmsGrantCmd            `cmd:"" help:"Permit someone to use a key, beside its policy."`
	Tag              kmsTagCmd              `cmd:"" help:"Tag a key; policies see tags."`
	Untag            kmsUntagCmd            `cmd:"" help:"Remove tags of a key."`
}

func (kmsCmd) Help() string {
	return `A key service makes a data key for each file and keeps the keys that encrypt those. Who may use which key for what is in its policies and grants; each use and each change is recorded, done or refused, see audit. It is a directory: a document, encrypted under a root, and the audit trail.

--principal says who asks; by default it is user:NAME, the user that you are. That is a claim, not a login: policies bind whoever comes by way of this command or of a service that knows its callers. Whoever can read the directory and has its root can do without either.

A first session:

    blobseal kms init --kms my.kms --generate-root-key root.key
    blobseal kms create-key --kms my.kms --root-key-file root.key --alias alias/photos
    blobseal encrypt --kms my.kms --root-key-file root.key --kms-key alias/photos photo.jpg photo.enc
    blobseal decrypt --kms my.kms --root-key-file root.key photo.enc copy.jpg
    blobseal kms disable --kms my.kms --root-key-file root.key alias/photos
    blobseal audit show --kms my.kms`
}

// kmsFlags name a key service, its root and who asks.
type kmsFlags struct {
	KMS string `name:"kms" required:"" group:"root" placeholder:"DIR" help:"Key service."`
	rootFlags
	Principal string `group:"root" placeholder:"ID" help:"Who asks; by default user:NAME, the user that you are."`
}

// with opens the service and has f use it, as the principal.
func (f kmsFlags) with(ctx context.Context, c *console, use func(context.Context, *keyService) error) error {
	if err := f.source().check("key service"); err != nil {
		return err
	}
	ctx = asPrincipal(ctx, f.Principal)
	s, err := c.openService(ctx, f.KMS, f.source())
	if err != nil {
		return err
	}
	defer s.Close()
	return use(ctx, s)
}

// change is with for one operation on one key, and says what was done.
func (f kmsFlags) change(ctx context.Context, c *console, op kms.Operation, key string, do func(context.Context, *keyService) error, done string) error {
	return f.with(ctx, c, func(ctx context.Context, s *keyService) error {
		if err := do(ctx, s); err != nil {
			return s.about(op, key, err)
		}
		return c.printf("%s: %s %s\n", printable(f.KMS), printable(key), done)
	})
}

// serviceKeyArg names a key of a key service.
type serviceKeyArg struct {
	Key string `arg:"" help:"Id, ARN or alias; see kms list."`
}

type kmsInitCmd struct {
	KMS string `name:"kms" required:"" group:"root" placeholder:"DIR" help:"Key service."`
	rootFlags
	GenerateRootKey string `group:"root" placeholder:"FILE" help:"Make a new root key in FILE, as keygen does, and use it."`
}

func (kmsInitCmd) Help() string {
	return `Its document DIR/keys is encrypted under its root, which is kept elsewhere: a key file, a passphrase or a key in another key service, see ring. Without either, nothing opens what its keys encrypt. DIR/audit.jsonl is the audit trail. A key service that exists is refused.

    blobseal kms init --kms my.kms --generate-root-key root.key`
}

func (cmd kmsInitCmd) Run(ctx context.Context, c *console) (err error) {
	root, undo, err := newRoot(ctx, c, cmd.source(), cmd.GenerateRootKey, "key service", func() error {
		if _, err := os.Lstat(keysPath(cmd.KMS)); err == nil {
			return problemf(errServiceExists, "%s: %s", cmd.KMS, errServiceExists)
		} else if !errors.Is(err, os.ErrNotExist) {
			return about(cmd.KMS, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	made := os.Mkdir(cmd.KMS, 0o700)
	if made != nil && !errors.Is(made, os.ErrExist) {
		undo()
		return about(cmd.KMS, made)
	}
	s := &keyService{dir: cmd.KMS}
	if err := s.open(ctx, c, root, func(store keyring.Store) keyring.Store { return newStore{store, cmd.KMS, errServiceExists} }); err != nil {
		undo()
		if _, there := os.Lstat(keysPath(cmd.KMS)); made == nil && errors.Is(there, os.ErrNotExist) {
			os.Remove(keysPath(cmd.KMS) + ".lock")
			os.Remove(cmd.KMS) // if nothing else is in it
		}
		return err
	}
	defer s.Close()
	if err := s.trail.open(); err != nil { // so that a trail which is missing shows
		return problemf(err, "%s: created, but not its audit trail, without which it refuses: %s", cmd.KMS, trailSays(err))
	}
	return c.printf("%s: created, without keys; make one with: blobseal kms create-key --kms %[1]s\n", printable(cmd.KMS))
}

var errServiceExists = errors.New("already exists, and a key service is never overwritten")

type kmsCreateKeyCmd struct {
	kmsFlags
	Alias        string   `placeholder:"alias/NAME" help:"Give it a name, too."`
	Description  string   `placeholder:"TEXT" help:"What it is for."`
	Tag          []string `placeholder:"K=V" sep:"none" help:"Tag; may be repeated. Policies see tags."`
	RotationDays int      `placeholder:"N" help:"Rotate it every so many days, 90 to 2560; without it, on demand alone."`
	Policy       string   `placeholder:"FILE" help:"Policy in Cedar, see kms policy; - is standard input. Without one, everyone may do everything with the key."`
	Force        bool     `help:"Set the policy although it forbids you to replace it."`
}

func (kmsCreateKeyCmd) Help() string {
	return `It writes the new key's id. --kms-key and the commands on keys take that, or an alias. The default key, alias/blobseal/default, need not be made: its first use does that.

    blobseal kms create-key --kms my.kms --root-key-file root.key --alias alias/photos --rotation-days 365`
}

func (cmd kmsCreateKeyCmd) Run(ctx context.Context, c *console) error {
	in := &localkms.CreateKeyInput{Description: cmd.Description, RotationDays: cmd.RotationDays, BypassLockoutCheck: cmd.Force}
	if err := checkDays("--rotation-days", cmd.RotationDays, localkms.MinRotationDays, localkms.MaxRotationDays); err != nil {
		return err
	}
	var err error
	if in.Tags, err = parsePairs("--tag", cmd.Tag); err != nil {
		return err
	}
	if cmd.Policy != "" {
		if in.Policy, err = c.readPolicy(ctx, cmd.Policy); err != nil {
			return err
		}
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		key, err := s.CreateKey(ctx, in)
		if err != nil {
			return s.aboutPolicy(localkms.OpCreateKey, "", cmd.Policy, err)
		}
		if err := c.printf("%s\n", key.ID); err != nil {
			return err
		}
		if cmd.Alias == "" {
			return nil
		}
		if err := s.CreateAlias(ctx, cmd.Alias, key.ID); err != nil {
			err = s.about(localkms.OpCreateAlias, key.ARN, err)
			return problemf(err, "%s; the key is there, without the alias", oneLine(err))
		}
		return nil
	})
}

// checkDays refuses a number of days that no key takes; zero is a default.
func checkDays(flag string, days, least, most int) error {
	if days != 0 && (days < least || days > most) {
		return usagef("%s %d: want %d to %d", flag, days, least, most)
	}
	return nil
}

// keyShape is a key in JSON, which is a contract.
type keyShape struct {
	*localkms.Info
	Aliases []string `json:"aliases"`
}

// aliases are the names of each key, or of one, by its id.
func (s *keyService) aliases(ctx context.Context, key string) (names map[string][]string, err error) {
	names = map[string][]string{}
	for marker := ""; ; {
		page, next, err := s.ListAliases(ctx, key, localkms.MaxPage, marker)
		if err != nil {
			return nil, s.about(localkms.OpListAliases, key, err)
		}
		for _, a := range page {
			names[a.KeyID] = append(names[a.KeyID], a.Name)
		}
		if marker = next; next == "" {
			return names, nil
		}
	}
}

type kmsListCmd struct {
	kmsFlags
	JSON bool `name:"json" help:"Write JSON."`
}

func (kmsListCmd) Help() string {
	return `One line for each key, those that are disabled or wait for their deletion too.

    blobseal kms list --kms my.kms --root-key-file root.key`
}

func (cmd kmsListCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		names, err := s.aliases(ctx, "")
		if err != nil {
			return err
		}
		keys := []keyShape{}
		for marker := ""; ; {
			page, next, err := s.ListKeys(ctx, localkms.MaxPage, marker)
			if err != nil {
				return s.about(localkms.OpListKeys, "", err)
			}
			for _, info := range page {
				keys = append(keys, keyShape{info, append([]string{}, names[info.ID]...)})
			}
			if marker = next; next == "" {
				break
			}
		}
		if cmd.JSON {
			return c.writeJSON(map[string]any{"keys": keys})
		}
		return c.table(func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "KEY\tALIASES\tSTATE\tCREATED\tNEXT ROTATION")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, orNone(strings.Join(k.Aliases, " ")), stateShown(k.Info), k.Created.Format(time.RFC3339), dateShown(k.Rotation.Next))
			}
		})
	})
}

func stateShown(k *localkms.Info) string {
	if k.Deletion.IsZero() {
		return k.State.String()
	}
	return fmt.Sprintf("%v, deleted %s", k.State, k.Deletion.Format(time.RFC3339))
}

func dateShown(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.RFC3339)
}

// table writes what print prints, in columns.
func (c *console) table(print func(*tabwriter.Writer)) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	print(w)
	w.Flush()
	return c.printf("%s", text.String())
}

func (c *console) writeJSON(value any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return about("standard output", e.Encode(value))
}

type kmsDescribeCmd struct {
	kmsFlags
	serviceKeyArg
	JSON bool `name:"json" help:"Write JSON."`
}

func (kmsDescribeCmd) Help() string {
	return `The versions of a key are the generations of its material: the newest encrypts, all decrypt.

    blobseal kms describe --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsDescribeCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		info, err := s.DescribeKey(ctx, cmd.Key)
		if err != nil {
			return s.about(localkms.OpDescribeKey, cmd.Key, err)
		}
		names, err := s.aliases(ctx, info.ID)
		if err != nil {
			return err
		}
		key := keyShape{info, append([]string{}, names[info.ID]...)}
		if cmd.JSON {
			return c.writeJSON(key)
		}
		return c.table(key.print)
	})
}

func (k keyShape) print(w *tabwriter.Writer) {
	line := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, printable(value)) }
	line("key", k.ID)
	line("arn", k.ARN)
	line("aliases", orNone(strings.Join(k.Aliases, " ")))
	line("state", stateShown(k.Info))
	line("created", k.Created.Format(time.RFC3339))
	if k.Description != "" {
		line("description", k.Description)
	}
	for i, name := range kms.Context(k.Tags).Keys() {
		label := ""
		if i == 0 {
			label = "tags"
		}
		line(label, name+"="+k.Tags[name])
	}
	policy := "none: everyone may do everything"
	if k.HasPolicy {
		policy = "its own; see: blobseal kms policy get"
	}
	line("policy", policy)
	line("versions", fmt.Sprint(k.Rotation.Versions))
	rotation := "on demand"
	if k.Rotation.Days > 0 {
		rotation = fmt.Sprintf("every %s, next %s", days(time.Duration(k.Rotation.Days)*24*time.Hour), dateShown(k.Rotation.Next))
	}
	line("rotation", rotation)
}

type kmsEnableCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsEnableCmd) Help() string {
	return `What it encrypted opens again.

    blobseal kms enable --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsEnableCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpEnableKey, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.EnableKey(ctx, cmd.Key)
	}, "is enabled")
}

type kmsDisableCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsDisableCmd) Help() string {
	return `Nothing is lost: enable takes it back. A running service on the same directory refuses within a second. Disable a key some time before you delete it, to find out who still needs it: audit show tells who was refused.

    blobseal kms disable --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsDisableCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpDisableKey, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.DisableKey(ctx, cmd.Key)
	}, "is disabled")
}

type kmsScheduleDeletionCmd struct {
	kmsFlags
	serviceKeyArg
	Days int `default:"30" placeholder:"N" help:"Days until then, 7 to 30; by default 30."`
}

func (kmsScheduleDeletionCmd) Help() string {
	return `Until the day comes, cancel-deletion takes it back. Then the key is gone, with its aliases, its policy and its grants, and what it encrypted can never be opened again by anyone who has no older copy of the directory.

    blobseal kms schedule-deletion --kms my.kms --root-key-file root.key --days 7 alias/photos`
}

func (cmd kmsScheduleDeletionCmd) Run(ctx context.Context, c *console) error {
	if err := checkDays("--days", max(cmd.Days, 1), localkms.MinDeletionDays, localkms.MaxDeletionDays); err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		when, err := s.ScheduleKeyDeletion(ctx, cmd.Key, cmd.Days)
		if err != nil {
			return s.about(localkms.OpScheduleKeyDeletion, cmd.Key, err)
		}
		return c.printf("%s: %s is refused from now on, and deleted on %s\n", printable(cmd.KMS), printable(cmd.Key), when.Format(time.RFC3339))
	})
}

type kmsCancelDeletionCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsCancelDeletionCmd) Help() string {
	return `The key is disabled then; enable lets it serve.

    blobseal kms cancel-deletion --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsCancelDeletionCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpCancelKeyDeletion, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.CancelKeyDeletion(ctx, cmd.Key)
	}, "is not deleted, but disabled; enable it to use it")
}

type kmsRotateCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsRotateCmd) Help() string {
	return `The key's id stays, and old files keep opening; rewrap moves them to the new material. A schedule is not moved, see rotation.

    blobseal kms rotate --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsRotateCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		version, err := s.RotateKey(ctx, cmd.Key)
		if err != nil {
			return s.about(localkms.OpRotateKeyOnDemand, cmd.Key, err)
		}
		return c.printf("%s: %s is rotated, to version %d\n", printable(cmd.KMS), printable(cmd.Key), version.Number)
	})
}

// kmsRotationCmd are the commands on the schedule of a key's rotation.
type kmsRotationCmd struct {
	Enable  kmsRotationEnableCmd  `cmd:"" help:"Rotate a key every so many days."`
	Disable kmsRotationDisableCmd `cmd:"" help:"Rotate a key on demand alone."`
	List    kmsRotationListCmd    `cmd:"" help:"List the versions of a key."`
}

type kmsRotationEnableCmd struct {
	kmsFlags
	serviceKeyArg
	Days int `default:"365" placeholder:"N" help:"The period, 90 to 2560 days; by default 365."`
}

func (kmsRotationEnableCmd) Help() string {
	return `The first rotation is that many days from now. Whoever first uses the service when the day has come does it.

    blobseal kms rotation enable --kms my.kms --root-key-file root.key --days 90 alias/photos`
}

func (cmd kmsRotationEnableCmd) Run(ctx context.Context, c *console) error {
	if err := checkDays("--days", max(cmd.Days, 1), localkms.MinRotationDays, localkms.MaxRotationDays); err != nil {
		return err
	}
	return cmd.change(ctx, c, localkms.OpEnableKeyRotation, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.EnableKeyRotation(ctx, cmd.Key, cmd.Days)
	}, fmt.Sprintf("is rotated every %d days", cmd.Days))
}

type kmsRotationDisableCmd struct {
	kmsFlags
	serviceKeyArg
}

func (kmsRotationDisableCmd) Help() string {
	return `Ends the schedule; rotate still rotates.

    blobseal kms rotation disable --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsRotationDisableCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpDisableKeyRotation, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.DisableKeyRotation(ctx, cmd.Key)
	}, "is rotated on demand alone")
}

type kmsRotationListCmd struct {
	kmsFlags
	serviceKeyArg
	JSON bool `name:"json" help:"Write JSON."`
}

func (kmsRotationListCmd) Help() string {
	return `The last one encrypts, all decrypt.

    blobseal kms rotation list --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd kmsRotationListCmd) Run(ctx context.Context, c *console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keyService) error {
		versions, err := s.ListKeyRotations(ctx, cmd.Key)
		if err != nil {
			return s.about(localkms.OpListKeyRotations, cmd.Key, err)
		}
		if cmd.JSON {
			return c.writeJSON(map[string]any{"versions": versions})
		}
		return c.table(func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "VERSION\tCREATED\tHOW")
			how := map[localkms.Origin]string{localkms.Created: "with the key", localkms.ScheduledRotation: "by schedule", localkms.OnDemandRotation: "on demand"}
			for _, v := range versions {
				fmt.Fprintf(w, "%d\t%s\t%s\n", v.Number, v.Created.Format(time.RFC3339), how[v.Origin])
			}
		})
	})
}

type kmsTagCmd struct {
	kmsFlags
	serviceKeyArg
	Tags []string `arg:"" name:"name=value" help:"Tag; one of the same name is replaced."`
}

func (kmsTagCmd) Help() string {
	return `Whoever may tag a key may change who may use it, if a policy is about tags.

    blobseal kms tag --kms my.kms --root-key-file root.key alias/photos stage=live team=blue`
}

func (cmd kmsTagCmd) Run(ctx context.Context, c *console) error {
	tags, err := parsePairs("tag", cmd.Tags)
	if err != nil {
		return err
	}
	return cmd.change(ctx, c, localkms.OpTagResource, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.Tag(ctx, cmd.Key, tags)
	}, "is tagged")
}

type kmsUntagCmd struct {
	kmsFlags
	serviceKeyArg
	Names []string `arg:"" name:"name" help:"Name of a tag."`
}

func (kmsUntagCmd) Help() string {
	return `A tag that is not there is no error.

    blobseal kms untag --kms my.kms --root-key-file root.key alias/photos stage`
}

func (cmd kmsUntagCmd) Run(ctx context.Context, c *console) error {
	return cmd.change(ctx, c, localkms.OpUntagResource, cmd.Key, func(ctx context.Context, s *keyService) error {
		return s.Untag(ctx, cmd.Key, cmd.Names...)
	}, "is untagged")
}
