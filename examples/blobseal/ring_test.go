package main

import (
	"encoding/json"
	"os"
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

// Who is a moment late to make a ring learns which one it is about.
func TestRingCreateRace(t *testing.T) {
	workspace(t)
	root, err := keys.RootSource{KeyFile: "root.key"}.Open(t.Context(), console.New(nil, nil, nil))
	require.NoError(t, err)
	_, err = keys.CreateRing(t.Context(), "my.ring", root, 0)
	require.Error(t, err)
	require.Equal(t, "my.ring: already exists, and is never overwritten", message.OneLine(err))
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

	blobseal(args("ring", "merge", ring, "none.ring")...).fails(t, 5, "none.ring:")
	ok(t, "ring", "create", "--ring", "foreign.ring", "--root-key-file", "root.key")
	blobseal(args("ring", "merge", ring, "foreign.ring")...).fails(t, 3, "foreign.ring:")
	require.NoError(t, os.Remove("my.ring"))
	ok(t, "keygen", "wrong.key")
	blobseal("ring", "merge", "--ring", "my.ring", "--root-key-file", "wrong.key", "one.ring").fails(t, 4, "one.ring:")
	require.NoFileExists(t, "my.ring")
}
