package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// result of one command.
type result struct {
	code        int
	out, errout string
}

// parsers that are not in use: to make one is much of the work of a command.
var parsers = sync.Pool{New: func() any { return newParser() }}

// forget has a parser forget which flags and arguments it has seen.
func forget(parser *kong.Kong) {
	_ = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		switch node := node.(type) {
		case *kong.Node:
			node.Active = false
		case *kong.Flag:
			node.Set, node.Active, node.Negated = false, false, false
		case *kong.Value:
			node.Set = false
		}
		return next(nil)
	})
}

// adjustments are made to the console of each command that a test runs.
var adjustments []func(*console.Console)

// blobseal runs a command with nothing on standard input.
func blobseal(args ...string) result { return piped("", args...) }

func piped(stdin string, args ...string) result {
	var out, errout bytes.Buffer
	c := console.New(strings.NewReader(stdin), &out, &errout)
	c.Parser = parsers.Get().(*kong.Kong)
	defer func() {
		forget(c.Parser)
		parsers.Put(c.Parser)
	}()
	for _, adjust := range adjustments {
		adjust(c)
	}
	return result{runOn(context.Background(), c, args), out.String(), errout.String()}
}

// ok runs a command that must succeed and say nothing on stderr. It returns what
// is on standard output.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	res := blobseal(args...)
	require.Equal(t, 0, res.code, "%v: %s", args, res.errout)
	require.Empty(t, res.errout)
	return res.out
}

// anyFailure is the code of commands in tables, which fail in several ways.
const anyFailure = -1

// fails checks that a command failed as it should: with that code, and with one
// line on stderr, which says says.
func (r result) fails(t *testing.T, code int, says string) {
	t.Helper()
	if code == anyFailure {
		require.NotContains(t, []int{message.Done, message.Usage, message.Interrupted}, r.code, r.errout)
	} else {
		require.Equal(t, code, r.code, r.errout)
	}
	require.Regexp(t, `\A(blobseal: warning: [^\n]+\n)*blobseal: [^\n]+\n\z`, r.errout)
	require.Contains(t, r.errout, says)
}

// asCommand makes the test binary the command: "1" as it is, "fsize=N" with a limit of
// N bytes on every file, "nobody" as another user than root, "nohup" with SIGHUP
// ignored, "rewraps" as rewraps without end.
const asCommand = "BLOBSEAL_TEST_COMMAND"

// args joins lists of arguments.
func args(lists ...any) (all []string) {
	for _, list := range lists {
		switch list := list.(type) {
		case string:
			all = append(all, list)
		case []string:
			all = append(all, list...)
		default:
			panic(fmt.Sprintf("%T", list))
		}
	}
	return all
}

// The keys of workspace, as flags.
var (
	ring       = []string{"--ring", "my.ring", "--root-key-file", "root.key"}
	service    = []string{"--kms", "my.kms", "--root-key-file", "root.key"}
	anyKey     = args(service, "--any-kms-key")
	defaultKey = args(service, "--kms-key", "alias/blobseal/default")
	photos     = args(service, "--kms-key", "alias/photos")
	customer   = []string{"--customer-key-file", "my.key"}
	modes      = map[string][]string{"SSE-S3": ring, "SSE-KMS": photos, "SSE-C": customer}
)

// workspace makes an empty directory the current one, and a ring, a key service
// with a key, and customer keys there.
func workspace(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	ok(t, "ring", "create", "--ring", "my.ring", "--generate-root-key", "root.key")
	ok(t, args("kms", "init", service)...)
	ok(t, args("kms", "create-key", service, "--alias", "alias/photos")...)
	ok(t, "keygen", "my.key")
	ok(t, "keygen", "other.key")
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, data, 0o600))
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return data
}

// random returns n bytes to encrypt.
func random(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

// files lists the current directory, hidden files too.
func files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// keyID is that of a sealed file.
func keyID(t *testing.T, name string) string {
	t.Helper()
	found, err := object.Describe(t.Context(), console.New(nil, nil, nil), name)
	require.NoError(t, err)
	return found.KeyID
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	help := ok(t, "--help")
	golden := filepath.Join("testdata", "help.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		write(t, golden, []byte(help))
	}
	require.Equal(t, string(read(t, golden)), help, "run with UPDATE_GOLDEN=1 if this is meant")
	require.Equal(t, help, ok(t), "no arguments")

	texts := helpTexts()
	require.NoError(t, kong.Visit(newParser().Model, func(node kong.Visitable, next kong.Next) error {
		if n, ok := node.(*kong.Node); ok && n.Type == kong.CommandNode {
			name := commandName(n)
			group := len(n.Children) > 0
			require.True(t, group && name != "kms policy" || strings.Contains(texts[name], "    blobseal "+name) || name == "kms policy", "%s: an example", name)
			require.True(t, group && texts[name] == "" || n.Detail != "", name)
			delete(texts, name)
		}
		return next(nil)
	}))
	delete(texts, "blobseal")
	require.Empty(t, texts, "every text is of a command")
	require.Contains(t, ok(t, "decrypt", "--help"), "plaintext, as in HTTP: END is")
	require.Contains(t, ok(t, "kms", "--help"), "\n    blobseal kms init --kms my.kms", "a session")
	require.Contains(t, ok(t, "ring", "--help"), "\n    awskms:///alias/rings?region=eu-west-1 ", "the URLs of roots")
	require.Contains(t, ok(t, "kms", "policy", "--help"), `permit (principal == Principal::"user:writer"`)
	require.Regexp(t, `\Ablobseal \S+, go1\S+ \w+/\w+\n\z`, ok(t, "--version"))
}

func TestUsage(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("x"))
	write(t, "pass", []byte("secret\n"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	before := files(t)
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"command":             {args("frobnicate"), "frobnicate; see blobseal --help"},
		"flag":                {args("encrypt", "--frob", "a", "b"), "--frob; see blobseal encrypt --help"},
		"missing OUT":         {args("encrypt", customer, "plain"), "<out>"},
		"no key":              {args("encrypt", "plain", "out"), "no key: give --ring or --kms and its root, or --customer-key-file"},
		"no root":             {args("encrypt", "--ring", "my.ring", "plain", "out"), "the ring needs its root: give --root-key-file, --passphrase-file, --root-kms-key or BLOBSEAL_PASSPHRASE"},
		"two roots":           {args("decrypt", ring, "--passphrase-file", "pass", "sealed", "out"), "--root-key-file and --passphrase-file: give one"},
		"two modes":           {args("verify", ring, customer, "sealed"), "--ring and --customer-key-file: give one"},
		"root without ring":   {args("encrypt", "--root-key-file", "root.key", "plain", "out"), "--root-key-file: give --ring or --kms with it"},
		"no ring":             {args("ring", "list", "--root-key-file", "root.key"), "--ring"},
		"ring without root":   {args("ring", "list", "--ring", "my.ring"), "the ring needs its root"},
		"create without root": {args("ring", "create", "--ring", "new"), "or --generate-root-key"},
		"create, two roots":   {args("ring", "create", "--ring", "new", "--root-key-file", "root.key", "--generate-root-key", "k"), "give one of them only"},
		"no new root":         {args("ring", "change-root", ring), "--new-root-key-file, --new-passphrase-file, --new-root-kms-key or BLOBSEAL_NEW_PASSPHRASE"},
		"two new roots":       {args("ring", "change-root", ring, "--new-root-key-file", "my.key", "--new-passphrase-file", "pass"), "give one of them only"},
		"object":              {args("encrypt", customer, "--object", "nobucket", "plain", "out"), "want BUCKET/KEY"},
		"context":             {args("encrypt", customer, "--context", "novalue", "plain", "out"), "want NAME=VALUE"},
		"context without name": {
			args("encrypt", customer, "--context", "=value", "plain", "out"), "want NAME=VALUE"},
		"context twice":       {args("encrypt", customer, "--context", "a=1", "--context", "a=2", "plain", "out"), `"a" is given twice`},
		"range":               {args("decrypt", customer, "--range", "x", "sealed", "out"), "want OFF-END"},
		"range without OFF":   {args("decrypt", customer, "--range=-5", "sealed", "out"), "want OFF-END"},
		"range backwards":     {args("decrypt", customer, "--range", "5-4", "sealed", "out"), "END is before OFF"},
		"range of a pipe":     {args("decrypt", customer, "--range", "0-", "-", "out"), ""},
		"encrypt to itself":   {args("encrypt", customer, "--force", "plain", "./plain"), "same file"},
		"decrypt to itself":   {args("decrypt", customer, "--force", "sealed", "sealed"), "same file"},
		"rewrap to nothing":   {args("rewrap", customer, "sealed"), "nothing to change"},
		"rewrap, no to-root":  {args("rewrap", customer, "--to-ring", "my.ring", "sealed"), "give --to-root-key-file, --to-passphrase-file, --to-root-kms-key or BLOBSEAL_TO_PASSPHRASE"},
		"rewrap, no to-ring":  {args("rewrap", customer, "--to-root-key-file", "root.key", "sealed"), "--to-root-key-file: give --to-ring or --to-kms with it"},
		"rewrap of a stream":  {args("rewrap", ring, "-"), "rewrap replaces files"},
		"key to stdout":       {args("keygen", "-"), "not to standard output"},
		"two modes, 2":        {args("encrypt", service, "--ring", "my.ring", "plain", "out"), "--ring and --kms: give one of them only"},
		"three modes":         {args("encrypt", service, customer, "--ring", "my.ring", "plain", "out"), "--ring and --kms and --customer-key-file: give one"},
		"service, no root":    {args("encrypt", "--kms", "my.kms", "plain", "out"), "the key service needs its root: give --root-key-file"},
		"key of no service":   {args("encrypt", ring, "--kms-key", "alias/photos", "plain", "out"), "--kms-key: give --kms with it"},
		"any key of none":     {args("decrypt", ring, "--any-kms-key", "sealed", "out"), "--any-kms-key: give --kms with it"},
		"seal under two":      {args("encrypt", photos, "--kms-key", "alias/other", "plain", "out"), "--kms-key: give one of them only"},
		"bucket key of none":  {args("encrypt", ring, "--bucket-key", "plain", "out"), "--bucket-key: give --kms with it"},
		"principal of none":   {args("decrypt", customer, "--principal", "user:bob", "sealed", "out"), "--principal: give --kms with it"},
		"to a key of none":    {args("rewrap", customer, "--to-kms-key", "alias/photos", "sealed"), "--to-kms-key: give --to-kms with it"},
		"to bucket key, none": {args("rewrap", ring, "--to-bucket-key", "sealed"), "--to-bucket-key: give --to-kms with it"},
		"to a ring's kms key": {args("rewrap", service, "--to-customer-key-file", "my.key", "--to-kms-key", "k", "sealed"), "--to-kms-key: give --to-kms with it"},
		"to-kms, no to-root":  {args("rewrap", customer, "--to-kms", "my.kms", "sealed"), "the key service needs its root: give --to-root-key-file"},
		"kms, no dir":         {args("kms", "list", "--root-key-file", "root.key"), "--kms"},
		"kms, no root":        {args("kms", "list", "--kms", "my.kms"), "the key service needs its root"},
		"init without root":   {args("kms", "init", "--kms", "new"), "or --generate-root-key"},
		"init, two roots":     {args("kms", "init", "--kms", "new", "--root-key-file", "root.key", "--generate-root-key", "k"), "give one of them only"},
		"no key to enable":    {args("kms", "enable", service), `expected "<key>"; see blobseal kms enable --help`},
		"deletion too soon":   {args("kms", "schedule-deletion", service, "alias/photos", "--days", "6"), "--days 6: want 7 to 30"},
		"deletion too late":   {args("kms", "schedule-deletion", service, "alias/photos", "--days", "31"), "--days 31: want 7 to 30"},
		"deletion today":      {args("kms", "schedule-deletion", service, "alias/photos", "--days", "0"), "want 7 to 30"},
		"rotation too often":  {args("kms", "rotation", "enable", service, "alias/photos", "--days", "89"), "--days 89: want 90 to 2560"},
		"rotation of new key": {args("kms", "create-key", service, "--rotation-days", "1"), "--rotation-days 1: want 90 to 2560"},
		"tag of new key":      {args("kms", "create-key", service, "--tag", "x"), `--tag "x": want NAME=VALUE`},
		"tag":                 {args("kms", "tag", service, "alias/photos", "x"), `tag "x": want NAME=VALUE`},
		"tag twice":           {args("kms", "tag", service, "alias/photos", "x=1", "x=2"), `tag: "x" is given twice`},
		"grant to nobody":     {args("kms", "grant", "create", service, "alias/photos", "--operation", "Decrypt"), "--to"},
		"grant of nothing":    {args("kms", "grant", "create", service, "alias/photos", "--to", "user:bob"), "--operation"},
		"grant of what":       {args("kms", "grant", "create", service, "alias/photos", "--to", "user:bob", "--operation", "PutKeyPolicy"), `must be one of "GenerateDataKey"`},
		"grant, two contexts": {args("kms", "grant", "create", service, "alias/photos", "--to", "user:bob", "--operation", "Decrypt", "--context-equals", "a=1", "--context-subset", "a=1"), "--context-equals and --context-subset: give one"},
		"grant, no context":   {args("kms", "grant", "create", service, "alias/photos", "--to", "user:bob", "--operation", "Decrypt", "--context-equals", "a"), "want NAME=VALUE"},
		"no policy file":      {args("kms", "policy", "put", service, "alias/photos"), "<file>"},
		"audit of what":       {args("audit", "show"), "no audit trail: give FILE or --kms"},
		"audit of two":        {args("audit", "verify", "--kms", "my.kms", "plain"), "FILE and --kms: give one"},
		"anchor":              {args("audit", "verify", "--kms", "my.kms", "--reaches", "5"), "want SEQ:HASH"},
		"anchor, short":       {args("audit", "verify", "--kms", "my.kms", "--from", "5:abc"), "want SEQ:HASH"},
		"anchor of several":   {args("audit", "verify", "--reaches", "5:"+strings.Repeat("0", 64), "a", "b"), "give one FILE with them"},
		"destroy in a script": {args("ring", "destroy", ring, "00000000"), "give --yes"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdin string
			if name == "range of a pipe" {
				stdin, test.says = string(read(t, "sealed")), "--range needs a regular file"
			}
			res := piped(stdin, test.args...)
			res.fails(t, 2, test.says)
			require.Empty(t, res.out)
			require.Equal(t, before, files(t))
		})
	}
	t.Run("flag and variable", func(t *testing.T) {
		t.Setenv("BLOBSEAL_PASSPHRASE", "secret")
		blobseal(args("encrypt", ring, "plain", "out")...).fails(t, 2, "--root-key-file and BLOBSEAL_PASSPHRASE: give one")
		ok(t, args("verify", customer, "sealed")...) // where it has no part
	})
}
