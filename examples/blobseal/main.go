// Command blobseal encrypts files as the library encrypts objects: under a key
// ring that rotates, under a key service with permissions and an audit trail, or
// under a customer's key. README.md is its manual.
//
// A sealed file is a self-contained object: an envelope, padded to 1 KiB, and the
// body.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/audit"
	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/bucket"
	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/doctor"
	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/kms"
	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
	ringcmd "github.com/blobseal/blobseal/examples/blobseal/internal/cmd/ring"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/examples/blobseal/internal/settings"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)   // a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE) // the write fails, and the command cleans up
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// cli is the command line.
type cli struct {
	Keygen  object.Keygen    `cmd:"" help:"Create a key file: 32 random bytes, readable by you alone."`
	Ring    ringcmd.Commands `cmd:"" help:"Create and manage key rings."`
	KMS     kms.Commands     `cmd:"" name:"kms" help:"Create and manage key services, their keys and who may use them."`
	Audit   audit.Commands   `cmd:"" help:"Show and verify the audit trail of a key service."`
	Encrypt object.Encrypt   `cmd:"" help:"Encrypt IN to OUT."`
	Decrypt object.Decrypt   `cmd:"" help:"Decrypt IN, or a range of it, to OUT."`
	Inspect object.Inspect   `cmd:"" help:"Show what sealed files say. Needs no key."`
	Rewrap  object.Rewrap    `cmd:"" help:"Seal a file's data key under another key or name. The body stays as it is."`
	Verify  object.Verify    `cmd:"" help:"Authenticate whole sealed files."`
	Doctor  doctor.Command   `cmd:"" help:"Examine ring, root, key service, audit trail and buckets, and say how to repair them."`
	Bucket  bucket.Commands  `cmd:"" help:"Use, check, rewrap and serve buckets of encrypted objects."`

	Config  string           `placeholder:"FILE" help:"Config file with profiles, instead of the one in your configuration directory (see README.md)."`
	Profile string           `placeholder:"NAME" help:"Profile of the config file to take other flags from."`
	Version kong.VersionFlag `help:"Show the version."`
}

// run runs a command line and returns its exit code. When ctx ends, it cleans up and
// returns.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runOn(ctx, console.New(stdin, stdout, stderr), args)
}

func runOn(ctx context.Context, c *console.Console, args []string) int {
	err := dispatch(ctx, c, args)
	c.End()
	if err == nil {
		return 0
	}
	fmt.Fprintf(c.Stderr, "blobseal: %s\n", message.OneLine(err))
	code := message.ExitCode(err)
	if ctx.Err() != nil && code == message.Unavailable { // such as a connection that was cut
		return message.Interrupted
	}
	return code
}

// finished is the panic of kong's Exit, after --help and --version.
type finished struct{}

// newParser returns a parser of command lines.
func newParser() *kong.Kong {
	parser, err := kong.New(&cli{},
		kong.Name("blobseal"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Vars{"version": version()},
		kong.Exit(func(int) { panic(finished{}) }),
		kong.Resolvers(new(settings.Resolver)),
		kong.KindMapper(reflect.String, kong.MapperFunc(asItIs)),
		kong.ExplicitGroups([]kong.Group{
			{Key: "keys", Title: "Keys: a ring or a key service with one root, or a customer key"},
			{Key: "root", Title: "The keys, and exactly one root"},
			{Key: "bucket", Title: "The bucket"},
			{Key: "urls", Title: "Signed URLs"},
			{Key: "target", Title: "What to seal under; by default the newest version of the same ring"},
		}))
	if err != nil {
		panic(err) // the struct tags are wrong
	}
	addHelp(parser)
	return parser
}

// asItIs maps a text without changing it. Kong's own mapper changes bytes that are not
// UTF-8, which names of files may have.
func asItIs(from *kong.DecodeContext, to reflect.Value) error {
	token, err := from.Scan.PopValue("string")
	if err == nil {
		to.SetString(token.String())
	}
	return err
}

func dispatch(ctx context.Context, c *console.Console, args []string) error {
	parser := c.Parser
	if parser == nil {
		parser = newParser()
	}
	parser.Stdout, parser.Stderr = c.Stdout, c.Stderr
	defer func() {
		if thrown := recover(); thrown != nil && thrown != (any)(finished{}) {
			panic(thrown)
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if errors.As(err, new(*fs.PathError)) { // writing help failed
		return message.About("standard output", err)
	}
	if usage, ok := errors.AsType[message.UsageError](err); ok { // of a profile or a variable
		return usage
	}
	if err != nil {
		hint := "blobseal --help"
		var failed *kong.ParseError
		if errors.As(err, &failed) && failed.Context != nil && failed.Context.Selected() != nil {
			hint = failed.Context.Selected().FullPath() + " --help"
		}
		return message.Usagef("%v; see %s", err, hint)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(c)
}

// version returns a description of this build.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("blobseal %s, %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
