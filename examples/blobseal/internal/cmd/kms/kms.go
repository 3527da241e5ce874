// Package kms has the commands on key services.
package kms

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/ring"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// Commands are the commands on a key service.
type Commands struct {
	Init             initCmd             `cmd:"" help:"Make a key service, in a directory."`
	CreateKey        createKeyCmd        `cmd:"" help:"Make a key."`
	List             listCmd             `cmd:"" help:"List the keys; shows nothing secret."`
	Describe         describeCmd         `cmd:"" help:"Show all that is known of a key; nothing secret."`
	Enable           enableCmd           `cmd:"" help:"Let a disabled key serve again."`
	Disable          disableCmd          `cmd:"" help:"Refuse every use of a key at once, until it is enabled again."`
	ScheduleDeletion scheduleDeletionCmd `cmd:"" help:"Refuse every use of a key at once, and delete it after some days."`
	CancelDeletion   cancelDeletionCmd   `cmd:"" help:"Take schedule-deletion back; the key is disabled then."`
	Rotate           rotateCmd           `cmd:"" help:"Give a key new material now; what the old one encrypted still opens."`
	ChangeRoot       changeRootCmd       `cmd:"" help:"Encrypt the key service under another root: a key file, a passphrase or another service's key."`
	Rotation         rotationCmd         `cmd:"" help:"Rotate a key by schedule."`
	Alias            aliasCmd            `cmd:"" help:"Give keys names that can be moved from one to another."`
	Policy           policyCmd           `cmd:"" help:"Say who may do what with a key."`
	Grant            grantCmd            `cmd:"" help:"Permit someone to use a key, beside its policy."`
	Tag              tagCmd              `cmd:"" help:"Tag a key; policies see tags."`
	Untag            untagCmd            `cmd:"" help:"Remove tags of a key."`
}

func (Commands) Help() string {
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

// serviceFlags name a key service, its root and who asks.
type serviceFlags struct {
	KMS string `name:"kms" required:"" group:"root" placeholder:"DIR" help:"Key service."`
	keys.RootFlags
	Principal string `group:"root" placeholder:"ID" help:"Who asks; by default user:NAME, the user that you are."`
}

// with opens the service and has f use it, as the principal.
func (f serviceFlags) with(ctx context.Context, c *console.Console, use func(context.Context, *keys.Service) error) error {
	if err := f.Source().Check("key service"); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, f.Principal)
	s, err := keys.OpenService(ctx, c, f.KMS, f.Source())
	if err != nil {
		return err
	}
	defer s.Close()
	return use(ctx, s)
}

// change is with for one operation on one key, and says what was done.
func (f serviceFlags) change(ctx context.Context, c *console.Console, op kms.Operation, key string, do func(context.Context, *keys.Service) error, done string) error {
	return f.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		if err := do(ctx, s); err != nil {
			return s.About(op, key, err)
		}
		return c.Printf("%s: %s %s\n", message.Printable(f.KMS), message.Printable(key), done)
	})
}

// serviceKeyArg names a key of a key service.
type serviceKeyArg struct {
	Key string `arg:"" help:"Id, ARN or alias; see kms list."`
}

type initCmd struct {
	KMS string `name:"kms" required:"" group:"root" placeholder:"DIR" help:"Key service."`
	keys.RootFlags
	GenerateRootKey string `group:"root" placeholder:"FILE" help:"Make a new root key in FILE, as keygen does, and use it."`
}

func (initCmd) Help() string {
	return `Its document DIR/keys is encrypted under its root, which is kept elsewhere: a key file, a passphrase or a key in another key service, see ring. Without either, nothing opens what its keys encrypt. DIR/audit.jsonl is the audit trail. A key service that exists is refused.

    blobseal kms init --kms my.kms --generate-root-key root.key`
}

func (cmd initCmd) Run(ctx context.Context, c *console.Console) (err error) {
	root, undo, err := keys.NewRoot(ctx, c, cmd.Source(), cmd.GenerateRootKey, "key service", func() error {
		if _, err := os.Lstat(message.KeysPath(cmd.KMS)); err == nil {
			return message.Problemf(errServiceExists, cmd.KMS, "%s", errServiceExists)
		} else if !errors.Is(err, os.ErrNotExist) {
			return message.About(cmd.KMS, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	made := os.Mkdir(cmd.KMS, 0o700)
	if made != nil && !errors.Is(made, os.ErrExist) {
		undo()
		return message.About(cmd.KMS, made)
	}
	s := &keys.Service{Dir: cmd.KMS}
	if err := s.Open(ctx, c, root, func(store keyring.Store) keyring.Store {
		return keys.NewStore{Store: store, Name: cmd.KMS, Exists: errServiceExists}
	}); err != nil {
		undo()
		if _, there := os.Lstat(message.KeysPath(cmd.KMS)); made == nil && errors.Is(there, os.ErrNotExist) {
			os.Remove(message.KeysPath(cmd.KMS) + ".lock")
			os.Remove(cmd.KMS) // if nothing else is in it
		}
		return err
	}
	defer s.Close()
	if err := s.Trail.Open(); err != nil { // so that a trail which is missing shows
		return message.Problemf(err, cmd.KMS, "created, but without its audit trail, so it refuses every use: %s", message.Reason(message.Trail("", err), ""))
	}
	return c.Printf("%s: created, without keys; make one with: blobseal kms create-key --kms %[1]s\n", message.Printable(cmd.KMS))
}

var errServiceExists = errors.New("already exists, and a key service is never overwritten")

type changeRootCmd struct {
	serviceFlags
	NewRootKeyFile    string `placeholder:"FILE" help:"New root key."`
	NewPassphraseFile string `placeholder:"FILE" help:"New passphrase, without its line end. Or set BLOBSEAL_NEW_PASSPHRASE."`
	NewRootKMSKey     string `name:"new-root-kms-key" placeholder:"URL" help:"New root key in a key service, such as awskms:///alias/rings; see ring."`
}

func (changeRootCmd) Help() string {
	return `The keys stay as they are, and so does every file. Copies of the key service from before still open with the old root: remove them. Services that run must be told of the new root, or restarted. The command may be repeated after a crash.

    blobseal keygen new.key
    blobseal kms change-root --kms my.kms --root-key-file root.key --new-root-key-file new.key`
}

func (cmd changeRootCmd) Run(ctx context.Context, c *console.Console) error {
	next := keys.RootSource{KeyFile: cmd.NewRootKeyFile, PassphraseFile: cmd.NewPassphraseFile, KMSKey: cmd.NewRootKMSKey, Prefix: "new-", Variable: "BLOBSEAL_NEW_PASSPHRASE"}
	if len(next.Given()) == 0 {
		return message.Usagef("the key service needs a new root: give %s", next.Flags())
	}
	if err := next.Check("key service"); err != nil {
		return err
	}
	newRoot, err := next.Open(keys.AsPrincipal(ctx, cmd.Principal), c)
	if err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		if err := s.ChangeRoot(ctx, newRoot); err != nil {
			return s.About("", "", err)
		}
		return c.Printf("%s: the root is changed; copies of the key service from before still open with the old one\n", message.Printable(cmd.KMS))
	})
}

type createKeyCmd struct {
	serviceFlags
	Alias        string   `placeholder:"alias/NAME" help:"Give it a name, too."`
	Description  string   `placeholder:"TEXT" help:"What it is for."`
	Tag          []string `placeholder:"K=V" sep:"none" help:"Tag; may be repeated. Policies see tags."`
	RotationDays int      `placeholder:"N" help:"Rotate it every so many days, 90 to 2560; without it, on demand alone."`
	Policy       string   `placeholder:"FILE" help:"Policy in Cedar, see kms policy; - is standard input. Without one, everyone may do everything with the key."`
	Force        bool     `help:"Set the policy although it forbids you to replace it."`
}

func (createKeyCmd) Help() string {
	return `It writes the new key's id. --kms-key and the commands on keys take that, or an alias. The default key, alias/blobseal/default, need not be made: its first use does that.

    blobseal kms create-key --kms my.kms --root-key-file root.key --alias alias/photos --rotation-days 365`
}

func (cmd createKeyCmd) Run(ctx context.Context, c *console.Console) error {
	in := &localkms.CreateKeyInput{Description: cmd.Description, RotationDays: cmd.RotationDays, BypassLockoutCheck: cmd.Force}
	if err := console.CheckDays("--rotation-days", cmd.RotationDays, localkms.MinRotationDays, localkms.MaxRotationDays); err != nil {
		return err
	}
	var err error
	if in.Tags, err = console.ParsePairs("--tag", cmd.Tag); err != nil {
		return err
	}
	if cmd.Policy != "" {
		if in.Policy, err = readPolicy(ctx, c, cmd.Policy); err != nil {
			return err
		}
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		key, err := s.CreateKey(ctx, in)
		if err != nil {
			return aboutPolicy(s, localkms.OpCreateKey, "", cmd.Policy, err)
		}
		if err := c.Printf("%s\n", key.ID); err != nil {
			return err
		}
		if cmd.Alias == "" {
			return nil
		}
		if err := s.CreateAlias(ctx, cmd.Alias, key.ID); err != nil {
			err = s.About(localkms.OpCreateAlias, key.ARN, err)
			return message.Problemf(err, "", "%s; the key is there, without the alias", message.OneLine(err))
		}
		return nil
	})
}

// KeyShape is a key in JSON, which is a contract.
type KeyShape struct {
	*localkms.Info
	Aliases []string `json:"aliases"`
}

// aliases are the names of each key, or of one, by its id.
func aliasesOf(ctx context.Context, s *keys.Service, key string) (names map[string][]string, err error) {
	names = map[string][]string{}
	for a, err := range s.ListAliases(ctx, key) {
		if err != nil {
			return nil, s.About(localkms.OpListAliases, key, err)
		}
		names[a.KeyID] = append(names[a.KeyID], a.Name)
	}
	return names, nil
}

type listCmd struct {
	serviceFlags
	JSON bool `name:"json" help:"Write JSON."`
}

func (listCmd) Help() string {
	return `One line for each key, those that are disabled or wait for their deletion too.

    blobseal kms list --kms my.kms --root-key-file root.key`
}

func (cmd listCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		names, err := aliasesOf(ctx, s, "")
		if err != nil {
			return err
		}
		keys := []KeyShape{}
		for info, err := range s.ListKeys(ctx) {
			if err != nil {
				return s.About(localkms.OpListKeys, "", err)
			}
			keys = append(keys, KeyShape{info, append([]string{}, names[info.ID]...)})
		}
		if cmd.JSON {
			return c.WriteJSON(map[string]any{"keys": keys})
		}
		return c.Table(func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "KEY\tALIASES\tSTATE\tCREATED\tNEXT ROTATION")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, message.OrNone(strings.Join(k.Aliases, " ")), stateShown(k.Info), k.Created.Format(time.RFC3339), dateShown(k.Rotation.Next))
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

type describeCmd struct {
	serviceFlags
	serviceKeyArg
	JSON bool `name:"json" help:"Write JSON."`
}

func (describeCmd) Help() string {
	return `The versions of a key are the generations of its material: the newest encrypts, all decrypt.

    blobseal kms describe --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd describeCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		info, err := s.DescribeKey(ctx, cmd.Key)
		if err != nil {
			return s.About(localkms.OpDescribeKey, cmd.Key, err)
		}
		names, err := aliasesOf(ctx, s, info.ID)
		if err != nil {
			return err
		}
		key := KeyShape{info, append([]string{}, names[info.ID]...)}
		if cmd.JSON {
			return c.WriteJSON(key)
		}
		return c.Table(key.print)
	})
}

func (k KeyShape) print(w *tabwriter.Writer) {
	line := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, message.Printable(value)) }
	line("key", k.ID)
	line("arn", k.ARN)
	line("aliases", message.OrNone(strings.Join(k.Aliases, " ")))
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
		rotation = fmt.Sprintf("every %s, next %s", ring.Days(time.Duration(k.Rotation.Days)*24*time.Hour), dateShown(k.Rotation.Next))
	}
	line("rotation", rotation)
}

type enableCmd struct {
	serviceFlags
	serviceKeyArg
}

func (enableCmd) Help() string {
	return `What it encrypted opens again.

    blobseal kms enable --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd enableCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, localkms.OpEnableKey, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.EnableKey(ctx, cmd.Key)
	}, "is enabled")
}

type disableCmd struct {
	serviceFlags
	serviceKeyArg
}

func (disableCmd) Help() string {
	return `Nothing is lost: enable takes it back. A running service on the same directory refuses within a second. Disable a key some time before you delete it, to find out who still needs it: audit show tells who was refused.

    blobseal kms disable --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd disableCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, localkms.OpDisableKey, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.DisableKey(ctx, cmd.Key)
	}, "is disabled")
}

type scheduleDeletionCmd struct {
	serviceFlags
	serviceKeyArg
	Days int `default:"30" placeholder:"N" help:"Days until then, 7 to 30; by default 30."`
}

func (scheduleDeletionCmd) Help() string {
	return `Until the day comes, cancel-deletion takes it back. Then the key is gone, with its aliases, its policy and its grants, and what it encrypted can never be opened again by anyone who has no older copy of the directory.

    blobseal kms schedule-deletion --kms my.kms --root-key-file root.key --days 7 alias/photos`
}

func (cmd scheduleDeletionCmd) Run(ctx context.Context, c *console.Console) error {
	if err := console.CheckDays("--days", max(cmd.Days, 1), localkms.MinDeletionDays, localkms.MaxDeletionDays); err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		when, err := s.ScheduleKeyDeletion(ctx, cmd.Key, cmd.Days)
		if err != nil {
			return s.About(localkms.OpScheduleKeyDeletion, cmd.Key, err)
		}
		return c.Printf("%s: %s is refused from now on, and deleted on %s\n", message.Printable(cmd.KMS), message.Printable(cmd.Key), when.Format(time.RFC3339))
	})
}

type cancelDeletionCmd struct {
	serviceFlags
	serviceKeyArg
}

func (cancelDeletionCmd) Help() string {
	return `The key is disabled then; enable lets it serve.

    blobseal kms cancel-deletion --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd cancelDeletionCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, localkms.OpCancelKeyDeletion, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.CancelKeyDeletion(ctx, cmd.Key)
	}, "is not deleted, but disabled; enable it to use it")
}

type rotateCmd struct {
	serviceFlags
	serviceKeyArg
}

func (rotateCmd) Help() string {
	return `The key's id stays, and old files keep opening; rewrap moves them to the new material. A schedule is not moved, see rotation.

    blobseal kms rotate --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd rotateCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		version, err := s.RotateKey(ctx, cmd.Key)
		if err != nil {
			return s.About(localkms.OpRotateKeyOnDemand, cmd.Key, err)
		}
		return c.Printf("%s: %s is rotated, to version %d\n", message.Printable(cmd.KMS), message.Printable(cmd.Key), version.Number)
	})
}

// rotationCmd are the commands on the schedule of a key's rotation.
type rotationCmd struct {
	Enable  rotationEnableCmd  `cmd:"" help:"Rotate a key every so many days."`
	Disable rotationDisableCmd `cmd:"" help:"Rotate a key on demand alone."`
	List    rotationListCmd    `cmd:"" help:"List the versions of a key."`
}

type rotationEnableCmd struct {
	serviceFlags
	serviceKeyArg
	Days int `default:"365" placeholder:"N" help:"The period, 90 to 2560 days; by default 365."`
}

func (rotationEnableCmd) Help() string {
	return `The first rotation is that many days from now. Whoever first uses the service when the day has come does it.

    blobseal kms rotation enable --kms my.kms --root-key-file root.key --days 90 alias/photos`
}

func (cmd rotationEnableCmd) Run(ctx context.Context, c *console.Console) error {
	if err := console.CheckDays("--days", max(cmd.Days, 1), localkms.MinRotationDays, localkms.MaxRotationDays); err != nil {
		return err
	}
	return cmd.change(ctx, c, localkms.OpEnableKeyRotation, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.EnableKeyRotation(ctx, cmd.Key, cmd.Days)
	}, fmt.Sprintf("is rotated every %d days", cmd.Days))
}

type rotationDisableCmd struct {
	serviceFlags
	serviceKeyArg
}

func (rotationDisableCmd) Help() string {
	return `Ends the schedule; rotate still rotates.

    blobseal kms rotation disable --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd rotationDisableCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, localkms.OpDisableKeyRotation, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.DisableKeyRotation(ctx, cmd.Key)
	}, "is rotated on demand alone")
}

type rotationListCmd struct {
	serviceFlags
	serviceKeyArg
	JSON bool `name:"json" help:"Write JSON."`
}

func (rotationListCmd) Help() string {
	return `The last one encrypts, all decrypt.

    blobseal kms rotation list --kms my.kms --root-key-file root.key alias/photos`
}

func (cmd rotationListCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		versions, err := s.ListKeyRotations(ctx, cmd.Key)
		if err != nil {
			return s.About(localkms.OpListKeyRotations, cmd.Key, err)
		}
		if cmd.JSON {
			return c.WriteJSON(map[string]any{"versions": versions})
		}
		return c.Table(func(w *tabwriter.Writer) {
			fmt.Fprintln(w, "VERSION\tCREATED\tHOW")
			how := map[localkms.Origin]string{localkms.Created: "with the key", localkms.ScheduledRotation: "by schedule", localkms.OnDemandRotation: "on demand"}
			for _, v := range versions {
				fmt.Fprintf(w, "%d\t%s\t%s\n", v.Number, v.Created.Format(time.RFC3339), how[v.Origin])
			}
		})
	})
}

type tagCmd struct {
	serviceFlags
	serviceKeyArg
	Tags []string `arg:"" name:"name=value" help:"Tag; one of the same name is replaced."`
}

func (tagCmd) Help() string {
	return `Whoever may tag a key may change who may use it, if a policy is about tags.

    blobseal kms tag --kms my.kms --root-key-file root.key alias/photos stage=live team=blue`
}

func (cmd tagCmd) Run(ctx context.Context, c *console.Console) error {
	tags, err := console.ParsePairs("tag", cmd.Tags)
	if err != nil {
		return err
	}
	return cmd.change(ctx, c, localkms.OpTagResource, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.Tag(ctx, cmd.Key, tags)
	}, "is tagged")
}

type untagCmd struct {
	serviceFlags
	serviceKeyArg
	Names []string `arg:"" name:"name" help:"Name of a tag."`
}

func (untagCmd) Help() string {
	return `A tag that is not there is no error.

    blobseal kms untag --kms my.kms --root-key-file root.key alias/photos stage`
}

func (cmd untagCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, localkms.OpUntagResource, cmd.Key, func(ctx context.Context, s *keys.Service) error {
		return s.Untag(ctx, cmd.Key, cmd.Names...)
	}, "is untagged")
}
