package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestKMSRefusals: what a key service refuses is one line that names the
// principal, the operation and the key, and leaves nothing behind but a record.
func TestKMSRefusals(t *testing.T) {
	workspace(t)
	write(t, "plain", random(30_000))
	write(t, "exists", []byte("precious"))
	write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);
permit (principal == Principal::"user:writer", action == Action::"GenerateDataKey", resource);
permit (principal == Principal::"user:reader", action == Action::"Decrypt", resource);
`))
	arn := keyOf(t, "alias/photos").ARN
	ok(t, args("kms", "policy", "put", by("user:admin"), "alias/photos", "policy")...)
	ok(t, args("encrypt", photos, "--principal", "user:writer", "plain", "sealed")...)
	ok(t, args("encrypt", customer, "plain", "customer")...)
	require.Equal(t, string(read(t, "plain")), ok(t, args("decrypt", photos, "--principal", "user:reader", "sealed", "-")...))
	sealed, mine, before := read(t, "sealed"), read(t, "customer"), files(t)

	mayNot := func(principal, op, why string) string {
		return fmt.Sprintf(`%q may not %s with (%s|alias/photos): %s`, principal, op, regexp.QuoteMeta(arn), regexp.QuoteMeta(why))
	}
	refused := func(t *testing.T, principal, op, why string, rest ...any) {
		t.Helper()
		count := len(records(t))
		res := blobseal(args(rest...)...)
		res.fails(t, 3, "")
		require.Regexp(t, mayNot(principal, op, why), res.errout)
		require.Empty(t, res.out)
		require.Equal(t, before, files(t))
		require.Equal(t, "precious", string(read(t, "exists")))
		require.Equal(t, sealed, read(t, "sealed"))
		require.Equal(t, mine, read(t, "customer"))
		all := records(t)
		last := all[len(all)-1]
		require.Greater(t, len(all), count)
		require.Equal(t, []any{principal, kms.Operation(op), "failure", arn}, []any{last.Principal.ID, last.Operation, last.Outcome, last.KeyID})
	}
	everywhere := func(t *testing.T, who func(string) []string, generate, decrypt, why string) {
		if generate != "" {
			refused(t, generate, "GenerateDataKey", why, "encrypt", who(generate), "--kms-key", "alias/photos", "plain", "out")
			refused(t, generate, "GenerateDataKey", why, "encrypt", who(generate), "--kms-key", "alias/photos", "plain", "-")
			refused(t, generate, "GenerateDataKey", why, "encrypt", who(generate), "--kms-key", "alias/photos", "--force", "plain", "exists")
			refused(t, generate, "GenerateDataKey", why, "rewrap", customer, "--principal", generate, "--to-kms", "my.kms", "--to-kms-key", arn, "--to-root-key-file", "root.key", "customer")
		}
		refused(t, decrypt, "Decrypt", why, "decrypt", opens(decrypt), "sealed", "out")
		refused(t, decrypt, "Decrypt", why, "decrypt", opens(decrypt), "sealed", "-")
		refused(t, decrypt, "Decrypt", why, "decrypt", opens(decrypt), "--force", "--kms-key", "alias/photos", "sealed", "exists")
		refused(t, decrypt, "Decrypt", why, "rewrap", opens(decrypt), "sealed")
		res := blobseal(args("verify", opens(decrypt), "sealed")...)
		res.fails(t, 3, "1 of 1 files failed verification")
		require.Regexp(t, "^sealed: FAILED: .*"+mayNot(decrypt, "Decrypt", why), res.out)
	}
	t.Run("denied", func(t *testing.T) {
		everywhere(t, by, "user:reader", "user:writer", "nothing permits it")
		everywhere(t, by, "user:else", "user:else", "nothing permits it")
		for _, cmd := range []struct{ args, op string }{
			{"enable alias/photos", "EnableKey"}, {"disable alias/photos", "DisableKey"}, {"describe alias/photos", "DescribeKey"},
			{"schedule-deletion alias/photos", "ScheduleKeyDeletion"}, {"cancel-deletion alias/photos", "CancelKeyDeletion"},
			{"rotate alias/photos", "RotateKeyOnDemand"}, {"rotation enable alias/photos", "EnableKeyRotation"},
			{"rotation disable alias/photos", "DisableKeyRotation"}, {"rotation list alias/photos", "ListKeyRotations"},
			{"alias create alias/x alias/photos", "CreateAlias"}, {"alias delete alias/photos", "DeleteAlias"},
			{"policy get alias/photos", "GetKeyPolicy"}, {"policy put alias/photos policy", "PutKeyPolicy"}, {"policy delete alias/photos", "DeleteKeyPolicy"},
			{"grant create alias/photos --to user:writer --operation Decrypt", "CreateGrant"}, {"grant list alias/photos", "ListGrants"},
			{"grant revoke alias/photos 00", "RevokeGrant"}, {"tag alias/photos a=b", "TagResource"}, {"untag alias/photos a", "UntagResource"},
		} {
			refused(t, "user:writer", cmd.op, "nothing permits it", "kms", strings.Fields(cmd.args), by("user:writer"))
		}
	})
	t.Run("disabled", func(t *testing.T) {
		ok(t, args("kms", "disable", by("user:admin"), "alias/photos")...)
		everywhere(t, by, "user:writer", "user:reader", "the key is disabled (enable it with: blobseal kms enable --kms my.kms --root-key-file root.key ")
	})
	t.Run("pending deletion", func(t *testing.T) {
		ok(t, args("kms", "schedule-deletion", by("user:admin"), "alias/photos")...)
		everywhere(t, by, "user:writer", "user:reader", "the key is pending deletion (keep it with: blobseal kms cancel-deletion --kms my.kms ")
	})
	t.Run("and back", func(t *testing.T) {
		ok(t, args("kms", "cancel-deletion", by("user:admin"), "alias/photos")...)
		ok(t, args("kms", "enable", by("user:admin"), "alias/photos")...)
		ok(t, args("verify", opens("user:reader"), "sealed")...)
	})
}

func TestKMSPolicy(t *testing.T) {
	workspace(t)
	const all = "permit (principal, action, resource);"
	write(t, "all", []byte(all))
	write(t, "bad", []byte("permit (principal, action, resource);\n\npermit (principal == User::\"a\", action, resource);\n"))
	write(t, "nonsense", []byte("permit (principal\n  oops"))
	write(t, "lockout", []byte(`permit (principal == Principal::"user:else", action, resource);`))
	write(t, "large", bytes.Repeat([]byte(" "), 40_000))
	write(t, "binary", []byte("\xff\xfe"))
	put := func(rest ...any) []string {
		return args("kms", "policy", "put", by("user:me"), "alias/photos", args(rest...))
	}
	get := args("kms", "policy", "get", service, "alias/photos")

	blobseal(get...).fails(t, 5, "my.kms: alias/photos has no policy: everyone may do everything with it")
	for file, says := range map[string]string{
		"bad":      "bad: policy does not parse: 3:1: no such principal: User::\"a\"",
		"nonsense": `nonsense: policy does not parse: 2:7 "": exact got oops want ,`,
		"lockout":  `lockout: "user:me" could not replace this policy (permit PutKeyPolicy, or give --force)`,
		"large":    "large: more than 32768 bytes, too long for a policy",
		"binary":   "binary: policy does not parse: 1:1: not UTF-8",
		"none":     "none: no such file or directory",
		".":        ".: is a directory",
	} {
		blobseal(put(file)...).fails(t, anyFailure, says)
		res := blobseal(args("kms", "create-key", by("user:me"), "--policy", file)...)
		res.fails(t, anyFailure, says)
		require.Empty(t, res.out)
	}
	piped("nonsense", put("-")...).fails(t, 3, "standard input: policy does not parse: 1:9")
	require.False(t, keyOf(t, "alias/photos").HasPolicy)

	require.Equal(t, "my.kms: alias/photos has the policy\n", ok(t, put("all")...))
	require.Equal(t, all+"\n", ok(t, get...))
	require.Regexp(t, `(?m)^policy +its own; see: blobseal kms policy get$`, ok(t, args("kms", "describe", service, "alias/photos")...))
	res := piped(all+"// again\n", put("-")...)
	require.Equal(t, 0, res.code, res.errout)
	require.Equal(t, all+"// again\n", ok(t, get...), "put under itself")
	require.Contains(t, ok(t, args("kms", "policy", "delete", service, "alias/photos")...), "alias/photos has no policy: everyone")
	blobseal(get...).fails(t, 5, "has no policy")

	t.Run("force", func(t *testing.T) {
		ok(t, put("--force", "lockout")...)
		blobseal(put("all")...).fails(t, 3, `"user:me" may not PutKeyPolicy with arn:`)
		ok(t, args("kms", "policy", "delete", by("user:else"), "alias/photos")...)
		id := strings.TrimSpace(ok(t, args("kms", "create-key", by("user:me"), "--policy", "lockout", "--force")...))
		blobseal(args("kms", "describe", by("user:me"), id)...).fails(t, 3, `"user:me" may not DescribeKey with arn:`)
	})
	t.Run("conditions on the context", func(t *testing.T) {
		write(t, "plain", []byte("plain"))
		write(t, "blue", []byte(`permit (principal == Principal::"user:me", action, resource);
permit (principal, action in Action::"Use", resource)
when { context.encryptionContext has team && context.encryptionContext.team == "blue" && context.encryptionContext["blobseal:object"] == "a/b" };`))
		ok(t, put("blue")...)
		you := args(by("user:you"), "--kms-key", "alias/photos")
		ok(t, args("encrypt", you, "--object", "a/b", "--context", "team=blue", "plain", "sealed")...)
		require.Equal(t, "plain", ok(t, args("decrypt", you, "--object", "a/b", "sealed", "-")...))
		blobseal(args("encrypt", you, "--object", "a/b", "--context", "team=red", "plain", "out")...).fails(t, 3, "nothing permits it")
		blobseal(args("encrypt", you, "--object", "a/c", "--context", "team=blue", "plain", "out")...).fails(t, 3, "nothing permits it")
		blobseal(args("encrypt", you, "--context", "blobseal:object=a/b", "plain", "out")...).fails(t, 1, "is reserved")
		require.NoFileExists(t, "out")
	})
}

func TestKMSGrants(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	write(t, "policy", []byte(`permit (principal == Principal::"user:me", action, resource);`))
	ok(t, args("kms", "policy", "put", by("user:me"), "alias/photos", "policy")...)
	ok(t, args("encrypt", photos, "--principal", "user:me", "--context", "team=blue", "--object", "a/b", "plain", "sealed")...)
	decrypt := func(who string) result {
		return blobseal(args("decrypt", opens(who), "--object", "a/b", "sealed", "-")...)
	}
	grant := func(rest ...string) []string {
		return args("kms", "grant", "create", by("user:me"), "alias/photos", rest)
	}
	decrypt("user:bob").fails(t, 3, "nothing permits it")

	id := strings.TrimSpace(ok(t, grant("--to", "user:bob", "--operation", "Decrypt,RetireGrant", "--context-subset", "Team=blue", "--retire-by", "user:ann", "--name", "n1")...))
	require.Equal(t, id+"\n", ok(t, grant("--to", "user:bob", "--operation", "Decrypt", "--operation", "RetireGrant", "--context-subset", "Team=blue", "--retire-by", "user:ann", "--name", "n1")...), "a repetition")
	blobseal(grant("--to", "user:bob", "--operation", "Encrypt", "--name", "n1")...).fails(t, 3, `my.kms: already exists: grant "n1" gives something else`)
	require.Equal(t, result{0, "plain", ""}, decrypt("user:bob"))
	decrypt("user:ann").fails(t, 3, "nothing permits it")

	other := strings.TrimSpace(ok(t, grant("--to", "user:cid", "--operation", "Decrypt", "--context-equals", "team=blue")...))
	decrypt("user:cid").fails(t, 3, "nothing permits it") // there is blobseal:object, too
	list := ok(t, args("kms", "grant", "list", by("user:me"), "alias/photos")...)
	require.Regexp(t, `^GRANT +NAME +TO +OPERATIONS +CONTEXT +RETIRED BY +CREATED\n`+
		id+`  n1    user:bob  Decrypt RetireGrant  has Team=blue     user:ann    20\S+Z\n`+
		other+`  -     user:cid  Decrypt              equals team=blue  -           20\S+Z\n$`, list)
	var all struct{ Grants []localkms.Grant }
	require.NoError(t, json.Unmarshal([]byte(ok(t, args("kms", "grant", "list", by("user:me"), "--json", "alias/photos")...)), &all))
	require.Equal(t, []string{id, other}, []string{all.Grants[0].ID, all.Grants[1].ID})

	require.Equal(t, "my.kms: grant "+other+" of alias/photos is revoked\n", ok(t, args("kms", "grant", "revoke", by("user:me"), "alias/photos", other)...))
	blobseal(args("kms", "grant", "revoke", by("user:me"), "alias/photos", other)...).fails(t, 5, "my.kms: no such grant of alias/photos (list them with: blobseal kms grant list --kms my.kms --root-key-file root.key alias/photos)")
	blobseal(args("kms", "grant", "retire", by("user:cid"), "alias/photos", id)...).fails(t, 3, `access denied: "user:cid" may not retire that grant`)
	require.Equal(t, "my.kms: grant "+id+" of alias/photos is retired\n", ok(t, args("kms", "grant", "retire", by("user:ann"), "alias/photos", id)...))
	decrypt("user:bob").fails(t, 3, "nothing permits it")
	require.Contains(t, ok(t, args("kms", "grant", "list", by("user:me"), "--json", "alias/photos")...), `"grants": []`)
}
