// Command blobseal encrypts files as the library encrypts objects: under a key
// ring whose master key rotates, under a key service with permissions and an
// audit trail, or under a customer's key. It is a small tool to use, and an
// example of the library that is complete down to crash safety.
//
// A sealed file is a self-contained object: an envelope, padded to 1 KiB, and
// then the body. So the file can be rewrapped in place when keys change.
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
	"slices"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitDone    = 0
	exitRefused = 1 // refused, failed, or not authentic
	exitUsage   = 2
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)   // a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE) // the write fails, and the command cleans up
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// cli is the command line.
type cli struct {
	Keygen  keygenCmd  `cmd:"" help:"Make a key file: 32 random bytes, readable by you alone."`
	Ring    ringCmd    `cmd:"" help:"Make a key ring, and manage the keys in it."`
	KMS     kmsCmd     `cmd:"" name:"kms" help:"Make a key service, and manage the keys in it and who may use them."`
	Audit   auditCmd   `cmd:"" help:"Show and verify the audit trail of a key service."`
	Encrypt encryptCmd `cmd:"" help:"Encrypt IN to OUT."`
	Decrypt decryptCmd `cmd:"" help:"Decrypt IN, or a range of it, to OUT."`
	Inspect inspectCmd `cmd:"" help:"Show what sealed files say about themselves; needs no key."`
	Rewrap  rewrapCmd  `cmd:"" help:"Seal a file's data key under another key or name; the body stays as it is."`
	Verify  verifyCmd  `cmd:"" help:"Authenticate sealed files whole, and write nothing."`
	Bucket  bucketCmd  `cmd:"" help:"Use, rewrap, check and serve buckets of encrypted objects."`

	Version kong.VersionFlag `help:"Show the version."`
}

const description = `Encrypt files as S3's server-side encryption does: each under a data key of its own, sealed under a key ring whose master key rotates (SSE-S3), under a key service that decides who may use which key and records each use (SSE-KMS), or under a key that you bring (SSE-C).

A first session:

    blobseal keygen root.key
    blobseal ring create --ring my.ring --root-key-file root.key
    blobseal encrypt --ring my.ring --root-key-file root.key photo.jpg photo.enc
    blobseal decrypt --ring my.ring --root-key-file root.key photo.enc copy.jpg
    blobseal ring rotate --ring my.ring --root-key-file root.key
    blobseal rewrap --ring my.ring --root-key-file root.key photo.enc

One with a key service is in: blobseal kms --help; one with a bucket: blobseal bucket --help.

Exit codes: 0 done; 1 refused, failed or not authentic; 2 usage.`

// run is the whole command but for the process around it. It returns the exit
// code. When ctx ends, it cleans up and returns.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return newConsole(stdin, stdout, stderr).run(ctx, args)
}

func (c *console) run(ctx context.Context, args []string) int {
	err := c.execute(ctx, args)
	for _, end := range slices.Backward(c.ends) {
		end()
	}
	c.ends = nil
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(c.stderr, "blobseal: %s\n", oneLine(err))
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitRefused
}

// finished is thrown by kong's Exit, after --help and --version.
type finished struct{}

// newParser makes a parser of command lines.
func newParser() *kong.Kong {
	parser, err := kong.New(&cli{},
		kong.Name("blobseal"),
		kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Vars{"version": version()},
		kong.Exit(func(int) { panic(finished{}) }),
		kong.KindMapper(reflect.String, kong.MapperFunc(asItIs)),
		kong.ExplicitGroups([]kong.Group{
			{Key: "keys", Title: "Keys: a ring or a key service with one source of its root, or a customer key"},
			{Key: "root", Title: "The keys, and the root that opens them: exactly one source"},
			{Key: "bucket", Title: "The bucket"},
			{Key: "urls", Title: "Signed URLs"},
			{Key: "target", Title: "What to seal it under: by default the newest key of the same ring or service"},
		}))
	if err != nil {
		panic(err) // the struct tags are wrong
	}
	return parser
}

// asItIs takes a text as it is. Kong's own way changes what is not UTF-8, as names
// of files may be.
func asItIs(from *kong.DecodeContext, to reflect.Value) error {
	token, err := from.Scan.PopValue("string")
	if err == nil {
		to.SetString(token.String())
	}
	return err
}

func (c *console) execute(ctx context.Context, args []string) error {
	parser := c.parser
	if parser == nil {
		parser = newParser()
	}
	parser.Stdout, parser.Stderr = c.stdout, c.stderr
	defer func() {
		if thrown := recover(); thrown != nil && thrown != (any)(finished{}) {
			panic(thrown)
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if errors.As(err, new(*fs.PathError)) { // of writing help
		return about("standard output", err)
	}
	if err != nil {
		hint := "blobseal --help"
		var failed *kong.ParseError
		if errors.As(err, &failed) && failed.Context != nil && failed.Context.Selected() != nil {
			hint = failed.Context.Selected().FullPath() + " --help"
		}
		return usagef("%v; see %s", err, hint)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(c)
}

// version describes this build.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("blobseal %s, %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// oneLine is an error's text on one line, whatever names are in it.
func oneLine(err error) string {
	text := err.Error()
	if p := new(problem); errors.As(err, &p) {
		text = p.Error()
	}
	return printable(text)
}
