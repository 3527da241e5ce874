package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	ringcmd "github.com/blobseal/blobseal/examples/blobseal/internal/cmd/ring"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

func ringKeys(t *testing.T) (l ringcmd.Listing) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(ok(t, args("ring", "list", "--json", ring)...)), &l))
	return l
}

func TestRing(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", ring, "plain", "old")...)
	first := keyID(t, "old")
	require.Contains(t, ok(t, args("ring", "list", ring)...), first+"  enabled, primary  ")

	out := ok(t, args("ring", "rotate", ring)...)
	ok(t, args("encrypt", ring, "plain", "new")...)
	second := keyID(t, "new")
	require.NotEqual(t, first, second)
	require.Equal(t, "my.ring: rotated, to version "+second+"\n", out)
	require.Equal(t, "plain", ok(t, args("decrypt", ring, "old", "-")...))
	require.Equal(t, "plain", ok(t, args("decrypt", ring, "new", "-")...))

	l := ringKeys(t)
	require.Len(t, l.Versions, 2)
	require.Equal(t, []bool{false, true}, []bool{l.Versions[0].Primary, l.Versions[1].Primary})
	require.Equal(t, first, l.Ring+first[16:])
	require.EqualValues(t, 90*24*3600, l.PeriodSeconds)

	t.Run("disable and enable", func(t *testing.T) {
		require.Equal(t, "my.ring: version "+first+" is disabled\n", ok(t, args("ring", "disable", ring, first)...))
		blobseal(args("decrypt", ring, "old", "-")...).fails(t, 1, "old: sealed under version "+first+", which is disabled (enable it with: blobseal ring enable "+first)
		ok(t, args("ring", "enable", ring, first[17:])...) // the short form
		require.Equal(t, "plain", ok(t, args("decrypt", ring, "old", "-")...))
	})
	t.Run("refusals", func(t *testing.T) {
		blobseal(args("ring", "disable", ring, second)...).fails(t, 1, "is the newest")
		blobseal(args("ring", "destroy", ring, "--yes", second)...).fails(t, 1, "rotate first")
		blobseal(args("ring", "destroy", ring, "--yes", "00000000")...).fails(t, 1, "no such version")
		blobseal(args("ring", "enable", ring, "nonsense")...).fails(t, 1, "no such version")
		blobseal(args("ring", "enable", ring, "0000000000000000.00000000")...).fails(t, 1, "no such version")
	})
	t.Run("destroy", func(t *testing.T) {
		out := ok(t, args("ring", "destroy", ring, "--yes", first)...)
		require.Equal(t, "my.ring: version "+first+" is destroyed; what it sealed and was not rewrapped is lost\n", out)
		blobseal(args("decrypt", ring, "old", "-")...).fails(t, 1, "was destroyed: nothing can open it")
		blobseal(args("ring", "enable", ring, first)...).fails(t, 1, "destroyed, which cannot be undone")
		require.Equal(t, "plain", ok(t, args("decrypt", ring, "new", "-")...))
		require.Contains(t, ok(t, args("ring", "list", ring)...), "destroyed")
	})
}

func TestRingCreate(t *testing.T) {
	t.Chdir(t.TempDir())
	out := ok(t, "ring", "create", "--ring", "my.ring", "--generate-root-key", "root.key")
	require.Regexp(t, `^my.ring: created, with version [0-9a-f]{16}\.[0-9a-f]{8}\n$`, out)
	before := read(t, "my.ring")

	t.Run("never over a ring", func(t *testing.T) {
		blobseal(args("ring", "create", ring)...).fails(t, 1, "my.ring: already exists, and is never overwritten")
		blobseal("ring", "create", "--ring", "my.ring", "--generate-root-key", "new.key").fails(t, 1, "already exists")
		require.NoFileExists(t, "new.key")
		require.Equal(t, before, read(t, "my.ring"))
	})
	t.Run("never over a key", func(t *testing.T) {
		key := read(t, "root.key")
		blobseal("ring", "create", "--ring", "other.ring", "--generate-root-key", "root.key").fails(t, 1, "root.key: already exists")
		require.Equal(t, key, read(t, "root.key"))
		require.NoFileExists(t, "other.ring")
	})
	t.Run("a failure leaves no key", func(t *testing.T) {
		blobseal("ring", "create", "--ring", "none/my.ring", "--generate-root-key", "new.key").fails(t, 1, "none/my.ring: no such file or directory")
		require.NoFileExists(t, "new.key")
	})
}

// Who is a moment late to make a ring learns which one it is about.
func TestRingCreateRace(t *testing.T) {
	workspace(t)
	root, err := keys.RootSource{KeyFile: "root.key"}.Open(t.Context(), console.New(nil, nil, nil))
	require.NoError(t, err)
	_, err = keys.CreateRing(t.Context(), "my.ring", root)
	require.Error(t, err)
	require.Equal(t, "my.ring: already exists, and is never overwritten", message.OneLine(err))
}

func TestPassphrase(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "plain", []byte("plain"))
	write(t, "pass", []byte("correct horse\n"))
	write(t, "wrong", []byte("battery staple\n"))
	write(t, "empty", []byte("\n"))
	byFile := []string{"--ring", "my.ring", "--passphrase-file", "pass"}
	ok(t, args("ring", "create", byFile)...)
	ok(t, args("encrypt", byFile, "plain", "sealed")...)
	blobseal("ring", "list", "--ring", "my.ring", "--passphrase-file", "wrong").fails(t, 1, "my.ring: wrong root: ")
	blobseal("ring", "list", "--ring", "my.ring", "--passphrase-file", "empty").fails(t, 1, "empty: the passphrase is empty")

	t.Setenv("BLOBSEAL_PASSPHRASE", "correct horse")
	require.Equal(t, "plain", ok(t, "decrypt", "--ring", "my.ring", "sealed", "-"))

	t.Run("change root", func(t *testing.T) {
		t.Setenv("BLOBSEAL_NEW_PASSPHRASE", "tr0ub4dor & horse")
		res := blobseal("ring", "change-root", "--ring", "my.ring")
		require.Equal(t, 0, res.code, res.errout)
		require.NotContains(t, res.out+res.errout, "tr0ub4dor & horse")
		require.Contains(t, res.out, "copies of the ring from before still open with the old one")
		blobseal("ring", "list", "--ring", "my.ring").fails(t, 1, "wrong root: the ring was made with another key or passphrase")

		os.Unsetenv("BLOBSEAL_NEW_PASSPHRASE")
		t.Setenv("BLOBSEAL_PASSPHRASE", "tr0ub4dor & horse")
		require.Equal(t, "plain", ok(t, "decrypt", "--ring", "my.ring", "sealed", "-"))
		ok(t, "keygen", "root.key")
		ok(t, "ring", "change-root", "--ring", "my.ring", "--new-root-key-file", "root.key")
		os.Unsetenv("BLOBSEAL_PASSPHRASE")
		require.Equal(t, "plain", ok(t, args("decrypt", ring, "sealed", "-")...))
		require.NotContains(t, strings.Join(files(t), " "), ".tmp")
	})
}

// Two backups, neither of which has all keys, save a ring.
func TestRingMerge(t *testing.T) {
	workspace(t)
	write(t, "one.ring", read(t, "my.ring"))
	write(t, "two.ring", read(t, "my.ring"))
	for _, name := range []string{"one", "two"} {
		ok(t, "ring", "rotate", "--ring", name+".ring", "--root-key-file", "root.key")
		write(t, name, []byte(name))
		ok(t, "encrypt", "--ring", name+".ring", "--root-key-file", "root.key", name, name+".enc")
	}
	require.NoError(t, os.Remove("my.ring"))
	require.Equal(t, "my.ring: merged; it has 3 versions, of which 1 are new\n", ok(t, args("ring", "merge", ring, "one.ring", "two.ring")...))
	require.Equal(t, "my.ring: merged; it has 3 versions, of which 0 are new\n", ok(t, args("ring", "merge", ring, "one.ring")...))
	for _, name := range []string{"one", "two"} {
		require.Equal(t, name, ok(t, args("decrypt", ring, name+".enc", "-")...))
	}

	blobseal(args("ring", "merge", ring, "none.ring")...).fails(t, 1, "none.ring:")
	ok(t, "ring", "create", "--ring", "foreign.ring", "--root-key-file", "root.key")
	blobseal(args("ring", "merge", ring, "foreign.ring")...).fails(t, 1, "foreign.ring:")
	require.NoError(t, os.Remove("my.ring"))
	ok(t, "keygen", "wrong.key")
	blobseal("ring", "merge", "--ring", "my.ring", "--root-key-file", "wrong.key", "one.ring").fails(t, 1, "one.ring:")
	require.NoFileExists(t, "my.ring")
}
