package object

import (
	"context"
	"path/filepath"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

// suffix ends the names of sealed files that encrypt chooses.
const suffix = ".enc"

// pathArgs name inputs and outputs: IN OUT, or several IN and a directory.
type pathArgs struct {
	Output string   `short:"o" placeholder:"OUT" help:"Write to OUT. If that is a directory, there may be several IN; .enc is added to their names, or removed."`
	Paths  []string `arg:"" name:"in" help:"IN and OUT, or with --output one IN or several; - is standard input or output."`
}

// pair is an input and its output.
type pair struct{ in, out string }

// pairs returns the outputs by their inputs. Rename returns the name of an output in a
// directory.
func (p pathArgs) pairs(rename func(base string) string) (all []pair, err error) {
	switch {
	case p.Output == "" && len(p.Paths) == 2:
		return []pair{{p.Paths[0], p.Paths[1]}}, nil
	case p.Output == "" && len(p.Paths) < 2:
		return nil, message.Usagef(`expected "<in> <out>", or "<in> --output <out>"`)
	case p.Output == "":
		return nil, message.Usagef("several inputs: give --output with a directory")
	case !message.IsDirectory(p.Output) && len(p.Paths) == 1:
		return []pair{{p.Paths[0], p.Output}}, nil
	case !message.IsDirectory(p.Output):
		return nil, message.Usagef("--output %s: is not a directory, which several inputs need", p.Output)
	}
	seen := map[string]string{}
	for _, in := range p.Paths {
		if in == "-" {
			return nil, message.Usagef("standard input has no name: give a file in --output, not a directory")
		}
		out := filepath.Join(p.Output, rename(filepath.Base(in)))
		if other, twice := seen[out]; twice {
			return nil, message.Usagef("%s and %s would both become %s", other, in, out)
		}
		seen[out] = in
		all = append(all, pair{in, out})
	}
	return all, nil
}

// fileFlags are the flags of commands that turn files into others.
type fileFlags struct {
	objectFlags
	Force bool `help:"Replace OUT if it exists."`
	pathArgs
}

// each calls do for each input and its output, as the principal of source. The keys of
// source open when do needs them.
func (f fileFlags) each(ctx context.Context, c *console.Console, source keys.Source, rename func(base string) string,
	do func(ctx context.Context, p pair, obj sse.Object, k *lazyKeys) error) error {
	if err := source.Check(); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, source.Principal)
	obj, err := f.object()
	if err != nil {
		return err
	}
	all, err := f.pairs(rename)
	if err != nil {
		return err
	}
	k := &lazyKeys{open: func() (*keys.Keys, error) { return source.Open(ctx, c) }}
	defer k.close()
	return console.ForEach(ctx, all, func(p pair) error { return do(ctx, p, obj, k) })
}

// lazyKeys opens keys once, when the first file needs them.
type lazyKeys struct {
	open func() (*keys.Keys, error)
	keys *keys.Keys
	err  error
}

func (o *lazyKeys) get() (*keys.Keys, error) {
	if o.keys == nil && o.err == nil {
		o.keys, o.err = o.open()
	}
	return o.keys, o.err
}

func (o *lazyKeys) close() {
	if o.keys != nil {
		o.keys.Close()
	}
}
