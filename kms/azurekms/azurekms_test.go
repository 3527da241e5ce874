package azurekms_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

var ec = kms.Context{"blobseal:object": "photos/cat.jpg"}

// algorithms are those of both kinds of keys.
var algorithms = map[string]*azurekms.Options{
	"RSA-OAEP-256": nil,
	"A256KW":       {Algorithm: azkeys.EncryptionAlgorithmA256KW},
}

func symmetric(opts *azurekms.Options) bool { return opts != nil }

func TestConformance(t *testing.T) {
	for name, opts := range algorithms {
		t.Run(name, func(t *testing.T) {
			kmstest.Run(t, func(t *testing.T) kmstest.Subject {
				v := newVault(t)
				return kmstest.Subject{
					Client: v.client(t, opts),
					KeyID:  v.addVersion("photos", symmetric(opts)), Alias: "photos",
					OtherKeyID:   v.addVersion("other", symmetric(opts)),
					UnknownKeyID: v.id("none", "0123456789abcdef0123456789abcdef"),
					Disable:      func(*testing.T) { v.set(func() { v.keys["photos"].disabled = true }) },
					Enable:       func(*testing.T) { v.set(func() { v.keys["photos"].disabled = false }) },
					Break: func(*testing.T) {
						v.Fail("", azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", "try later"))
					},
					Repair: func(*testing.T) { v.Repair() },
					Stall:  func(*testing.T) { v.Fail("", v.Stall) },
				}
			})
		})
	}
}

func newPhotos(t testing.TB) *vault {
	t.Helper()
	v := newVault(t)
	v.addVersion("photos", false)
	return v
}

func TestVersions(t *testing.T) {
	v := newVault(t)
	first := v.addVersion("photos", false)
	c := v.client(t, nil)
	var report kms.Report
	ctx := kms.WithReport(t.Context(), &report)
	old, err := c.GenerateDataKey(ctx, "photos", ec)
	require.NoError(t, err)
	require.Equal(t, first, old.KeyID)
	require.Equal(t, kms.Report{RequestID: "request-1", KeyID: first, KeyVersion: versionOf(first)}, report)

	second := v.addVersion("photos", false)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	require.Equal(t, second, k.KeyID, "the name stands for the newest version")
	v.Asked()
	for _, id := range []string{first, "photos", "https://" + host + "/keys/photos", "photos/" + versionOf(first), strings.Replace(first, host, strings.ToUpper(host), 1)} {
		report = kms.Report{}
		p, err := c.Decrypt(ctx, id, old.Ciphertext, ec)
		require.NoError(t, err, id)
		require.Equal(t, old.Plaintext(), p)
		require.Equal(t, []string{"unwrapkey photos/" + versionOf(first)}, v.Asked(), "an object's own version")
		require.Equal(t, versionOf(first), report.KeyVersion)
		require.True(t, strings.EqualFold(first, report.KeyID) || id == "https://"+host+"/keys/photos", report.KeyID)
	}
	for _, id := range []string{first, "photos/" + versionOf(first)} { // which hold on to a version
		k, err := c.GenerateDataKey(t.Context(), id, ec)
		require.NoError(t, err)
		require.Equal(t, first, k.KeyID)
	}
	_, err = c.Decrypt(t.Context(), second, old.Ciphertext, ec)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
}

func versionOf(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func TestDisabledDeletedDenied(t *testing.T) {
	for name, opts := range algorithms {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			v.addVersion("photos", symmetric(opts))
			for op, call := range kmstest.Operations(t, v.client(t, opts), "photos", ec) {
				k := v.keys["photos"]
				for _, c := range []struct {
					name   string
					change func(bool)
					kind   error
				}{
					{"disabled", func(on bool) { k.disabled = on }, kms.ErrDisabled},
					{"deleted, and recovered", func(on bool) { k.deleted = on }, kms.ErrNotFound},
					{"denied", func(on bool) { v.denied[azureName[op]] = on }, kms.ErrDenied},
				} {
					require.NoError(t, call(t.Context()), "%s before", c.name)
					v.set(func() { c.change(true) })
					kmstest.RequireKind(t, call(t.Context()), c.kind)
					v.set(func() { c.change(false) })
					require.NoError(t, call(t.Context()), "%s after", c.name)
				}
			}
		})
	}
}

// TestRefusals: answers that are Azure's last word.
func TestRefusals(t *testing.T) {
	v := newPhotos(t)
	for op, call := range kmstest.Operations(t, v.client(t, nil), "photos", ec) {
		for _, c := range []struct {
			name                 string
			status               int
			code, inner, message string
			wrap, unwrap         error
		}{
			{"access policy", 403, "Forbidden", "AccessDenied", "The user, group or application 'appid=1' does not have keys wrapKey permission on key vault 'photos'.", kms.ErrDenied, kms.ErrDenied},
			{"firewall", 403, "Forbidden", "ForbiddenByFirewall", "Client address is not authorized.", kms.ErrDenied, kms.ErrDenied},
			{"names that mislead", 403, "Forbidden", "ForbiddenByRbac", "Resource: '/keys/disabled-key', vault expired-keys", kms.ErrDenied, kms.ErrDenied},
			{"key_ops", 403, "Forbidden", "", "Operation wrapKey is not permitted on this key.", kms.ErrDenied, kms.ErrDenied},
			{"disabled, by message", 403, "Forbidden", "", "Operation wrapKey is not allowed on a disabled key.", kms.ErrDisabled, kms.ErrDisabled},
			{"expired, by message", 403, "Forbidden", "", "Operation wrapKey is not allowed on an expired key.", kms.ErrDisabled, kms.ErrDisabled},
			{"expired, by code", 403, "Forbidden", "KeyExpired", "", kms.ErrDisabled, kms.ErrDisabled},
			{"not yet valid", 403, "Forbidden", "KeyNotYetValid", "", kms.ErrDisabled, kms.ErrDisabled},
			{"bad parameter", 400, "BadParameter", "", "The parameter is incorrect.\r\n", kms.ErrInvalid, kms.ErrCiphertext},
			{"being deleted", 409, "Conflict", "ObjectIsBeingDeleted", "", kms.ErrPendingDeletion, kms.ErrPendingDeletion},
			{"deleted but recoverable", 409, "Conflict", "ObjectIsDeletedButRecoverable", "", kms.ErrPendingDeletion, kms.ErrPendingDeletion},
			{"conflict", 409, "Conflict", "", "another operation is in progress", kms.ErrUnavailable, kms.ErrUnavailable},
			{"method", 405, "MethodNotAllowed", "", "", kms.ErrInvalid, kms.ErrInvalid},
			{"vault", 404, "VaultNotFound", "", "", kms.ErrNotFound, kms.ErrNotFound},
		} {
			t.Run(c.name+" at "+string(op), func(t *testing.T) {
				v.Fail("", azureError(c.status, c.code, c.inner, c.message))
				v.Asked()
				err := call(t.Context())
				if op == kms.OpGenerateDataKey {
					kmstest.RequireKind(t, err, c.wrap)
				} else {
					kmstest.RequireKind(t, err, c.unwrap)
				}
				response, ok := errors.AsType[*azcore.ResponseError](err)
				require.True(t, ok, "Azure's own error is there")
				require.Equal(t, c.status, response.StatusCode)
				require.Len(t, v.Asked(), 1, "no second attempt")
				require.NotContains(t, err.Error(), "\n")
				require.Contains(t, err.Error(), c.inner)
				v.Repair()
				require.NoError(t, call(t.Context()))
			})
		}
	}
}

// TestWrappedKeyOfAnotherLength: what holds no key is neither used nor shown.
func TestWrappedKeyOfAnotherLength(t *testing.T) {
	v := newPhotos(t)
	call := kmstest.Operations(t, v.client(t, nil), "photos", ec)[kms.OpDecrypt]
	id := v.id("photos", v.keys["photos"].versions[0].id)
	for _, n := range []int{0, 1, 31, 32, 33, 64} { // 32 are a key, and another
		value := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("s"), n))
		v.Fail("", kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"kid":%q,"value":%q}`, id, value)))
		err := call(t.Context())
		kmstest.RequireKind(t, err, kms.ErrCiphertext)
		if n > 8 {
			require.NotContains(t, err.Error(), value[:8])
		}
	}
}

// TestBothAlgorithms: data keys of one are decrypted by a client for the other, as
// in a move from a vault to an HSM.
func TestBothAlgorithms(t *testing.T) {
	v := newVault(t)
	v.addVersion("rsa", false)
	v.addVersion("oct", true)
	for name, opts := range map[string]*azurekms.Options{"rsa": nil, "oct": algorithms["A256KW"]} {
		k, err := v.client(t, opts).GenerateDataKey(t.Context(), name, ec)
		require.NoError(t, err)
		require.Less(t, len(k.Ciphertext), 512)
		for _, reader := range []*azurekms.Options{nil, algorithms["A256KW"]} {
			p, err := v.client(t, reader).Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
			require.NoError(t, err)
			require.Equal(t, k.Plaintext(), p)
		}
	}
}

// TestCiphertext: its form, of which the suite changes every part.
func TestCiphertext(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	version := versionOf(k.KeyID)
	require.Equal(t, append([]byte{1, 1, 32}, version...), k.Ciphertext[:35])
	require.Equal(t, []byte{1, 0}, k.Ciphertext[35:37], "an RSA key of 2048 bits")
	require.Len(t, k.Ciphertext, 37+256+104)
	wrapped, sealed := k.Ciphertext[37:37+256], k.Ciphertext[37+256:]
	part := func(form, algorithm byte, version string, wrapped, sealed []byte) []byte {
		return slices.Concat([]byte{form, algorithm, byte(len(version))}, []byte(version), []byte{byte(len(wrapped) >> 8), byte(len(wrapped))}, wrapped, sealed)
	}
	require.Equal(t, k.Ciphertext, part(1, 1, version, wrapped, sealed))
	v.Asked()
	for name, data := range map[string][]byte{
		"another format":        part(2, 1, version, wrapped, sealed),
		"no algorithm":          part(1, 0, version, wrapped, sealed),
		"an unknown algorithm":  part(1, 3, version, wrapped, sealed),
		"no version":            part(1, 1, "", wrapped, sealed),
		"a version with a path": part(1, 1, "../x", wrapped, sealed),
		"no wrapped key":        part(1, 1, version, nil, sealed),
		"a long wrapped key":    part(1, 1, version, make([]byte, 1025), sealed),
		"more behind":           part(1, 1, version, wrapped, append(slices.Clone(sealed), 0)),
	} {
		_, err := c.Decrypt(t.Context(), k.KeyID, data, ec)
		kmstest.RequireKind(t, err, kms.ErrCiphertext)
		require.Empty(t, v.Asked(), name)
	}
	// What is asked of Azure, and refused there.
	for name, data := range map[string][]byte{
		"another algorithm": part(1, 2, version, wrapped, sealed),
		"another version":   part(1, 1, "0123456789abcdef0123456789abcdef", wrapped, sealed),
	} {
		id := "photos"
		kind := kms.ErrNotFound // of a version that is not there
		if name == "another algorithm" {
			id, kind = k.KeyID, kms.ErrCiphertext
		}
		_, err := c.Decrypt(t.Context(), id, data, ec)
		kmstest.RequireKind(t, err, kind)
	}
	// Two data keys, and their halves exchanged.
	other, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	_, err = c.Decrypt(t.Context(), k.KeyID, part(1, 1, version, wrapped, other.Ciphertext[37+256:]), ec)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
}

// TestRoles: the client asks for what the documentation's roles allow.
func TestRoles(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	require.Equal(t, []string{"wrapkey photos"}, v.Asked())
	_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
	require.NoError(t, err)
	require.Equal(t, []string{"unwrapkey photos/" + versionOf(k.KeyID)}, v.Asked())
}

// TestRotationLocksNothingOut: whatever name a process was set up with, and after
// a restart, it opens the objects of every version of its key, and no object of
// another key or vault.
func TestRotationLocksNothingOut(t *testing.T) {
	v := newVault(t)
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg"}
	sealed := func(keyID string) *sse.Envelope {
		mode, err := sse.NewKMS(v.client(t, nil), keyID, nil)
		require.NoError(t, err)
		e, err := mode.Encrypt(t.Context(), obj)
		require.NoError(t, err)
		return e.Envelope()
	}
	first := v.addVersion("photos", false)
	before := sealed("photos")
	second := v.addVersion("photos", false)
	after := sealed("photos")
	v.addVersion("attacker", false)
	foreign := sealed("attacker")
	require.Equal(t, []string{first, second}, []string{before.KeyID(), after.KeyID()})
	for _, keyID := range []string{"photos", "Photos", first, second, strings.TrimSuffix(first, "/"+versionOf(first))} {
		reader, err := sse.NewKMS(v.client(t, nil), keyID, nil)
		require.NoError(t, err)
		for _, env := range []*sse.Envelope{before, after} {
			_, err = reader.Decrypt(t.Context(), obj, env)
			require.NoError(t, err, "%s opens %s", keyID, env.KeyID())
		}
		v.Asked()
		_, err = reader.Decrypt(t.Context(), obj, foreign)
		require.ErrorIs(t, err, sse.ErrKey)
		require.ErrorContains(t, err, foreign.KeyID())
		require.Empty(t, v.Asked(), "Azure was asked")
	}
}

// TestSSE: objects from end to end.
func TestSSE(t *testing.T) {
	for name, opts := range algorithms {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			first := v.addVersion("photos", symmetric(opts))
			mode, err := sse.NewKMS(v.client(t, opts), "photos", nil)
			require.NoError(t, err)
			obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "7"}}
			plaintext := bytes.Repeat([]byte("a cat "), 10_000)
			object := ssetest.Seal(t, mode, obj, plaintext, nil)
			read := func(obj sse.Object) error {
				got, err := ssetest.Open(t.Context(), mode, obj, object)
				if err == nil {
					require.True(t, bytes.Equal(plaintext, got), "another plaintext")
				}
				return err
			}
			require.NoError(t, read(obj))
			env, err := sse.ReadEnvelope(bytes.NewReader(object))
			require.NoError(t, err)
			require.Equal(t, first, env.KeyID(), "objects store the version")
			for name, other := range map[string]sse.Object{
				"object":  {Bucket: "photos", Key: "2026/dog.jpg", AnyContext: true},
				"bucket":  {Bucket: "phots", Key: "2026/cat.jpg", AnyContext: true},
				"context": {Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "8"}},
			} {
				require.ErrorIs(t, read(other), sse.ErrKey, name)
			}

			second := v.addVersion("photos", symmetric(opts))
			require.NoError(t, read(obj), "after a rotation")
			d, err := mode.Decrypt(t.Context(), obj, env)
			require.NoError(t, err)
			moved, err := mode.Rewrap(t.Context(), obj, d)
			require.NoError(t, err)
			require.Equal(t, second, moved.KeyID())
			_, err = mode.Decrypt(t.Context(), obj, moved)
			require.NoError(t, err)

			for _, c := range []struct {
				change func(bool)
				kind   error
			}{
				{func(on bool) { v.keys["photos"].disabled = on }, kms.ErrDisabled},
				{func(on bool) { v.denied["unwrapkey"] = on }, kms.ErrDenied},
				{func(on bool) {
					v.Repair()
					if on {
						v.Fail("", azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", ""))
					}
				}, kms.ErrUnavailable},
			} {
				v.set(func() { c.change(true) })
				err := read(obj)
				require.ErrorIs(t, err, c.kind)
				require.NotErrorIs(t, err, sse.ErrKey)
				v.set(func() { c.change(false) })
				require.NoError(t, read(obj))
			}
			v.set(func() { v.keys["photos"].deleted = true })
			require.ErrorIs(t, read(obj), kms.ErrNotFound)
		})
	}
}
