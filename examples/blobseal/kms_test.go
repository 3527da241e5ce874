package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	kmscmd "github.com/blobseal/blobseal/examples/blobseal/internal/cmd/kms"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
)

// by is service with another principal.
func by(principal string) []string { return args(service, "--principal", principal) }

// opens is anyKey with another principal.
func opens(principal string) []string { return args(anyKey, "--principal", principal) }

// keyOf is what kms describe says of a key.
func keyOf(t *testing.T, key string) (k kmscmd.KeyShape) {
	t.Helper()
	var shape struct {
		ID, ARN     string
		Description string
		Tags        map[string]string
		State       localkms.State
		HasPolicy   bool
		Rotation    localkms.Rotation
		Aliases     []string
	}
	require.NoError(t, json.Unmarshal([]byte(ok(t, args("kms", "describe", service, "--json", key)...)), &shape))
	return kmscmd.KeyShape{Info: &localkms.Info{
		ID: shape.ID, ARN: shape.ARN, Description: shape.Description, Tags: shape.Tags,
		State: shape.State, HasPolicy: shape.HasPolicy, Rotation: shape.Rotation,
	}, Aliases: shape.Aliases}
}

// records are the trail of my.kms, which is whole.
func records(t *testing.T) (all []audit.Record) {
	t.Helper()
	for e, err := range audit.Read("my.kms/audit.jsonl", nil) {
		require.NoError(t, err)
		if e.Record != nil {
			all = append(all, *e.Record)
		}
	}
	return all
}

func TestKMSInit(t *testing.T) {
	t.Chdir(t.TempDir())
	out := ok(t, "kms", "init", "--kms", "my.kms", "--generate-root-key", "root.key")
	require.Regexp(t, `^my.kms: created, without keys \(create one with: blobseal kms create-key --kms my.kms --root-key-file root.key\)
my.kms: signs its audit trail; keep this verifier key in another place \(see audit verify\): blobseal-kms\+[0-9a-f]{8}\+\S+
$`, out)
	for name, want := range map[string]os.FileMode{"my.kms": 0o700, "my.kms/keys": 0o600, "my.kms/audit.key": 0o600, "my.kms/audit.jsonl": 0o600} {
		require.Equal(t, want, stat(t, name).Mode().Perm(), name)
	}
	require.Equal(t, "KEY  ALIASES  STATE  CREATED  NEXT ROTATION\n", ok(t, args("kms", "list", service)...))
	before := read(t, "my.kms/keys")

	t.Run("never over a service", func(t *testing.T) {
		blobseal(args("kms", "init", service)...).fails(t, 1, "my.kms: already exists, and is never overwritten")
		blobseal("kms", "init", "--kms", "my.kms", "--generate-root-key", "new.key").fails(t, 1, "already exists")
		require.NoFileExists(t, "new.key")
		require.Equal(t, before, read(t, "my.kms/keys"))
	})
	t.Run("never over a key", func(t *testing.T) {
		blobseal("kms", "init", "--kms", "other.kms", "--generate-root-key", "root.key").fails(t, 3, "root.key: already exists")
		require.NoDirExists(t, "other.kms")
	})
	t.Run("a failure leaves nothing", func(t *testing.T) {
		write(t, "file", []byte("x"))
		here := files(t)
		blobseal("kms", "init", "--kms", "none/my.kms", "--generate-root-key", "new.key").fails(t, 5, "none/my.kms: no such file or directory")
		blobseal("kms", "init", "--kms", "file", "--generate-root-key", "new.key").fails(t, 1, "file: not a directory")
		require.Equal(t, here, files(t))
	})
	t.Run("in a directory that is there", func(t *testing.T) {
		require.NoError(t, os.Mkdir("there", 0o755))
		ok(t, "kms", "init", "--kms", "there", "--root-key-file", "root.key")
		ok(t, "kms", "create-key", "--kms", "there", "--root-key-file", "root.key")
	})
	t.Run("passphrase", func(t *testing.T) {
		t.Setenv("BLOBSEAL_PASSPHRASE", "correct horse")
		ok(t, "kms", "init", "--kms", "pass.kms")
		require.Regexp(t, `^[0-9a-f-]{36}\n$`, ok(t, "kms", "create-key", "--kms", "pass.kms"))
		t.Setenv("BLOBSEAL_PASSPHRASE", "battery staple")
		blobseal("kms", "list", "--kms", "pass.kms").fails(t, 4, "pass.kms: wrong root: ")
	})
}

// TestKMSKeys takes keys through all that can be done to them.
func TestKMSKeys(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	id := strings.TrimSpace(ok(t, args("kms", "create-key", service, "--alias", "alias/a", "--alias", "alias/b", "--description", "of cats",
		"--tag", "team=blue,red", "--rotation-days", "90")...))
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`, id)
	key := keyOf(t, id)
	require.Equal(t, []string{"alias/b"}, key.Aliases, "the last one")
	require.Equal(t, []any{"of cats", map[string]string{"team": "blue,red"}, localkms.Enabled, false, 90, 1},
		[]any{key.Description, key.Tags, key.State, key.HasPolicy, key.Rotation.Days, key.Rotation.Versions})
	arn := "arn:blobseal:kms:local:000000000000:key/" + id
	require.Equal(t, arn, key.ARN)
	for _, name := range []string{id, arn, "alias/b", "arn:blobseal:kms:local:000000000000:alias/b"} {
		require.Equal(t, id, keyOf(t, name).ID)
	}
	text := ok(t, args("kms", "describe", service, "alias/b")...)
	for _, line := range []string{
		`key +` + id, `arn +` + arn, `aliases +alias/b`, `state +enabled`, `created +20\d\d-\S+Z`, `description +of cats`, `tags +team=blue,red`,
		`policy +none: everyone may do everything`, `versions +1`, `rotation +every 90 days, next 20\d\d-\S+Z`,
	} {
		require.Regexp(t, `(?m)^`+line+`$`, text)
	}
	list := ok(t, args("kms", "list", service)...)
	require.Regexp(t, `^KEY +ALIASES +STATE +CREATED +NEXT ROTATION\n`, list)
	require.Regexp(t, `(?m)^`+id+`  alias/b +enabled  20\d\d-\S+Z  20\d\d-\S+Z$`, list)
	require.Regexp(t, `(?m)^[0-9a-f-]{36}  alias/photos  enabled  20\d\d-\S+Z  -$`, list)
	require.Equal(t, 3, strings.Count(list, "\n"))
	var all struct{ Keys []struct{ ID, State string } }
	require.NoError(t, json.Unmarshal([]byte(ok(t, args("kms", "list", "--json", service)...)), &all))
	require.Len(t, all.Keys, 2)
	require.Equal(t, "enabled", all.Keys[0].State)

	for _, step := range []struct {
		args string
		says string // on stdout; or, with the code 1, on stderr
		code int
		then string // state, tags and versions
	}{
		{"tag alias/b stage=live team=red", "alias/b is tagged", 0, "enabled map[stage:live team:red] 1"},
		{"untag alias/b stage none", "alias/b is untagged", 0, "enabled map[team:red] 1"},
		{"rotate alias/b", "alias/b is rotated, to version 2", 0, "enabled map[team:red] 2"},
		{"disable alias/b", "alias/b is disabled", 0, "disabled map[team:red] 2"},
		{"disable alias/b", "alias/b is disabled", 0, "disabled map[team:red] 2"},
		{"rotate alias/b", "may not RotateKeyOnDemand with alias/b: the key is disabled (enable it with: blobseal kms enable --kms my.kms --root-key-file root.key alias/b)", 1, "disabled map[team:red] 2"},
		{"enable " + id, id + " is enabled", 0, "enabled map[team:red] 2"},
		{"cancel-deletion alias/b", arn + " is not pending deletion", 1, "enabled map[team:red] 2"},
		{"schedule-deletion alias/b --days 7", "alias/b is refused from now on, and deleted on 20", 0, "pending deletion map[team:red] 2"},
		{"schedule-deletion alias/b", "the key is pending deletion (keep it with: blobseal kms cancel-deletion --kms my.kms --root-key-file root.key alias/b)", 1, "pending deletion map[team:red] 2"},
		{"enable alias/b", "may not EnableKey with alias/b: the key is pending deletion", 1, "pending deletion map[team:red] 2"},
		{"tag alias/b x=y", "may not TagResource with alias/b", 1, "pending deletion map[team:red] 2"},
		{"cancel-deletion alias/b", "alias/b is not deleted, but disabled", 0, "disabled map[team:red] 2"},
		{"rotation enable alias/b --days 100", "the key is disabled", 1, "disabled map[team:red] 2"},
		{"enable alias/b", "alias/b is enabled", 0, "enabled map[team:red] 2"},
		{"rotation enable alias/b --days 100", "alias/b is rotated every 100 days", 0, "enabled map[team:red] 2"},
		{"rotation disable alias/b", "alias/b is rotated on demand alone", 0, "enabled map[team:red] 2"},
		{"rotation list alias/b", "2        20", 0, "enabled map[team:red] 2"},
		{"describe alias/none", `my.kms: no such key: "alias/none" (list them with: blobseal kms list --kms my.kms`, 1, ""},
		{"describe none", `no such key: "none"`, 1, ""},
		{"schedule-deletion alias/blobseal/default", `no such key: "alias/blobseal/default"`, 1, ""},
	} {
		res := blobseal(args("kms", strings.Fields(step.args), service)...)
		if step.code != 0 {
			res.fails(t, anyFailure, step.says)
			require.Empty(t, res.out)
		} else {
			require.Equal(t, 0, res.code, "%s: %s", step.args, res.errout)
			require.Contains(t, res.out, step.says)
		}
		if step.then != "" {
			k := keyOf(t, id)
			require.Equal(t, step.then, fmt.Sprint(k.State, " ", k.Tags, " ", k.Rotation.Versions), step.args)
		}
	}
	ok(t, args("kms", "schedule-deletion", service, "alias/b")...)
	require.Regexp(t, `(?m)^`+id+`  alias/b +pending deletion, deleted 20\S+Z `, ok(t, args("kms", "list", service)...))

	t.Run("the default key", func(t *testing.T) {
		ok(t, args("encrypt", service, "plain", "sealed")...)
		require.Contains(t, ok(t, args("kms", "alias", "list", service)...), "alias/blobseal/default")
		blobseal(args("kms", "schedule-deletion", service, "alias/blobseal/default")...).fails(t, 3, "my.kms: reserved for the service: default key arn:blobseal:kms:")
		blobseal(args("kms", "alias", "delete", service, "alias/blobseal/default")...).fails(t, 3, "reserved for the service: aliases that begin with alias/blobseal/")
		ok(t, args("kms", "disable", service, "alias/blobseal/default")...)
		blobseal(args("decrypt", anyKey, "sealed", "-")...).fails(t, 3, "the key is disabled")
	})
	t.Run("a key without its alias", func(t *testing.T) {
		res := blobseal(args("kms", "create-key", service, "--alias", "alias/photos")...)
		res.fails(t, 3, "my.kms: already exists: alias/photos; the key was created without the alias")
		require.Equal(t, []string{}, keyOf(t, strings.TrimSpace(res.out)).Aliases)
		blobseal(args("kms", "create-key", service, "--alias", "photos")...).fails(t, 1, "")
	})
	t.Run("limits", func(t *testing.T) {
		blobseal(args("kms", "create-key", service, "--description", strings.Repeat("x", 9000))...).fails(t, 1, "my.kms: invalid request: description of 9000 bytes")
		blobseal(args("kms", "tag", service, "alias/photos", strings.Repeat("x", 200)+"=y")...).fails(t, 1, "my.kms: invalid request: tag ")
	})
}

// TestKMSRewrap moves files within a service.
func TestKMSRewrap(t *testing.T) {
	workspace(t)
	write(t, "plain", random(30_000))
	ok(t, args("encrypt", photos, "--object", "a/b", "plain", "sealed")...)
	key := keyID(t, "sealed")
	rewrap := args("rewrap", anyKey, "--object", "a/b")
	verify := args("verify", anyKey, "--object", "a/b", "sealed")
	already := "sealed: already under the newest version, " + key + "\n"

	before := read(t, "sealed")
	require.Equal(t, already, ok(t, args(rewrap, "sealed")...))
	require.Equal(t, already, ok(t, args(rewrap, "--kms-key", "alias/photos", "--to-kms-key", key, "sealed")...))
	require.Equal(t, before, read(t, "sealed"))

	ok(t, args("kms", "rotate", service, "alias/photos")...)
	ok(t, verify...)
	require.Equal(t, "sealed: rewrapped from key "+key+" version 1 to key "+key+" version 2\n", ok(t, args(rewrap, "sealed")...))
	require.Equal(t, already, ok(t, args(rewrap, "sealed")...))
	ok(t, verify...)

	require.Equal(t, "sealed: rewrapped from key "+key+" version 2 to key "+key+" version 2 (bucket key)\n", ok(t, args(rewrap, "--to-bucket-key", "sealed")...))
	require.Contains(t, ok(t, "inspect", "sealed"), "bucket key  yes")
	require.Contains(t, ok(t, "inspect", "--json", "sealed"), `"bucket_key":true`)
	ok(t, verify...)
	require.Equal(t, already, ok(t, args(rewrap, "sealed")...), "it stays as it is")
	require.Contains(t, ok(t, args(rewrap, "--to-kms-key", "alias/blobseal/default", "sealed")...), "version 1 (bucket key)")
	require.Contains(t, ok(t, args(rewrap, "--no-to-bucket-key", "sealed")...), "(bucket key) to key")
	require.NotContains(t, ok(t, "inspect", "sealed"), "bucket key")
	ok(t, verify...)
	blobseal(args("rewrap", photos, "--object", "a/b", "sealed")...).fails(t, 3, "not under alias/photos")
	blobseal(args(rewrap, "--to-kms-key", "alias/none", "sealed")...).fails(t, 5, `sealed: not changed: my.kms: no such key: "alias/none"`)

	t.Run("one data key for many", func(t *testing.T) {
		var names []string
		for i := range 5 {
			names = append(names, fmt.Sprintf("f%d", i))
			ok(t, args("encrypt", customer, "plain", names[i])...)
		}
		before := len(records(t))
		ok(t, args("rewrap", customer, "--to-kms", "my.kms", "--to-kms-key", "alias/photos", "--to-root-key-file", "root.key", "--to-bucket-key", names)...)
		var cached, calls int
		for _, r := range records(t)[before:] {
			if r.Operation == kms.OpGenerateDataKey && r.Cached {
				cached++
			} else if r.Operation == kms.OpGenerateDataKey {
				calls++
			}
		}
		require.Equal(t, []int{1, 4}, []int{calls, cached})
		ok(t, args("verify", photos, names)...)
	})
	t.Run("by who may write there and not read", func(t *testing.T) {
		write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);
permit (principal == Principal::"user:hand", action == Action::"GenerateDataKey", resource);`))
		archive := strings.TrimSpace(ok(t, args("kms", "create-key", by("user:admin"), "--policy", "policy")...))
		ok(t, args("encrypt", photos, "plain", "mine")...)
		before := len(records(t))
		ok(t, args("rewrap", opens("user:hand"), "--to-kms-key", archive, "mine")...)
		for _, r := range records(t)[before:] {
			require.Equal(t, "success", r.Outcome, "nothing was tried that is denied")
		}
		blobseal(args("decrypt", opens("user:hand"), "mine", "-")...).fails(t, 3, `"user:hand" may not Decrypt`)
		require.Equal(t, string(read(t, "plain")), ok(t, args("decrypt", opens("user:admin"), "mine", "-")...))
	})
}

func TestKMSInspect(t *testing.T) {
	workspace(t)
	write(t, "plain", random(20_000))
	ok(t, args("encrypt", photos, "--bucket-key", "--object", "a/b", "--context", "k=v", "plain", "sealed")...)
	key := keyOf(t, "alias/photos").ARN
	require.Equal(t, `sealed
  mode        SSE-KMS, a key service
  key         `+key+`
  bucket key  yes: the key service bound the bucket, not the whole name
  context     k=v
  envelope    1024 bytes
  body        20032 bytes
  plaintext   20000 bytes, computed; not authenticated
`, ok(t, "inspect", "sealed"))
	require.Contains(t, ok(t, "inspect", "--json", "sealed"), `"mode":"SSE-KMS","key_id":"`+key+`","bucket_key":true,"context":{"k":"v"}`)
	require.Equal(t, string(read(t, "plain")), ok(t, args("decrypt", photos, "--object", "a/b", "sealed", "-")...))
	blobseal(args("decrypt", photos, "--object", "a/c", "sealed", "-")...).fails(t, 4, "wrong key, object or context")
	blobseal(args("decrypt", photos, "--object", "b/b", "sealed", "-")...).fails(t, 4, "wrong key, object or context")
}

// TestKMSBadService has services that cannot be used.
func TestKMSBadService(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	write(t, "file", []byte("x"))
	ok(t, args("encrypt", photos, "plain", "sealed")...)
	require.NoError(t, os.Mkdir("empty", 0o755))
	require.NoError(t, os.MkdirAll("odd/keys", 0o755))
	good := read(t, "my.kms/keys")
	for name, data := range map[string][]byte{"bitrot": append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), "cut": good[:100], "text": []byte("nonsense")} {
		require.NoError(t, os.Mkdir(name, 0o755))
		write(t, name+"/keys", data)
	}
	before := files(t)
	for dir, says := range map[string]string{
		"none":   "none: no such key service (create one with: blobseal kms init --kms none --root-key-file root.key)",
		"empty":  "empty: no such key service",
		"file":   "file: not a directory",
		"odd":    "odd: odd/keys is a directory",
		"bitrot": "bitrot: bitrot/keys: document is damaged: ",
		"cut":    "cut: cut/keys: document is damaged: ",
		"text":   "text: text/keys: document is damaged: ",
	} {
		t.Run(dir, func(t *testing.T) {
			flags := []string{"--kms", dir, "--root-key-file", "root.key"}
			for _, cmd := range [][]string{args("encrypt", flags, "plain", "out"), args("decrypt", flags, "sealed", "out"), args("kms", "list", flags), args("kms", "create-key", flags)} {
				res := blobseal(cmd...)
				res.fails(t, anyFailure, says)
				require.Empty(t, res.out)
				require.Equal(t, before, files(t))
			}
		})
	}
	t.Run("root", func(t *testing.T) {
		flags := []string{"--kms", "my.kms", "--root-key-file"}
		blobseal(args("encrypt", flags, "other.key", "plain", "out")...).fails(t, 4, "my.kms: wrong root: the key service was made with another key or passphrase")
		blobseal(args("kms", "list", flags, "plain")...).fails(t, 1, "plain: not a key")
		blobseal(args("kms", "list", flags, "none.key")...).fails(t, 5, "none.key: no such file")
		require.Equal(t, before, files(t))
	})
}

func TestPrincipal(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", photos, "plain", "a")...)
	ok(t, args("encrypt", photos, "--principal", "user:bob", "plain", "b")...)
	all := records(t)
	require.Regexp(t, `^user:.+$`, all[len(all)-2].Principal.ID, "the user of this process")
	require.NotEqual(t, "user:bob", all[len(all)-2].Principal.ID)
	require.Equal(t, "user:bob", all[len(all)-1].Principal.ID)
}

func TestKMSChangeRoot(t *testing.T) {
	workspace(t)
	ok(t, "kms", "init", "--kms", "moved.kms", "--generate-root-key", "old.key")
	ok(t, "keygen", "new.key")
	old, next := args("--kms", "moved.kms", "--root-key-file", "old.key"), args("--kms", "moved.kms", "--root-key-file", "new.key")
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", old, "plain", "sealed")...)
	blobseal(args("kms", "change-root", old)...).fails(t, 2, "the key service needs a new root: give --new-root-key-file")
	for range 2 { // it may be repeated
		require.Contains(t, ok(t, args("kms", "change-root", old, "--new-root-key-file", "new.key")...), "moved.kms: the root was changed")
		old = next
	}
	require.Equal(t, "plain", ok(t, args("decrypt", next, "--any-kms-key", "sealed", "-")...))
	blobseal(args("decrypt", "--kms", "moved.kms", "--root-key-file", "old.key", "sealed", "-")...).fails(t, 4, "wrong root: the key service was made with another key or passphrase")
}
