package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
)

var other = []string{"--customer-key-file", "other.key"}

func TestRewrap(t *testing.T) {
	for name, test := range map[string]struct {
		source, seal []string // key, and flags of encrypt
		rewrap       []string
		target, open []string // key, and flags of decrypt
		replaced     bool
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
			target: args(service, "--kms-key", "alias/blobseal/default"), open: []string{"--object", "a/b", "--context", "k=v"},
		},
		"service to a ring": {source: photos, rewrap: []string{"--to-ring", "my.ring", "--to-root-key-file", "root.key"}, target: ring},
		"service to a customer": {
			source: photos, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-customer-key-file", "my.key"},
			target: customer, open: []string{"--object", "a/b"},
		},
		"service's other key": {
			source: photos, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-kms-key", "alias/blobseal/default"},
			target: args(service, "--kms-key", "alias/blobseal/default"), open: []string{"--object", "a/b"},
		},
		"another service": {
			source: photos, rewrap: []string{"--to-kms", "other.kms", "--to-root-key-file", "other.key"},
			target: []string{"--kms", "other.kms", "--root-key-file", "other.key"},
		},
		"name in a service": {
			source: photos, seal: []string{"--object", "a/b"}, rewrap: []string{"--object", "a/b", "--to-object", "c/d"},
			target: photos, open: []string{"--object", "c/d"},
		},
		"what does not fit": {
			source: customer, seal: []string{"--context", "k=" + strings.Repeat("x", 830)},
			rewrap: []string{"--to-ring", "my.ring", "--to-root-key-file", "root.key"},
			target: ring, replaced: true,
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

			out := ok(t, args("rewrap", test.source, test.rewrap, "sealed")...)
			require.Equal(t, string(plain), ok(t, args("decrypt", test.target, test.open, "sealed", "-")...))
			blobseal(args("decrypt", test.source, test.seal, "sealed", "-")...).fails(t, 1, "sealed: ")

			after := read(t, "sealed")
			size := object.EnvelopeUnit
			if test.replaced {
				size = 2 * object.EnvelopeUnit
				require.Contains(t, out, "into a new file")
			} else {
				require.Contains(t, out, "in place")
			}
			require.Equal(t, before[object.EnvelopeUnit-file.HeadSize:], after[size-file.HeadSize:], "the body and its head stay")
			require.Equal(t, !test.replaced, os.SameFile(info, stat(t, "sealed")))
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
	require.Equal(t, "a: is under the newest key already, "+old+"\n", ok(t, args("rewrap", ring, "a")...))
	require.Equal(t, before, read(t, "a"))

	ok(t, args("ring", "rotate", ring)...)
	res := blobseal(args("rewrap", ring, "a", "none", "plain", "b")...)
	res.fails(t, 1, "none: no such file or directory (and 1 more of 4 files failed)")
	newest := keyID(t, "a")
	require.Equal(t, newest, keyID(t, "b"))
	require.Equal(t, "a: rewrapped from key "+old+" to key "+newest+", in place\nb: rewrapped from key "+old+" to key "+newest+", in place\n", res.out)

	ok(t, args("ring", "destroy", "--yes", ring, old)...)
	require.Equal(t, "plain", ok(t, args("decrypt", ring, "a", "-")...))
	require.Equal(t, "plain", ok(t, args("decrypt", ring, "b", "-")...))
}

// interrupted makes "sealed" under my.key, and returns it and what it is after a
// rewrap to other.key, with the journal of that.
func interrupted(t *testing.T) (before, after, journal []byte) {
	t.Helper()
	workspace(t)
	write(t, "plain", random(40_000))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	before = read(t, "sealed")
	ok(t, args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed")...)
	after = read(t, "sealed")
	return before, after, file.JournalText(after[:object.EnvelopeUnit])
}

const sealedJournal = ".sealed.blobseal-rewrap"

// TestCrashBeforeJournal has each part of a journal beside a file that was not
// touched: the old key opens it, and a rewrap starts again.
func TestCrashBeforeJournal(t *testing.T) {
	before, _, journal := interrupted(t)
	write(t, "sealed", before)
	f, err := os.Open("sealed")
	require.NoError(t, err)
	defer f.Close()
	for n := range len(journal) {
		write(t, sealedJournal, journal[:n])
		j, err := file.FindJournal("sealed", f)
		require.NoError(t, err)
		require.Equal(t, file.JournalPartial, j.State, n)
	}
	for i := range journal {
		flipped := bytes.Clone(journal)
		flipped[i] ^= 1
		write(t, sealedJournal, flipped)
		j, err := file.FindJournal("sealed", f)
		require.NoError(t, err)
		require.Equal(t, file.JournalPartial, j.State, i)
	}
	for _, n := range []int{0, 1, 500, len(journal) - 1} {
		write(t, "sealed", before)
		write(t, sealedJournal, journal[:n])
		ok(t, args("verify", customer, "sealed")...)
		require.FileExists(t, sealedJournal, "verify changes nothing")
		ok(t, args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed")...)
		ok(t, args("verify", other, "sealed")...)
		require.NoFileExists(t, sealedJournal)
	}
}

// TestCrashAfterJournal has a whole journal beside a file of which any part was
// overwritten: the new key opens it in every command, and a rewrap completes it.
func TestCrashAfterJournal(t *testing.T) {
	before, after, journal := interrupted(t)
	plain := read(t, "plain")
	write(t, sealedJournal, journal)
	rng := rand.New(rand.NewPCG(1, 2))
	torn := func(i int) []byte { // the first i bytes, or a random mix
		data := bytes.Clone(before)
		if i <= object.EnvelopeUnit {
			copy(data, after[:i])
			return data
		}
		for j := range object.EnvelopeUnit {
			if rng.IntN(2) == 0 {
				data[j] = after[j]
			}
		}
		return data
	}
	for i := 0; i <= object.EnvelopeUnit+200*13; i += 13 {
		write(t, "sealed", torn(i))
		require.Equal(t, "sealed: OK, 40000 bytes\n", ok(t, args("verify", other, "sealed")...), i)
	}
	for _, i := range []int{0, 1, 100, object.EnvelopeUnit, object.EnvelopeUnit + 1} {
		data := torn(i)
		write(t, "sealed", data)
		require.Equal(t, string(plain), ok(t, args("decrypt", other, "sealed", "-")...))
		require.Equal(t, string(plain[5:]), ok(t, args("decrypt", other, "--range", "5-", "sealed", "-")...))
		require.Contains(t, ok(t, "inspect", "--json", "sealed"), `"pending_rewrap":true`)
		require.Contains(t, ok(t, "inspect", "sealed"), "rewrap     interrupted; the next rewrap finishes it")
		blobseal(args("decrypt", customer, "sealed", "-")...).fails(t, 1, "wrong key")
		require.Equal(t, data, read(t, "sealed"), "reading changes nothing")
		require.FileExists(t, sealedJournal)

		// A rewrap completes it, whatever it then does.
		blobseal(args("rewrap", customer, "--to-object", "a/b", "sealed")...).fails(t, 1, "wrong key")
		require.NoFileExists(t, sealedJournal)
		require.Equal(t, after, read(t, "sealed"))

		write(t, "sealed", data)
		write(t, sealedJournal, journal)
		ok(t, args("rewrap", other, "--to-customer-key-file", "my.key", "sealed")...)
		require.NoFileExists(t, sealedJournal)
		ok(t, args("verify", customer, "sealed")...)
		write(t, sealedJournal, journal)
	}
}

// TestForeignJournal has a whole journal beside another file.
func TestForeignJournal(t *testing.T) {
	_, after, journal := interrupted(t)
	write(t, "moved", after)
	ok(t, args("encrypt", customer, "--force", "plain", "sealed")...)
	for name, data := range map[string][]byte{"another file": read(t, "sealed"), "a shorter one": read(t, "sealed")[:1000]} {
		t.Run(name, func(t *testing.T) {
			write(t, "sealed", data)
			write(t, sealedJournal, journal)
			if len(data) > object.EnvelopeUnit {
				ok(t, args("verify", customer, "sealed")...)
			}
			blobseal(args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed")...).
				fails(t, 1, "is the rewrap journal of another file: move it beside that file, or remove it")
			require.Equal(t, data, read(t, "sealed"))
			require.Equal(t, journal, read(t, sealedJournal))
		})
	}
	t.Run("moved beside its file", func(t *testing.T) {
		copy(after, make([]byte, object.EnvelopeUnit-file.HeadSize)) // all torn
		write(t, "moved", after)
		blobseal(args("verify", other, "moved")...).fails(t, 1, "1 of 1 files failed")
		require.NoError(t, os.Rename(sealedJournal, ".moved.blobseal-rewrap"))
		ok(t, args("verify", other, "moved")...)
	})
}

// TestJournalUnreadable: what may count and cannot be read stops every command.
func TestJournalUnreadable(t *testing.T) {
	interrupted(t)
	require.NoError(t, os.Mkdir(sealedJournal, 0o755))
	const says = "sealed: its rewrap journal "
	blobseal(args("decrypt", other, "sealed", "-")...).fails(t, 1, says)
	blobseal("inspect", "sealed").fails(t, 1, says)
	blobseal(args("rewrap", other, "--to-customer-key-file", "my.key", "sealed")...).fails(t, 1, says)
}

// TestRewrapUnfinished fails between the journal and its removal.
func TestRewrapUnfinished(t *testing.T) {
	before, after, _ := interrupted(t)
	write(t, "sealed", before)
	f, err := os.Open("sealed") // and so cannot be written
	require.NoError(t, err)
	defer f.Close()
	j, err := file.FindJournal("sealed", f)
	require.NoError(t, err)
	require.NoError(t, j.Write(after[:object.EnvelopeUnit], stat(t, "sealed")))
	require.ErrorContains(t, j.Settle("sealed", f), "sealed: rewrap is not finished: bad file descriptor; the file opens all the same")
	require.Equal(t, before, read(t, "sealed"))
	ok(t, args("verify", other, "sealed")...)

	require.Error(t, j.Write(after[:object.EnvelopeUnit], stat(t, "sealed")), "a journal is never overwritten")
	ok(t, args("verify", other, "sealed")...)
}
