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

	JSON        bool   `name:"json" help:"Write results as JSON: one value, or a line for each file or object."`
	Quiet       bool   `short:"q" help:"Show no progress, and do not say what was done."`
	Verbose     bool   `short:"v" help:"Say what was done, in a pipe too."`
	Config      string `placeholder:"FILE" help:"Config file with profiles, instead of the one in your configuration directory (see README.md)."`
	Profile     string `placeholder:"NAME" help:"Profile of the config file to take other flags from."`
	ShowVersion bool   `name:"version" help:"Show the version."`
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

// newParser returns a parser of command lines.
func newParser() *kong.Kong {
	parser, err := kong.New(&cli{},
		kong.Name("blobseal"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Resolvers(new(settings.Resolver)),
		kong.KindMapper(reflect.String, kong.MapperFunc(mapVerbatim)),
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

// mapVerbatim maps a text without changing it. Kong's own mapper changes bytes that are not
// UTF-8, which names of files may have.
func mapVerbatim(from *kong.DecodeContext, to reflect.Value) error {
	token, err := from.Scan.PopValue("string")
	if err == nil {
		to.SetString(token.String())
	}
	return err
}

func dispatch(ctx context.Context, c *console.Console, args []string) error {
	if c.Parser == nil {
		c.Parser = newParser()
	}
	c.Parser.Stdout, c.Parser.Stderr = c.Stdout, c.Stderr
	if len(args) == 0 {
		args = []string{"--help"}
	}
	cmd, err := parse(c.Parser, args)
	if err != nil || cmd == nil {
		return err
	}
	if flags, ok := c.Parser.Model.Target.Interface().(cli); ok {
		c.JSON, c.Quiet, c.Verbose = flags.JSON, flags.Quiet, flags.Verbose
	}
	return cmd.Run(ctx, c)
}

// runner is a command whose flags and arguments are set.
type runner interface {
	Run(ctx context.Context, c *console.Console) error
}

// parse parses a command line. It returns nil after it wrote help or the version.
//
// It does what [kong.Kong.Parse] does, without running hooks. Kong finds hooks, and the
// method that runs a command, by names that the linker cannot see. The linker would then
// keep every method of every type, and the binary would be twice as large.
func parse(parser *kong.Kong, args []string) (runner, error) {
	parsed, err := kong.Trace(parser, args)
	if err == nil {
		err = parsed.Error
	}
	if err != nil {
		return nil, usageError(parsed, err)
	}
	for _, step := range parsed.Path {
		switch {
		case step.Flag == nil:
		case step.Flag == parser.Model.HelpFlag:
			return nil, message.About("standard output", parsed.PrintUsage(false))
		case step.Flag.Name == "version":
			_, err := fmt.Fprintln(parser.Stdout, version())
			return nil, message.About("standard output", err)
		}
	}
	if err = parsed.Reset(); err == nil {
		err = parsed.Resolve()
	}
	if err == nil {
		_, err = parsed.Apply()
	}
	if err == nil {
		err = parsed.Validate()
	}
	if err != nil {
		return nil, usageError(parsed, err)
	}
	return parsed.Selected().Target.Addr().Interface().(runner), nil
}

// usageError returns an error of a command line, which may have a command.
func usageError(parsed *kong.Context, err error) error {
	if usage, ok := errors.AsType[message.UsageError](err); ok { // of a profile or a variable
		return usage
	}
	if problem, ok := errors.AsType[*message.Problem](err); ok { // of a config file
		return problem
	}
	hint := "blobseal --help"
	if parsed != nil && parsed.Selected() != nil {
		hint = parsed.Selected().FullPath() + " --help"
	}
	return message.Usagef("%v; see %s", err, hint)
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"Command, such as ring create."`
}

func (cmd helpCmd) Run(_ context.Context, c *console.Console) error {
	_, err := parse(c.Parser, append(cmd.Command, "--help"))
	return err
}

type versionCmd struct{}

func (versionCmd) Run(_ context.Context, c *console.Console) error {
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
