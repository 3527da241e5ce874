//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/internal/testbed/await"
)

// TestBucketInterrupt interrupts a rewrap; the same command goes on from there.
func TestBucketInterrupt(t *testing.T) {
	for name, test := range map[string]struct {
		flags []string
		says  string
	}{
		"with a checkpoint": {[]string{"--checkpoint", "photos.cp"}, "; the same command continues from there\n"},
		"without":           {nil, "; the same command skips what is done\n"},
	} {
		t.Run(name, func(t *testing.T) {
			album(t, ring, "a", "b", "c", "d", "e")
			ok(t, args("ring", "rotate", ring)...)
			rewrap := args("bucket", "rewrap", bucketURL, ring, "--list", test.flags)
			p := start(t, command(t, "1", args(rewrap, "--rate", "0.001", "--workers", "1")...)) // the second object's turn never comes
			require.Contains(t, p.line(t, "the first object"), "a: rewrapped to ")
			res := p.signal(t, os.Interrupt)
			res.fails(t, 130, "interrupted after ")
			require.True(t, strings.HasSuffix(res.errout, test.says), res.errout)

			out := ok(t, rewrap...)
			require.NotContains(t, out, "a: rewrapped")
			require.Contains(t, out, "e: rewrapped")
			require.Equal(t, test.flags != nil, strings.Contains(out, "with earlier runs: 5 objects rewrapped"))
			require.Contains(t, ok(t, args("bucket", "check", bucketURL, ring)...), ", 5 good ")
		})
	}
	t.Run("check", func(t *testing.T) {
		album(t, ring, "a", "b", "c", "d", "e", "f")
		p := start(t, command(t, "1", args("bucket", "check", bucketURL, ring, "--list", "--rate", "0.001", "--workers", "1")...))
		p.line(t, "the first object")
		p.signal(t, os.Interrupt).fails(t, 130, "interrupted")
	})
	t.Run("put", func(t *testing.T) {
		album(t, ring)
		before := tree(t)
		p := start(t, command(t, "1", args("bucket", "put", bucketURL, ring, "-", "a")...))
		_, err := p.stdin.Write(random(300_000))
		require.NoError(t, err)
		p.signal(t, os.Interrupt).fails(t, 130, "interrupted")
		require.Equal(t, before, tree(t))
	})
}

// A source that fails is no end: nothing is stored.
func TestBucketPutFails(t *testing.T) {
	album(t, ring)
	before := tree(t)
	blobseal(args("bucket", "put", bucketURL, ring, "/proc/self/mem", "a")...).fails(t, 1, "/proc/self/mem: input/output error")
	require.Equal(t, before, tree(t))
}

// TestBucketProgress has a bar with rate and time left on a terminal, which is taken
// away for each line.
func TestBucketProgress(t *testing.T) {
	names := []string{}
	for i := range 30 {
		names = append(names, fmt.Sprintf("%02d", i))
	}
	album(t, ring, names...)
	ok(t, args("ring", "rotate", ring)...)
	for name, command := range map[string][]string{
		"rewrap":    args("bucket", "rewrap", bucketURL, ring),
		"inventory": args("bucket", "inventory", bucketURL),
		"check":     args("bucket", "check", bucketURL, ring),
	} {
		t.Run(name, func(t *testing.T) {
			tty, screen := terminal(t)
			var out bytes.Buffer
			c := console.New(strings.NewReader(""), &out, tty)
			c.Patience = 0
			require.Equal(t, 0, runOn(t.Context(), c, args(command, "--rate", "50")))
			fmt.Fprint(tty, "the end")
			text := show(t, screen, "the end")
			require.Regexp(t, `photos +\d+% .*\(\d+/30, \d+ objects/s\) \[`, text)
			require.Regexp(t, `\r +\r30 objects[^\r\n]* in [0-9.]+ s[^\r\n]*\r\nthe end$`, text, "the bar is taken away, and the last line stays")
			require.Contains(t, out.String(), "30 objects")
		})
	}
	t.Run("with lines on the same terminal", func(t *testing.T) {
		tty, screen := terminal(t)
		c := console.New(strings.NewReader(""), tty, tty)
		c.Patience = 0
		require.Equal(t, 0, runOn(t.Context(), c, args("bucket", "inventory", bucketURL, "--list", "--rate", "100")))
		text := show(t, screen, "bytes stored, ")
		require.Regexp(t, `\r( +\r)?29: 13 bytes, SSE-S3 version `, text, "a line is alone on its line")
	})
	t.Run("not in a pipe", func(t *testing.T) {
		c := console.New(strings.NewReader(""), io.Discard, new(bytes.Buffer))
		c.Patience = 0
		require.Equal(t, 0, runOn(t.Context(), c, args("bucket", "check", bucketURL, ring)))
		require.Empty(t, c.Stderr.(*bytes.Buffer).String())
	})
}

func TestBucketShredAsks(t *testing.T) {
	for answer, code := range map[string]int{"no\n": 3, "yes\n": 0} {
		album(t, ring, "u7/a")
		tty, screen := terminal(t)
		c := console.New(tty, new(bytes.Buffer), tty)
		done := make(chan int, 1)
		go func() {
			done <- runOn(t.Context(), c, args("bucket", "shred", bucketURL, "--record", "r", "--prefix", "u7/"))
		}()
		text := show(t, screen, "Type yes to shred it: ")
		require.Contains(t, text, `Shred all objects of file://./photos whose keys begin with "u7/"?`)
		_, err := screen.WriteString(answer)
		require.NoError(t, err)
		require.Equal(t, code, await.Value(t, done, "the command to end"))
		_, err = os.Stat("photos/u7/a")
		require.Equal(t, code == 0, os.IsNotExist(err))
	}
}

// The AWS SDK logs to standard error when an object has no checksum that it knows,
// as nearly none has. Commands say nothing but their own one line.
func TestBucketS3SDKIsQuiet(t *testing.T) {
	s3 := newS3(t)
	workspace(t)
	write(t, "plain", []byte("text"))
	url := []string{"--bucket", strings.Replace(s3.url[1], "&response_checksum_validation=when_required", "", 1)}
	require.NotEqual(t, s3.url, url)
	require.Equal(t, result{}, execute(t, command(t, "1", args("bucket", "put", url, ring, "plain", "a")...)))
	require.Equal(t, result{out: "text"}, execute(t, command(t, "1", args("bucket", "get", url, ring, "a", "-")...)))
	require.Equal(t, result{out: "ex"}, execute(t, command(t, "1", args("bucket", "get", url, ring, "--range", "1-2", "a", "-")...)))
	require.Empty(t, execute(t, command(t, "1", args("bucket", "rewrap", url, ring, "--to-customer-key-file", "my.key")...)).errout)
}
