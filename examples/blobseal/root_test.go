package main

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/sse"
)

// rootBed is a key service with two keys, either of which can be a root. It is
// there for the commands of one test.
type rootBed struct {
	key, other string            // URLs
	id         string            // what the service calls key
	own        map[string]string // flags of the service's own root
	states     []rootState
}

// rootState is a state of the service, or of key, in which it refuses.
type rootState struct {
	name         string
	enter, leave func() // without leave, for ever
	says         string
}

// flags are those of a root; prefix is "", "new-" or "to-".
func (b *rootBed) flags(prefix, key string) []string {
	flags := []string{"--" + prefix + "root-kms-key", key}
	for name, value := range b.own {
		flags = append(flags, "--"+prefix+name, value)
	}
	return flags
}

// rootBeds make a bed in a workspace.
var rootBeds = map[string]func(*testing.T) *rootBed{
	"localkms": newLocalBed, "awskms": newAWSBed, "gcpkms": newGoogleBed, "azurekeyvault": newAzureBed, "hashivault": newVaultBed,
}

// adjust changes the console of all commands until the test or subtest t ends.
func adjust(t *testing.T, how func(*console.Console)) {
	before := adjustments
	adjustments = append(before[:len(before):len(before)], how)
	t.Cleanup(func() { adjustments = before })
}

type azureFault struct {
	status               int
	code, inner, message string
}

// rsaKeys are made once: that takes longer than all else here.
var rsaKeys = sync.OnceValue(func() map[string]*rsa.PrivateKey {
	keys := map[string]*rsa.PrivateKey{}
	for _, name := range []string{"rings", "other"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	return keys
})

// forEachBed runs test in a workspace of its own, once for each key service.
func forEachBed(t *testing.T, test func(*testing.T, *rootBed)) {
	for name, bed := range rootBeds {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			nobody(t)
			write(t, "plain", []byte("plain"))
			test(t, bed(t))
		})
	}
}

// TestKMSRoot takes a ring through its life under a key of a key service.
func TestKMSRoot(t *testing.T) {
	forEachBed(t, func(t *testing.T, bed *rootBed) {
		kmsRing := args("--ring", "kms.ring", bed.flags("", bed.key))
		require.Regexp(t, `^kms.ring: created, with version [0-9a-f]{16}\.[0-9a-f]{8}\n$`, ok(t, args("ring", "create", kmsRing)...))
		ok(t, args("encrypt", kmsRing, "plain", "old")...)
		old := keyID(t, "old")
		ok(t, args("ring", "rotate", kmsRing)...)
		ok(t, args("encrypt", kmsRing, "plain", "new")...)
		require.NotEqual(t, old, keyID(t, "new"))
		for _, name := range []string{"old", "new"} {
			require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, name, "-")...))
		}
		require.Contains(t, ok(t, args("ring", "list", kmsRing)...), old+"  enabled  ")
		ok(t, args("rewrap", kmsRing, "old")...)
		ok(t, args("rewrap", ring, "--to-ring", "kms.ring", bed.flags("to-", bed.key), sealed(t, ring))...)
		require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, "sealed", "-")...))
		ok(t, args("ring", "disable", kmsRing, old)...)
		ok(t, args("ring", "destroy", kmsRing, "--yes", old)...)
		ok(t, args("verify", kmsRing, "old", "new", "sealed")...)

		require.NoError(t, os.Mkdir("photos", 0o700))
		bucket := []string{"--bucket", "file://./photos"}
		ok(t, args("bucket", "put", bucket, kmsRing, "plain", "cat.jpg")...)
		require.Contains(t, ok(t, args("bucket", "check", bucket, kmsRing)...), "1 object")

		before, here := read(t, "kms.ring"), files(t)
		blobseal(args("ring", "create", kmsRing)...).fails(t, 3, "kms.ring: already exists")
		for name, flags := range map[string][]string{
			"another key": bed.flags("", bed.other), "a key file": {"--root-key-file", "root.key"},
		} {
			res := blobseal(args("decrypt", "--ring", "kms.ring", flags, "new", "out")...)
			says := "kms.ring: wrong root: the ring was made with another key or passphrase"
			if name == "another key" {
				says = fmt.Sprintf("kms.ring: root does not open the document: it is sealed under key %q, the root is key ", bed.id)
			}
			res.fails(t, 4, says)
		}
		blobseal(args("ring", "list", "--ring", "my.ring", bed.flags("", bed.key))...).fails(t, 4, "my.ring: wrong root: ")
		require.Equal(t, before, read(t, "kms.ring"))
		require.Equal(t, here, files(t))
	})
}

// sealed makes a sealed file, and returns its name.
func sealed(t *testing.T, keys []string) string {
	t.Helper()
	ok(t, args("encrypt", "--force", keys, "plain", "sealed")...)
	return "sealed"
}

// TestKMSRootRefuses: what the service refuses is named in one line, and nothing
// is written.
func TestKMSRootRefuses(t *testing.T) {
	forEachBed(t, func(t *testing.T, bed *rootBed) {
		kmsRing := args("--ring", "kms.ring", bed.flags("", bed.key))
		ok(t, args("ring", "create", kmsRing)...)
		ok(t, args("encrypt", kmsRing, "plain", "sealed")...)
		document, mine := read(t, "kms.ring"), read(t, "my.ring")
		for _, state := range bed.states {
			t.Run(state.name, func(t *testing.T) {
				state.enter()
				here := files(t)
				for _, cmd := range [][]string{
					args("ring", "list", kmsRing),
					args("ring", "rotate", kmsRing),
					args("ring", "change-root", kmsRing, "--new-root-key-file", "other.key"),
					args("ring", "change-root", "--ring", "my.ring", rootOf("", "root.key"), bed.flags("new-", bed.key)),
					args("ring", "create", "--ring", "new.ring", bed.flags("", bed.key)),
					args("encrypt", kmsRing, "plain", "out"),
					args("decrypt", kmsRing, "sealed", "out"),
					args("rewrap", customer, "--to-ring", "kms.ring", bed.flags("to-", bed.key), "sealed"),
				} {
					res := blobseal(cmd...)
					res.fails(t, anyFailure, state.says)
					require.Empty(t, res.out, cmd)
				}
				require.Equal(t, here, files(t))
				require.Equal(t, document, read(t, "kms.ring"))
				require.Equal(t, mine, read(t, "my.ring"))
				if state.leave != nil {
					state.leave()
					require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, "sealed", "-")...))
				}
			})
		}
	})
}

func workingDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	return dir
}

func rootOf(prefix, file string) []string { return []string{"--" + prefix + "root-key-file", file} }

// TestChangeRootBetweenServices moves a ring from one key service to the next.
// Each root opens it until it has gone on, and an old file always opens.
func TestChangeRootBetweenServices(t *testing.T) {
	for name, beds := range map[string][]string{
		"in this process": {"localkms", "awskms", "gcpkms", "azurekeyvault"},
		"with Transit":    {"localkms", "hashivault", "awskms"},
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			nobody(t)
			write(t, "plain", []byte("plain"))
			ok(t, args("encrypt", ring, "plain", "sealed")...)
			type root func(prefix string) []string
			first := func(prefix string) []string { return rootOf(prefix, "root.key") }
			var roots []root
			for _, name := range beds {
				bed := rootBeds[name](t)
				roots = append(roots,
					func(prefix string) []string { return bed.flags(prefix, bed.key) },
					func(prefix string) []string { return bed.flags(prefix, bed.other) })
			}
			at := root(first)
			for _, next := range append(roots, first) {
				before, after := args("--ring", "my.ring", at("")), args("--ring", "my.ring", next(""))
				require.Equal(t, "my.ring: the root was changed; older copies still open with the old one\n",
					ok(t, args("ring", "change-root", before, next("new-"))...))
				require.Equal(t, "plain", ok(t, args("decrypt", after, "sealed", "-")...))
				blobseal(args("decrypt", before, "sealed", "-")...).fails(t, 4, "root")
				ok(t, args("ring", "rotate", after)...)
				at = next
			}
			require.Len(t, ringKeys(t).Versions, 2+len(roots))
		})
	}
}

// TestKMSRootWaits: a key service that says nothing is not waited for for ever.
func TestKMSRootWaits(t *testing.T) {
	workspace(t)
	nobody(t)
	closing := make(chan struct{})
	stalls := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-closing:
		}
	}))
	t.Cleanup(func() { close(closing); stalls.Close() })
	t.Setenv("VAULT_ADDR", stalls.URL)
	t.Setenv("VAULT_TOKEN", "token")
	adjust(t, func(c *console.Console) { c.RootWait = 50 * time.Millisecond }) // less than Vault's client waits by itself
	here := files(t)
	blobseal("ring", "create", "--ring", "new.ring", "--root-kms-key", "hashivault://rings").
		fails(t, 6, "new.ring: its root cannot be used: hashivault://rings: the service is unavailable: no answer within 50ms")
	require.Equal(t, here, files(t))
}

// TestKMSRootPrincipal: a service in a directory knows who asks for a ring.
func TestKMSRootPrincipal(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	bed := newLocalBed(t)
	write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);
permit (principal == Principal::"service:photos", action in [Action::"GenerateDataKey", Action::"Decrypt"], resource);`))
	ok(t, args("kms", "policy", "put", service, "--principal", "user:admin", "alias/rings", "policy")...)
	kmsRing, as := args("--ring", "kms.ring", bed.flags("", bed.key)), []string{"--principal", "service:photos"}
	blobseal(args("ring", "create", kmsRing)...).fails(t, 3, `" may not GenerateDataKey with `)
	ok(t, args("ring", "create", kmsRing, as)...)
	ok(t, args("ring", "rotate", kmsRing, as)...)
	ok(t, args("encrypt", kmsRing, as, "plain", "sealed")...)
	require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, as, "sealed", "-")...))
	blobseal(args("decrypt", kmsRing, "sealed", "-")...).fails(t, 3, `" may not Decrypt with `)
	ok(t, args("rewrap", customer, as, "--to-ring", "kms.ring", bed.flags("to-", bed.key), sealed(t, customer))...)
	ok(t, args("ring", "change-root", "--ring", "my.ring", rootOf("", "root.key"), bed.flags("new-", bed.key), as)...)
	last := records(t)
	require.Equal(t, "service:photos", last[len(last)-1].Principal.ID)
	require.Equal(t, "keyring", last[len(last)-1].Resource)
	require.Equal(t, map[string]string{"blobseal:purpose": "keyring root"}, map[string]string(last[len(last)-1].Context))
}

// TestKMSRootOfBoth has a bucket whose ring is under a key of the service that its
// other objects are under.
func TestKMSRootOfBoth(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	bed := newLocalBed(t)
	kmsRing, bucket := args("--ring", "kms.ring", bed.flags("", bed.key)), []string{"--bucket", "file://./photos"}
	ok(t, args("ring", "create", kmsRing)...)
	require.NoError(t, os.Mkdir("photos", 0o700))
	ok(t, args("bucket", "put", bucket, kmsRing, "plain", "a")...)
	ok(t, args("bucket", "put", bucket, photos, "plain", "b")...)
	require.Contains(t, ok(t, args("bucket", "check", bucket, kmsRing, "--kms", "my.kms", "--any-kms-key")...), "2 objects")
}

// TestKMSRootOfService puts a key service under a key of AWS KMS.
func TestKMSRootOfService(t *testing.T) {
	workspace(t)
	nobody(t)
	bed := newAWSBed(t)
	write(t, "plain", []byte("plain"))
	other := args("--kms", "other.kms", bed.flags("", bed.key))
	ok(t, args("kms", "init", other)...)
	ok(t, args("encrypt", other, "plain", "sealed")...)
	require.Equal(t, "plain", ok(t, args("decrypt", other, "--any-kms-key", "sealed", "-")...))
	blobseal(args("kms", "list", "--kms", "other.kms", bed.flags("", bed.other))...).
		fails(t, 4, fmt.Sprintf("other.kms: root does not open the document: it is sealed under key %q", bed.id))
	here := files(t)
	for _, state := range bed.states {
		if state.name == "disabled" {
			state.enter()
			blobseal(args("kms", "list", other)...).fails(t, 3, "other.kms: its root cannot be used: awskms:///alias/rings: the key is disabled: ")
			blobseal(args("kms", "init", "--kms", "new.kms", bed.flags("", bed.key))...).fails(t, 3, "new.kms: its root cannot be used: ")
		}
	}
	require.Equal(t, here, files(t))
}

// TestKMSRootAlias moves an alias away from the key that a ring is under.
func TestKMSRootAlias(t *testing.T) {
	workspace(t)
	nobody(t)
	s := awskmstest.NewServer()
	t.Cleanup(s.Close)
	useAWS(t, s)
	before, after := s.CreateKey(), s.CreateKey()
	s.SetAlias("alias/rings", before)
	alias := []string{"--ring", "kms.ring", "--root-kms-key", "awskms:///alias/rings"}
	ok(t, args("ring", "create", alias)...)
	s.SetAlias("alias/rings", after)
	blobseal(args("ring", "list", alias)...).fails(t, 4, fmt.Sprintf("kms.ring: root does not open the document: it is sealed under key %q, the root is key \"alias/rings\": ", before))
	ok(t, "ring", "change-root", "--ring", "kms.ring", "--root-kms-key", "awskms:///"+before, "--new-root-kms-key", "awskms:///alias/rings")
	ok(t, args("ring", "list", alias)...)
}

// TestKMSRootGoesAway: a command that runs for long may meet a key that the ring has
// got meanwhile, and cannot read the ring any more.
func TestKMSRootGoesAway(t *testing.T) {
	workspace(t)
	nobody(t)
	bed := newAWSBed(t)
	write(t, "plain", []byte("plain"))
	kmsRing := args("--ring", "kms.ring", bed.flags("", bed.key))
	ok(t, args("ring", "create", kmsRing)...)
	k, err := keys.Source{Ring: "kms.ring", Root: keys.RootSource{KMSKey: bed.key}}.Open(t.Context(), console.New(nil, nil, nil))
	require.NoError(t, err)
	ok(t, args("ring", "rotate", kmsRing)...)
	ok(t, args("encrypt", kmsRing, "plain", "sealed")...)
	for _, state := range bed.states {
		if state.name == "disabled" {
			state.enter()
		}
	}
	c := console.New(nil, nil, nil)
	o, err := object.Open(t.Context(), c, "sealed")
	require.NoError(t, err)
	defer o.Close()
	_, err = o.Decrypt(t.Context(), k, sse.Object{})
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.ErrorIs(t, err, kms.ErrDisabled)
	require.Contains(t, err.Error(), "sealed: sealed under version "+keyID(t, "sealed")+", which another process may have added to ring kms.ring after this command opened it: "+
		"its root cannot be used: awskms:///alias/rings: the key is disabled: ")
}
