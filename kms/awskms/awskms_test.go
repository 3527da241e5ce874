package awskms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// moment is until a ctx, or a limit of the vendor's client, ends.
const moment = 50 * time.Millisecond

func newServer(t testing.TB) *awskmstest.Server {
	t.Helper()
	s := awskmstest.NewServer()
	t.Cleanup(s.Close)
	return s
}

// impatient has the SDK try three times as always, and hardly wait in between.
func impatient(o *sdk.Options) {
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return time.Millisecond, nil })
	})
}

func newClient(t testing.TB, s *awskmstest.Server, optFns ...func(*sdk.Options)) *awskms.Client {
	t.Helper()
	c, err := awskms.New(s.Client("AKIAWRITER", append([]func(*sdk.Options){impatient}, optFns...)...), nil)
	require.NoError(t, err)
	return c
}

// drop ends the connection without an answer.
func drop(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// stall answers when the client has gone.
func stall(_ http.ResponseWriter, r *http.Request) bool {
	io.Copy(io.Discard, r.Body) // or the server does not see it go
	<-r.Context().Done()
	return true
}

// answer answers every request alike.
func answer(status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		io.WriteString(w, body)
		return true
	}
}

// refuse answers every request with an error of AWS's.
func refuse(status int, code string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		awskmstest.WriteError(w, status, code, "a text of the service")
		return true
	}
}

func TestClient(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kmstest.Subject {
		s := newServer(t)
		keyID := s.CreateKey()
		s.SetAlias("alias/photos", keyID)
		user := func(accessKeyID string) *awskms.Client {
			c, err := awskms.New(s.Client(accessKeyID, impatient), nil)
			require.NoError(t, err)
			return c
		}
		return kmstest.Subject{
			Client:           kmstest.ByPrincipal{{}: user("AKIANOBODY"), {ID: "kmstest", Type: "User"}: user("AKIAkmstest")},
			KeyID:            keyID,
			Alias:            "alias/photos",
			OtherKeyID:       s.CreateKey(),
			UnknownKeyID:     "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000",
			Disable:          func(*testing.T) { s.SetState(keyID, awskmstest.Disabled) },
			ScheduleDeletion: func(*testing.T) { s.SetState(keyID, awskmstest.PendingDeletion) },
			Enable:           func(*testing.T) { s.SetState(keyID, awskmstest.Enabled) },
			Deny:             func(_ *testing.T, p kms.Principal, op kms.Operation) { s.Deny("AKIA"+p.ID, string(op)) },
			Break:            func(*testing.T) { s.Intercept(drop) },
			Repair:           func(*testing.T) { s.Intercept(nil) },
			Stall:            func(*testing.T) { s.Intercept(stall) },
		}
	})
}

// TestFaults: what goes wrong at AWS KMS, or on the way there, and what it becomes.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name              string
		fault             func(s *awskmstest.Server, keyID string)
		generate, decrypt error
		code              string // the SDK's own error stays visible
	}{
		{"key disabled", func(s *awskmstest.Server, id string) { s.SetState(id, awskmstest.Disabled) },
			kms.ErrDisabled, kms.ErrDisabled, "DisabledException"},
		{"key pending deletion", func(s *awskmstest.Server, id string) { s.SetState(id, awskmstest.PendingDeletion) },
			kms.ErrPendingDeletion, kms.ErrPendingDeletion, "KMSInvalidStateException"},
		{"key pending import", func(s *awskmstest.Server, id string) { s.SetState(id, awskmstest.PendingImport) },
			kms.ErrPendingDeletion, kms.ErrPendingDeletion, "KMSInvalidStateException"},
		{"key store disconnected", func(s *awskmstest.Server, id string) { s.SetState(id, awskmstest.Unavailable) },
			kms.ErrPendingDeletion, kms.ErrPendingDeletion, "KMSInvalidStateException"},
		{"key deleted", func(s *awskmstest.Server, id string) { s.RemoveKey(id) },
			kms.ErrNotFound, kms.ErrNotFound, "NotFoundException"},
		{"writer denied", func(s *awskmstest.Server, _ string) { s.Deny("AKIAWRITER", "GenerateDataKey") },
			kms.ErrDenied, nil, "AccessDeniedException"},
		{"reader denied", func(s *awskmstest.Server, _ string) { s.Deny("AKIAWRITER", "Decrypt") },
			nil, kms.ErrDenied, "AccessDeniedException"},
		{"credentials expired", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(400, "ExpiredTokenException")) },
			kms.ErrDenied, kms.ErrDenied, "ExpiredTokenException"},
		{"throttled", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(400, "ThrottlingException")) },
			kms.ErrUnavailable, kms.ErrUnavailable, "ThrottlingException"},
		{"throttled by status", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(429, "Unheard")) },
			kms.ErrUnavailable, kms.ErrUnavailable, "Unheard"},
		{"internal error", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(500, "KMSInternalException")) },
			kms.ErrUnavailable, kms.ErrUnavailable, "KMSInternalException"},
		{"dependency timeout", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(503, "DependencyTimeoutException")) },
			kms.ErrUnavailable, kms.ErrUnavailable, "DependencyTimeoutException"},
		{"key unavailable", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(500, "KeyUnavailableException")) },
			kms.ErrUnavailable, kms.ErrUnavailable, "KeyUnavailableException"},
		{"unknown error of the service", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(505, "Unheard")) },
			kms.ErrUnavailable, kms.ErrUnavailable, "Unheard"},
		{"bad gateway in HTML", func(s *awskmstest.Server, _ string) { s.Intercept(answer(502, "<html>Bad Gateway</html>")) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"garbage as an error", func(s *awskmstest.Server, _ string) { s.Intercept(answer(403, "<html>captive portal</html>")) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"garbage", func(s *awskmstest.Server, _ string) { s.Intercept(answer(200, "<html>captive portal</html>")) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"garbage of the right form", func(s *awskmstest.Server, _ string) { s.Intercept(answer(200, `{"Plaintext":17}`)) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"nothing", func(s *awskmstest.Server, _ string) { s.Intercept(answer(200, "")) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"an empty answer", func(s *awskmstest.Server, _ string) { s.Intercept(answer(200, "{}")) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"connection dropped", func(s *awskmstest.Server, _ string) { s.Intercept(drop) },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"answer cut", func(s *awskmstest.Server, _ string) {
			s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Length", "100")
				io.WriteString(w, `{"KeyId":"arn:aws`)
				panic(http.ErrAbortHandler)
			})
		}, kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"unreachable", func(s *awskmstest.Server, _ string) { s.Close() },
			kms.ErrUnavailable, kms.ErrUnavailable, ""},
		{"key of another use", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(400, "InvalidKeyUsageException")) },
			kms.ErrInvalid, kms.ErrInvalid, "InvalidKeyUsageException"},
		{"unknown refusal", func(s *awskmstest.Server, _ string) { s.Intercept(refuse(400, "Unheard")) },
			kmstest.NoKind, kmstest.NoKind, "Unheard"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			keyID := s.CreateKey()
			fault := func() { c.fault(s, keyID) }
			kmstest.RequireFault(t, newClient(t, s), keyID, fault, c.generate, c.decrypt, func(err error) {
				if c.code != "" {
					api, ok := errors.AsType[smithy.APIError](err)
					require.True(t, ok, "%v", err)
					require.Equal(t, c.code, api.ErrorCode())
				}
			})
		})
	}
}

func TestCiphertextFaults(t *testing.T) {
	s := newServer(t)
	keyID, other := s.CreateKey(), s.CreateKey()
	client := newClient(t, s)
	ec := kms.Context{"blobseal:object": "photos/cat.jpg"}
	k, err := client.GenerateDataKey(t.Context(), keyID, ec)
	require.NoError(t, err)
	s.Rotate(keyID)
	plaintext, err := client.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
	require.NoError(t, err, "under material that was rotated away")
	require.Equal(t, k.Plaintext(), plaintext)
	flipped := bytes.Clone(k.Ciphertext)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name       string
		keyID      string
		ciphertext []byte
		ec         kms.Context
	}{
		{"wrong context", keyID, k.Ciphertext, kms.Context{"blobseal:object": "photos/dog.jpg"}},
		{"no context", keyID, k.Ciphertext, nil},
		{"a pair more", keyID, k.Ciphertext, kms.Context{"blobseal:object": "photos/cat.jpg", "a": ""}},
		{"corrupted", keyID, flipped, ec},
		{"cut", keyID, k.Ciphertext[:50], ec},
		{"none", keyID, nil, ec},
		{"too long for the service", keyID, make([]byte, 6145), ec},
		{"of another key", other, k.Ciphertext, ec},
	} {
		t.Run(c.name, func(t *testing.T) {
			plaintext, err := client.Decrypt(t.Context(), c.keyID, c.ciphertext, c.ec)
			kmstest.RequireKind(t, err, kms.ErrCiphertext)
			require.Nil(t, plaintext)
		})
	}
}

// TestRetries: the SDK tries again, and the caller does not hear of it.
func TestRetries(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey()
	client := newClient(t, s)
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"throttled":          refuse(400, "ThrottlingException"),
		"internal error":     refuse(500, "KMSInternalException"),
		"connection dropped": drop,
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			s.Intercept(func(w http.ResponseWriter, r *http.Request) bool { return requests.Add(1) <= 2 && fault(w, r) })
			_, err := client.GenerateDataKey(t.Context(), keyID, nil)
			require.NoError(t, err)
			require.EqualValues(t, 3, requests.Load())
			requests.Store(-1000)
			_, err = client.GenerateDataKey(t.Context(), keyID, nil)
			kmstest.RequireKind(t, err, kms.ErrUnavailable)
			require.EqualValues(t, -997, requests.Load(), "requests after three that failed")
		})
	}
	t.Run("not after a refusal", func(t *testing.T) {
		var requests atomic.Int64
		s.Intercept(func(http.ResponseWriter, *http.Request) bool { requests.Add(1); return false })
		s.SetState(keyID, awskmstest.Disabled)
		_, err := client.GenerateDataKey(t.Context(), keyID, nil)
		kmstest.RequireKind(t, err, kms.ErrDisabled)
		require.EqualValues(t, 1, requests.Load())
	})
	t.Run("until the quota of retries is spent", func(t *testing.T) {
		var requests atomic.Int64
		s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			requests.Add(1)
			return refuse(500, "KMSInternalException")(w, r)
		})
		var last int64
		for range 100 { // 500 tokens at 14 a retry
			before := requests.Load()
			_, err := client.GenerateDataKey(t.Context(), keyID, nil)
			kmstest.RequireKind(t, err, kms.ErrUnavailable)
			if last = requests.Load() - before; last == 1 {
				break
			}
		}
		require.EqualValues(t, 1, last, "requests of a call once the quota is spent")
	})
}

// TestSlow: a call ends with its ctx, wherever it is.
func TestSlow(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"the answer does not come": stall,
		"nor its end": func(w http.ResponseWriter, r *http.Request) bool {
			io.WriteString(w, `{"KeyId":`)
			w.(http.Flusher).Flush()
			return stall(w, r)
		},
		"between two attempts": refuse(400, "ThrottlingException"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			keyID := s.CreateKey()
			client := newClient(t, s, func(o *sdk.Options) {
				o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
					o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return time.Minute, nil })
				})
			})
			operations := kmstest.Operations(t, client, keyID, nil)
			s.Intercept(fault)
			for _, call := range operations {
				kmstest.RequireEnds(t, call)
			}
		})
	}
	t.Run("a limit of the SDK's client is an outage", func(t *testing.T) {
		s := newServer(t)
		keyID := s.CreateKey()
		s.Intercept(stall)
		client := newClient(t, s, func(o *sdk.Options) { o.HTTPClient = &http.Client{Timeout: moment} })
		_, err := client.GenerateDataKey(t.Context(), keyID, nil)
		kmstest.RequireKind(t, err, kms.ErrUnavailable)
	})
}

const (
	arnA     = "arn:aws:kms:us-east-1:111122223333:key/a"
	arnB     = "arn:aws:kms:us-east-1:111122223333:key/b"
	arnEast  = "arn:aws:kms:us-east-1:111122223333:key/mrk-1"
	arnWest  = "arn:aws:kms:us-west-2:111122223333:key/mrk-1"
	aliasARN = "arn:aws:kms:us-east-1:111122223333:alias/photos"
)

// TestEndOfContext: whatever was answered meanwhile, ctx has ended.
func TestEndOfContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client, err := awskms.New(ending{client: &stub{err: &types.DisabledException{}}, end: cancel}, nil)
	require.NoError(t, err)
	_, err = client.GenerateDataKey(ctx, arnA, nil)
	kmstest.RequireKind(t, err, context.Canceled)
	require.ErrorContains(t, err, "DisabledException")

	s := &stub{err: errors.New("not asked")}
	client = newStubbed(t, s, nil)
	_, err = client.GenerateDataKey(ctx, arnA, nil)
	kmstest.RequireKind(t, err, context.Canceled)
	_, err = client.Decrypt(ctx, arnA, []byte("x"), nil)
	kmstest.RequireKind(t, err, context.Canceled)
	require.Empty(t, s.asked, "nothing is asked after the end of ctx")

	client = newStubbed(t, &stub{err: os.ErrDeadlineExceeded}, nil) // as a connection says it
	_, err = client.GenerateDataKey(kmstest.Late(t.Context()), arnA, nil)
	kmstest.RequireKind(t, err, context.DeadlineExceeded)
	client = newStubbed(t, &stub{err: &smithy.CanceledError{Err: context.DeadlineExceeded}}, nil)
	_, err = client.GenerateDataKey(kmstest.Late(t.Context()), arnA, nil)
	kmstest.RequireKind(t, err, context.DeadlineExceeded)
	_, ok := errors.AsType[*smithy.CanceledError](err)
	require.True(t, ok, "what the SDK said stays visible")
}

// ending ends a ctx before it answers.
type ending struct {
	client *stub
	end    func()
}

func (e ending) GenerateDataKey(ctx context.Context, in *sdk.GenerateDataKeyInput, optFns ...func(*sdk.Options)) (*sdk.GenerateDataKeyOutput, error) {
	e.end()
	return e.client.GenerateDataKey(ctx, in, optFns...)
}

func (e ending) Decrypt(ctx context.Context, in *sdk.DecryptInput, optFns ...func(*sdk.Options)) (*sdk.DecryptOutput, error) {
	e.end()
	return e.client.Decrypt(ctx, in, optFns...)
}

// TestNothingIsLogged: an SDK's client that logs everything does not log data keys.
func TestNothingIsLogged(t *testing.T) {
	var logged bytes.Buffer
	s := newServer(t)
	keyID := s.CreateKey()
	api := s.Client("AKIAWRITER", func(o *sdk.Options) {
		o.Logger = logging.NewStandardLogger(&logged)
		o.ClientLogMode = aws.LogSigning | aws.LogRetries | aws.LogRequestWithBody | aws.LogResponseWithBody
	})
	client, err := awskms.New(api, nil)
	require.NoError(t, err)
	k, err := client.GenerateDataKey(t.Context(), keyID, nil)
	require.NoError(t, err)
	_, err = client.Decrypt(t.Context(), keyID, k.Ciphertext, nil)
	require.NoError(t, err)
	require.Contains(t, logged.String(), "TrentService.Decrypt", "requests are logged")
	require.Contains(t, logged.String(), "200 OK", "and responses")
	secret := base64.StdEncoding.EncodeToString(k.Plaintext())
	require.False(t, strings.Contains(logged.String(), secret), "a data key was logged")

	// It would have been: the SDK's own calls show it.
	out, err := api.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: k.Ciphertext, KeyId: &keyID})
	require.NoError(t, err)
	require.Contains(t, logged.String(), base64.StdEncoding.EncodeToString(out.Plaintext))
}
