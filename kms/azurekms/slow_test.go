package azurekms_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

func TestUnavailable(t *testing.T) {
	value := base64.RawURLEncoding.EncodeToString(random(32))
	v := newPhotos(t)
	id := v.id("photos", v.keys["photos"].versions[0].id)
	answer := func(kid, value string) http.HandlerFunc {
		return kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"kid":%q,"value":%q}`, kid, value))
	}
	faults := kmstest.Outages()
	maps.Copy(faults, map[string]http.HandlerFunc{
		"throttled": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3600") // longer than the SDK is told to wait
			azureError(http.StatusTooManyRequests, "Throttled", "", "Request was not processed because too many requests were received.")(w, r)
		},
		"internal error":          azureError(http.StatusInternalServerError, "InternalServerError", "", ""),
		"unavailable":             azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", ""),
		"request timeout":         azureError(http.StatusRequestTimeout, "RequestTimeout", "", ""),
		"no key":                  kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"value":%q}`, value)),
		"a value not base64":      answer(id, "???"),
		"a key without a version": answer("https://"+host+"/keys/photos", value),
		"a key without a vault":   answer("photos/1", value),
		"another key":             answer(v.id("other", versionOf(id)), value),
		"a key that is none":      answer("https://", value),
		"a key with a query":      answer(id+"?x=1", value),
	})
	for name, fault := range faults {
		for op, call := range kmstest.Operations(t, v.client(t, nil), "photos", ec) {
			t.Run(name+" at "+string(op), func(t *testing.T) {
				v.Fail("", fault)
				err := call(t.Context())
				kmstest.RequireKind(t, err, kms.ErrUnavailable)
				require.NotContains(t, err.Error(), value)
				v.Repair()
				require.NoError(t, call(t.Context()), "after the fault")
			})
		}
	}
	t.Run("no wrapped key", func(t *testing.T) {
		for _, value := range []string{"", base64.RawURLEncoding.EncodeToString(make([]byte, 1025))} {
			v.Fail("", answer(id, value))
			_, err := v.client(t, nil).GenerateDataKey(t.Context(), "photos", ec)
			kmstest.RequireKind(t, err, kms.ErrUnavailable)
			v.Repair()
		}
	})
	t.Run("another version", func(t *testing.T) {
		call := kmstest.Operations(t, v.client(t, nil), "photos", ec)[kms.OpDecrypt]
		v.Fail("", answer(v.id("photos", "0123456789abcdef0123456789abcdef"), value))
		kmstest.RequireKind(t, call(t.Context()), kms.ErrUnavailable)
		v.Repair()
	})
}

func TestUnreachable(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	v.server.Close()
	_, err := c.GenerateDataKey(t.Context(), "photos", ec)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
}

// TestRetries: Azure's SDK tries again, as it is configured, and nobody else.
func TestRetries(t *testing.T) {
	v := newPhotos(t)
	for _, retries := range []int32{-1, 2} {
		opts := retry
		opts.MaxRetries = retries
		attempts := int64(1 + max(0, retries))
		c, err := azurekms.New(v.azure(t, credential{v}, opts), nil)
		require.NoError(t, err)
		for op, call := range kmstest.Operations(t, c, "photos", ec) {
			busy := azureError(http.StatusTooManyRequests, "Throttled", "", "")
			v.Fail("", busy)
			v.Asked()
			kmstest.RequireKind(t, call(t.Context()), kms.ErrUnavailable)
			require.Len(t, v.Asked(), int(attempts), op)
			var failures atomic.Int64
			v.Fail("", func(w http.ResponseWriter, r *http.Request) {
				if failures.Add(1) == attempts {
					v.Repair()
				}
				busy(w, r)
			})
			if attempts > 1 { // the fault passes with the last attempt but one
				failures.Add(1)
				require.NoError(t, call(t.Context()), op)
			}
			v.Repair()
		}
	}
}

// TestSlow: ctx ends a call wherever it is. The SDK's own timeout is no end of ctx.
func TestSlow(t *testing.T) {
	v := newPhotos(t)
	patient := policy.RetryOptions{MaxRetries: 2, RetryDelay: time.Hour, MaxRetryDelay: 2 * time.Hour}
	c, err := azurekms.New(v.azure(t, credential{v}, patient), nil)
	require.NoError(t, err)
	for op, call := range kmstest.Operations(t, c, "photos", ec) {
		for name, fault := range map[string]http.HandlerFunc{
			"no answer":      v.Stall,
			"a long pause":   azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", ""),
			"half an answer": v.StallAfter(`{"kid":`),
		} {
			t.Run(name+" at "+string(op), func(t *testing.T) {
				v.Fail("", fault)
				kmstest.RequireEnds(t, call)
				v.Repair()
				require.NoError(t, call(t.Context()))
			})
		}
	}
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	hasty := policy.RetryOptions{MaxRetries: -1, TryTimeout: 30 * time.Millisecond}
	c, err = azurekms.New(v.azure(t, credential{v}, hasty), nil)
	require.NoError(t, err)
	v.Fail("", v.Stall)
	t.Run("a timeout of the SDK", func(t *testing.T) {
		_, err := c.GenerateDataKey(t.Context(), "photos", ec)
		kmstest.RequireKind(t, err, kms.ErrUnavailable)
		_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrUnavailable)
	})
}

// slowCredential gives no token until release.
type slowCredential struct {
	credential
	asked, release chan struct{}
}

func (s slowCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	close(s.asked)
	<-s.release
	return s.credential.GetToken(ctx, o)
}

// TestSlowCredential: the SDK has all callers wait for the token that the first one
// fetches, whatever their ctx; calls do not.
func TestSlowCredential(t *testing.T) {
	v := newPhotos(t)
	slow := slowCredential{credential{v}, make(chan struct{}), make(chan struct{})}
	c, err := azurekms.New(v.azure(t, slow, retry), nil)
	require.NoError(t, err)
	generate := func(ctx context.Context) error { _, err := c.GenerateDataKey(ctx, "photos", ec); return err }
	first := make(chan error, 1)
	go func() { first <- generate(context.Background()) }()
	await.Value(t, slow.asked, "the client to ask for a token")
	kmstest.RequireEnds(t, generate)
	close(slow.release)
	require.NoError(t, await.Value(t, first, "the first call to end"))
	require.NoError(t, generate(t.Context()))
}

// failingCredential is what azidentity's are without a way to a token.
type failingCredential struct{ err error }

func (f failingCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, f.err
}

func TestCredentials(t *testing.T) {
	v := newPhotos(t)
	failed := errors.New("no managed identity here")
	c, err := azurekms.New(v.azure(t, failingCredential{failed}, retry), nil)
	require.NoError(t, err)
	_, err = c.GenerateDataKey(t.Context(), "photos", ec)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	require.ErrorIs(t, err, failed)

	// A token that Azure does not take, and then one that it does.
	c = v.client(t, nil)
	for op, call := range kmstest.Operations(t, c, "photos", ec) {
		stale := staleCredential{v, new(atomic.Bool)}
		c, err := azurekms.New(v.azure(t, stale, retry), nil)
		require.NoError(t, err)
		stale.on.Store(true)
		_, err = c.GenerateDataKey(t.Context(), "photos", ec)
		kmstest.RequireKind(t, err, kms.ErrDenied)
		require.NotContains(t, fmt.Sprintf("%v %+v", err, err), "the stale token")
		stale.on.Store(false)
		_, err = c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		require.NoError(t, call(t.Context()), op)
	}
}

type staleCredential struct {
	v  *vault
	on *atomic.Bool
}

func (s staleCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if s.on.Load() {
		return azcore.AccessToken{Token: "the stale token", ExpiresOn: time.Now().Add(time.Hour)}, nil
	}
	return credential{s.v}.GetToken(ctx, o)
}
