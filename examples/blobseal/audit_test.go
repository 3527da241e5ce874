package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// used makes a service whose trail has some records.
func used(t *testing.T) {
	t.Helper()
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", photos, "--principal", "user:ann", "--object", "a/b", "plain", "sealed")...)
	ok(t, args("decrypt", anyKey, "--principal", "user:bob", "--object", "a/b", "sealed", "-")...)
	ok(t, args("kms", "disable", service, "alias/photos")...)
	blobseal(args("decrypt", anyKey, "--principal", "user:bob", "--object", "a/b", "sealed", "-")...).fails(t, 3, "disabled")
	blobseal(args("encrypt", service, "--kms-key", "alias/none", "plain", "out")...).fails(t, 5, "no such key")
}

func TestAuditShow(t *testing.T) {
	used(t)
	arn := records(t)[0].KeyID
	id := message.ShortKey(arn)
	text := ok(t, "audit", "show", "--kms", "my.kms")
	require.Regexp(t, `^TIME +PRINCIPAL +OPERATION +KEY +RESOURCE +OUTCOME
\S+Z  user:\S+ +CreateKey +`+id+`  - +success
\S+Z  user:\S+ +CreateAlias +`+id+`  arn:blobseal:kms:local:000000000000:alias/photos  success
\S+Z  user:ann +GenerateDataKey +`+id+`  a/b +success
\S+Z  user:bob +Decrypt +`+id+`  a/b +success
\S+Z  user:\S+ +DisableKey +`+id+`  - +success
\S+Z  user:bob +Decrypt +`+id+`  a/b +failure: Disabled
\S+Z  user:\S+ +GenerateDataKey +alias/none +- +failure: NotFound
$`, text)
	require.Equal(t, text, ok(t, "audit", "show", "my.kms/audit.jsonl"))
	for _, test := range []struct {
		filter []string
		lines  int
	}{
		{nil, 7}, {[]string{"--principal", "user:bob"}, 2}, {[]string{"--principal", "user:none"}, 0},
		{[]string{"--key", id}, 6}, {[]string{"--key", arn}, 6}, {[]string{"--key", "alias/none"}, 1}, {[]string{"--key", "alias/photos"}, 2},
		{[]string{"--key", id, "--principal", "user:ann"}, 1},
	} {
		require.Equal(t, test.lines+1, strings.Count(ok(t, args("audit", "show", "--kms", "my.kms", test.filter)...), "\n"), test.filter)
		found := ok(t, args("audit", "show", "--kms", "my.kms", "--json", test.filter)...)
		require.Equal(t, test.lines, strings.Count(found, "\n"), test.filter)
	}
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(ok(t, "audit", "show", "--kms", "my.kms", "--json", "--principal", "user:ann")), &line))
	require.Equal(t, []any{"GenerateDataKey", arn, "a/b", "success", "1", map[string]any{"id": "user:ann"}, map[string]any{"blobseal:object": "a/b"}},
		[]any{line["eventName"], line["keyId"], line["resource"], line["outcome"], line["keyMaterialId"], line["userIdentity"], line["encryptionContext"]})
	require.NotZero(t, line["seq"])
	require.NotContains(t, line, "note")
	require.NotContains(t, ok(t, "kms", "list", "--kms", "my.kms", "--root-key-file", "root.key"), "user:")

	t.Run("a name of several lines", func(t *testing.T) {
		ok(t, args("encrypt", service, "--principal", "user:\nforged\tx", "--object", "a/\x1b[31m", "plain", "out")...)
		text := ok(t, "audit", "show", "--kms", "my.kms")
		require.Contains(t, text, "  user: forged x  ")
		require.Contains(t, text, "  a/?[31m  ")
	})
}

// TestAuditVerify edits copies of a trail without checkpoints.
func TestAuditVerify(t *testing.T) {
	used(t)
	require.Regexp(t, `^my.kms/audit.jsonl: OK, 7 records, up to [0-9]+:[0-9a-f]{64}\n$`, ok(t, "audit", "verify", "--kms", "my.kms"))
	sink, err := audit.OpenFileSink("trail", nil)
	require.NoError(t, err)
	for _, r := range records(t) {
		require.NoError(t, sink.Write(t.Context(), r))
	}
	require.NoError(t, sink.Close())
	out := ok(t, "audit", "verify", "trail")
	require.Regexp(t, `^trail: OK, 7 records, up to 7:[0-9a-f]{64}\n$`, out)
	anchor := strings.TrimSpace(out[strings.Index(out, "up to ")+6:])
	require.Equal(t, out, ok(t, "audit", "verify", "--reaches", anchor, "trail"))

	whole := read(t, "trail")
	lines := bytes.SplitAfter(whole, []byte("\n"))[:7]
	join := func(order ...int) []byte {
		var text []byte
		for _, i := range order {
			text = append(text, lines[i-1]...)
		}
		return text
	}
	for name, test := range map[string]struct {
		text []byte
		says string
	}{
		"edited":          {bytes.Replace(whole, []byte("user:bob"), []byte("user:ann"), 1), "copy: line 4: entry 4 is edited"},
		"edited last":     {bytes.Replace(whole, []byte("NotFound"), []byte("NotSound"), 1), "copy: line 7: entry 7 is edited"},
		"missing":         {join(1, 2, 3, 5, 6, 7), "copy: line 4: entry 4 is missing"},
		"missing first":   {join(2, 3, 4, 5, 6, 7), "copy: line 1: entry 1 is missing"},
		"reordered":       {join(1, 2, 4, 3, 5, 6, 7), "copy: line 3: entry 3 is reordered"},
		"twice":           {join(1, 2, 3, 3, 4, 5, 6, 7), "copy: line 4: entry 4 is reordered"},
		"truncated":       {whole[:len(whole)-10], "copy: line 7: entry 7 is truncated"},
		"nonsense":        {[]byte("nonsense\n"), "copy: line 1: entry 1 is edited"},
		"of another kind": {bytes.Repeat([]byte{0}, 3<<20), "copy: line 1: entry 1 is "},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, "copy", test.text)
			res := blobseal("audit", "verify", "copy")
			res.fails(t, 4, test.says)
			require.Empty(t, res.out)
			res = blobseal("audit", "show", "copy")
			res.fails(t, 4, test.says)
			require.Contains(t, res.out, "TIME", "what is good is shown")
			res = blobseal("audit", "verify", "copy", "trail", "none")
			res.fails(t, 4, test.says)
			require.Contains(t, res.errout, "(and 1 more of 3 files failed)")
			require.Contains(t, res.out, "copy: FAILED: line ")
			require.Contains(t, res.out, out)
			require.Contains(t, res.out, "none: FAILED: no such file or directory\n")
		})
	}
	t.Run("entries cut off the end", func(t *testing.T) {
		write(t, "copy", join(1, 2, 3, 4, 5))
		ok(t, "audit", "verify", "copy")
		blobseal("audit", "verify", "--reaches", anchor, "copy").fails(t, 4, "copy: line 6: entry 6 is truncated: the trail once reached entry 7")
		write(t, "copy", nil)
		ok(t, "audit", "verify", "copy")
		blobseal("audit", "verify", "--reaches", anchor, "copy").fails(t, 4, "copy: line 1: entry 1 is truncated")
	})
	t.Run("signed", func(t *testing.T) {
		signerKey, verifierKey, err := note.GenerateKey(rand.Reader, "photos.example.com/audit")
		require.NoError(t, err)
		signer, err := audit.NewSigner(signerKey)
		require.NoError(t, err)
		sink, err := audit.OpenFileSink("signed", &audit.FileSinkOptions{Signer: signer})
		require.NoError(t, err)
		require.NoError(t, sink.Write(t.Context(), audit.Record{EventID: "e", Operation: kms.OpDecrypt, Outcome: "success"}))
		require.NoError(t, sink.Close())
		require.Contains(t, ok(t, "audit", "verify", "--signed-by", verifierKey, "signed"), "signed: OK, 1 records, signed up to entry 2, up to 3:")
		blobseal("audit", "verify", "--signed-by", verifierKey, "trail").fails(t, 4,
			"trail: line 1: entry 1 is unsigned: no checkpoint of photos.example.com/audit precedes it")
		blobseal("audit", "show", "--signed-by", verifierKey, "trail").fails(t, 4, "entry 1 is unsigned")
		blobseal("audit", "verify", "--signed-by", verifierKey, "my.kms/audit.jsonl").fails(t, 4,
			"entry 1 is edited: the checkpoint is not signed by photos.example.com/audit")
		blobseal("audit", "verify", "--signed-by", "key", "signed").fails(t, 2, "want NAME+HASH+KEY")
	})
	t.Run("files that were moved away", func(t *testing.T) {
		write(t, "first", join(1, 2, 3))
		said := ok(t, "audit", "verify", "first")
		from := strings.TrimSpace(said[strings.Index(said, "up to ")+6:])
		write(t, "rest", join(4, 5, 6, 7))
		blobseal("audit", "verify", "rest").fails(t, 4, "rest: line 1: entry 1 is missing")
		require.Equal(t, "rest: OK, 4 records, up to "+anchor+"\n", ok(t, "audit", "verify", "--from", from, "rest"))
		require.Equal(t, 5, strings.Count(ok(t, "audit", "show", "--from", from, "rest"), "\n"))
	})
	t.Run("files", func(t *testing.T) {
		blobseal("audit", "verify", "none").fails(t, 5, "none: no such file or directory")
		blobseal("audit", "verify", "none/none").fails(t, 5, "none/none: no such file or directory")
		blobseal("audit", "verify", "my.kms").fails(t, 1, "my.kms: is a directory (for the trail of a key service give --kms my.kms)")
		blobseal("audit", "show", "my.kms").fails(t, 1, "my.kms: is a directory (for the trail of a key service give --kms my.kms)")
		blobseal("audit", "show", "--kms", "none").fails(t, 5, "none/audit.jsonl: no such file or directory")
	})
}

// TestAuditTorn goes on after a process was killed while it wrote.
func TestAuditTorn(t *testing.T) {
	used(t)
	whole := read(t, "my.kms/audit.jsonl")
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') // the last line is a checkpoint
	write(t, "my.kms/audit.jsonl", whole[:last-10])
	ok(t, args("kms", "enable", service, "alias/photos")...)
	require.Equal(t, "plain", ok(t, args("decrypt", anyKey, "--object", "a/b", "sealed", "-")...))
	require.Regexp(t, `^my.kms/audit.jsonl: entry [0-9]+: a process was killed while it wrote\nmy.kms/audit.jsonl: OK, 8 records, up to `, ok(t, "audit", "verify", "--kms", "my.kms"))
	require.Regexp(t, `(?m)^20\S+Z  - +- +- +- +a process was killed while it wrote entry [0-9]+$`, ok(t, "audit", "show", "--kms", "my.kms"))
	require.Contains(t, ok(t, "audit", "show", "--kms", "my.kms", "--json"), `,"note":{"type":"recovery"`)
}

// TestNothingWithoutRecord: what cannot be recorded is not done.
func TestNothingWithoutRecord(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T) (release func())
		says  string
	}{
		"a broken trail": {func(t *testing.T) func() {
			whole := read(t, "my.kms/audit.jsonl")
			write(t, "my.kms/audit.jsonl", bytes.Replace(whole, []byte("CreateKey"), []byte("CreateNot"), 1))
			return func() { write(t, "my.kms/audit.jsonl", whole) }
		}, " is edited: the line does not match its hash"},
		"a trail that cannot be opened": {func(t *testing.T) func() {
			require.NoError(t, os.Rename("my.kms/audit.jsonl", "moved"))
			require.NoError(t, os.Mkdir("my.kms/audit.jsonl", 0o755))
			return func() {
				require.NoError(t, os.Remove("my.kms/audit.jsonl"))
				require.NoError(t, os.Rename("moved", "my.kms/audit.jsonl"))
			}
		}, "is a directory"},
		"a trail that another process holds": {func(t *testing.T) func() {
			sink, err := audit.OpenFileSink("my.kms/audit.jsonl", &audit.FileSinkOptions{Signer: signerOf(t)})
			require.NoError(t, err)
			return func() { require.NoError(t, sink.Close()) }
		}, "another process has the audit trail open"},
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			write(t, "plain", []byte("plain"))
			ok(t, args("encrypt", photos, "plain", "sealed")...)
			ok(t, args("encrypt", customer, "plain", "customer")...)
			sealed, mine, document := read(t, "sealed"), read(t, "customer"), read(t, "my.kms/keys")
			release := test.spoil(t)
			before := files(t)
			for _, cmd := range [][]string{
				args("encrypt", photos, "plain", "out"),
				args("encrypt", photos, "plain", "-"),
				args("decrypt", anyKey, "sealed", "out"),
				args("decrypt", anyKey, "sealed", "-"),
				args("rewrap", anyKey, "--to-kms-key", "alias/blobseal/default", "sealed"),
				args("rewrap", customer, "--to-kms", "my.kms", "--to-root-key-file", "root.key", "customer"),
				args("kms", "create-key", service),
				args("kms", "disable", service, "alias/photos"),
				args("kms", "list", service),
				args("kms", "policy", "get", service, "alias/photos"),
			} {
				var out, errout bytes.Buffer
				c := console.New(strings.NewReader(""), &out, &errout)
				c.AuditWait = 30 * time.Millisecond
				res := result{runOn(t.Context(), c, cmd), out.String(), errout.String()}
				res.fails(t, anyFailure, "not done, because the audit trail could not record it: ")
				require.Contains(t, res.errout, test.says)
				if name == "a broken trail" {
					require.Contains(t, res.errout, "move my.kms/audit.jsonl and my.kms/audit.jsonl.* to another directory, to start a new trail")
				}
				require.Empty(t, res.out)
				require.Equal(t, before, files(t))
				require.Equal(t, document, read(t, "my.kms/keys"))
				require.Equal(t, sealed, read(t, "sealed"))
				require.Equal(t, mine, read(t, "customer"))
			}
			release()
			require.Equal(t, "plain", ok(t, args("decrypt", anyKey, "sealed", "-")...))
		})
	}
}

// TestAuditWait: a command waits for a process that writes the trail, and can be
// interrupted meanwhile.
func TestAuditWait(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	sink, err := audit.OpenFileSink("my.kms/audit.jsonl", &audit.FileSinkOptions{Signer: signerOf(t)})
	require.NoError(t, err)
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
		time.AfterFunc(50*time.Millisecond, cancel)
		var errout bytes.Buffer
		code := run(ctx, args("encrypt", photos, "plain", "out"), strings.NewReader(""), io.Discard, &errout)
		result{code, "", errout.String()}.fails(t, 130, "interrupted")
		require.NoFileExists(t, "out")
	})
	time.AfterFunc(100*time.Millisecond, func() { sink.Close() })
	ok(t, args("encrypt", photos, "plain", "out")...)
	ok(t, args("verify", photos, "out")...)
}

// A trail is read over all its files; what was moved away is missed.
func TestAuditRotated(t *testing.T) {
	workspace(t)
	sink, err := audit.OpenFileSink("my.kms/audit.jsonl", &audit.FileSinkOptions{MaxSize: 2000, Signer: signerOf(t)})
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, sink.Write(t.Context(), audit.Record{Time: time.Now(), EventID: "e", Operation: kms.OpDecrypt, Outcome: "success"}))
	}
	require.NoError(t, sink.Close())
	require.FileExists(t, "my.kms/audit.jsonl.000002")
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", photos, "plain", "sealed")...)
	before := len(records(t))
	require.Equal(t, 2+20+1, before, "CreateKey and CreateAlias, those, and the use")
	require.Contains(t, ok(t, "audit", "verify", "--kms", "my.kms"), ": OK, 23 records, up to ")
	require.Equal(t, 1+before, strings.Count(ok(t, "audit", "show", "--kms", "my.kms"), "\n"))

	first := ok(t, "audit", "verify", "my.kms/audit.jsonl.000001")
	require.NoError(t, os.Rename("my.kms/audit.jsonl.000001", "moved"))
	blobseal("audit", "verify", "--kms", "my.kms").fails(t, 4, "is missing")
	_, anchor, found := strings.Cut(strings.TrimSpace(first), ", up to ")
	require.True(t, found)
	require.Contains(t, ok(t, "audit", "verify", "--kms", "my.kms", "--from", anchor), ": OK, ")
	ok(t, args("decrypt", anyKey, "sealed", "-")...)
}

// signerOf returns what signs the trail of my.kms.
func signerOf(t *testing.T) *audit.Signer {
	key, err := keyring.ParseKey(read(t, "root.key"))
	require.NoError(t, err)
	root, err := keyring.NewKeyRoot(key)
	require.NoError(t, err)
	sealed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(read(t, "my.kms/audit.key"))))
	require.NoError(t, err)
	signerKey, err := root.DecryptWithContext(t.Context(), sealed, []byte("blobseal audit signer v1"))
	require.NoError(t, err)
	signer, err := audit.NewSigner(string(signerKey))
	require.NoError(t, err)
	return signer
}

// verifierOf returns the verifier key that kms init showed.
func verifierOf(t *testing.T, shown string) string {
	_, key, found := strings.Cut(strings.TrimSpace(shown), "(see audit verify): ")
	require.True(t, found, shown)
	return key
}

// TestSignedTrail: the command's key service signs its trail, also after a change of the
// root, and does not continue it with another key.
func TestSignedTrail(t *testing.T) {
	t.Chdir(t.TempDir())
	verifier := verifierOf(t, ok(t, "kms", "init", "--kms", "my.kms", "--generate-root-key", "root.key"))
	ok(t, args("kms", "create-key", service, "--alias", "alias/photos")...)
	ok(t, "keygen", "new.key")
	change := args("kms", "change-root", service, "--new-root-key-file", "new.key")
	ok(t, change...)
	ok(t, "kms", "disable", "--kms", "my.kms", "--root-key-file", "new.key", "alias/photos")
	require.Equal(t, 1, bytes.Count(read(t, "my.kms/audit.key"), []byte("\n")))
	out := ok(t, "audit", "verify", "--kms", "my.kms", "--signed-by", verifier)
	require.Regexp(t, `^my.kms/audit.jsonl: OK, 3 records, signed up to entry ([0-9]+), up to `, out)

	t.Run("a change of root that was killed", func(t *testing.T) {
		key, err := keyring.ParseKey(read(t, "root.key"))
		require.NoError(t, err)
		root, err := keyring.NewKeyRoot(key)
		require.NoError(t, err)
		sealed, err := root.EncryptWithContext(t.Context(), []byte("of a change that was not made"), nil)
		require.NoError(t, err)
		other := base64.StdEncoding.EncodeToString(sealed) + "\n"
		write(t, "my.kms/audit.key", append([]byte(other), read(t, "my.kms/audit.key")...))
		ok(t, "kms", "enable", "--kms", "my.kms", "--root-key-file", "new.key", "alias/photos")
		require.Contains(t, ok(t, "audit", "verify", "--kms", "my.kms", "--signed-by", verifier), "OK, 4 records, signed")
	})
	t.Run("a record that was taken out, with new hashes and no checkpoints", func(t *testing.T) {
		sink, err := audit.OpenFileSink("forged", nil)
		require.NoError(t, err)
		for _, r := range records(t)[:2] {
			require.NoError(t, sink.Write(t.Context(), r))
		}
		require.NoError(t, sink.Close())
		ok(t, "audit", "verify", "forged")
		blobseal("audit", "verify", "--signed-by", verifier, "forged").fails(t, 4, "forged: line 1: entry 1 is unsigned")
	})
	t.Run("without its key", func(t *testing.T) {
		list := []string{"kms", "list", "--kms", "my.kms", "--root-key-file", "new.key"}
		require.NoError(t, os.Rename("my.kms/audit.key", "moved"))
		res := blobseal(list...)
		require.Contains(t, res.errout, "my.kms: the key that signs the audit trail was missing, and a new one was created.\n")
		require.NotEqual(t, verifier, verifierOf(t, res.errout))
		require.Equal(t, 4, res.code)
		require.Contains(t, res.errout, "not done, because the audit trail could not record it: my.kms/audit.jsonl: line 1: entry 1 is edited: the checkpoint is not signed by blobseal-kms")
		ok(t, "audit", "verify", "--kms", "my.kms", "--signed-by", verifier)
		require.NoError(t, os.Rename("my.kms/audit.jsonl", "moved.jsonl"))
		ok(t, list...)
		blobseal("audit", "verify", "--kms", "my.kms", "--signed-by", verifier).fails(t, 4, "my.kms/audit.jsonl: line 1: ")
		write(t, "my.kms/audit.key", []byte("nonsense\n"))
		blobseal(list...).fails(t, 4, "my.kms/audit.key: the key that signs the audit trail does not open")
	})
}
