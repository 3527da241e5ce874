// Package audit has the commands on audit trails.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms/audit"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Commands are the commands on audit trails.
type Commands struct {
	Show   showCmd   `cmd:"" help:"Show who used or changed which key, when and for what. Needs no key."`
	Verify verifyCmd `cmd:"" help:"Check that no entry was edited, removed or moved. Needs no key."`
}

// trailFlags are the flags of commands on a whole trail.
type trailFlags struct {
	From     *Anchor   `placeholder:"SEQ:HASH" help:"Entry before the first one, as verify showed it, if older files were moved away."`
	SignedBy *Verifier `placeholder:"KEY" help:"Verifier key of the trail: check its signed checkpoints, too."`
}

func (f trailFlags) options() *audit.VerifyOptions {
	opts := &audit.VerifyOptions{First: (*audit.Anchor)(f.From)}
	if f.SignedBy != nil {
		opts.Verifier = f.SignedBy
	}
	return opts
}

// Verifier is a verifier key, as NAME+HASH+KEY.
type Verifier struct{ note.Verifier }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Verifier) UnmarshalText(text []byte) (err error) {
	if v.Verifier, err = note.NewVerifier(string(text)); err != nil {
		return fmt.Errorf("%q: want NAME+HASH+KEY, a verifier key in the form of signed notes", text)
	}
	return nil
}

// Anchor is a place in a trail, as SEQ:HASH.
type Anchor audit.Anchor

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Anchor) UnmarshalText(text []byte) error {
	seq, hash, found := strings.Cut(string(text), ":")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !found || err != nil || len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "" {
		return fmt.Errorf("%q: want SEQ:HASH, as audit verify says it", text)
	}
	*a = Anchor{Seq: n, Hash: hash}
	return nil
}

func (a Anchor) String() string { return fmt.Sprintf("%d:%s", a.Seq, a.Hash) }

type showCmd struct {
	File string `arg:"" optional:"" help:"Audit trail; or give --kms."`
	KMS  string `name:"kms" placeholder:"DIR" help:"Key service."`
	trailFlags
	Principal string `setting:"audit-principal" placeholder:"ID" help:"Only what this principal asked for."`
	Key       string `setting:"audit-key" placeholder:"KEY" help:"Only uses of this key: its id, its ARN, or the alias that was used."`
}

// auditLine is a record or a note of a trail. Scripts rely on its JSON.
type auditLine struct {
	Seq uint64 `json:"seq"`
	*audit.Record
	Note *audit.Note `json:"note,omitempty"`
}

func (cmd showCmd) Run(ctx context.Context, c *console.Console) error {
	var files []string
	if cmd.File != "" {
		files = append(files, cmd.File)
	}
	files, err := trails(files, cmd.KMS)
	if err != nil {
		return err
	}
	var rows strings.Builder
	fmt.Fprintln(&rows, "TIME\tPRINCIPAL\tOPERATION\tKEY\tRESOURCE\tOUTCOME")
	var broken error
	for entry, err := range audit.Read(files[0], cmd.options()) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			broken = message.Trail(files[0], err)
			break
		}
		if !cmd.selects(entry) {
			continue
		}
		if c.JSON {
			err = c.WriteLine(auditLine{entry.Seq, entry.Record, entry.Note})
		} else if r := entry.Record; r != nil {
			fmt.Fprintf(&rows, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.Format(time.RFC3339), message.OrNone(r.Principal.ID),
				message.Printable(string(r.Operation)), keyShown(r), resourceShown(r), outcomeShown(r))
		} else {
			fmt.Fprintf(&rows, "%s\t-\t-\t-\t-\ta process was killed while it wrote entry %d\n", entry.Note.Time.Format(time.RFC3339), entry.Seq)
		}
		if err != nil {
			return err
		}
	}
	if !c.JSON {
		if err := c.Table(func(w io.Writer) { io.WriteString(w, rows.String()) }); err != nil {
			return err
		}
	}
	return broken
}

func (cmd showCmd) selects(e audit.Entry) bool {
	if e.Record == nil {
		return cmd.Principal == "" && cmd.Key == "" && e.Note.Size > 0 // a torn line
	}
	return (cmd.Principal == "" || cmd.Principal == e.Record.Principal.ID) &&
		(cmd.Key == "" || cmd.Key == e.Record.RequestedKeyID || cmd.Key == e.Record.KeyID || cmd.Key == message.ShortKey(e.Record.KeyID))
}

// keyShown returns the id of a record's key, or the name that was asked for if the id is
// unknown.
func keyShown(r *audit.Record) string {
	if r.KeyID != "" {
		return message.Printable(message.ShortKey(r.KeyID))
	}
	return message.OrNone(r.RequestedKeyID)
}

func resourceShown(r *audit.Record) string {
	if r.Resource == "/" { // a file without a name
		return "-"
	}
	return message.OrNone(r.Resource)
}

func outcomeShown(r *audit.Record) string {
	text := r.Outcome
	if r.ErrorCode != "" {
		text += ": " + r.ErrorCode
	}
	if r.Count > 0 {
		text += fmt.Sprintf(", %d times", r.Count)
	}
	if r.Retracts {
		text += ", retracts"
	}
	if r.Cached {
		text += ", cached"
	}
	return message.Printable(text)
}

type verifyCmd struct {
	Files []string `arg:"" optional:"" name:"file" help:"Audit trail; or give --kms."`
	KMS   string   `name:"kms" placeholder:"DIR" help:"Key service."`
	trailFlags
	Reaches *Anchor `placeholder:"SEQ:HASH" help:"Entry that the trail must contain, as an earlier verify showed it."`
}

func (cmd verifyCmd) Run(ctx context.Context, c *console.Console) error {
	files, err := trails(cmd.Files, cmd.KMS)
	switch {
	case err != nil:
		return err
	case len(files) > 1 && (cmd.From != nil || cmd.Reaches != nil || cmd.SignedBy != nil):
		return message.Usagef("--from, --reaches and --signed-by are about one trail: give one FILE with them")
	}
	return console.ForEach(ctx, files, func(name string) error {
		opts := cmd.options()
		opts.Last = (*audit.Anchor)(cmd.Reaches)
		found, err := audit.Verify(name, opts)
		if err != nil {
			err = message.Trail(name, err)
			if len(files) > 1 {
				if c.JSON {
					return errors.Join(err, c.WriteLine(trailShape{File: name, Error: message.Reason(err, name)}))
				}
				return errors.Join(err, c.Printf("%s: %s: %s\n", message.Printable(name), c.Colour(console.Red, "FAILED"), message.Reason(err, name)))
			}
			return err
		}
		if c.JSON {
			shape := trailShape{File: name, OK: true, Records: found.Records, Last: Anchor(found.Last).String(), Recoveries: len(found.Recoveries)}
			if cmd.SignedBy != nil {
				shape.Signed = Anchor(found.Signed).String()
			}
			return c.WriteLine(shape)
		}
		for _, note := range found.Recoveries {
			if err := c.Printf("%s: entry %d: a process was killed while it wrote\n", message.Printable(name), note.Seq); err != nil {
				return err
			}
		}
		signed := ""
		if cmd.SignedBy != nil {
			signed = fmt.Sprintf(", signed up to entry %d", found.Signed.Seq)
		}
		return c.Printf("%s: %s, %d records%s, up to %v\n", message.Printable(name), c.Colour(console.Green, "OK"), found.Records, signed, Anchor(found.Last))
	})
}

// trailShape is a verified trail in JSON. Scripts rely on it.
type trailShape struct {
	File       string `json:"file"`
	OK         bool   `json:"ok"`
	Records    int    `json:"records"`
	Last       string `json:"last,omitempty"`   // SEQ:HASH of the last entry
	Signed     string `json:"signed,omitempty"` // of the last entry that a checkpoint covers
	Recoveries int    `json:"recoveries"`       // lines that a crash tore
	Error      string `json:"error,omitempty"`
}

// trails returns the files that the user named, or the trail of a key service.
func trails(files []string, dir string) ([]string, error) {
	switch {
	case len(files) > 0 && dir != "":
		return nil, message.Usagef("FILE and --kms: give one of them only")
	case dir != "":
		return []string{message.TrailPath(dir)}, nil
	case len(files) == 0:
		return nil, message.Usagef("no audit trail: give FILE or --kms")
	}
	return files, nil
}
