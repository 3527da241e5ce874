// Package doctor has the command that examines a set-up and says how to repair it.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/audit"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Command is the command.
type Command struct {
	keys.OpenFlags
	Bucket   []string        `group:"bucket" sep:"none" placeholder:"URL" help:"Bucket (see bucket); may be repeated."`
	Name     string          `group:"bucket" placeholder:"NAME" help:"Name that objects are bound to; by default the last name in the URL."`
	Depth    string          `enum:"envelopes,lengths,bodies" default:"envelopes" help:"What to authenticate of each object: envelopes, which is the default, lengths or bodies (see bucket check)."`
	Backup   []string        `sep:"none" placeholder:"FILE" help:"Copy of the ring that must have all versions; may be repeated."`
	Reaches  *audit.Anchor   `placeholder:"SEQ:HASH" help:"Entry that the audit trail must contain, as audit verify showed it."`
	SignedBy *audit.Verifier `placeholder:"KEY" help:"Verifier key of the audit trail: check its signed checkpoints, too."`
}

// Levels of a finding.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelProblem = "problem"
)

// finding is what the doctor found out about one thing. Scripts rely on its JSON.
type finding struct {
	Level   string `json:"level"`   // ok, warning or problem
	Part    string `json:"part"`    // root, ring, backup, service, trail or bucket
	Subject string `json:"subject"` // the file, directory or URL
	Text    string `json:"text"`
	Fix     string `json:"fix,omitempty"` // what to do, often a command
}

// summary counts findings. Scripts rely on its JSON.
type summary struct {
	Findings int `json:"findings"`
	Warnings int `json:"warnings"`
	Problems int `json:"problems"`
}

// examination is one run of the doctor.
type examination struct {
	Command
	ctx      context.Context
	c        *console.Console
	sum      summary
	failures message.Failures
	err      error // of writing findings
}

func (cmd Command) Run(ctx context.Context, c *console.Console) error {
	sources := cmd.Sources()
	keyless := cmd.Ring == "" && cmd.KMS == "" && cmd.CustomerKeyFile == ""
	switch {
	case keyless && len(cmd.Bucket) == 0:
		return message.Usagef("nothing to examine: give --ring or --kms and its root, --bucket, or a --profile with them")
	case keyless:
		sources = nil
	default:
		if err := keys.CheckAll(sources); err != nil {
			return err
		}
	}
	x := &examination{Command: cmd, ctx: keys.AsPrincipal(ctx, cmd.Principal), c: c}
	var all []*keys.Keys
	for _, source := range sources {
		if k := x.examineKeys(source); k != nil {
			defer k.Close()
			all = append(all, k)
		}
	}
	for _, url := range cmd.Bucket {
		x.examineBucket(url, all, len(all) == len(sources))
	}
	switch {
	case ctx.Err() != nil:
		return message.About("", ctx.Err())
	case x.err != nil:
		return x.err
	}
	if err := x.end(); err != nil || x.sum.Problems == 0 {
		return err
	}
	return message.Problemf(&x.failures, "", "%s found", message.Count(x.sum.Problems, "problem"))
}

// end writes the summary.
func (x *examination) end() error {
	if x.c.JSON {
		return x.c.WriteLine(map[string]summary{"summary": x.sum})
	}
	return x.c.Printf("%s, %s, %s\n", message.Count(x.sum.Findings, "finding"), message.Count(x.sum.Problems, "problem"), message.Count(x.sum.Warnings, "warning"))
}

func (x *examination) ok(part, subject, format string, args ...any) {
	x.report(finding{levelOK, part, subject, fmt.Sprintf(format, args...), ""})
}

func (x *examination) warn(part, subject, fix, format string, args ...any) {
	x.report(finding{levelWarning, part, subject, fmt.Sprintf(format, args...), fix})
}

// problem reports an error. Its kind decides the exit code.
func (x *examination) problem(err error, part, subject, fix, format string, args ...any) {
	x.failures.Add(err)
	x.report(finding{levelProblem, part, subject, fmt.Sprintf(format, args...), fix})
}

// failed reports an error in its own words. Their advice becomes the fix, if none is
// known.
func (x *examination) failed(err error, part, subject, fix string) {
	words := message.WordsOf(err, subject)
	x.problem(err, part, subject, cmp.Or(fix, words.Advice), "%s", words.Text)
}

func (x *examination) report(f finding) {
	x.sum.Findings++
	switch f.Level {
	case levelWarning:
		x.sum.Warnings++
	case levelProblem:
		x.sum.Problems++
	}
	switch {
	case x.err != nil:
	case x.c.JSON:
		x.err = x.c.WriteLine(f)
	default:
		label := x.c.Colour(map[string]console.Colour{levelOK: console.Green, levelWarning: console.Yellow, levelProblem: console.Red}[f.Level],
			fmt.Sprintf("%-8s", strings.ToUpper(f.Level)))
		x.err = x.c.Printf("%s %s %s: %s\n", label, f.Part, message.Printable(f.Subject), message.Printable(f.Text))
		if f.Fix != "" && x.err == nil {
			x.err = x.c.Printf("         fix: %s\n", message.Printable(f.Fix))
		}
	}
}

// isAnyOf reports whether an error is of one of several kinds.
func isAnyOf(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}
