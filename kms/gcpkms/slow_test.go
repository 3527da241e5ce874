package gcpkms_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	google "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/googleapis/gax-go/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// stub answers as it is told.
type stub struct {
	decrypt *kmspb.DecryptResponse
	err     error
	end     func() // before it answers
	calls   int
	sent    []byte
	copied  [32]byte
}

func (s *stub) Encrypt(_ context.Context, in *kmspb.EncryptRequest, _ ...gax.CallOption) (*kmspb.EncryptResponse, error) {
	s.calls++
	s.sent = in.Plaintext
	s.copied = [32]byte(in.Plaintext)
	if s.end != nil {
		s.end()
	}
	return nil, s.err
}

func (s *stub) Decrypt(context.Context, *kmspb.DecryptRequest, ...gax.CallOption) (*kmspb.DecryptResponse, error) {
	s.calls++
	return s.decrypt, nil
}

// TestEndOfContext: whatever was answered meanwhile, ctx has ended; and where it has
// not, no error says so.
func TestEndOfContext(t *testing.T) {
	const keyID = gcpkmstest.KeyRing + "/cryptoKeys/a"
	ctx, cancel := context.WithCancel(t.Context())
	s := &stub{err: status.Error(codes.PermissionDenied, "no"), end: cancel}
	client, err := gcpkms.New(s)
	require.NoError(t, err)
	_, err = client.GenerateDataKey(ctx, keyID, nil)
	kmstest.RequireKind(t, err, context.Canceled)
	require.ErrorContains(t, err, "PermissionDenied")
	_, err = client.GenerateDataKey(ctx, keyID, nil)
	kmstest.RequireKind(t, err, context.Canceled)
	_, err = client.Decrypt(ctx, keyID, []byte("x"), nil)
	kmstest.RequireKind(t, err, context.Canceled)
	require.Equal(t, 1, s.calls, "nothing is asked after the end of ctx")

	_, err = client.GenerateDataKey(kmstest.Late(t.Context()), keyID, nil)
	kmstest.RequireKind(t, err, context.DeadlineExceeded)
	s.err = context.Canceled
	_, err = client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	s.err = errors.New("unheard")
	_, err = client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, nil)
	require.ErrorIs(t, err, s.err)

	calls := s.calls
	_, err = client.Decrypt(t.Context(), keyID, nil, nil)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
	require.Equal(t, calls, s.calls, "an empty ciphertext is not sent")
}

// newPatientClient returns a client that retries as Google's does by default.
func newPatientClient(t *testing.T, s *gcpkmstest.Server) *gcpkms.Client {
	c, err := google.NewKeyManagementClient(t.Context(), s.ClientOptions("writer")...)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	client, err := gcpkms.New(c)
	require.NoError(t, err)
	return client
}

// TestRetries: Google's client tries again, and the caller does not hear of it.
func TestRetries(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	client := newPatientClient(t, s)
	var calls atomic.Int64
	s.Intercept(func(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if calls.Add(1) <= 2 {
			return nil, status.Error(codes.Unavailable, "The service is currently unavailable.")
		}
		return next(ctx, in)
	})
	_, err := client.GenerateDataKey(t.Context(), keyID, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, calls.Load())
	s.SetState(keyID, kmspb.CryptoKeyVersion_DISABLED)
	_, err = client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrDisabled)
	require.EqualValues(t, 4, calls.Load(), "a refusal is not tried again")
}

// TestSlow: a call ends with its ctx, wherever it is.
func TestSlow(t *testing.T) {
	for name, fault := range map[string]func(s *gcpkmstest.Server){
		"the answer does not come": func(s *gcpkmstest.Server) { s.Intercept(stall) },
		"between attempts":         func(s *gcpkmstest.Server) { s.Intercept(refuse(codes.Unavailable, "down")) },
		"unreachable":              func(s *gcpkmstest.Server) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			keyID := s.CreateKey("photos")
			client := newPatientClient(t, s)
			operations := kmstest.Operations(t, client, keyID, nil)
			fault(s)
			for _, call := range operations {
				kmstest.RequireEnds(t, call)
			}
		})
	}
	t.Run("a limit of Google's client is an outage", func(t *testing.T) {
		for _, fault := range []grpc.UnaryServerInterceptor{stall, refuse(codes.Unavailable, "down")} {
			s := newServer(t)
			s.Intercept(fault)
			c := newGoogle(t, s, "writer")
			c.CallOptions.Encrypt = []gax.CallOption{gax.WithTimeout(moment), gax.WithRetry(func() gax.Retryer {
				return gax.OnCodes([]codes.Code{codes.Unavailable}, gax.Backoff{Initial: time.Hour, Max: time.Hour})
			})}
			client, err := gcpkms.New(c)
			require.NoError(t, err)
			_, err = client.GenerateDataKey(t.Context(), s.CreateKey("photos"), nil)
			kmstest.RequireKind(t, err, kms.ErrUnavailable)
		}
	})
}
