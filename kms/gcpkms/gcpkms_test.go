package gcpkms_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	google "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/googleapis/gax-go/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// moment is until a ctx, or a limit of the vendor's client, ends.
const moment = 50 * time.Millisecond

func newServer(t testing.TB) *gcpkmstest.Server {
	t.Helper()
	s, err := gcpkmstest.NewServer()
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// tries tries a call again while the service is unavailable, three times in all.
type tries struct{ n int }

func (r *tries) Retry(err error) (time.Duration, bool) {
	r.n++
	return time.Millisecond, r.n < 3 && status.Code(err) == codes.Unavailable
}

// newGoogle returns Google's client, which is told to be less patient than it is.
func newGoogle(t testing.TB, s *gcpkmstest.Server, principal string, opts ...option.ClientOption) *google.KeyManagementClient {
	t.Helper()
	c, err := google.NewKeyManagementClient(t.Context(), append(s.ClientOptions(principal), opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	c.CallOptions.Encrypt = []gax.CallOption{gax.WithRetry(func() gax.Retryer { return new(tries) })}
	c.CallOptions.Decrypt = c.CallOptions.Encrypt
	return c
}

func newClient(t testing.TB, s *gcpkmstest.Server, opts ...option.ClientOption) *gcpkms.Client {
	t.Helper()
	c, err := gcpkms.New(newGoogle(t, s, "writer", opts...))
	require.NoError(t, err)
	return c
}

// refuse fails all calls with a status.
func refuse(code codes.Code, message string) grpc.UnaryServerInterceptor {
	return func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		return nil, status.Error(code, message)
	}
}

// stall answers when the client has gone.
func stall(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// rewrite changes what a call returns.
func rewrite(encrypt func(*kmspb.EncryptResponse), decrypt func(*kmspb.DecryptResponse)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		out, err := next(ctx, in)
		if err != nil {
			return nil, err
		}
		switch out := out.(type) {
		case *kmspb.EncryptResponse:
			encrypt(out)
		case *kmspb.DecryptResponse:
			decrypt(out)
		}
		return out, nil
	}
}

func TestClient(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kmstest.Subject {
		s := newServer(t)
		keyID := s.CreateKey("photos")
		user := func(name string) *gcpkms.Client {
			c, err := gcpkms.New(newGoogle(t, s, name))
			require.NoError(t, err)
			return c
		}
		return kmstest.Subject{
			Client:           kmstest.ByPrincipal{{}: user("nobody"), {ID: "kmstest", Type: "User"}: user("kmstest")},
			KeyID:            keyID,
			OtherKeyID:       s.CreateKey("videos"),
			UnknownKeyID:     gcpkmstest.KeyRing + "/cryptoKeys/unknown",
			Disable:          func(*testing.T) { s.SetState(keyID, kmspb.CryptoKeyVersion_DISABLED) },
			ScheduleDeletion: func(*testing.T) { s.SetState(keyID, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED) },
			Enable:           func(*testing.T) { s.SetState(keyID, kmspb.CryptoKeyVersion_ENABLED) },
			Deny: func(_ *testing.T, p kms.Principal, op kms.Operation) {
				s.Deny(p.ID, map[kms.Operation]string{kms.OpGenerateDataKey: "Encrypt", kms.OpDecrypt: "Decrypt"}[op])
			},
			Break:  func(*testing.T) { s.Intercept(refuse(codes.Unavailable, "The service is currently unavailable.")) },
			Repair: func(*testing.T) { s.Intercept(nil) },
			Stall:  func(*testing.T) { s.Intercept(stall) },
		}
	})
}

// flip changes a bit of what was checked.
func flip(b []byte) { b[len(b)-1] ^= 1 }

// TestFaults: what goes wrong at Google, or on the way there, and what it becomes.
func TestFaults(t *testing.T) {
	state := func(state gcpkmstest.State) func(*gcpkmstest.Server, string) {
		return func(s *gcpkmstest.Server, id string) { s.SetState(id, state) }
	}
	answer := func(code codes.Code, message string) func(*gcpkmstest.Server, string) {
		return func(s *gcpkmstest.Server, _ string) { s.Intercept(refuse(code, message)) }
	}
	changed := func(encrypt func(*kmspb.EncryptResponse), decrypt func(*kmspb.DecryptResponse)) func(*gcpkmstest.Server, string) {
		return func(s *gcpkmstest.Server, _ string) { s.Intercept(rewrite(encrypt, decrypt)) }
	}
	asked := func(change func(in any)) func(*gcpkmstest.Server, string) {
		return func(s *gcpkmstest.Server, _ string) {
			s.Intercept(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				change(in)
				return next(ctx, in)
			})
		}
	}
	for _, c := range []struct {
		name              string
		fault             func(s *gcpkmstest.Server, keyID string)
		generate, decrypt error
		code              codes.Code // Google's own error stays visible
	}{
		{"key disabled", state(kmspb.CryptoKeyVersion_DISABLED), kms.ErrDisabled, kms.ErrDisabled, codes.FailedPrecondition},
		{"key disabled, without details", answer(codes.FailedPrecondition, "v is not enabled, current state is: DISABLED."),
			kms.ErrDisabled, kms.ErrDisabled, codes.FailedPrecondition},
		{"key disabled, by details alone", func(s *gcpkmstest.Server, _ string) {
			s.Intercept(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
				refusal, err := status.New(codes.FailedPrecondition, "It is disabled.").WithDetails(
					&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{{Type: "KEY_DISABLED"}}})
				if err != nil {
					return nil, err
				}
				return nil, refusal.Err()
			})
		}, kms.ErrDisabled, kms.ErrDisabled, codes.FailedPrecondition},
		{"key scheduled for destruction", state(kmspb.CryptoKeyVersion_DESTROY_SCHEDULED),
			kms.ErrPendingDeletion, kms.ErrPendingDeletion, codes.FailedPrecondition},
		{"key destroyed", state(kmspb.CryptoKeyVersion_DESTROYED), kms.ErrPendingDeletion, kms.ErrPendingDeletion, codes.FailedPrecondition},
		{"key pending import", state(kmspb.CryptoKeyVersion_PENDING_IMPORT),
			kms.ErrPendingDeletion, kms.ErrPendingDeletion, codes.FailedPrecondition},
		{"key deleted", func(s *gcpkmstest.Server, id string) { s.RemoveKey(id) }, kms.ErrNotFound, kms.ErrNotFound, codes.NotFound},
		{"writer denied", func(s *gcpkmstest.Server, _ string) { s.Deny("writer", "Encrypt") }, kms.ErrDenied, nil, codes.PermissionDenied},
		{"reader denied", func(s *gcpkmstest.Server, _ string) { s.Deny("writer", "Decrypt") }, nil, kms.ErrDenied, codes.PermissionDenied},
		{"credentials refused", answer(codes.Unauthenticated, "Request had invalid authentication credentials."),
			kms.ErrDenied, kms.ErrDenied, codes.Unauthenticated},
		{"another precondition", answer(codes.FailedPrecondition, "Cloud KMS API has not been used in project 1 before or it is disabled."),
			kmstest.NoKind, kmstest.NoKind, codes.FailedPrecondition},
		{"throttled", answer(codes.ResourceExhausted, "Quota exceeded for quota metric 'Cryptographic requests'"),
			kms.ErrUnavailable, kms.ErrUnavailable, codes.ResourceExhausted},
		{"unavailable", answer(codes.Unavailable, "The service is currently unavailable."),
			kms.ErrUnavailable, kms.ErrUnavailable, codes.Unavailable},
		{"internal error", answer(codes.Internal, "Internal error encountered."), kms.ErrUnavailable, kms.ErrUnavailable, codes.Internal},
		{"a deadline of the service's", answer(codes.DeadlineExceeded, "Deadline expired."),
			kms.ErrUnavailable, kms.ErrUnavailable, codes.DeadlineExceeded},
		{"canceled by the service", answer(codes.Canceled, "The operation was cancelled."), kms.ErrUnavailable, kms.ErrUnavailable, codes.Canceled},
		{"a server of something else", answer(codes.Unimplemented, "unknown service"), kms.ErrUnavailable, kms.ErrUnavailable, codes.Unimplemented},
		{"an error that makes no sense", answer(codes.AlreadyExists, "It exists."), kmstest.NoKind, kmstest.NoKind, codes.AlreadyExists},
		{"connection dropped", func(s *gcpkmstest.Server, _ string) {
			s.Intercept(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
				s.Disconnect()
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}, kms.ErrUnavailable, kms.ErrUnavailable, codes.Unavailable},
		{"unreachable", func(s *gcpkmstest.Server, _ string) { s.Close() }, kms.ErrUnavailable, kms.ErrUnavailable, codes.Unavailable},
		{"an answer of another type", func(s *gcpkmstest.Server, _ string) {
			s.Intercept(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
				return wrapperspb.Double(1), nil
			})
		}, kms.ErrUnavailable, kms.ErrUnavailable, codes.OK},
		{"an empty answer", func(s *gcpkmstest.Server, _ string) {
			s.Intercept(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
				return new(kmspb.EncryptResponse), nil
			})
		}, kms.ErrUnavailable, kms.ErrUnavailable, codes.OK},
		{"request damaged on the way", asked(func(in any) {
			switch in := in.(type) {
			case *kmspb.EncryptRequest:
				flip(in.Plaintext)
			case *kmspb.DecryptRequest:
				flip(in.Ciphertext)
			}
		}), kms.ErrUnavailable, kms.ErrUnavailable, codes.InvalidArgument},
		{"context damaged on the way", asked(func(in any) {
			switch in := in.(type) {
			case *kmspb.EncryptRequest:
				flip(in.AdditionalAuthenticatedData)
			case *kmspb.DecryptRequest:
				flip(in.AdditionalAuthenticatedData)
			}
		}), kms.ErrUnavailable, kms.ErrUnavailable, codes.InvalidArgument},
		{"checksum of the data lost on the way", asked(func(in any) {
			if in, ok := in.(*kmspb.EncryptRequest); ok {
				in.PlaintextCrc32C = nil
			}
		}), kms.ErrUnavailable, nil, codes.OK},
		{"checksum of the context lost on the way", asked(func(in any) {
			if in, ok := in.(*kmspb.EncryptRequest); ok {
				in.AdditionalAuthenticatedDataCrc32C = nil
			}
		}), kms.ErrUnavailable, nil, codes.OK},
		{"answer damaged on the way", changed(
			func(out *kmspb.EncryptResponse) { flip(out.Ciphertext) },
			func(out *kmspb.DecryptResponse) { flip(out.Plaintext) },
		), kms.ErrUnavailable, kms.ErrUnavailable, codes.OK},
		{"answer without a checksum", changed(
			func(out *kmspb.EncryptResponse) { out.CiphertextCrc32C = nil },
			func(out *kmspb.DecryptResponse) { out.PlaintextCrc32C = nil },
		), kms.ErrUnavailable, kms.ErrUnavailable, codes.OK},
		{"answer by another key", changed(
			func(out *kmspb.EncryptResponse) {
				out.Name = strings.Replace(out.Name, "/photos/", "/photos2/", 1)
			},
			func(*kmspb.DecryptResponse) {},
		), kms.ErrUnavailable, nil, codes.OK},
		{"answer by no version", changed(
			func(out *kmspb.EncryptResponse) { out.Name = strings.TrimSuffix(out.Name, "1") },
			func(*kmspb.DecryptResponse) {},
		), kms.ErrUnavailable, nil, codes.OK},
		{"answer of no ciphertext", changed(
			func(out *kmspb.EncryptResponse) { out.Ciphertext, out.CiphertextCrc32C = nil, wrapperspb.Int64(0) },
			func(*kmspb.DecryptResponse) {},
		), kms.ErrUnavailable, nil, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			keyID := s.CreateKey("photos")
			fault := func() { c.fault(s, keyID) }
			kmstest.RequireFault(t, newClient(t, s), keyID, fault, c.generate, c.decrypt, func(err error) {
				if c.code != codes.OK {
					require.Equal(t, c.code, status.Code(err), "%v", err)
				}
			})
		})
	}
}

// TestGarbage: something listens that speaks no gRPC.
func TestGarbage(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	client := newClient(t, s, option.WithEndpoint(web.Listener.Addr().String()))
	_, err := client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
}

// failing are credentials that cannot be had.
type failing struct{ error }

func (f failing) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, f.error
}

func (failing) RequireTransportSecurity() bool { return false }

// TestNoCredentials: where credentials come from is down, and nobody was denied.
func TestNoCredentials(t *testing.T) {
	s := newServer(t)
	client := newClient(t, s, option.WithGRPCDialOption(grpc.WithPerRPCCredentials(failing{errors.New("no answer of the metadata server")})))
	_, err := client.GenerateDataKey(t.Context(), s.CreateKey("photos"), nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	require.ErrorContains(t, err, "no answer of the metadata server")
}

func TestCiphertextFaults(t *testing.T) {
	s := newServer(t)
	keyID, other := s.CreateKey("photos"), s.CreateKey("videos")
	client := newClient(t, s)
	ec := kms.Context{"blobseal:object": "photos/cat.jpg"}
	var r kms.Report
	k, err := client.GenerateDataKey(kms.WithReport(t.Context(), &r), keyID, ec)
	require.NoError(t, err)
	require.Equal(t, kms.Report{KeyID: keyID, KeyVersion: "1"}, r)
	s.Rotate(keyID)
	plaintext, err := client.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
	require.NoError(t, err, "under a version that was rotated away")
	require.Equal(t, k.Plaintext(), plaintext)
	rotated, err := client.GenerateDataKey(kms.WithReport(t.Context(), &r), keyID, ec)
	require.NoError(t, err)
	require.Equal(t, keyID, rotated.KeyID, "the key, not its version")
	require.Equal(t, kms.Report{KeyID: keyID, KeyVersion: "2"}, r)
	short := encrypted(t, s, keyID, make([]byte, 31))
	long := encrypted(t, s, keyID, make([]byte, 33))
	flipped := bytes.Clone(k.Ciphertext)
	flip(flipped)
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
		{"of another key", other, k.Ciphertext, ec},
		{"of 31 bytes", keyID, short, nil},
		{"of 33 bytes", keyID, long, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			plaintext, err := client.Decrypt(t.Context(), c.keyID, c.ciphertext, c.ec)
			kmstest.RequireKind(t, err, kms.ErrCiphertext)
			require.Nil(t, plaintext)
		})
	}
	// A version is a key's generation: where one is disabled the others go on.
	s.SetState(keyID+"/cryptoKeyVersions/1", kmspb.CryptoKeyVersion_DISABLED)
	_, err = client.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
	kmstest.RequireKind(t, err, kms.ErrDisabled)
	_, err = client.Decrypt(t.Context(), keyID, rotated.Ciphertext, ec)
	require.NoError(t, err)
}

// TestWithoutThisPackage decrypts with Google's own client. SPEC SVC-2
func TestWithoutThisPackage(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	ec := kms.Context{"blobseal:object": "photos/cat.jpg", "tenant": "7"}
	k, err := newClient(t, s).GenerateDataKey(t.Context(), keyID, ec)
	require.NoError(t, err)
	out, err := newGoogle(t, s, "reader").Decrypt(t.Context(), &kmspb.DecryptRequest{
		Name: keyID, Ciphertext: k.Ciphertext, AdditionalAuthenticatedData: ec.AssociatedData(),
	})
	require.NoError(t, err)
	require.Equal(t, k.Plaintext(), out.GetPlaintext())
}

// encrypted is something else that was encrypted under the key, without a context.
func encrypted(t *testing.T, s *gcpkmstest.Server, keyID string, plaintext []byte) []byte {
	t.Helper()
	out, err := newGoogle(t, s, "writer").Encrypt(t.Context(), &kmspb.EncryptRequest{
		Name: keyID, Plaintext: plaintext, AdditionalAuthenticatedData: kms.Context(nil).AssociatedData(),
	})
	require.NoError(t, err)
	return out.GetCiphertext()
}

// TestCleared: a plaintext that is not handed out is cleared, and the one that was
// sent is too.
func TestCleared(t *testing.T) {
	s := &stub{
		decrypt: &kmspb.DecryptResponse{Plaintext: bytes.Repeat([]byte{7}, 32), PlaintextCrc32C: wrapperspb.Int64(1)},
		err:     status.Error(codes.Unavailable, "down"),
	}
	client, err := gcpkms.New(s)
	require.NoError(t, err)
	_, err = client.Decrypt(t.Context(), gcpkmstest.KeyRing+"/cryptoKeys/a", []byte("x"), nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	require.Equal(t, make([]byte, 32), s.decrypt.Plaintext)
	_, err = client.GenerateDataKey(t.Context(), gcpkmstest.KeyRing+"/cryptoKeys/a", nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	require.NotZero(t, s.copied)
	require.Equal(t, make([]byte, 32), s.sent)
}

// TestNames: what is no key's name is not sent.
func TestNames(t *testing.T) {
	_, err := gcpkms.New(nil)
	kmstest.RequireKind(t, err, kms.ErrInvalid)
	_, err = gcpkms.New((*google.KeyManagementClient)(nil))
	kmstest.RequireKind(t, err, kms.ErrInvalid)
	s := newServer(t)
	keyID := s.CreateKey("photos")
	client := newClient(t, s)
	var calls atomic.Int64
	s.Intercept(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		calls.Add(1)
		return next(ctx, in)
	})
	for _, name := range []string{
		"", "photos", gcpkmstest.KeyRing, gcpkmstest.KeyRing + "/cryptoKeys/", keyID + "/", keyID + "/cryptoKeyVersions/1",
		"gcp-kms://" + keyID, "/" + keyID, strings.Replace(keyID, "global", "", 1), strings.ToLower(keyID), keyID + "\xff",
	} {
		_, err := client.GenerateDataKey(t.Context(), name, nil)
		kmstest.RequireKind(t, err, kms.ErrInvalid)
		_, err = client.Decrypt(t.Context(), name, []byte("x"), nil)
		kmstest.RequireKind(t, err, kms.ErrInvalid)
	}
	require.Zero(t, calls.Load())
	_, err = client.GenerateDataKey(t.Context(), keyID, kms.Context{"too long": strings.Repeat("x", 64<<10)})
	kmstest.RequireKind(t, err, kms.ErrInvalid)
	k, err := client.GenerateDataKey(t.Context(), keyID, kms.Context{"not UTF-8": "\xff"})
	require.NoError(t, err)
	_, err = client.Decrypt(t.Context(), keyID, k.Ciphertext, kms.Context{"not UTF-8": "\xfe"})
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
}
