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
	if completeLine(os.Stdout) {
		return
	}
	context.AfterFunc(ctx, stop)   // a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE) // the write fails, and the command cleans up
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// cli is the command line.
type cli struct {
	Keygen     object.Keygen    `cmd:"" help:"Create a key file: 32 random bytes, readable by you alone."`
	Ring       ringcmd.Commands `cmd:"" help:"Create and manage key rings."`
	KMS        kms.Commands     `cmd:"" name:"kms" help:"Create and manage key services, their keys and who may use them."`
	Audit      audit.Commands   `cmd:"" help:"Show and verify the audit trail of a key service."`
	Encrypt    object.Encrypt   `cmd:"" help:"Encrypt IN to OUT."`
	Decrypt    object.Decrypt   `cmd:"" help:"Decrypt IN, or a range of it, to OUT."`
	Inspect    object.Inspect   `cmd:"" help:"Show what sealed files say. Needs no key."`
	Rewrap     object.Rewrap    `cmd:"" help:"Seal a file's data key under another key or name. The body stays as it is."`
	Verify     object.Verify    `cmd:"" help:"Authenticate whole sealed files."`
	Help       helpCmd          `cmd:"" help:"Show the help of a command."`
	Version    versionCmd       `cmd:"" help:"Show the version."`
	Man        manCmd           `cmd:"" help:"Write the man page."`
	Completion completionCmd    `cmd:"" help:"Write the completions of a shell."`
	Doctor     doctor.Command   `cmd:"" help:"Examine ring, root, key service, audit trail and buckets, and say how to repair them."`
	Bucket     bucket.Commands  `cmd:"" help:"Use, check, rewrap and serve buckets of encrypted objects."`

	JSON        bool             `name:"json" help:"Write results as JSON: one value, or a line for each file or object."`
	Quiet       bool             `short:"q" help:"Show no progress, and do not say what was done."`
	Verbose     bool             `short:"v" help:"Say what was done, in a pipe too."`
	Config      string           `placeholder:"FILE" help:"Config file with profiles, instead of the one in your configuration directory (see README.md)."`
	Profile     string           `placeholder:"NAME" help:"Profile of the config file to take other flags from."`
	ShowVersion kong.VersionFlag `name:"version" help:"Show the version."`
}

// run runs a command line and returns its exit code. When ctx ends, it cleans up and
// returns.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runOn(ctx, console.New(stdin, stdout, stderr), args)
}

func runOn(ctx context.Context, c *console.Console, args []string) int {
	err := dispatch(ctx, c, args)
	c.End()
	c.SayDone()
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
	if flags, ok := parsed.Model.Target.Interface().(cli); ok {
		c.JSON, c.Quiet, c.Verbose = flags.JSON, flags.Quiet, flags.Verbose
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(c)
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"Command, such as ring create."`
}

func (cmd helpCmd) Run(parser *kong.Kong) error {
	_, err := parser.Parse(append(cmd.Command, "--help")) // which ends the command
	return message.Usagef("%v; see blobseal --help", err)
}

type versionCmd struct{}

func (versionCmd) Run(c *console.Console) error {
	if c.JSON {
		return c.WriteJSON(build())
	}
	return c.Printf("%s\n", version())
}

// buildShape is a description of this build. Scripts rely on its JSON.
type buildShape struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func build() buildShape {
	b := buildShape{"(devel)", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	return b
}

// version returns a description of this build.
func version() string {
	b := build()
	return fmt.Sprintf("blobseal %s, %s %s", b.Version, b.Go, b.Platform)
}
