//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// A name that a terminal would obey: as a control sequence (in its two forms), going
// back, or turning the order of letters about. The last byte is not UTF-8.
const evilName = "a\x1b[31m\u009b31m\b\a\u202e\u2066b\nc\xff"

const tamedName = "a?[31m?31m????b c\ufffd"

// What is not UTF-8 is a name of its own all the same.
func TestNamesAreBytes(t *testing.T) {
	workspace(t)
	for _, name := range []string{"x\xfe", "x\xff"} {
		write(t, name+".plain", []byte(name))
		ok(t, args("encrypt", customer, name+".plain", name)...)
	}
	for _, name := range []string{"x\xfe", "x\xff"} {
		require.Equal(t, name, ok(t, args("decrypt", customer, name, "-")...))
	}
	require.Subset(t, files(t), []string{"x\xfe", "x\xff"})
	album(t, ring)
	blobseal(args("bucket", "put", bucketURL, ring, "my.key", "x\xff")...).fails(t, 1, "must be a valid UTF-8 string")
	blobseal("bucket", "sign", "--secret-file", "my.key", "--base-url", "http://localhost/", "x\xff").fails(t, 2, `"x\xff" is no object's key`)
	blobseal("bucket", "sign", "--secret-file", "my.key", "--base-url", "http://localhost/", "").fails(t, 2, `"" is no object's key`)
}

func TestNamesTellATerminalNothing(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("x"))
	ok(t, args("encrypt", customer, "--context", "k="+strings.TrimSuffix(evilName, "\xff"), "plain", evilName)...)
	require.Equal(t, tamedName+": OK, 1 bytes\n", ok(t, args("verify", customer, evilName)...))
	text := ok(t, "inspect", evilName)
	require.True(t, strings.HasPrefix(text, tamedName+"\n"), "%q", text)
	require.Contains(t, text, "k="+strings.TrimSuffix(tamedName, "\ufffd")+"\n")
	blobseal("inspect", evilName+"2").fails(t, 5, "blobseal: "+tamedName+"2: no such file or directory\n")
	res := blobseal(args("verify", ring, evilName)...)
	require.Equal(t, tamedName+": FAILED: sealed under a customer key (SSE-C): give --customer-key-file\n", res.out)

	// A trail that someone made, with hashes that are right.
	sink, err := audit.OpenFileSink("forged.jsonl", nil)
	require.NoError(t, err)
	require.NoError(t, sink.Write(t.Context(), audit.Record{Time: time.Now(), EventID: "1", Operation: kms.Operation(strings.TrimSuffix(evilName, "\xff")), Outcome: "success"}))
	require.NoError(t, sink.Close())
	require.Contains(t, ok(t, "audit", "show", "forged.jsonl"), "  a?[31m?31m????b c  ")

	// JSON escapes it all, and gives the same text when it is read.
	text1 := ok(t, "inspect", "--json", evilName)
	for _, r := range text1 {
		require.True(t, r == '\n' || unicode.IsGraphic(r), "%U in %q", r, text1)
	}
	require.Contains(t, text1, `\u009b31m`)
	require.Contains(t, text1, `\u202e`)
	var found struct{ Context map[string]string }
	require.NoError(t, json.Unmarshal([]byte(text1), &found))
	require.Equal(t, strings.TrimSuffix(evilName, "\xff"), found.Context["k"])

	url := []string{"--bucket", "file://./odd%0Aname%C2%9B"}
	require.NoError(t, os.Mkdir("odd\nname\u009b", 0o755))
	require.Equal(t, "file://./odd name?: 0 objects (bodies authenticated)\n", ok(t, args("bucket", "check", url, ring)...))
}

// A file may have the await.Longest name that there is.
func TestLongNames(t *testing.T) {
	workspace(t)
	plain := random(20_000)
	write(t, "plain", plain)
	for _, n := range []int{238, 239, 240, 255} {
		name := strings.Repeat("n", n)
		ok(t, args("encrypt", customer, "plain", name)...)
		before := files(t)
		ok(t, args("rewrap", customer, "--to-customer-key-file", "other.key", name)...)
		require.Equal(t, string(plain), ok(t, args("decrypt", other, name, "-")...))
		require.Equal(t, before, files(t))

		require.NoError(t, os.Remove(name))
	}
}

// /dev/stdout is a link, to what may have no name.
func TestOutputToStdoutByName(t *testing.T) {
	workspace(t)
	plain := random(20_000)
	write(t, "plain", plain)
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	res := execute(t, command(t, "1", args("decrypt", customer, "sealed", "/dev/stdout")...))
	require.Equal(t, result{out: string(plain)}, res)
}

// A reader that leaves, as head does, ends a command in good order.
func TestReaderLeaves(t *testing.T) {
	album(t, ring, "a", "b", "c", "d", "e", "f")
	ok(t, args("ring", "rotate", ring)...)
	before := tree(t)
	reader, pipe, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	cmd := command(t, "1", args("bucket", "rewrap", "--bucket", "file://./photos?no_tmp_dir=true", ring, "--list", "--workers", "1")...)
	cmd.Stdout = pipe
	execute(t, cmd).fails(t, 1, "standard output: broken pipe")
	require.NoError(t, pipe.Close())
	require.Equal(t, before, tree(t))

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	cmd = command(t, "1", "--help")
	cmd.Stdout = full
	execute(t, cmd).fails(t, 1, "standard output: no space left on device")
}

// An interrupt ends a command that waits for the other end of a pipe.
func TestInterruptOfAPipe(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("x"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	for _, name := range []string{"in", "out", "key", "passphrase"} {
		require.NoError(t, syscall.Mkfifo("pipe-"+name, 0o600))
	}
	before := files(t)
	for name, args := range map[string][]string{
		"in":         args("encrypt", customer, "pipe-in", "out"),
		"out":        args("decrypt", customer, "sealed", "pipe-out"),
		"key":        args("verify", "--customer-key-file", "pipe-key", "sealed"),
		"passphrase": args("ring", "list", "--ring", "my.ring", "--passphrase-file", "pipe-passphrase"),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, interrupt)
			var errout bytes.Buffer
			code := run(ctx, args, strings.NewReader(""), io.Discard, &errout)
			result{code, "", errout.String()}.fails(t, 130, "interrupted")
			require.Equal(t, before, files(t))

			both, err := os.OpenFile("pipe-"+name, os.O_RDWR, 0) // what was left behind ends, too
			require.NoError(t, err)
			require.NoError(t, both.Close())
		})
	}
}

// Every file of a directory is an object. Keys that are among them would be
// encrypted under themselves.
func TestEncryptExistingSparesItsKeys(t *testing.T) {
	album(t, ring)
	for _, name := range []string{"my.ring", "root.key", "my.key"} {
		write(t, "photos/"+name, read(t, name))
	}
	require.NoError(t, os.CopyFS("photos/my.kms", os.DirFS("my.kms")))
	require.NoError(t, os.Symlink("../photos", "my.kms/link"))
	before := tree(t)
	ringFile, rootFile := read(t, "photos/my.ring"), read(t, "photos/root.key")
	for name, test := range map[string]struct{ args, file string }{
		"ring":        {"--ring photos/my.ring --root-key-file root.key", "photos/my.ring"},
		"root":        {"--ring my.ring --root-key-file photos/root.key", "photos/root.key"},
		"by a link":   {"--ring my.kms/link/my.ring --root-key-file root.key", "my.kms/link/my.ring"},
		"service":     {"--kms photos/my.kms --root-key-file root.key", "photos/my.kms"},
		"customer":    {"--customer-key-file photos/my.key", "photos/my.key"},
		"checkpoint":  {"--ring my.ring --root-key-file root.key --checkpoint photos/cp", "photos/cp"},
		"not written": {"--ring photos/my.ring --root-key-file root.key --dry-run", "photos/my.ring"},
	} {
		t.Run(name, func(t *testing.T) {
			blobseal(args("bucket", "encrypt-existing", bucketURL, strings.Fields(test.args))...).
				fails(t, 3, test.file+": is in the bucket and would be encrypted (keep it elsewhere)")
			require.Equal(t, before, tree(t))
			require.Equal(t, ringFile, read(t, "photos/my.ring"))
			require.Equal(t, rootFile, read(t, "photos/root.key"))
		})
	}
}

// What a listing leaves out is no reason to say that all is well, or that a key is
// not needed any more.
func TestBucketNotSeenWhole(t *testing.T) {
	album(t, ring, "a", "sub/b")
	old := ringKeys(t).Versions[0].ID
	ok(t, args("ring", "rotate", ring)...)
	commands := map[string][]string{
		"inventory":        args("bucket", "inventory", bucketURL),
		"check":            args("bucket", "check", bucketURL, ring),
		"rewrap":           args("bucket", "rewrap", bucketURL, ring),
		"encrypt-existing": args("bucket", "encrypt-existing", bucketURL, ring),
		"retire":           args("bucket", "retire", bucketURL, ring, old),
		"shred":            args("bucket", "shred", bucketURL, "--record", "r", "--yes", "--prefix", "sub/"),
	}
	refused := func(t *testing.T, says string) {
		before := tree(t)
		for name, command := range commands {
			res := blobseal(command...)
			res.fails(t, 1, says)
			require.Empty(t, res.out, name)
		}
		require.Equal(t, before, tree(t))
		require.EqualValues(t, "enabled", ringKeys(t).Versions[0].State)
	}
	t.Run("a link to a directory", func(t *testing.T) {
		require.NoError(t, os.Rename("photos/sub", "elsewhere"))
		require.NoError(t, os.Symlink("../elsewhere", "photos/sub"))
		require.Equal(t, "picture of sub/b", get(t, ring, "sub/b"), "which can be read")
		refused(t, "file://./photos: sub: is a link to a directory (a listing would omit it)")
		require.NoError(t, os.Remove("photos/sub"))
		require.NoError(t, os.Rename("elsewhere", "photos/sub"))
	})
	t.Run("a pipe", func(t *testing.T) {
		require.NoError(t, syscall.Mkfifo("photos/pipe", 0o600))
		refused(t, "file://./photos: pipe: is not a regular file")
		require.NoError(t, os.Remove("photos/pipe"))
	})
	t.Run("a directory of others", func(t *testing.T) {
		require.NoError(t, os.Chmod(filepath.Dir(must(os.Getwd())), 0o755)) // which the others may pass
		require.NoError(t, os.Chmod("photos/sub", 0))
		defer os.Chmod("photos/sub", 0o755)
		res := execute(t, command(t, "nobody", commands["inventory"]...))
		res.fails(t, 3, "file://./photos: sub: permission denied (a listing would omit it)")
		require.Empty(t, res.out)
	})
	t.Run("the file system's own", func(t *testing.T) {
		require.NoError(t, os.Mkdir("photos/lost+found", 0))
		require.Contains(t, execute(t, command(t, "nobody", commands["inventory"]...)).out, "2 objects")
		require.NoError(t, os.Remove("photos/lost+found"))
	})
	t.Run("itself a link", func(t *testing.T) {
		require.NoError(t, os.Symlink("photos", "link"))
		for _, url := range []string{"file://./link", "file://./link/", "file://" + filepath.Join(must(os.Getwd()), "link")} {
			out := ok(t, args("bucket", "check", "--bucket", url, "--name", "photos", ring)...)
			require.Contains(t, out, ": 2 objects, 2 good")
		}
		blobseal(args("bucket", "check", "--bucket", "file://./link", ring)...).fails(t, 4, "2 of 2 objects") // it has another name
	})
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
