package main

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

type decryptCmd struct {
	keyFlags
	objectFlags
	Range string `placeholder:"OFF-END" help:"Bytes of the plaintext: END is included, as in HTTP, and OFF- goes to the end. Reads only the chunks that it needs, from a regular file."`
	Force bool   `help:"Replace OUT if it exists."`
	In    string `arg:"" name:"in" help:"Sealed file; - is standard input."`
	Out   string `arg:"" name:"out" help:"Plaintext; - is standard output."`
}

func (decryptCmd) Help() string {
	return `Nothing is written that was not authenticated. A file OUT appears when all is authentic, or not at all, and is readable by you alone (mode 0600). Standard output gets authentic data as it comes: it is tentative, and may be cut short, until the exit code is 0.

--context may be left out; if it is given it must be exactly what was given to encrypt.

    blobseal decrypt --ring my.ring --root-key-file root.key photo.enc photo.jpg
    blobseal decrypt --kms my.kms --root-key-file root.key --principal user:bob photo.enc photo.jpg
    blobseal decrypt --customer-key-file my.key --range 0-511 docs.enc - | file -`
}

func (cmd decryptCmd) Run(ctx context.Context, c *console) error {
	if err := cmd.source().check(); err != nil {
		return err
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	obj, err := cmd.object()
	if err != nil {
		return err
	}
	part, err := parseRange(cmd.Range)
	if err != nil {
		return err
	}
	o, err := c.openObject(ctx, cmd.In)
	if err != nil {
		return err
	}
	defer o.Close()
	if part != nil && !o.regular() {
		return usagef("--range needs a regular file: %s cannot be read at random", o.name)
	}
	out, err := c.createFor(ctx, o.input, cmd.Out, 0o600, cmd.Force)
	if err != nil {
		return err
	}
	defer out.discard()
	k, err := cmd.source().open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	d, err := o.decrypt(ctx, k, obj)
	if err != nil {
		return err
	}
	var plain io.Reader
	src := c.track(ctx, o.name, o.body, o.size)
	defer func() { src.done() }()
	switch {
	case !o.regular():
		plain = d.Reader(src)
	default:
		size, err := o.prove(d) // before a byte is written
		if err != nil {
			return err
		}
		if part == nil {
			plain = d.Reader(src)
			break
		}
		off, n, err := part.within(size)
		if err != nil {
			return problemf(err, "%s: %s", o.name, err)
		}
		bodyOff, bodyLen, err := sse.CiphertextRange(off, n)
		if err != nil {
			return aboutObject(o, k, err)
		}
		bodyLen = min(bodyLen, o.size-bodyOff)
		src = c.track(ctx, o.name, io.NewSectionReader(o.bodyAt(), bodyOff, bodyLen), bodyLen)
		plain = d.RangeReader(src, off, n)
	}
	if _, err := io.Copy(out, plain); err != nil {
		return aboutObject(o, k, err)
	}
	src.done()
	return out.commit()
}

// byteRange is a range of bytes; last is included, and -1 for the end.
type byteRange struct{ off, last int64 }

// parseRange parses OFF-END and OFF-. An empty text is no range, nil.
func parseRange(text string) (*byteRange, error) {
	if text == "" {
		return nil, nil
	}
	bad := usagef("--range %q: want OFF-END, both included, or OFF- for all from OFF on", text)
	from, to, found := strings.Cut(text, "-")
	off, err := strconv.ParseUint(from, 10, 63)
	if !found || err != nil {
		return nil, bad
	}
	r := &byteRange{int64(off), -1}
	if to != "" {
		last, err := strconv.ParseUint(to, 10, 63)
		if err != nil {
			return nil, bad
		}
		if r.last = int64(last); r.last < r.off {
			return nil, usagef("--range %q: END is before OFF", text)
		}
	}
	return r, nil
}

// within returns the offset and the length of the range in size bytes. Like
// everything else that cannot be done as asked, a range beyond them is refused.
func (r *byteRange) within(size int64) (off, n int64, err error) {
	last := r.last
	if last < 0 {
		last = size - 1
	}
	if r.off >= size || last >= size {
		return 0, 0, rangeError{size}
	}
	return r.off, last - r.off + 1, nil
}

type rangeError struct{ size int64 }

func (e rangeError) Error() string {
	if e.size == 0 {
		return "--range is beyond the end: the file is empty"
	}
	return "--range is beyond the end: the last byte is " + strconv.FormatInt(e.size-1, 10)
}
