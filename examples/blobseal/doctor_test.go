package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/keyring"
)

// diagnosis is a finding of the doctor, as it writes it.
type diagnosis struct{ Level, Part, Subject, Text, Fix string }

// examine runs the doctor, and returns what it found and its exit code.
func examine(t *testing.T, flags ...string) (found []diagnosis, code int) {
	t.Helper()
	res := blobseal(args("doctor", "--json", flags)...)
	lines := strings.Split(strings.TrimSpace(res.out), "\n")
	require.Contains(t, lines[len(lines)-1], `{"summary":`, res.errout)
	for _, line := range lines[:len(lines)-1] {
		var d diagnosis
		require.NoError(t, json.Unmarshal([]byte(line), &d), line)
		found = append(found, d)
	}
	return found, res.code
}

// ageRing makes my.ring a ring that was created some time ago.
func ageRing(t *testing.T, age time.Duration) {
	root, err := keys.RootSource{KeyFile: "root.key"}.Open(t.Context(), console.New(nil, nil, nil))
	require.NoError(t, err)
	made, err := keyring.Create(t.Context(), keyring.NewMemStore(), root, &keyring.Options{Now: func() time.Time { return time.Now().Add(-age) }})
	require.NoError(t, err)
	write(t, "my.ring", made.Document())
}

// damage flips a bit in a file.
func damage(t *testing.T, name string, offset int) {
	data := read(t, name)
	if offset < 0 {
		offset += len(data)
	}
	data[offset] ^= 1
	require.NoError(t, os.Chmod(name, 0o600))
	write(t, name, data)
}

// TestDoctorFindsNothing examines a set-up without faults.
func TestDoctorFindsNothing(t *testing.T) {
	album(t, ring, "a", "b")
	write(t, "copy.ring", read(t, "my.ring"))
	found, code := examine(t, args(ring, "--backup", "copy.ring", bucketURL)...)
	require.Zero(t, code)
	for _, d := range found {
		require.Equal(t, "ok", d.Level, d)
		require.Empty(t, d.Fix)
	}
	require.Len(t, found, 4)
	found, code = examine(t, photos...)
	require.Zero(t, code)
	require.Len(t, found, 3, "%v", found)
	text := ok(t, args("doctor", ring, bucketURL)...)
	require.Contains(t, text, "3 findings, 0 problems, 0 warnings\n")
}

// TestDoctor breaks a set-up in the ways of the operations guide's table of failures. The
// doctor names the fault, and the fix; a fix that is a command is run, and must help.
func TestDoctor(t *testing.T) {
	local := []string{"--ring", "kms.ring", "--root-kms-key", "localkms://my.kms?key=alias/photos", "--root-key-file", "root.key"}
	aws := []string{"--ring", "aws.ring", "--root-kms-key", "awskms:///alias/rings"}
	for name, test := range map[string]struct {
		harm  func(t *testing.T)
		flags []string
		code  int
		want  diagnosis // the texts are parts
		cures bool      // the fix is a command that helps
	}{
		"no ring": {func(t *testing.T) { os.Remove("my.ring") }, ring, 5,
			diagnosis{"problem", "ring", "my.ring", "no such ring", "blobseal ring create --ring my.ring --root-key-file root.key"}, true},
		"ring damaged": {func(t *testing.T) { damage(t, "my.ring", 2) }, ring, 4,
			diagnosis{"problem", "ring", "my.ring", "damaged", "restore the file from its latest copy"}, false},
		"ring edited": {func(t *testing.T) { damage(t, "my.ring", -2) }, ring, 4,
			diagnosis{"problem", "ring", "my.ring", "", "restore the "}, false},
		"wrong root": {func(t *testing.T) { write(t, "root.key", read(t, "other.key")) }, ring, 4,
			diagnosis{"problem", "ring", "my.ring", "wrong root", "give the root that it was made with, or restore the copy"}, false},
		"no root": {func(t *testing.T) { os.Remove("root.key") }, ring, 5,
			diagnosis{"problem", "root", "root.key", "no such file", "give the file that holds the key"}, false},
		"root is no key": {func(t *testing.T) { write(t, "root.key", []byte("x")) }, ring, 1,
			diagnosis{"problem", "root", "root.key", "not a key", "give the file that keygen made"}, false},
		"root is public": {func(t *testing.T) { require.NoError(t, os.Chmod("root.key", 0o644)) }, ring, 0,
			diagnosis{"warning", "root", "root.key", "others can read it", "chmod 600 root.key"}, true},
		"ring is writable": {func(t *testing.T) { require.NoError(t, os.Chmod("my.ring", 0o666)) }, ring, 0,
			diagnosis{"warning", "ring", "my.ring", "others can write it", "chmod 600 my.ring"}, true},
		"rotation is late": {func(t *testing.T) { ageRing(t, 100*24*time.Hour) }, ring, 0,
			diagnosis{"warning", "ring", "my.ring", "rotation is late: the newest version is 100 days old", "blobseal ring rotate --ring my.ring --root-key-file root.key"}, true},
		"primary is too old": {func(t *testing.T) { ageRing(t, 400*24*time.Hour) }, ring, 3,
			diagnosis{"problem", "ring", "my.ring", "400 days old, and services refuse to seal", "blobseal ring rotate --ring my.ring --root-key-file root.key"}, true},
		"clock was ahead": {func(t *testing.T) { ageRing(t, -400*24*time.Hour) }, ring, 3,
			diagnosis{"problem", "ring", "my.ring", "from the future", "set the clocks of all machines"}, false},
		"killed process": {func(t *testing.T) { write(t, ".my.ring.1.tmp", nil) }, ring, 0,
			diagnosis{"warning", "ring", "my.ring", "left 1 temporary file", "rm .my.ring.1.tmp"}, true},
		"version disabled": {func(t *testing.T) {
			old := ringKeys(t).Versions[0].ID
			ok(t, args("ring", "rotate", ring)...)
			ok(t, args("ring", "disable", ring, old)...)
		}, args(ring, bucketURL), 3,
			diagnosis{"problem", "bucket", "file://./photos", "2 objects: sealed under version ", "blobseal ring enable --ring my.ring --root-key-file root.key "}, true},
		"version destroyed": {func(t *testing.T) {
			old := ringKeys(t).Versions[0].ID
			ok(t, args("ring", "rotate", ring)...)
			ok(t, args("ring", "destroy", ring, "--yes", old)...)
		}, args(ring, bucketURL), 3,
			diagnosis{"problem", "bucket", "file://./photos", "which was destroyed", "a copy of the ring from before the version was destroyed"}, false},
		"old ring restored": {func(t *testing.T) {
			old := read(t, "my.ring")
			ok(t, args("ring", "rotate", ring)...)
			ok(t, args("bucket", "rewrap", bucketURL, ring)...)
			require.NoError(t, os.Rename("my.ring", "COPY"))
			write(t, "my.ring", old)
		}, args(ring, bucketURL), 5,
			diagnosis{"problem", "bucket", "file://./photos", "which ring my.ring does not have", "an old copy of the ring was restored: merge the latest copy with blobseal ring merge"}, true},
		"another ring": {func(t *testing.T) {
			ok(t, "ring", "create", "--ring", "other.ring", "--root-key-file", "root.key")
			require.NoError(t, os.Rename("other.ring", "my.ring"))
		}, args(ring, bucketURL), 5,
			diagnosis{"problem", "bucket", "file://./photos", "of another ring", "give the ring that sealed them"}, false},
		"backup is old": {func(t *testing.T) {
			write(t, "copy.ring", read(t, "my.ring"))
			ok(t, args("ring", "rotate", ring)...)
		}, args(ring, "--backup", "copy.ring"), 3,
			diagnosis{"problem", "backup", "copy.ring", "older than the ring", "cp my.ring copy.ring"}, true},
		"no backup": {func(*testing.T) {}, args(ring, "--backup", "copy.ring"), 5,
			diagnosis{"problem", "backup", "copy.ring", "there is no copy", "cp my.ring copy.ring"}, true},
		"backup is newer": {func(t *testing.T) {
			old := read(t, "my.ring")
			ok(t, args("ring", "rotate", ring)...)
			require.NoError(t, os.Rename("my.ring", "copy.ring"))
			write(t, "my.ring", old)
		}, args(ring, "--backup", "copy.ring"), 3,
			diagnosis{"problem", "backup", "copy.ring", "an old ring was restored", "blobseal ring merge --ring my.ring --root-key-file root.key copy.ring"}, false},
		"root's key disabled": {func(t *testing.T) { ok(t, args("kms", "disable", service, "alias/photos")...) }, local, 3,
			diagnosis{"problem", "ring", "kms.ring", "the key is disabled", "blobseal kms enable --kms my.kms --root-key-file root.key "}, true},
		"root's key dies": {func(t *testing.T) { ok(t, args("kms", "schedule-deletion", service, "alias/photos")...) }, local, 3,
			diagnosis{"problem", "ring", "kms.ring", "the key is pending deletion", "blobseal kms cancel-deletion --kms my.kms --root-key-file root.key "}, false},
		"root's service is down": {func(t *testing.T) {
			newAWSBed(t)
			ok(t, args("ring", "create", aws)...)
			t.Setenv("AWS_ENDPOINT_URL_KMS", "http://"+nobodyListens(t))
		}, aws, 6,
			diagnosis{"problem", "ring", "aws.ring", "unavailable", "start the key service or repair the network"}, false},
		"no service": {func(t *testing.T) { require.NoError(t, os.RemoveAll("my.kms")) }, photos, 5,
			diagnosis{"problem", "service", "my.kms", "no such key service", "blobseal kms init --kms my.kms --root-key-file root.key"}, false},
		"service damaged": {func(t *testing.T) { damage(t, "my.kms/keys", 2) }, photos, 4,
			diagnosis{"problem", "service", "my.kms", "", "restore the file from its latest copy"}, false},
		"key disabled": {func(t *testing.T) { ok(t, args("kms", "disable", service, "alias/photos")...) }, photos, 3,
			diagnosis{"problem", "service", "my.kms alias/photos", "the key is disabled", "blobseal kms enable --kms my.kms --root-key-file root.key "}, true},
		"key dies": {func(t *testing.T) { ok(t, args("kms", "schedule-deletion", service, "alias/photos")...) }, photos, 3,
			diagnosis{"problem", "service", "my.kms alias/photos", "deleted on ", "blobseal kms cancel-deletion --kms my.kms --root-key-file root.key "}, false},
		"no such key": {func(*testing.T) {}, args(service, "--kms-key", "alias/none"), 5,
			diagnosis{"problem", "service", "my.kms", "no such key", "correct --kms-key"}, false},
		"denied": {func(t *testing.T) {
			write(t, "p", []byte(`permit (principal == Principal::"user:admin", action, resource); permit (principal, action == Action::"DescribeKey", resource);`))
			ok(t, args("kms", "policy", "put", service, "--principal", "user:admin", "alias/photos", "p")...)
		}, args(photos, "--principal", "user:bob"), 0,
			diagnosis{"warning", "service", "my.kms alias/photos", `"user:bob" may not GenerateDataKey`, "permit it with blobseal kms grant create"}, false},
		"trail edited": {func(t *testing.T) { damage(t, "my.kms/audit.jsonl", 300) }, photos, 4,
			diagnosis{"problem", "trail", "my.kms/audit.jsonl", "is edited", "find out who changed it; then move my.kms/audit.jsonl* to another directory"}, false},
		"trail missing": {func(t *testing.T) { require.NoError(t, os.Remove("my.kms/audit.jsonl")) }, photos, 5,
			diagnosis{"problem", "trail", "my.kms/audit.jsonl", "the trail is missing", "restore it from a copy"}, false},
		"trail's key missing": {func(t *testing.T) { require.NoError(t, os.Remove("my.kms/audit.key")) }, photos, 5,
			diagnosis{"problem", "trail", "my.kms/audit.key", "the key that signs the trail is missing", "restore it from a copy of the directory"}, false},
		"trail was cut": {func(*testing.T) {}, args(photos, "--reaches", "99:"+strings.Repeat("0", 64)), 4,
			diagnosis{"problem", "trail", "my.kms/audit.jsonl", "the trail once reached entry 99", "find out who changed it, and restore the trail from a copy"}, false},
		"not encrypted": {func(t *testing.T) { write(t, "photos/plain", []byte("x")) }, args(ring, bucketURL), 3,
			diagnosis{"problem", "bucket", "file://./photos", "1 object: not encrypted (first: plain)", "blobseal bucket encrypt-existing --bucket file://./photos --ring my.ring --root-key-file root.key"}, true},
		"truncated": {func(t *testing.T) { require.NoError(t, os.Truncate("photos/a", 700)) }, args(ring, bucketURL, "--depth", "lengths"), 4,
			diagnosis{"problem", "bucket", "file://./photos", "", "restore the objects from the store's versions"}, false},
		"damaged": {func(t *testing.T) { damage(t, "photos/a", -1) }, args(ring, bucketURL, "--depth", "bodies"), 4,
			diagnosis{"problem", "bucket", "file://./photos", "1 object: damaged (first: a)", "restore the objects from the store's versions"}, false},
		"renamed bucket": {func(*testing.T) {}, args(ring, bucketURL, "--name", "pictures"), 4,
			diagnosis{"problem", "bucket", "file://./photos", "wrong key", "give the --name of the bucket"}, false},
		"key not given": {func(*testing.T) {}, args(customer, bucketURL), 3,
			diagnosis{"problem", "bucket", "file://./photos", "sealed under a ring", "give that key with the other flags"}, false},
		"no bucket": {func(t *testing.T) { require.NoError(t, os.RemoveAll("photos")) }, args(ring, bucketURL), 5,
			diagnosis{"problem", "bucket", "file://./photos", "no such directory", "correct --bucket, or create the bucket"}, false},
		"bucket with a link": {func(t *testing.T) { require.NoError(t, os.Symlink("..", "photos/up")) }, args(ring, bucketURL), 1,
			diagnosis{"problem", "bucket", "file://./photos", "is a link to a directory", "replace the link by what it leads to"}, false},
		"store is down": {func(t *testing.T) { t.Setenv("AWS_ACCESS_KEY_ID", "x"); t.Setenv("AWS_SECRET_ACCESS_KEY", "x") },
			args(ring, "--bucket", "s3://photos?endpoint=http://127.0.0.1:1&region=eu-west-1"), 6,
			diagnosis{"problem", "bucket", "s3://photos", "does not answer", "start the store or repair the network"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			album(t, ring, "a", "b")
			if strings.HasPrefix(name, "root's key ") {
				ok(t, args("ring", "create", local)...)
			}
			test.harm(t)
			before := stateOf(t)
			found, code := examine(t, test.flags...)
			require.Equal(t, test.code, code, found)
			fix := ""
			for _, d := range found {
				if d.Level == test.want.Level && d.Part == test.want.Part && strings.Contains(d.Text, test.want.Text) && strings.Contains(d.Fix, test.want.Fix) {
					require.Contains(t, d.Subject, test.want.Subject)
					fix = d.Fix
				}
			}
			require.NotEmpty(t, fix, "%q", found)
			require.Equal(t, before, stateOf(t), "the doctor changes nothing")
			if !test.cures {
				return
			}
			paste(t, fix)
			found, code = examine(t, test.flags...)
			require.Zero(t, code, "after %s: %q", fix, found)
			for _, d := range found {
				require.NotEqual(t, "problem", d.Level, "%q", d)
				require.False(t, d.Level == test.want.Level && strings.Contains(d.Text, test.want.Text), "%q", d)
			}
		})
	}
}

// paste runs the command of a fix: blobseal's own here, another in a shell.
func paste(t *testing.T, fix string) {
	t.Helper()
	if _, command, found := strings.Cut(fix, "blobseal "); found {
		ok(t, strings.Fields(command)...)
		return
	}
	words := strings.Fields(fix)
	switch words[0] {
	case "chmod":
		require.NoError(t, os.Chmod(words[2], 0o600))
	case "cp":
		write(t, words[2], read(t, words[1]))
	case "rm":
		require.NoError(t, os.Remove(words[1]))
	default:
		t.Fatalf("unknown command: %s", fix)
	}
}

// stateOf lists all files with their sizes and times, but not what records that a key
// was looked at.
func stateOf(t *testing.T) (all []string) {
	t.Helper()
	require.NoError(t, filepath.Walk(".", func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && !strings.Contains(path, "audit.jsonl") {
			all = append(all, fmt.Sprint(path, info.Size(), info.ModTime(), info.Mode()))
		}
		return err
	}))
	return all
}
