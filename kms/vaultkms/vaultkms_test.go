package vaultkms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/internal/testbed/transit"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/vaultkms"
	"github.com/blobseal/blobseal/sse"
)

const photos = "transit/keys/photos"

var ec = kms.Context{"blobseal:object": "photos/cat.jpg"}

func TestConformance(t *testing.T) {
	onEach := func(t *testing.T, newServer func(testing.TB) *server) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			s := newServer(t)
			s.createKey(t, "photos")
			s.createKey(t, "other")
			subject := kmstest.Subject{
				Client: s.client(t), KeyID: photos, Alias: "photos", OtherKeyID: "transit/keys/other", UnknownKeyID: "transit/keys/none",
				Break:  func(*testing.T) { s.Fail("", vaultError(http.StatusServiceUnavailable, "Vault is sealed")) },
				Repair: func(*testing.T) { s.Repair() },
				Stall:  func(*testing.T) { s.Fail("", s.Stall) },
			}
			if _, ok := s.engine.(*fakeTransit); ok { // as OpenBao has it, and Vault has not
				subject.ScheduleDeletion = func(t *testing.T) { s.write(t, photos+"/soft-delete", nil) }
			}
			return subject
		})
	}
	t.Run("fake", func(t *testing.T) { onEach(t, newFake) })
	t.Run("transit", func(t *testing.T) {
		if transitURL == "" {
			transit.Skip(t)
		}
		onEach(t, newTransit)
	})
}

// operations are both operations with the key photos, by the paths of their requests.
func operations(t testing.TB, c *vaultkms.Client) map[string]func(ctx context.Context) error {
	t.Helper()
	ops := kmstest.Operations(t, c, photos, ec)
	return map[string]func(ctx context.Context) error{
		"transit/datakey/plaintext/photos": ops[kms.OpGenerateDataKey],
		"transit/decrypt/photos":           ops[kms.OpDecrypt],
	}
}

// TestWhyDerived shows what this package is built upon, with Vault's own client:
// a key that is not derived binds neither a context nor associated data.
func TestWhyDerived(t *testing.T) {
	s := newTransit(t)
	s.write(t, "transit/keys/plain", nil)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, parameter := range []string{"context", "associated_data"} {
		made, err := s.vault.Logical().Write("transit/datakey/plaintext/plain", map[string]any{parameter: b64("photos/cat.jpg")})
		require.NoError(t, err)
		input := map[string]any{"ciphertext": made.Data["ciphertext"]}
		if parameter == "context" {
			input["context"] = b64("photos/dog.jpg")
		}
		opened, err := s.vault.Logical().Write("transit/decrypt/plain", input)
		require.NoError(t, err)
		require.Equal(t, made.Data["plaintext"], opened.Data["plaintext"], "%s is ignored", parameter)
	}
}

// TestWithoutThisPackage decrypts with Vault's own client. SPEC SVC-2
func TestWithoutThisPackage(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		k, err := s.client(t).GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		opened, err := s.vault.Logical().Write("transit/decrypt/photos", map[string]any{
			"ciphertext": string(k.Ciphertext),
			"context":    base64.StdEncoding.EncodeToString(ec.AssociatedData()),
		})
		require.NoError(t, err)
		require.Equal(t, base64.StdEncoding.EncodeToString(k.Plaintext()), opened.Data["plaintext"])
	})
}

func TestKeyThatIsNotDerived(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		s.write(t, "transit/keys/plain", nil)
		c := s.client(t)
		k, err := c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		s.Asked()
		dk, err := c.GenerateDataKey(t.Context(), "plain", ec)
		require.ErrorIs(t, err, kms.ErrInvalid)
		require.Nil(t, dk)
		require.ErrorContains(t, err, "derived=true", "what to do")
		_, err = c.Decrypt(t.Context(), "transit/keys/plain", k.Ciphertext, ec)
		require.ErrorIs(t, err, kms.ErrInvalid)
		require.Equal(t, []string{"GET transit/keys/plain", "GET transit/keys/plain"}, s.Asked(), "the key is not used")

		// Another key under the name: known at once where it fails ...
		s.deleteKey(t, "photos")
		s.write(t, "transit/keys/photos", nil)
		_, err = c.Decrypt(t.Context(), photos, k.Ciphertext, ec)
		require.ErrorIs(t, err, kms.ErrCiphertext)
		_, err = c.GenerateDataKey(t.Context(), photos, ec)
		require.ErrorIs(t, err, kms.ErrInvalid)
	})
}

// TestAgeOfTheCheck: ... and in time where it would not.
func TestAgeOfTheCheck(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		c := s.client(t)
		now := time.Now()
		c.SetClock(func() time.Time { return now })
		use := func() error { _, err := c.GenerateDataKey(t.Context(), photos, ec); return err }
		for range 3 {
			require.NoError(t, use())
		}
		require.Equal(t, 1, count(s.Asked(), "GET "+photos))
		now = now.Add(5*time.Minute - 1)
		require.NoError(t, use())
		require.Equal(t, 0, count(s.Asked(), "GET "+photos))
		s.deleteKey(t, "photos")
		s.write(t, "transit/keys/photos", nil)
		now = now.Add(1)
		require.ErrorIs(t, use(), kms.ErrInvalid)
	})
}

func count(requests []string, request string) int {
	n := 0
	for _, r := range requests {
		if r == request {
			n++
		}
	}
	return n
}

func TestRotation(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		c := s.client(t)
		var keys []*kms.DataKey
		for version := 1; version <= 3; version++ {
			var report kms.Report
			k, err := c.GenerateDataKey(kms.WithReport(t.Context(), &report), photos, ec)
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(k.Ciphertext, fmt.Appendf(nil, "vault:v%d:", version)), "%s", k.Ciphertext)
			require.Equal(t, photos, report.KeyID)
			require.Equal(t, fmt.Sprint(version), report.KeyVersion)
			require.NotEmpty(t, report.RequestID)
			keys = append(keys, k)
			s.write(t, photos+"/rotate", nil)
		}
		for minVersion := 1; minVersion <= 4; minVersion++ {
			s.write(t, photos+"/config", map[string]any{"min_decryption_version": minVersion})
			for i, k := range keys {
				var report kms.Report
				p, err := c.Decrypt(kms.WithReport(t.Context(), &report), photos, k.Ciphertext, ec)
				require.Equal(t, fmt.Sprint(i+1), report.KeyVersion)
				if i+1 < minVersion {
					require.ErrorIs(t, err, kms.ErrDisabled, "version %d where %d is the least", i+1, minVersion)
					require.NotErrorIs(t, err, kms.ErrCiphertext)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, k.Plaintext(), p)
			}
			_, err := c.GenerateDataKey(t.Context(), photos, ec)
			require.NoError(t, err)
		}
		s.write(t, photos+"/config", map[string]any{"min_decryption_version": 1})
		_, err := c.Decrypt(t.Context(), photos, keys[0].Ciphertext, ec)
		require.NoError(t, err, "a version comes back")
	})
}

func TestDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		c := s.client(t)
		ops := operations(t, c)
		s.deleteKey(t, "photos")
		for range 2 { // by what the operation says, and by what the check then says
			for path, op := range ops {
				require.ErrorIs(t, op(t.Context()), kms.ErrNotFound, path)
			}
		}
		for path, op := range operations(t, mustCreate(t, s)) {
			require.NoError(t, op(t.Context()), path)
		}
		require.ErrorIs(t, ops["transit/decrypt/photos"](t.Context()), kms.ErrCiphertext, "the new key is another")
	})
}

// TestSoftDeleted: a state of OpenBao's keys, known before their use.
func TestSoftDeleted(t *testing.T) {
	s := newFake(t)
	ops := operations(t, mustCreate(t, s))
	s.write(t, photos+"/soft-delete", nil)
	for path, op := range ops {
		kmstest.RequireKind(t, op(t.Context()), kms.ErrPendingDeletion)
		s.Asked()
		kmstest.RequireKind(t, op(t.Context()), kms.ErrPendingDeletion)
		require.Equal(t, []string{"GET " + photos}, s.Asked(), path)
	}
}

// mustCreate makes the key photos, and returns a client.
func mustCreate(t testing.TB, s *server) *vaultkms.Client {
	t.Helper()
	s.createKey(t, "photos")
	return s.client(t)
}

func TestDenied(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		ops := operations(t, mustCreate(t, s))
		for path, op := range ops {
			for what, fault := range map[string]http.HandlerFunc{
				"403": vaultError(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n"),
				"401": vaultError(http.StatusUnauthorized, "unauthorized"),
				"400": vaultError(http.StatusBadRequest, "missing client token"),
			} {
				for _, at := range []string{path, photos} { // the operation's path, and the check's
					require.NoError(t, op(t.Context()))
					s.Fail(path, fault)
					require.ErrorIs(t, op(t.Context()), kms.ErrDenied, "%s at %s", what, at)
					s.Fail(at, fault)
					require.ErrorIs(t, op(t.Context()), kms.ErrDenied, "%s at %s", what, at)
					s.Repair()
				}
			}
		}
		s.Fail("transit/decrypt/photos", vaultError(http.StatusForbidden, "permission denied"))
		require.NoError(t, ops["transit/datakey/plaintext/photos"](t.Context()), "who may only encrypt")
	})
}

// TestDataKeyOfAnotherLength: what holds no data key is neither used nor shown.
func TestDataKeyOfAnotherLength(t *testing.T) {
	s := newFake(t)
	for path, op := range operations(t, mustCreate(t, s)) {
		for _, n := range []int{0, 1, 16, 31, 33, 64} {
			plaintext := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("s"), n))
			s.Fail(path, kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"data":{"ciphertext":"vault:v1:AAAA","plaintext":%q}}`, plaintext)))
			err := op(t.Context())
			if strings.Contains(path, "datakey") {
				kmstest.RequireKind(t, err, kms.ErrUnavailable)
			} else {
				kmstest.RequireKind(t, err, kms.ErrCiphertext)
			}
			if n > 8 {
				require.NotContains(t, err.Error(), plaintext[:8])
			}
			s.Repair()
		}
	}
}

// TestRefusals: answers that are Vault's last word.
func TestRefusals(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		ops := operations(t, mustCreate(t, s))
		generate, decrypt := "transit/datakey/plaintext/photos", "transit/decrypt/photos"
		for _, c := range []struct {
			name   string
			path   string
			status int
			text   string
			kind   error
		}{
			{"a parameter that Transit refuses", generate, 400, "invalid bit length", kms.ErrInvalid},
			{"another engine", generate, 405, "unsupported operation", kms.ErrInvalid},
			{"too large", decrypt, 413, "request body too large", kms.ErrInvalid},
			{"a mount that is gone", decrypt, 404, "no handler for route", kms.ErrNotFound},
			{"a version that is yet to come", decrypt, 400, "invalid ciphertext: version is too new", kms.ErrCiphertext},
			{"another text for a damaged ciphertext", decrypt, 400, "unable to decrypt", kms.ErrCiphertext},
			{"soft-deleted", decrypt, 500, "1 error occurred:\n\t* refusing to use soft-deleted key\n", kms.ErrPendingDeletion},
			{"a version below min_decryption_version", decrypt, 400, "ciphertext or signature version is disallowed by policy (too old)", kms.ErrDisabled},
			{"a check that is refused", photos, 400, "bad request", kms.ErrInvalid},
		} {
			t.Run(c.name, func(t *testing.T) {
				op := ops[c.path]
				if op == nil {
					op = ops[decrypt]
					s.Fail(decrypt, vaultError(http.StatusServiceUnavailable, ""))
					require.Error(t, op(t.Context())) // and the check is due
				}
				s.Fail(c.path, vaultError(c.status, c.text))
				err := op(t.Context())
				kmstest.RequireKind(t, err, c.kind)
				answer, ok := errors.AsType[*vault.ResponseError](err)
				require.True(t, ok, "Vault's own error is there")
				require.Equal(t, c.status, answer.StatusCode)
				s.Repair()
			})
		}
	})
}

// TestSSE: objects from end to end. The test is long because it is one history of one
// object.
func TestSSE(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		c := mustCreate(t, s)
		mode, err := sse.NewKMS(c, "photos", nil)
		require.NoError(t, err)
		obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "7"}}
		plaintext := bytes.Repeat([]byte("a cat "), 10_000)
		write := func() []byte {
			t.Helper()
			return ssetest.Seal(t, mode, obj, plaintext, nil)
		}
		read := func(object []byte, obj sse.Object) error {
			got, err := ssetest.Open(t.Context(), mode, obj, object)
			if err == nil {
				require.True(t, bytes.Equal(plaintext, got), "another plaintext")
			}
			return err
		}
		first := write()
		env, err := sse.ReadEnvelope(bytes.NewReader(first))
		require.NoError(t, err)
		require.Equal(t, photos, env.KeyID(), "objects store the path")
		require.NoError(t, read(first, obj))

		for name, other := range map[string]sse.Object{
			"object":  {Bucket: "photos", Key: "2026/dog.jpg", AnyContext: true},
			"bucket":  {Bucket: "phots", Key: "2026/cat.jpg", AnyContext: true},
			"context": {Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "8"}},
		} {
			require.ErrorIs(t, read(first, other), sse.ErrKey, name)
		}

		// A new version: the old object opens, moves to it without its body, and
		// then does not need the old version.
		s.write(t, photos+"/rotate", nil)
		second := write()
		require.NoError(t, read(first, obj))
		d, err := mode.Decrypt(t.Context(), obj, env)
		require.NoError(t, err)
		moved, err := mode.Rewrap(t.Context(), obj, d)
		require.NoError(t, err)
		head, err := moved.MarshalBinary()
		require.NoError(t, err)
		rewrapped := slices.Concat(head, first[env.Size():])
		s.write(t, photos+"/config", map[string]any{"min_decryption_version": 2})
		require.NoError(t, read(second, obj))
		require.NoError(t, read(rewrapped, obj))
		err = read(first, obj)
		require.ErrorIs(t, err, kms.ErrDisabled)
		require.NotErrorIs(t, err, sse.ErrKey)

		s.Fail("", vaultError(http.StatusServiceUnavailable, "Vault is sealed"))
		require.ErrorIs(t, read(second, obj), kms.ErrUnavailable)
		s.Fail("", vaultError(http.StatusForbidden, "permission denied"))
		require.ErrorIs(t, read(second, obj), kms.ErrDenied)
		s.Repair()
		require.NoError(t, read(second, obj))
		s.deleteKey(t, "photos")
		require.ErrorIs(t, read(second, obj), kms.ErrNotFound)
	})
}
