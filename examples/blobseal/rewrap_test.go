package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
)

const headSize = 56 // of a body's message

var other = []string{"--customer-key-file", "other.key"}

func TestRewrap(t *testing.T) {
	for name, test := range map[string]struct {
		source, seal []string // key, and flags of encrypt
		rewrap       []string
		target, open []string // key, and flags of decrypt
		grows        bool
	}{
		"another ring": {
			source: ring, rewrap: []string{"--to-ring", "other.ring", "--to-root-key-file", "other.key"},
			target: []string{"--ring", "other.ring", "--root-key-file", "other.key"},
		},
		"customer key":   {source: ring, rewrap: []string{"--to-customer-key-file", "my.key"}, target: customer},
		"customer's new": {source: customer, rewrap: []string{"--to-customer-key-file", "other.key"}, target: other},
		"to the ring":    {source: customer, rewrap: []string{"--to-ring", "my.ring", "--to-root-key-file", "root.key"}, target: ring},
		"name": {
			source: ring, seal: []string{"--object", "a/b", "--context", "k=v"}, rewrap: []string{"--object", "a/b", "--to-object", "c/d/e"},
			target: ring, open: []string{"--object", "c/d/e", "--context", "k=v"},
		},
		"name of a customer's": {
			source: customer, rewrap: []string{"--to-object", "c/d"},
			target: customer, open: []string{"--object", "c/d"},
		},
		"no name": {
			source: ring, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-object", ""},
			target: ring,
		},
		"name and key": {
			source: ring, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-object", "c/d", "--to-customer-key-file", "my.key"},
			target: customer, open: []string{"--object", "c/d"},
		},
		"to a service": {
			source: ring, rewrap: []string{"--to-kms", "my.kms", "--to-kms-key", "alias/photos", "--to-root-key-file", "root.key"}, target: photos,
		},
		"to a service's default key": {
			source: customer, seal: []string{"--object", "a/b", "--context", "k=v"},
			rewrap: []string{"--object", "a/b", "--to-kms", "my.kms", "--to-root-key-file", "root.key", "--to-bucket-key", "--principal", "user:bob"},
			target: defaultKey, open: []string{"--object", "a/b", "--context", "k=v"},
		},
		"service to a ring": {source: photos, rewrap: []string{"--to-ring", "my.ring", "--to-root-key-file", "root.key"}, target: ring},
		"service to a customer": {
			source: photos, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-customer-key-file", "my.key"},
			target: customer, open: []string{"--object", "a/b"},
		},
		"service's other key": {
			source: photos, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-kms-key", "alias/blobseal/default"},
			target: defaultKey, open: []string{"--object", "a/b"},
		},
		"another service": {
			source: photos, rewrap: []string{"--to-kms", "other.kms", "--to-root-key-file", "other.key"},
			target: []string{"--kms", "other.kms", "--root-key-file", "other.key", "--kms-key", "alias/blobseal/default"},
		},
		"name in a service": {
			source: photos, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-object", "c/d"},
			target: photos, open: []string{"--object", "c/d"},
		},
		"what does not fit": {
			source: customer, seal: []string{"--context", "k=" + strings.Repeat("x", 830)},
			rewrap: []string{"--to-ring", "my.ring", "--to-root-key-file", "root.key"},
			target: ring, grows: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			ok(t, "ring", "create", "--ring", "other.ring", "--root-key-file", "other.key")
			ok(t, "kms", "init", "--kms", "other.kms", "--root-key-file", "other.key")
			plain := random(50_000)
			write(t, "plain", plain)
			ok(t, args("encrypt", test.source, test.seal, "plain", "sealed")...)
			require.NoError(t, os.Chmod("sealed", 0o640))
			before, info := read(t, "sealed"), stat(t, "sealed")

			ok(t, args("rewrap", test.source, test.rewrap, "sealed")...)
			require.Equal(t, string(plain), ok(t, args("decrypt", test.target, test.open, "sealed", "-")...))
			blobseal(args("decrypt", test.source, test.seal, "sealed", "-")...).fails(t, anyFailure, "sealed: ")

			after := read(t, "sealed")
			size := object.EnvelopeUnit
			if test.grows {
				size = 2 * object.EnvelopeUnit
			}
			require.Equal(t, before[object.EnvelopeUnit-headSize:], after[size-headSize:], "the body and its head stay")
			require.False(t, os.SameFile(info, stat(t, "sealed")))
			require.EqualValues(t, 0o640, stat(t, "sealed").Mode().Perm())
			for _, name := range files(t) {
				require.False(t, strings.HasPrefix(name, "."), name)
			}
		})
	}
}

func stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	return info
}

func TestRewrapToNewest(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", ring, "plain", "a")...)
	ok(t, args("encrypt", ring, "plain", "b")...)
	old := keyID(t, "a")
	before := read(t, "a")
	require.Equal(t, "a: already under the newest version, "+old+"\n", ok(t, args("rewrap", ring, "a")...))
	require.Equal(t, before, read(t, "a"))

	ok(t, args("ring", "rotate", ring)...)
	res := blobseal(args("rewrap", ring, "a", "none", "plain", "b")...)
	res.fails(t, 4, "none: no such file or directory (and 1 more of 4 files failed)")
	newest := keyID(t, "a")
	require.Equal(t, newest, keyID(t, "b"))
	require.Equal(t, "a: rewrapped from version "+old+" to version "+newest+"\nb: rewrapped from version "+old+" to version "+newest+"\n", res.out)

	ok(t, args("ring", "destroy", "--yes", ring, old)...)
	require.Equal(t, "plain", ok(t, args("decrypt", ring, "a", "-")...))
	require.Equal(t, "plain", ok(t, args("decrypt", ring, "b", "-")...))
}

// An attacker who may create files beside a sealed file plants one that an earlier
// version of rewrap took for its own journal: an envelope for the same body, whose
// sealed data key opens under no key. Rewrap must not write it over the file.
func TestRewrapIgnoresPlantedJournal(t *testing.T) {
	for name, rewrap := range map[string][]string{
		"rewrap":              args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed"),
		"rewrap of wrong key": args("rewrap", customer, "--to-object", "a/b", "sealed"),
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			plain := random(40_000)
			write(t, "plain", plain)
			ok(t, args("encrypt", customer, "plain", "sealed")...)
			envelope := bytes.Clone(read(t, "sealed")[:1024])
			envelope[100] ^= 1 // in the sealed data key
			journal := append([]byte("blobseal rewrap journal 1\n"), envelope...)
			sum := sha256.Sum256(journal)
			journal = append(journal, sum[:]...)
			write(t, ".sealed.blobseal-rewrap", journal)

			require.Equal(t, string(plain), ok(t, args("decrypt", customer, "sealed", "-")...))
			ok(t, rewrap...)
			if name == "rewrap" {
				require.Equal(t, string(plain), ok(t, args("decrypt", other, "sealed", "-")...))
			} else {
				require.Equal(t, string(plain), ok(t, args("decrypt", customer, "--object", "a/b", "sealed", "-")...))
			}
			require.Equal(t, journal, read(t, ".sealed.blobseal-rewrap"), "it is not ours")
		})
	}
}

// A reader that opened the file before a rewrap reads the old file to its end.
func TestRewrapSparesReaders(t *testing.T) {
	workspace(t)
	write(t, "plain", random(40_000))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	before := read(t, "sealed")
	f, err := os.Open("sealed")
	require.NoError(t, err)
	defer f.Close()
	ok(t, args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed")...)
	after, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, before, after)
}
