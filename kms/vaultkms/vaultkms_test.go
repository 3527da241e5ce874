package vaultkms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

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
		if bedURL == "" {
			t.Skip(howToBed)
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

// TestToken: whoever made Vault's client changes its token, and calls follow.
func TestToken(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		v := s.newVault(t)
		c, err := vaultkms.New(v, nil)
		require.NoError(t, err)
		for path, op := range operations(t, c) {
			for _, revoked := range []string{"s.revoked", ""} {
				v.SetToken(revoked)
				err := op(t.Context())
				require.ErrorIs(t, err, kms.ErrDenied, path)
				if revoked != "" {
					require.NotContains(t, fmt.Sprintf("%v %+v", err, err), revoked)
				}
				v.SetToken(token)
				require.NoError(t, op(t.Context()), path)
			}
		}
	})
}

func TestUnavailable(t *testing.T) {
	faults := kmstest.Outages()
	maps.Copy(faults, map[string]http.HandlerFunc{
		"throttled":               vaultError(http.StatusTooManyRequests, "request path \"transit/\": rate limit quota exceeded"),
		"lagging replica":         vaultError(http.StatusPreconditionFailed, "required index state not present"),
		"internal error":          vaultError(http.StatusInternalServerError, "internal error"),
		"sealed":                  vaultError(http.StatusServiceUnavailable, "Vault is sealed"),
		"no data":                 kmstest.Answer(http.StatusOK, `{"request_id":"1","data":null}`),
		"other data":              kmstest.Answer(http.StatusOK, `{"request_id":"1","data":{"ciphertext":1,"plaintext":[],"derived":"yes"}}`),
		"a plaintext not base64":  kmstest.Answer(http.StatusOK, `{"request_id":"1","data":{"plaintext":"?","ciphertext":"vault:v1:AAAA"}}`),
		"a ciphertext of no form": kmstest.Answer(http.StatusOK, `{"data":{"ciphertext":"AAAA"}}`),
		"a wrapped response":      kmstest.Answer(http.StatusOK, `{"data":null,"wrap_info":{"token":"s.wrapped","ttl":60}}`),
	})
	onEach(t, func(t *testing.T, s *server) {
		for path, op := range operations(t, mustCreate(t, s)) {
			for name, fault := range faults {
				t.Run(name+" at "+path, func(t *testing.T) {
					require.NoError(t, op(t.Context()))
					s.Fail(path, fault)
					err := op(t.Context())
					kmstest.RequireKind(t, err, kms.ErrUnavailable)
					require.Less(t, len(err.Error()), 500, "%v", err)
					require.NotContains(t, err.Error(), "\n")
					// The check comes first now, and meets the same.
					s.Fail(photos, fault)
					kmstest.RequireKind(t, op(t.Context()), kms.ErrUnavailable)
					s.Repair()
					require.NoError(t, op(t.Context()), "after the fault")
				})
			}
		}
	})
}

func TestUnreachable(t *testing.T) {
	config := vault.DefaultConfig()
	require.NoError(t, config.Error)
	config.Address = "http://127.0.0.1:1"
	config.MinRetryWait, config.MaxRetryWait = time.Millisecond, time.Millisecond
	v, err := vault.NewClient(config)
	require.NoError(t, err)
	c, err := vaultkms.New(v, nil)
	require.NoError(t, err)
	_, err = c.GenerateDataKey(t.Context(), "photos", ec)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
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

// TestRetries: Vault's client tries again, as it is configured, and nobody else.
func TestRetries(t *testing.T) {
	s := newFake(t)
	s.createKey(t, "photos")
	v := s.newVault(t)
	c, err := vaultkms.New(v, nil)
	require.NoError(t, err)
	for path, op := range operations(t, c) {
		for _, retries := range []int{0, 2} {
			v.SetMaxRetries(retries)
			require.NoError(t, op(t.Context()))
			s.Asked()
			s.Fail(path, vaultError(http.StatusServiceUnavailable, "Vault is sealed"))
			require.ErrorIs(t, op(t.Context()), kms.ErrUnavailable)
			require.Equal(t, 1+retries, count(s.Asked(), "PUT "+path))

			var failures atomic.Int64
			s.Fail(path, func(w http.ResponseWriter, r *http.Request) {
				if failures.Add(1) <= int64(retries) {
					vaultError(http.StatusServiceUnavailable, "Vault is sealed")(w, r)
					return
				}
				s.engine.ServeHTTP(w, r)
			})
			require.NoError(t, op(t.Context()), "a fault that passes within %d retries", retries)
			s.Repair()
		}
	}
}

// TestSlow: ctx ends a call wherever it is: in the check, in the operation, in a
// pause before the next attempt. The client's own timeout is no end of ctx.
func TestSlow(t *testing.T) {
	s := newFake(t)
	s.createKey(t, "photos")
	v := s.newVault(t)
	c, err := vaultkms.New(v, nil)
	require.NoError(t, err)
	for path, op := range operations(t, c) {
		for _, at := range []string{path, photos} {
			for name, fault := range map[string]http.HandlerFunc{
				"no answer":      s.Stall,
				"a long pause":   vaultError(http.StatusServiceUnavailable, "Vault is sealed"),
				"half an answer": s.StallAfter(`{"data":{`),
			} {
				t.Run(name+" at "+at, func(t *testing.T) {
					require.NoError(t, op(t.Context()))
					if at == photos { // make the check due
						s.Fail(path, vaultError(http.StatusForbidden, "permission denied"))
						require.ErrorIs(t, op(t.Context()), kms.ErrDenied)
					}
					v.SetMinRetryWait(time.Hour)
					v.SetMaxRetryWait(time.Hour)
					s.Fail(at, fault)
					kmstest.RequireEnds(t, op)
					v.SetMinRetryWait(time.Millisecond)
					v.SetMaxRetryWait(time.Millisecond)
					if name != "a long pause" {
						v.SetMaxRetries(0)
						v.SetClientTimeout(30 * time.Millisecond)
						kmstest.RequireKind(t, op(t.Context()), kms.ErrUnavailable)
						v.SetClientTimeout(time.Minute)
						v.SetMaxRetries(2)
					}
					s.Repair()
					require.NoError(t, op(t.Context()))
				})
			}
		}
	}
}

// TestForms: of a ciphertext that Transit would read in more than one form, one is
// accepted, and the others are not sent.
func TestForms(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		c := mustCreate(t, s)
		k, err := c.GenerateDataKey(t.Context(), photos, ec)
		require.NoError(t, err)
		encoded := strings.TrimPrefix(string(k.Ciphertext), "vault:v1:")
		s.Asked()
		for _, ciphertext := range []string{
			"", "vault:", "vault:v1:", "vault:v1", encoded,
			"vault:v0:" + encoded, "vault:v01:" + encoded, "vault:v+1:" + encoded, "vault:v-1:" + encoded, "vault:1:" + encoded,
			"vault:v1:" + encoded[:4] + "\n" + encoded[4:], "vault:v1:" + encoded + "\n", "vault:v1:" + encoded + "=",
			"\nvault:v1:" + encoded, "Vault:v1:" + encoded, "vault:v1:" + encoded + ":", "vault:v9999999999:" + encoded,
			"vault:v1:" + strings.Repeat("AAAA", 1000), "vault:v1:AB==", // where AA== is the same byte
		} {
			_, err := c.Decrypt(t.Context(), photos, []byte(ciphertext), ec)
			kmstest.RequireKind(t, err, kms.ErrCiphertext)
		}
		require.Empty(t, s.Asked())
	})
}

// TestKeyIDs: an id comes out of an envelope, and leads to no other path.
func TestKeyIDs(t *testing.T) {
	s := newFake(t)
	c := mustCreate(t, s)
	k, err := c.GenerateDataKey(t.Context(), photos, ec)
	require.NoError(t, err)
	s.Asked()
	for _, keyID := range []string{
		"", "transit/keys", "transit/keys/", "/transit/keys/photos", "transit/keys/photos/", "transit//keys/photos",
		"transit/keys/../keys/photos", "transit/keys/..", "..", ".", "../../sys/seal", "transit/keys/photos/rotate", "photos/rotate",
		"transit/keys/transit/keys/photos", "other/keys/photos", "TRANSIT/keys/photos", "photos?version=1", "photos#", "photos%2frotate",
		"photos ", "photos\n", "фото", ".photos", "photos.", "-photos", strings.Repeat("x", 257),
		"arn:aws:kms:us-east-1:111122223333:key/1234abcd", "https://vault.azure.net/keys/photos/1",
	} {
		_, err := c.GenerateDataKey(t.Context(), keyID, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
		_, err = c.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
	}
	require.Empty(t, s.Asked())
	for _, name := range []string{"x", "a.b-c_d", "a..b", strings.Repeat("x", 256)} { // Transit has them
		s.createKey(t, name)
		k, err := c.GenerateDataKey(t.Context(), name, ec)
		require.NoError(t, err, name)
		require.Equal(t, "transit/keys/"+name, k.KeyID)
	}
}

func TestMounts(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.mount(t, "teams/photos/transit")
		s.write(t, "teams/photos/transit/keys/photos", map[string]any{"derived": true})
		s.createKey(t, "photos")
		c, err := vaultkms.New(s.newVault(t), &vaultkms.Options{Mount: "/teams/photos/transit/"})
		require.NoError(t, err)
		k, err := c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		require.Equal(t, "teams/photos/transit/keys/photos", k.KeyID)
		p, err := c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		require.NoError(t, err)
		require.Equal(t, k.Plaintext(), p)

		_, err = s.client(t).Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound) // which is not "another key of the same name"
		_, err = s.client(t).Decrypt(t.Context(), "photos", k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrCiphertext)

		c, err = vaultkms.New(s.newVault(t), &vaultkms.Options{Mount: "nothing/here"})
		require.NoError(t, err)
		_, err = c.GenerateDataKey(t.Context(), "photos", ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
	})
	_, err := vaultkms.New(nil, nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	for _, mount := range []string{"/", "a//b", "..", "a/../b", "a/.", "a\nb", "a?b", "a%2fb"} {
		_, err := vaultkms.New(new(vault.Client), &vaultkms.Options{Mount: mount})
		require.ErrorIs(t, err, kms.ErrInvalid, "%q", mount)
	}
}

// TestNamespaces: the namespace is that of Vault's client, or begins the mount.
func TestNamespaces(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		k, err := s.client(t).GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)

		v := s.newVault(t)
		v.ClearNamespace()
		c, err := vaultkms.New(v, nil)
		require.NoError(t, err)
		_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
		c, err = vaultkms.New(v.WithNamespace(s.namespace), nil)
		require.NoError(t, err)
		_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		require.NoError(t, err)
		c, err = vaultkms.New(v, &vaultkms.Options{Mount: s.namespace + "/transit"})
		require.NoError(t, err)
		_, err = c.Decrypt(t.Context(), s.namespace+"/transit/keys/photos", k.Ciphertext, ec)
		require.NoError(t, err)
	})
}

// TestPolicies: the client asks for what the documentation's policies allow, and
// for nothing else. Vault takes a PUT for an update where nothing can be created.
func TestPolicies(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		c := mustCreate(t, s)
		s.Asked()
		k, err := c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		require.Equal(t, []string{"GET transit/keys/photos", "PUT transit/datakey/plaintext/photos"}, s.Asked())
		_, err = s.client(t).Decrypt(t.Context(), "photos", k.Ciphertext, ec)
		require.NoError(t, err)
		require.Equal(t, []string{"GET transit/keys/photos", "PUT transit/decrypt/photos"}, s.Asked())
		// A key that is missing is not made.
		_, err = c.GenerateDataKey(t.Context(), "none", ec)
		require.ErrorIs(t, err, kms.ErrNotFound)
		_, err = c.GenerateDataKey(t.Context(), "none", ec)
		require.ErrorIs(t, err, kms.ErrNotFound)
	})
}

// TestStandby: a node in standby sends its clients to the active one.
func TestStandby(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		standby := newFake(t)
		standby.Fail("", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.url+r.URL.Path, http.StatusTemporaryRedirect)
		})
		v := standby.newVault(t)
		v.SetNamespace(s.namespace)
		c, err := vaultkms.New(v, nil)
		require.NoError(t, err)
		for path, op := range operations(t, c) {
			require.NoError(t, op(t.Context()), path)
		}
	})
}

// TestSameKey: a name and its path in the mount are one key.
func TestSameKey(t *testing.T) {
	v := newFake(t).newVault(t)
	c, err := vaultkms.New(v, &vaultkms.Options{Mount: "teams/transit"})
	require.NoError(t, err)
	for _, tc := range []struct {
		name, id string
		same     bool
	}{
		{"photos", "teams/transit/keys/photos", true},
		{"teams/transit/keys/photos", "teams/transit/keys/photos", true},
		{"photos", "teams/transit/keys/other", false},
		{"photos", "transit/keys/photos", false},
		{"transit/keys/photos", "transit/keys/photos", false},
		{"alias/photos", "teams/transit/keys/photos", false},
	} {
		same, known := c.SameKey(tc.name, tc.id)
		require.True(t, known)
		require.Equal(t, tc.same, same, "%s %s", tc.name, tc.id)
	}
	_, err = sse.NewKMS(c, "alias/photos", nil)
	require.ErrorIs(t, err, sse.ErrInvalid, "no name of a key")
}

// TestSSE: objects from end to end.
func TestSSE(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		c := mustCreate(t, s)
		mode, err := sse.NewKMS(c, "photos", nil)
		require.NoError(t, err)
		obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "7"}}
		plaintext := bytes.Repeat([]byte("a cat "), 10_000)
		write := func() []byte {
			t.Helper()
			var sealed bytes.Buffer
			w, err := sse.NewWriter(t.Context(), &sealed, mode, obj, nil)
			require.NoError(t, err)
			_, err = w.Write(plaintext)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			return sealed.Bytes()
		}
		read := func(sealed []byte, obj sse.Object) error {
			r, err := sse.NewReader(t.Context(), bytes.NewReader(sealed), mode, obj)
			if err != nil {
				return err
			}
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(plaintext, got), "another plaintext")
			return nil
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
