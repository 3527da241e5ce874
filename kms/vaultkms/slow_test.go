package vaultkms_test

import (
	"fmt"
	"maps"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/vaultkms"
)

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
