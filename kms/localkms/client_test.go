package localkms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/localkms"
)

func TestKeysAreNamedInFourWays(t *testing.T) {
	s := open(t, nil, nil)
	c := s.client("111122223333", "eu-1")
	info, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, c.CreateAlias(t.Context(), "alias/a/b", info.ID))
	for _, name := range []string{info.ID, info.ARN, "alias/a/b", "arn:blobseal:kms:eu-1:111122223333:alias/a/b"} {
		got, err := c.DescribeKey(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, info, got)
	}
	// ARNs name keys of any account and region, short forms one's own.
	for _, other := range []*localkms.Client{s.client("111122223333", "us-1"), s.client("", "eu-1")} {
		for _, name := range []string{info.ID, "alias/a/b"} {
			_, err := other.DescribeKey(t.Context(), name)
			isKind(t, kms.ErrNotFound, err)
		}
	}
	elsewhere, err := s.client("111122223333", "us-1").DescribeKey(t.Context(), info.ARN)
	require.NoError(t, err)
	require.Equal(t, info, elsewhere)
	for name, kind := range map[string]error{
		"": kms.ErrInvalid, "x": kms.ErrNotFound, strings.ToUpper(info.ID): kms.ErrNotFound, info.ID + "0": kms.ErrNotFound,
		"alias/": kms.ErrInvalid, "alias/none": kms.ErrNotFound, "arn:blobseal:kms:": kms.ErrInvalid,
		"arn:blobseal:kms:eu-1:111122223333:" + info.ID:       kms.ErrInvalid,
		"arn:blobseal:kms:us-1:111122223333:key/" + info.ID:   kms.ErrNotFound,
		"arn:blobseal:kms:eu-1:999:key/" + info.ID:            kms.ErrDenied,
		"arn:blobseal:kms:eu 1:999:key/" + info.ID:            kms.ErrInvalid,
		"arn:blobseal:kms:eu-1:111122223333:alias/alias/a/b":  kms.ErrNotFound,
		"arn:aws:kms:eu-1:111122223333:key/" + info.ID:        kms.ErrNotFound,
		"arn:blobseal:kms:eu-1:111122223333:key/" + "x":       kms.ErrNotFound,
		strings.Repeat("x", 1<<20):                            kms.ErrNotFound,
		"arn:blobseal:kms:" + strings.Repeat("x:", 1000) + "": kms.ErrInvalid,
	} {
		_, err := c.DescribeKey(t.Context(), name)
		isKind(t, kind, err)
		require.Less(t, len(err.Error()), 700)
		_, err = c.GenerateDataKey(t.Context(), name, nil)
		isKind(t, kind, err)
	}
	for _, account := range []string{"a b", "a:b", "a/b", strings.Repeat("x", 65), "ä"} {
		_, err := s.Service.Client(account, "")
		isKind(t, kms.ErrInvalid, err)
		_, err = s.Service.Client("", account)
		isKind(t, kms.ErrInvalid, err)
	}
}

func TestAliases(t *testing.T) {
	s := open(t, nil, nil)
	a, b := s.key(), s.key()
	require.NoError(t, s.CreateAlias(t.Context(), "alias/x", a))
	err := s.CreateAlias(t.Context(), "alias/x", b)
	isKind(t, kms.ErrInvalid, err)
	require.ErrorIs(t, err, localkms.ErrAlreadyExists)
	isKind(t, kms.ErrNotFound, s.UpdateAlias(t.Context(), "alias/y", a))
	isKind(t, kms.ErrNotFound, s.DeleteAlias(t.Context(), "alias/y"))
	require.NoError(t, s.UpdateAlias(t.Context(), "alias/x", b))
	require.Equal(t, b, s.describe("alias/x").ID)

	// Unique per account and region, and of the key's own.
	for kind, c := range map[error]*localkms.Client{kms.ErrDenied: s.client("other", ""), kms.ErrInvalid: s.client("", "other")} {
		isKind(t, kms.ErrNotFound, c.CreateAlias(t.Context(), "alias/x", a))
		isKind(t, kms.ErrNotFound, c.DeleteAlias(t.Context(), "alias/x"))
		own, err := c.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		isKind(t, kind, s.CreateAlias(t.Context(), "alias/z", own.ARN))
		require.NoError(t, c.CreateAlias(t.Context(), "alias/x", own.ID))
		isKind(t, kms.ErrInvalid, c.DeleteAlias(t.Context(), "arn:blobseal:kms:local:000000000000:alias/x"))
	}
	s.restart()
	require.Equal(t, b, s.describe("alias/x").ID)
	require.NoError(t, s.DeleteAlias(t.Context(), "arn:blobseal:kms:local:000000000000:alias/x"))
	_, err = s.DescribeKey(t.Context(), "alias/x")
	isKind(t, kms.ErrNotFound, err)
	_, err = s.ScheduleKeyDeletion(t.Context(), a, 7)
	require.NoError(t, err)
	isKind(t, kms.ErrPendingDeletion, s.CreateAlias(t.Context(), "alias/x", a))
}

func TestUpdateAliasNeedsThePermissionOfBothKeys(t *testing.T) {
	s := open(t, nil, nil)
	mine := func() string {
		info, err := s.CreateKey(as(t, "me"), &localkms.CreateKeyInput{Policy: `permit (principal == Principal::"me", action, resource);`})
		require.NoError(t, err)
		return info.ID
	}
	a, b, open := mine(), mine(), s.key()
	require.NoError(t, s.CreateAlias(as(t, "me"), "alias/x", a))
	isKind(t, kms.ErrDenied, s.UpdateAlias(as(t, "other"), "alias/x", open)) // takes it from a
	isKind(t, kms.ErrDenied, s.DeleteAlias(as(t, "other"), "alias/x"))
	require.NoError(t, s.UpdateAlias(as(t, "me"), "alias/x", open))
	isKind(t, kms.ErrDenied, s.UpdateAlias(as(t, "other"), "alias/x", b))
	require.Equal(t, open, s.describe("alias/x").ID)
}

func TestMetadata(t *testing.T) {
	s := open(t, nil, nil)
	in := &localkms.CreateKeyInput{Description: "d", Tags: map[string]string{"a": "1"}}
	info, err := s.CreateKey(t.Context(), in)
	require.NoError(t, err)
	in.Tags["a"], info.Tags["a"] = "changed", "changed" // neither is the service's
	require.NoError(t, s.Tag(t.Context(), info.ID, map[string]string{"b": "2"}))
	require.NoError(t, s.Untag(t.Context(), info.ID, "none"))
	require.NoError(t, s.UpdateDescription(t.Context(), info.ID, "new"))
	for range 2 {
		got := s.describe(info.ID)
		require.Equal(t, "new", got.Description)
		require.Equal(t, map[string]string{"a": "1", "b": "2"}, got.Tags)
		require.Equal(t, s.clock.Now(), got.Created)
		require.Equal(t, localkms.Enabled, got.State)
		s.restart()
	}
	many := map[string]string{}
	for i := range maxTags + 1 {
		many[fmt.Sprint(i)] = ""
	}
	require.ErrorIs(t, s.Tag(t.Context(), info.ID, many), localkms.ErrLimit)
	for _, err := range []error{
		s.Tag(t.Context(), info.ID, map[string]string{"": "x"}),
		s.Tag(t.Context(), info.ID, map[string]string{strings.Repeat("x", 129): ""}),
		s.Tag(t.Context(), info.ID, map[string]string{"x": strings.Repeat("x", 257)}),
		s.Tag(t.Context(), info.ID, map[string]string{"x": "\xff"}),
		s.UpdateDescription(t.Context(), info.ID, strings.Repeat("x", 8193)),
		s.UpdateDescription(t.Context(), info.ID, "\xff"),
	} {
		isKind(t, kms.ErrInvalid, err)
	}
	_, err = s.GenerateDataKey(t.Context(), info.ID, kms.Context{"a": strings.Repeat("x", maxContext-9)})
	require.NoError(t, err)
	_, err = s.GenerateDataKey(t.Context(), info.ID, kms.Context{"a": strings.Repeat("x", maxContext-8)})
	isKind(t, kms.ErrInvalid, err)
	for _, v := range []any{localkms.PendingDeletion, localkms.ScheduledRotation} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, `"`+fmt.Sprint(v)+`"`, string(text))
	}
	var state localkms.State
	require.NoError(t, json.Unmarshal([]byte(`"pending deletion"`), &state))
	require.Equal(t, localkms.PendingDeletion, state)
}

func TestReEncryptNeedsRightsOnBothKeys(t *testing.T) {
	s := open(t, nil, nil)
	make := func(op kms.Operation, who string) string {
		info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{BypassLockoutCheck: true, Policy: fmt.Sprintf(
			`permit (principal, action == Action::"Encrypt", resource); permit (principal == Principal::%q, action == Action::%q, resource);`, who, op)})
		require.NoError(t, err)
		return info.ID
	}
	from, to := make(localkms.OpReEncryptFrom, "mover"), make(localkms.OpReEncryptTo, "mover")
	notFrom, notTo := make(localkms.OpReEncryptTo, "mover"), make(localkms.OpReEncryptFrom, "mover")
	ec := kms.Context{"a": "b"}
	for _, test := range []struct {
		from, to, who string
		ok            bool
	}{{from, to, "mover", true}, {from, notTo, "mover", false}, {notFrom, to, "mover", false}, {from, to, "other", false}} {
		ciphertext := s.encrypt(test.from, "x", ec)
		out, err := s.ReEncrypt(as(t, test.who), &localkms.ReEncryptInput{
			Ciphertext: ciphertext, SourceKeyID: test.from, SourceContext: ec, KeyID: test.to, Context: kms.Context{"c": "d"}})
		if !test.ok {
			isKind(t, kms.ErrDenied, err)
			require.Nil(t, out)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, test.to, keyOf(out.Ciphertext))
		require.True(t, strings.HasSuffix(out.KeyID, test.to) && strings.HasSuffix(out.SourceKeyID, test.from))
	}
	// To another context, and to the newest version, of the same key.
	id := s.key()
	ciphertext := s.encrypt(id, "x", ec)
	_, err := s.RotateKey(t.Context(), id)
	require.NoError(t, err)
	out, err := s.ReEncrypt(t.Context(), &localkms.ReEncryptInput{Ciphertext: ciphertext, SourceKeyID: id, SourceContext: ec, KeyID: id})
	require.NoError(t, err)
	s.decrypts(out.Ciphertext, "x", nil)
	var report kms.Report
	_, err = s.Decrypt(kms.WithReport(t.Context(), &report), id, out.Ciphertext, nil)
	require.NoError(t, err)
	require.Equal(t, "2", report.KeyVersion)
	_, err = s.ReEncrypt(t.Context(), nil)
	isKind(t, kms.ErrInvalid, err)
}

func TestADisabledKeyRefusesAtOnceThroughAWarmCache(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	cached := cache.New(s.Client, nil)
	dk, err := cached.GenerateDataKey(as(t, "app"), id, nil)
	require.NoError(t, err)
	use := func(kind error) {
		t.Helper()
		_, err := cached.GenerateDataKey(as(t, "app"), id, nil)
		_, err2 := cached.Decrypt(as(t, "app"), id, dk.Ciphertext, nil)
		if kind == nil {
			require.NoError(t, err)
			require.NoError(t, err2)
			return
		}
		isKind(t, kind, err)
		isKind(t, kind, err2)
	}
	use(nil)
	require.NoError(t, s.DisableKey(t.Context(), id))
	use(kms.ErrDisabled)
	require.NoError(t, s.EnableKey(t.Context(), id))
	use(nil)
	require.NoError(t, s.PutKeyPolicy(t.Context(), id, `permit (principal, action, resource) unless { principal.id == "app" };`, nil))
	use(kms.ErrDenied)
	require.NoError(t, s.DeleteKeyPolicy(t.Context(), id))
	_, err = s.ScheduleKeyDeletion(t.Context(), id, 7)
	require.NoError(t, err)
	use(kms.ErrPendingDeletion)
}

func TestEveryDamageOfACiphertextIsRefused(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	good := s.encrypt(id, "x", nil)
	refused := func(ciphertext []byte, what string, i int) {
		t.Helper()
		plaintext, err := s.Decrypt(t.Context(), id, ciphertext, nil)
		isKind(t, kms.ErrCiphertext, err)
		require.Nil(t, plaintext, "%s %d", what, i)
	}
	for i := range len(good) * 8 {
		if i/8 >= 17 && i/8 < 20 { // another version: asks the store, which is slow by intent
			continue
		}
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		refused(bad, "bit", i)
	}
	for i := range good {
		refused(good[:i], "cut to", i)
		refused(good[i+1:], "without the first", i+1)
	}
	refused(append(bytes.Clone(good), 0), "longer", 1)
	for i, version := range []uint32{0, 2, 1 << 31, 1<<32 - 1} {
		bad := bytes.Clone(good)
		binary.BigEndian.PutUint32(bad[17:], version)
		refused(bad, "version", i)
	}
}

func TestAuthorizeIsAboutUses(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	for _, op := range []kms.Operation{kms.OpGenerateDataKey, kms.OpDecrypt, localkms.OpEncrypt, localkms.OpReEncryptTo, localkms.OpDescribeKey} {
		require.NoError(t, s.Authorize(t.Context(), op, id, nil), op)
	}
	for _, op := range []kms.Operation{kms.Operation("DisableKey"), kms.Operation("CreateKey"), kms.Operation("ListKeys"), "Else", ""} {
		isKind(t, kms.ErrInvalid, s.Authorize(t.Context(), op, id, nil))
	}
}

// TestUseAndAdministrationAtOnce: whatever happens in between, a use works or
// fails in a way that the contract names.
func TestUseAndAdministrationAtOnce(t *testing.T) {
	s := open(t, nil, func(o *localkms.Options) { o.RefreshInterval = 1 })
	id := s.key()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				dk, err := s.GenerateDataKey(t.Context(), id, nil)
				if err != nil {
					isKind(t, kms.ErrDisabled, err)
					continue
				}
				plaintext, err := s.Decrypt(t.Context(), id, dk.Ciphertext, nil)
				if err != nil {
					isKind(t, kms.ErrDisabled, err)
				} else if !bytes.Equal(plaintext, dk.Plaintext()) {
					t.Error("another data key")
				}
			}
		})
	}
	for range 50 {
		require.NoError(t, s.DisableKey(t.Context(), id))
		require.NoError(t, s.EnableKey(t.Context(), id))
		_, err := s.RotateKey(t.Context(), id)
		require.NoError(t, err)
		require.NoError(t, s.Tag(t.Context(), id, map[string]string{"a": "b"}))
	}
	cancel()
	wg.Wait()
}

func TestNothingPrintsAKey(t *testing.T) {
	raw := bytes.Repeat([]byte{1}, 32) // of keyRoot
	s := open(t, nil, nil)
	dk, err := s.GenerateDataKey(t.Context(), s.key(), nil)
	require.NoError(t, err)
	var printed bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&printed, nil))
	for _, v := range []any{s.Service, s.Client, *s.Client, dk, s.describe(localkms.DefaultAlias), s.opts.Policy} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
		logger.Info("x", "v", v)
		if text, err := json.Marshal(v); err == nil {
			printed.Write(text)
		}
	}
	for _, key := range [][]byte{raw, dk.Plaintext()} {
		for _, form := range []string{string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key), strings.Trim(fmt.Sprint(key), "[]"), fmt.Sprintf("%#v", key)} {
			require.NotContains(t, printed.String(), form)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	store := keyring.NewMemStore()
	_, err := localkms.Open(t.Context(), store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, keyring.ErrNotExist)
	_, err = localkms.Open(t.Context(), nil, keyRoot(t, 1), nil)
	isKind(t, kms.ErrInvalid, err)
	_, err = localkms.Open(t.Context(), store, nil, nil)
	isKind(t, kms.ErrInvalid, err)
	_, err = localkms.Open(t.Context(), (*keyringtest.Store)(nil), keyRoot(t, 1), nil)
	isKind(t, kms.ErrInvalid, err)
	_, err = localkms.Create(t.Context(), (*keyringtest.Store)(nil), keyRoot(t, 1), nil)
	isKind(t, kms.ErrInvalid, err)
	_, err = localkms.Create(t.Context(), store, (*nilRoot)(nil), nil)
	isKind(t, kms.ErrInvalid, err)
	for _, o := range []localkms.Options{{RefreshInterval: -1}, {MaxStaleness: -1}, {RefreshInterval: 2, MaxStaleness: 1}} {
		_, err = localkms.Open(t.Context(), store, keyRoot(t, 1), &o)
		isKind(t, kms.ErrInvalid, err)
	}
	open(t, store, nil)
	_, err = localkms.Open(t.Context(), store, keyRoot(t, 2), nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	_, err = keyring.Open(t.Context(), store, keyRoot(t, 1), nil) // a ring is something else
	require.ErrorIs(t, err, keyring.ErrDamaged)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = localkms.Open(ctx, store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, context.Canceled)
	ring := keyring.NewMemStore()
	_, err = keyring.Create(t.Context(), ring, keyRoot(t, 1), nil)
	require.NoError(t, err)
	_, err = localkms.Open(t.Context(), ring, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, keyring.ErrDamaged)
	for _, taken := range []keyring.Store{ring, store} { // nothing is replaced
		_, err = localkms.Create(t.Context(), taken, keyRoot(t, 1), nil)
		require.ErrorIs(t, err, keyring.ErrExist)
	}
}

// TestAnotherAccountsNamesTellNothing: a caller who may not use a key of another
// account cannot tell it from one that does not exist, by its ARN or by an alias.
func TestAnotherAccountsNamesTellNothing(t *testing.T) {
	s := open(t, nil, func(o *localkms.Options) { o.Policy = permitAll })
	owner := s.client("owner", "")
	open, err := owner.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	locked, err := owner.CreateKey(t.Context(), &localkms.CreateKeyInput{Policy: permitAll + `forbid (principal == Principal::"spy", action, resource);`})
	require.NoError(t, err)
	require.NoError(t, owner.CreateAlias(t.Context(), "alias/open", open.ID))
	require.NoError(t, owner.CreateAlias(t.Context(), "alias/locked", locked.ID))
	ciphertext, err := owner.Encrypt(t.Context(), locked.ID, []byte("x"), nil)
	require.NoError(t, err)
	const prefix = "arn:blobseal:kms:local:owner:"
	unknown := []string{prefix + "alias/none", prefix + "key/" + strings.Repeat("0", 8) + "-0000-4000-8000-000000000000"}
	known := []string{prefix + "alias/open", prefix + "alias/locked", open.ARN, locked.ARN}

	ctx := as(t, "spy")
	for name, do := range map[string]func(key string) error{
		"GenerateDataKey": func(key string) error { _, err := s.GenerateDataKey(ctx, key, nil); return err },
		"Decrypt":         func(key string) error { _, err := s.Decrypt(ctx, key, ciphertext, nil); return err },
		"Authorize":       func(key string) error { return s.Authorize(ctx, kms.OpDecrypt, key, nil) },
		"DescribeKey":     func(key string) error { _, err := s.DescribeKey(ctx, key); return err },
		"DisableKey":      func(key string) error { return s.DisableKey(ctx, key) },
		"CreateAlias":     func(key string) error { return s.CreateAlias(ctx, "alias/mine", key) },
		"RetireGrant":     func(key string) error { return s.RetireGrant(ctx, key, "none") },
		"ListGrants":      func(key string) error { _, err := s.ListGrants(ctx, key); return err },
	} {
		t.Run(name, func(t *testing.T) {
			answers := make(map[string]bool)
			for _, key := range append(unknown, known...) {
				err := do(key)
				isKind(t, kms.ErrDenied, err)
				failed, ok := errors.AsType[*kms.KeyError](err)
				require.True(t, ok)
				require.Equal(t, key, failed.KeyID)
				answers[failed.Err.Error()] = true
			}
			require.Len(t, answers, 1)
			for answer := range answers {
				require.NotContains(t, answer, "arn:")
			}
		})
	}
}

// nilRoot is for roots that are nil pointers.
type nilRoot struct{ keyring.Root }
