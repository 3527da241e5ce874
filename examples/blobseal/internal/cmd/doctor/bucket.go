package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/bucket"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
	"gocloud.dev/gcerrors"
)

// ailment is what several objects suffer from.
type ailment struct {
	text, fix string
	err       error
	objects   int
	first     string
}

// examineBucket checks all objects of a bucket. Without all keys, what they seal is left
// out.
func (x *examination) examineBucket(url string, all []*keys.Keys, whole bool) {
	b, err := bucket.Open(x.ctx, url, x.Name, all)
	if err != nil {
		x.failed(err, "bucket", url, storeFix(err, url))
		return
	}
	defer b.Close()
	ailments := map[string]*ailment{}
	objects, good := 0, 0
	for f, err := range b.Check(x.ctx, x.Depth) {
		if err != nil {
			x.failed(b.About(err), "bucket", b.Shown(), storeFix(err, url))
			return
		}
		objects++
		if f.Verdict == jobs.VerdictGood {
			good++
			continue
		}
		a := x.diagnose(b, f, url)
		known := ailments[a.text]
		if known == nil {
			a.first = f.Key
			ailments[a.text], known = a, a
		}
		known.objects++
	}
	if x.ctx.Err() != nil {
		return
	}
	if good == objects {
		x.ok("bucket", b.Shown(), "%s, all open (%s authenticated)", message.Count(objects, "object"), x.Depth)
		return
	}
	for _, text := range slices.Sorted(maps.Keys(ailments)) {
		a := ailments[text]
		text := fmt.Sprintf("%s: %s (first: %s)", message.Count(a.objects, "object"), a.text, a.first)
		if !whole && errors.Is(a.err, sse.ErrMode) {
			x.warn("bucket", b.Shown(), "solve the problems above first", "%s", text)
			continue
		}
		x.problem(a.err, "bucket", b.Shown(), a.fix, "%s", text)
	}
}

// storeFix returns advice for an error of a bucket.
func storeFix(err error, url string) string {
	switch code := message.ExitCode(err); {
	case code == message.NotFound || gcerrors.Code(err) == gcerrors.NotFound:
		return "correct --bucket, or create the bucket"
	case code == message.Unavailable:
		return "start the store or repair the network, and check the endpoint in --bucket"
	case errors.Is(err, fs.ErrPermission) || code == message.Refused:
		return "permit this user to list and to read the bucket"
	case errors.Is(err, bucket.ErrUnlisted):
		return "move it out of the directory, or replace the link by what it leads to"
	}
	return ""
}

// diagnose says what an object suffers from, and what helps.
func (x *examination) diagnose(b *bucket.Opened, f jobs.Finding, url string) *ailment {
	flags := x.commandFlags(url)
	a := &ailment{text: f.Verdict.String(), err: cmp.Or(f.Err, message.ErrRefused)}
	if f.Err != nil {
		words := b.Explain(f.Seal, f.Err)
		a.text, a.fix = words.Text, words.Advice
	}
	restore := "restore the objects from the store's versions or a copy; to list them: " + message.Command(append([]string{"bucket", "check"}, flags...)...)
	switch {
	case f.Verdict == jobs.VerdictPlain:
		a.text = "not encrypted"
		a.fix = message.Command(append([]string{"bucket", "encrypt-existing"}, flags...)...)
	case f.Verdict == jobs.VerdictTruncated, f.Verdict == jobs.VerdictDamaged:
		a.text = f.Verdict.String()
		a.fix = restore
	case isAnyOf(f.Err, keyring.ErrDestroyed):
		a.fix = "restore these objects, or a copy of the ring from before the version was destroyed, from a backup; otherwise shred them"
	case isAnyOf(f.Err, keyring.ErrUnknownKey) && b.OfAnotherRing(f.Seal):
		a.fix = "give the ring that sealed them, or copy them under this ring with bucket rewrap"
	case isAnyOf(f.Err, keyring.ErrUnknownKey):
		a.fix = "an old copy of the ring was restored: merge the latest copy with " + message.Attempt{Ring: x.Ring, Root: x.Source().Root.Args()}.Command([]string{"ring", "merge"}, "COPY")
	case isAnyOf(f.Err, kms.ErrNotFound):
		a.fix = "give the key service that sealed them, or restore its directory from a copy"
	case isAnyOf(f.Err, sse.ErrMode):
		a.fix = "give that key with the other flags"
	case errors.As(f.Err, new(*message.KeyNotAcceptedError)):
		a.fix = "find out who wrote them; if you trust the key, give --kms-key " + message.ShortKey(f.Seal.KeyID)
	case f.Verdict == jobs.VerdictWrongKey && a.fix == "":
		a.fix = "give the --name of the bucket that they were written to; if it is right, they were moved or edited: restore them"
	case isAnyOf(f.Err, kms.ErrDenied):
		a.fix = "permit this principal to Decrypt with the key"
	case isAnyOf(f.Err, kms.ErrUnavailable):
		a.fix = "start the key service or repair the network"
	case f.Verdict == jobs.VerdictUnknownVersion:
		a.fix = "use the release of blobseal that wrote them"
	case f.Verdict == jobs.VerdictUnreadable:
		a.fix = cmp.Or(storeFix(f.Err, url), restore)
	}
	return a
}

// commandFlags returns the flags of a command on a bucket and the same keys.
func (x *examination) commandFlags(url string) []string {
	flags := []string{"--bucket", url}
	if x.Name != "" {
		flags = append(flags, "--name", x.Name)
	}
	source := x.Source()
	for _, flag := range []struct{ name, value string }{{"--ring", x.Ring}, {"--kms", x.KMS}, {"--customer-key-file", x.CustomerKeyFile}} {
		if flag.value != "" {
			flags = append(flags, flag.name, flag.value)
		}
	}
	for _, key := range x.KMSKey {
		flags = append(flags, "--kms-key", key)
	}
	return append(flags, source.Root.Args()...)
}
