package bucket

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

type inventoryCmd struct {
	bucketFlags
	filterFlags
	paceFlags
	List bool `help:"Write a line for each object, too."`
}

// entryLine is an object of an inventory. Scripts rely on its JSON.
type entryLine struct {
	Key  string `json:"key"`
	Kind string `json:"kind"` // encrypted, plain, damaged or unknown version; empty if it could not be read
	sealShape
	Stored  int64     `json:"stored"` // bytes in the store
	Size    *int64    `json:"size"`   // of the plaintext; null if unknown
	ModTime time.Time `json:"mod_time"`
	Error   string    `json:"error,omitempty"`
}

func (b *bucket) entryLine(e jobs.Entry) entryLine {
	line := entryLine{Key: e.Key, sealShape: shapeOf(e.Seal), Stored: e.Stored, ModTime: e.ModTime}
	if e.Kind != 0 {
		line.Kind = e.Kind.String()
	}
	if e.Size >= 0 {
		line.Size = &e.Size
	}
	if e.Err != nil {
		line.Error = b.explain(e.Seal, e.Err)
	}
	return line
}

// groupShape is a row of an inventory. Scripts rely on its JSON.
type groupShape struct {
	Kind string `json:"kind"` // as in entryLine; other for keys beyond the first 10,000
	sealShape
	jobs.Count
}

// inventorySummary is the last line of an inventory. Scripts rely on its JSON.
type inventorySummary struct {
	Bucket  string       `json:"bucket"`
	Objects int64        `json:"objects"`
	Stored  int64        `json:"stored"`
	Size    int64        `json:"size"` // of the plaintext, as far as known
	Groups  []groupShape `json:"groups"`
}

func (cmd inventoryCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.paceFlags.check(); err != nil {
		return err
	}
	filter, err := cmd.filter(nil)
	if err != nil {
		return err
	}
	b, err := cmd.openWhole(ctx, blob.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	p := count(ctx, c, b, cmd.Prefix)
	defer p.finish()
	var totals jobs.Totals
	for e, err := range jobs.Inventory(ctx, b.Bucket, &jobs.InventoryOptions{Filter: filter, Workers: cmd.Workers, Limit: cmd.limit()}) {
		if err != nil {
			p.finish()
			return b.about(err)
		}
		totals.Add(e)
		p.add(0)
		switch {
		case !cmd.List:
		case c.JSON:
			err = p.writeLine(b.entryLine(e))
		default:
			err = p.printf("%s\n", describeEntry(b, e))
		}
		if err != nil {
			return err
		}
	}
	p.finish()
	return cmd.summary(c, b, &totals)
}

// summary writes the rows of an inventory and its last line.
func (cmd inventoryCmd) summary(c *console.Console, b *bucket, totals *jobs.Totals) error {
	groups := groupsOf(totals)
	if c.JSON {
		return c.WriteLine(map[string]inventorySummary{"summary": {b.shown, totals.Objects, totals.Stored, totals.Size, groups}})
	}
	if cmd.List && totals.Objects > 0 {
		if err := c.Printf("\n"); err != nil {
			return err
		}
	}
	if len(groups) > 0 {
		err := c.Table(func(w io.Writer) {
			fmt.Fprintln(w, "OBJECTS\tSTORED\tUNDER")
			for _, g := range groups {
				fmt.Fprintf(w, "%d\t%d\t%s\n", g.Objects, g.Stored, g.name())
			}
		})
		if err != nil {
			return err
		}
	}
	return c.Printf("%s: %s, %d bytes stored, %d of plaintext\n", b.shown, message.Count(totals.Objects, "object"), totals.Stored, totals.Size)
}

// describeEntry returns an object of an inventory for people.
func describeEntry(b *bucket, e jobs.Entry) string {
	text := message.Printable(e.Key) + ": "
	switch {
	case e.Err != nil:
		return text + message.Printable(b.explain(e.Seal, e.Err))
	case e.Kind == stored.KindPlain:
		return text + fmt.Sprintf("%d bytes, not encrypted", e.Size)
	}
	return text + fmt.Sprintf("%d bytes, %s", e.Size, sealName(e.Seal))
}

// groupsOf returns the rows of an inventory.
func groupsOf(t *jobs.Totals) []groupShape {
	groups := []groupShape{}
	for _, key := range t.Keys() {
		groups = append(groups, groupShape{"encrypted", shapeOf(key), t.Sealed[key]})
	}
	for _, rest := range []groupShape{
		{Kind: "other", Count: t.Other},
		{Kind: stored.KindPlain.String(), Count: t.Plain},
		{Kind: stored.KindUnknownVersion.String(), Count: t.UnknownVersion},
		{Kind: stored.KindDamaged.String(), Count: t.Damaged},
		{Kind: "", Count: t.Unreadable},
	} {
		if rest.Objects > 0 {
			groups = append(groups, rest)
		}
	}
	return groups
}

func (g groupShape) name() string {
	switch g.Kind {
	case "encrypted":
		if g.KeyID == "" {
			return g.Mode + ", customer keys"
		}
		return keyName(g.Mode, g.KeyID)
	case "other":
		return "further keys"
	case stored.KindPlain.String():
		return "nothing: not encrypted"
	case "":
		return "unknown: could not be read"
	}
	return "unknown: " + g.Kind
}

type checkCmd struct {
	bucketFlags
	keys.OpenFlags
	filterFlags
	Depth      string `enum:"envelopes,lengths,bodies" default:"bodies" help:"What to authenticate. bodies, the default: every byte. lengths: envelopes, and the end of each body. envelopes: quick, and finds no damage to a body."`
	AllowPlain bool   `help:"Accept objects that are not encrypted."`
	paceFlags
	List bool `help:"Write a line for good objects, too."`
}

// findingLine is an object of a check. Scripts rely on its JSON.
type findingLine struct {
	entryLine
	Verdict string `json:"verdict"`
}

// checkSummary is the last line of a check. Scripts rely on its JSON.
type checkSummary struct {
	Bucket   string           `json:"bucket"`
	Depth    string           `json:"depth"`
	Objects  int64            `json:"objects"`
	Bad      int64            `json:"bad"`
	Verdicts map[string]int64 `json:"verdicts"`
}

var depths = map[string]jobs.Depth{"envelopes": jobs.CheckEnvelopes, "lengths": jobs.CheckLengths, "bodies": jobs.CheckBodies}

// lastVerdict is the last of the verdicts.
const lastVerdict = jobs.VerdictUnreadable

func (cmd checkCmd) Run(ctx context.Context, c *console.Console) error {
	sources := cmd.Sources()
	if err := cmp.Or(keys.CheckAll(sources), cmd.paceFlags.check()); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	all, err := keys.OpenAll(ctx, c, sources)
	if err != nil {
		return err
	}
	defer keys.CloseAll(all)
	filter, err := cmd.filter(nil) // --kms-key selects nothing: a check names what it refuses
	if err != nil {
		return err
	}
	b, err := cmd.openWhole(ctx, blob.Options{AllowPlain: cmd.AllowPlain}, all...)
	if err != nil {
		return err
	}
	defer b.Close()
	p := count(ctx, c, b, cmd.Prefix)
	defer p.finish()
	var failures message.Failures
	sum := checkSummary{Bucket: b.shown, Depth: cmd.Depth, Verdicts: map[string]int64{}}
	for f, err := range jobs.Check(ctx, b.Bucket, &jobs.CheckOptions{Filter: filter, Depth: depths[cmd.Depth], Workers: cmd.Workers, Limit: cmd.limit()}) {
		if err != nil {
			p.finish()
			return b.about(err)
		}
		bad := f.Verdict != jobs.VerdictGood && !(f.Verdict == jobs.VerdictPlain && cmd.AllowPlain)
		sum.Objects++
		sum.Verdicts[f.Verdict.String()]++
		if bad {
			sum.Bad++
			failures.Add(cmp.Or(f.Err, message.ErrRefused)) // an object that is not encrypted has no error
		}
		read := int64(0) // of the body
		if cmd.Depth == "bodies" {
			read = max(f.Stored, 0)
		}
		p.add(read)
		if bad || cmd.List {
			if err := cmd.show(p, b, f, bad); err != nil {
				return err
			}
		}
	}
	p.finish()
	if err := cmd.summary(c, b, sum); err != nil {
		return err
	}
	if sum.Bad > 0 {
		return message.Problemf(&failures, b.shown, "%d of %s cannot be read", sum.Bad, message.Count(sum.Objects, "object"))
	}
	return nil
}

func (cmd checkCmd) show(p *counter, b *bucket, f jobs.Finding, bad bool) error {
	reason := ""
	if f.Err != nil {
		reason = b.explain(f.Seal, f.Err)
	}
	switch {
	case p.c.JSON:
		line := findingLine{b.entryLine(f.Entry), f.Verdict.String()}
		line.Error = reason
		return p.writeLine(line)
	case f.Verdict == jobs.VerdictPlain && bad:
		reason = "not encrypted (--allow-plain accepts it)"
	case !bad:
		return p.printf("%s: %s, %d bytes\n", message.Printable(f.Key), p.c.Colour(console.Green, strings.ToUpper(cmd.words(f.Verdict))), f.Size)
	}
	return p.printf("%s: %s: %s\n", message.Printable(f.Key), p.c.Colour(console.Red, strings.ToUpper(f.Verdict.String())), message.Printable(reason))
}

func (cmd checkCmd) summary(c *console.Console, b *bucket, sum checkSummary) error {
	if c.JSON {
		return c.WriteLine(map[string]checkSummary{"summary": sum})
	}
	text := fmt.Sprintf("%s: %s", b.shown, message.Count(sum.Objects, "object"))
	for v := jobs.VerdictGood; v <= lastVerdict; v++ {
		if n := sum.Verdicts[v.String()]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, cmd.words(v))
		}
	}
	read := map[string]string{
		"envelopes": "envelopes authenticated, bodies not read",
		"lengths":   "envelopes and ends of bodies authenticated",
		"bodies":    "bodies authenticated",
	}
	return c.Printf("%s (%s)\n", text, read[cmd.Depth])
}

// words returns a verdict for people. An object is only good if its body is.
func (cmd checkCmd) words(v jobs.Verdict) string {
	if v == jobs.VerdictGood && cmd.Depth != "bodies" {
		return strings.TrimSuffix(cmd.Depth, "s") + " good"
	}
	return v.String()
}
