// Package kms has the commands on key services.
package kms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/ring"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms/localkms"
)

// Commands are the commands on a key service.
type Commands struct {
	Init             initCmd             `cmd:"" help:"Create a key service, in a directory."`
	CreateKey        createKeyCmd        `cmd:"" help:"Create a key."`
	List             listCmd             `cmd:"" help:"List the keys. Shows nothing secret."`
	Describe         describeCmd         `cmd:"" help:"Describe a key. Shows nothing secret."`
	Enable           enableCmd           `cmd:"" help:"Enable a disabled key."`
	Disable          disableCmd          `cmd:"" help:"Refuse every use of a key, until you enable it again."`
	ScheduleDeletion scheduleDeletionCmd `cmd:"" help:"Refuse every use of a key, and delete it after some days."`
	CancelDeletion   cancelDeletionCmd   `cmd:"" help:"Cancel the deletion of a key."`
	Rotate           rotateCmd           `cmd:"" help:"Rotate a key now. What older versions encrypted still opens."`
	ChangeRoot       changeRootCmd       `cmd:"" help:"Encrypt the key service under another root."`
	Merge            mergeCmd            `cmd:"" aliases:"rescue" help:"Rescue a key service: merge other copies, such as backups, into it."`
	Rotation         rotationCmd         `cmd:"" help:"Rotate a key on a schedule."`
	Alias            aliasCmd            `cmd:"" help:"Give keys names that you can move to other keys."`
	Policy           policyCmd           `cmd:"" help:"Decide who may do what with a key."`
	Grant            grantCmd            `cmd:"" help:"Permit a principal to use a key, in addition to its policy."`
	Tag              tagCmd              `cmd:"" help:"Tag a key. Policies can refer to tags."`
	Untag            untagCmd            `cmd:"" help:"Remove tags of a key."`
}

// serviceFlags name a key service, its root and who asks.
type serviceFlags struct {
	KMS string `name:"kms" required:"" group:"root" placeholder:"DIR" help:"Key service."`
	keys.RootFlags
	Principal string `group:"root" placeholder:"ID" help:"Who asks; by default user:NAME, your user name."`
}

// with opens the service as the principal, and calls use.
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

// change runs one operation on a key or an alias, and says what was done.
func (f serviceFlags) change(ctx context.Context, c *console.Console, key string,
	do func(s *localkms.Client, ctx context.Context, key string) error, done string) error {
	return f.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		if err := do(s.Client, ctx, key); err != nil {
			return s.About(key, err)
		}
		return c.ReportChange(change{f.KMS, key, done}, "%s: %s %s\n", message.Printable(f.KMS), message.Printable(key), done)
	})
}

// keyArg names a key of a key service.
type keyArg struct {
	Key string `arg:"" help:"Id, ARN or alias (see kms list)."`
}

// keyFlags name a key service and one of its keys.
type keyFlags struct {
	serviceFlags
	keyArg
}

type initCmd struct {
	KMS string `name:"kms" required:"" group:"root" placeholder:"DIR" help:"Key service."`
	keys.RootFlags
	GenerateRootKey string `group:"root" placeholder:"FILE" help:"Create a root key in FILE, and use it."`
}

func (cmd initCmd) Run(ctx context.Context, c *console.Console) (err error) {
	source := cmd.Source()
	if cmd.GenerateRootKey != "" {
		source.KeyFile = cmd.GenerateRootKey
	}
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
	verifier := ""
	s := keys.NewService(cmd.KMS, source)
	if err := s.Create(ctx, c, root, func(key string) { verifier = key }); err != nil {
		undo()
		if _, there := os.Lstat(message.KeysPath(cmd.KMS)); made == nil && errors.Is(there, os.ErrNotExist) {
			os.Remove(message.KeysPath(cmd.KMS) + ".lock")
			os.Remove(cmd.KMS) // unless it has other files
		}
		return err
	}
	defer s.Close()
	return c.ReportChange(created{cmd.KMS, verifier}, "%s: created, without keys (create one with: %s)\n"+
		"%[1]s: signs its audit trail; keep this verifier key in another place (see audit verify): %[3]s\n", message.Printable(cmd.KMS), message.Printable(s.Command("create-key")), verifier)
}

var errServiceExists = errors.New("already exists, and is never overwritten")

type changeRootCmd struct {
	serviceFlags
	keys.NewRootFlags
}

func (cmd changeRootCmd) Run(ctx context.Context, c *console.Console) error {
	next := cmd.NewSource()
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
			return s.About("", err)
		}
		return c.ReportChange(change{cmd.KMS, "", "root changed"}, "%s: the root was changed; older copies still open with the old one\n", message.Printable(cmd.KMS))
	})
}

type createKeyCmd struct {
	serviceFlags
	Alias        string   `placeholder:"alias/NAME" help:"Alias for the key."`
	Description  string   `placeholder:"TEXT" help:"What the key is for."`
	Tag          []string `placeholder:"K=V" sep:"none" help:"Tag; may be repeated. Policies can refer to tags."`
	RotationDays int      `placeholder:"N" help:"Rotate the key every N days, 90 to 2560. Without this flag, only on demand."`
	Policy       string   `placeholder:"FILE" help:"Policy in Cedar (see kms policy); - is standard input. Without one, everyone may do everything."`
	Force        bool     `help:"Set a policy that forbids you to replace it."`
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
			return aboutPolicy(s, "", cmd.Policy, err)
		}
		if cmd.Alias == "" || !c.JSON { // the id counts, whatever becomes of the alias
			if err := printID(c, key.ID, ""); err != nil || cmd.Alias == "" {
				return err
			}
		}
		if err := s.CreateAlias(ctx, cmd.Alias, key.ID); err != nil {
			err = s.About(key.ARN, err)
			return message.Problemf(err, "", "%s; the key was created without the alias", message.OneLine(err))
		}
		if c.JSON {
			return printID(c, key.ID, cmd.Alias)
		}
		return nil
	})
}

// change is what a command did to a key service, in JSON. Scripts rely on it.
type change struct {
	KMS  string `json:"kms"`
	Key  string `json:"key,omitempty"` // or alias, as the user wrote it
	Done string `json:"done"`
}

// created is a new key service in JSON. Scripts rely on it.
type created struct {
	KMS         string `json:"kms"`
	VerifierKey string `json:"verifier_key"`
}

// printID writes the id of a key or grant that was made.
func printID(c *console.Console, id, alias string) error {
	if c.JSON {
		return c.WriteLine(struct {
			ID    string `json:"id"`
			Alias string `json:"alias,omitempty"`
		}{id, alias})
	}
	return c.Printf("%s\n", id)
}

// KeyShape is a key in JSON. Scripts rely on it.
type KeyShape struct {
	*localkms.Info
	Aliases []string `json:"aliases"`
}

// aliases returns the aliases of all keys, or of one, by the key's id.
func aliasesOf(ctx context.Context, s *keys.Service, key string) (names map[string][]string, err error) {
	names = map[string][]string{}
	for a, err := range s.ListAliases(ctx, key) {
		if err != nil {
			return nil, s.About(key, err)
		}
		names[a.KeyID] = append(names[a.KeyID], a.Name)
	}
	return names, nil
}

type listCmd struct{ serviceFlags }

func (cmd listCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		names, err := aliasesOf(ctx, s, "")
		if err != nil {
			return err
		}
		keys := []KeyShape{}
		for info, err := range s.ListKeys(ctx) {
			if err != nil {
				return s.About("", err)
			}
			keys = append(keys, KeyShape{info, append([]string{}, names[info.ID]...)})
		}
		if c.JSON {
			return c.WriteJSON(map[string]any{"keys": keys})
		}
		return c.Table(func(w io.Writer) {
			fmt.Fprintln(w, "KEY\tALIASES\tSTATE\tCREATED\tNEXT ROTATION")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, message.OrNone(strings.Join(k.Aliases, " ")), stateShown(k.Info),
					k.Created.Format(time.RFC3339), dateShown(k.Rotation.Next))
			}
		})
	})
}

func stateShown(k *localkms.Info) string {
	if k.Deletion.IsZero() {
		return string(k.State)
	}
	return fmt.Sprintf("%v, deleted %s", k.State, k.Deletion.Format(time.RFC3339))
}

func dateShown(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.RFC3339)
}

type describeCmd struct{ keyFlags }

func (cmd describeCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		info, err := s.DescribeKey(ctx, cmd.Key)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		names, err := aliasesOf(ctx, s, info.ID)
		if err != nil {
			return err
		}
		key := KeyShape{info, append([]string{}, names[info.ID]...)}
		if c.JSON {
			return c.WriteJSON(key)
		}
		return c.Printf("%s", console.Align(key.lines()))
	})
}

// lines returns the names and values of a key's properties.
func (k KeyShape) lines() string {
	var text strings.Builder
	line := func(name, value string) { fmt.Fprintf(&text, "%s\t%s\n", name, message.Printable(value)) }
	line("key", k.ID)
	line("arn", k.ARN)
	line("aliases", message.OrNone(strings.Join(k.Aliases, " ")))
	line("state", stateShown(k.Info))
	line("created", k.Created.Format(time.RFC3339))
	if k.Description != "" {
		line("description", k.Description)
	}
	label := "tags"
	for _, tag := range message.Pairs(k.Tags) {
		line(label, tag)
		label = ""
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
	return text.String()
}

type enableCmd struct{ keyFlags }

func (cmd enableCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Key, (*localkms.Client).EnableKey, "is enabled")
}

type disableCmd struct{ keyFlags }

func (cmd disableCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Key, (*localkms.Client).DisableKey, "is disabled")
}

type scheduleDeletionCmd struct {
	keyFlags
	Days int `default:"30" placeholder:"N" help:"Days until then, 7 to 30; by default 30."`
}

func (cmd scheduleDeletionCmd) Run(ctx context.Context, c *console.Console) error {
	if err := console.CheckDays("--days", max(cmd.Days, 1), localkms.MinDeletionDays, localkms.MaxDeletionDays); err != nil {
		return err
	}
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		when, err := s.ScheduleKeyDeletion(ctx, cmd.Key, cmd.Days)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		return c.ReportChange(change{cmd.KMS, cmd.Key, "deleted on " + when.Format(time.RFC3339)}, "%s: %s is refused from now on, and deleted on %s\n", message.Printable(cmd.KMS), message.Printable(cmd.Key), when.Format(time.RFC3339))
	})
}

type cancelDeletionCmd struct{ keyFlags }

func (cmd cancelDeletionCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Key, (*localkms.Client).CancelKeyDeletion, "is not deleted, but disabled; enable it to use it")
}

type rotateCmd struct{ keyFlags }

func (cmd rotateCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		version, err := s.RotateKey(ctx, cmd.Key)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		return c.ReportChange(change{cmd.KMS, cmd.Key, fmt.Sprintf("rotated to version %d", version.Number)}, "%s: %s is rotated, to version %d\n", message.Printable(cmd.KMS), message.Printable(cmd.Key), version.Number)
	})
}

type tagCmd struct {
	keyFlags
	Tags []string `arg:"" name:"name=value" help:"Tag. It replaces a tag of the same name."`
}

func (cmd tagCmd) Run(ctx context.Context, c *console.Console) error {
	tags, err := console.ParsePairs("tag", cmd.Tags)
	if err != nil {
		return err
	}
	return cmd.change(ctx, c, cmd.Key, func(s *localkms.Client, ctx context.Context, key string) error {
		return s.Tag(ctx, key, tags)
	}, "is tagged")
}

type untagCmd struct {
	keyFlags
	Names []string `arg:"" name:"name" help:"Name of a tag."`
}

func (cmd untagCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Key, func(s *localkms.Client, ctx context.Context, key string) error {
		return s.Untag(ctx, key, cmd.Names...)
	}, "is untagged")
}
