package tinkkms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/testing/fakekms"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/tinkkms"
)

var _ tinkkms.KMSClient = registry.KMSClient(nil)

// local is an AES-256-GCM AEAD in this process.
func local(t testing.TB) tink.AEAD {
	t.Helper()
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(t, err)
	a, err := aead.New(handle)
	require.NoError(t, err)
	return a
}

// fault stands before an AEAD, with a ctx; each call waits and fails as it says.
type fault struct {
	tink.AEAD
	err   error
	delay time.Duration
	plain []byte // instead of what was decrypted
}

func (f *fault) wait(ctx context.Context) error {
	select {
	case <-time.After(f.delay):
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fault) EncryptWithContext(ctx context.Context, p, ad []byte) ([]byte, error) {
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	return f.Encrypt(p, ad)
}

func (f *fault) DecryptWithContext(ctx context.Context, c, ad []byte) ([]byte, error) {
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	if f.plain != nil {
		return f.plain, nil
	}
	return f.Decrypt(c, ad)
}

func newClient(t testing.TB, a tink.AEADWithContext, opts *tinkkms.Options) *tinkkms.Client {
	t.Helper()
	c, err := tinkkms.New(a, "key", opts)
	require.NoError(t, err)
	return c
}

func TestLocalAEAD(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kmstest.Subject {
		f := &fault{AEAD: local(t)}
		return kmstest.Subject{
			Client:       newClient(t, f, nil),
			KeyID:        "key",
			UnknownKeyID: "another",
			Break:        func(*testing.T) { f.err = &net.OpError{Op: "dial", Err: errors.New("connection refused")} },
			Repair:       func(*testing.T) { f.err = nil },
			Stall:        func(*testing.T) { f.delay = 10 * time.Second },
		}
	})
}

// TestWithoutThisPackage decrypts with the AEAD itself. SPEC SVC-2
func TestWithoutThisPackage(t *testing.T) {
	a := local(t)
	ec := kms.Context{"blobseal:object": "photos/cat.jpg", "tenant": "7"}
	k, err := newClient(t, &fault{AEAD: a}, nil).GenerateDataKey(t.Context(), "key", ec)
	require.NoError(t, err)
	plaintext, err := a.Decrypt(k.Ciphertext, ec.AssociatedData())
	require.NoError(t, err)
	require.Equal(t, k.Plaintext(), plaintext)
}

func newURI(t testing.TB) string {
	t.Helper()
	uri, err := fakekms.NewKeyURI()
	require.NoError(t, err)
	return uri
}

// TestFakeKMS: Tink's own fake, whose AEADs have a ctx or none.
func TestFakeKMS(t *testing.T) {
	t.Run("KMS client", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			client, err := fakekms.NewClient("fake-kms://")
			require.NoError(t, err)
			c, err := tinkkms.NewFromKMSClient(client, nil)
			require.NoError(t, err)
			return kmstest.Subject{Client: c, KeyID: newURI(t), OtherKeyID: newURI(t), UnknownKeyID: "other-kms://key"}
		})
	})
	t.Run("AEAD with context", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			uri := newURI(t)
			a, err := fakekms.NewAEADWithContext(uri)
			require.NoError(t, err)
			c, err := tinkkms.New(a, uri, nil)
			require.NoError(t, err)
			return kmstest.Subject{Client: c, KeyID: uri, UnknownKeyID: newURI(t)}
		})
	})
}

// service is a Tink KMS client whose AEADs have no ctx, and may be slow.
type service struct {
	aead  tink.AEAD
	err   error
	delay time.Duration
}

func (s *service) Supported(uri string) bool { return strings.HasPrefix(uri, "test-kms://mine/") }

func (s *service) GetAEAD(string) (tink.AEAD, error) { return s, s.err }

func (s *service) Encrypt(p, ad []byte) ([]byte, error) {
	time.Sleep(s.delay)
	return s.aead.Encrypt(p, ad)
}

func (s *service) Decrypt(c, ad []byte) ([]byte, error) {
	time.Sleep(s.delay)
	return s.aead.Decrypt(c, ad)
}

// TestWithoutContext: an AEAD that knows no ctx does not hold up its callers.
func TestWithoutContext(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kmstest.Subject {
		s := &service{aead: local(t)}
		c, err := tinkkms.NewFromKMSClient(s, nil)
		require.NoError(t, err)
		return kmstest.Subject{
			Client: c, KeyID: "test-kms://mine/key", UnknownKeyID: "test-kms://other/key",
			Stall: func(*testing.T) { s.delay = 10 * time.Second },
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &service{aead: local(t)}
		c, err := tinkkms.NewFromKMSClient(s, nil)
		require.NoError(t, err)
		k, err := c.GenerateDataKey(t.Context(), "test-kms://mine/key", nil)
		require.NoError(t, err)
		s.delay = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err = c.Decrypt(ctx, k.KeyID, k.Ciphertext, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*time.Millisecond, time.Since(start))
		time.Sleep(2 * time.Hour) // its goroutine ends with the AEAD's call, or the bubble complains
	})
}

func TestArguments(t *testing.T) {
	_, err := tinkkms.New(nil, "key", nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	_, err = tinkkms.New(&fault{AEAD: local(t)}, "", nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	_, err = tinkkms.NewFromKMSClient(nil, nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	_, err = tinkkms.New((*fault)(nil), "key", nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	_, err = tinkkms.NewFromKMSClient((*service)(nil), nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	client, err := fakekms.NewClient("fake-kms://")
	require.NoError(t, err)
	c, err := tinkkms.NewFromKMSClient(client, nil)
	require.NoError(t, err)
	_, err = c.GenerateDataKey(t.Context(), "fake-kms://no keyset", nil)
	require.ErrorIs(t, err, kms.ErrNotFound)
	c, err = tinkkms.NewFromKMSClient(&service{err: os.ErrDeadlineExceeded}, nil)
	require.NoError(t, err)
	_, err = c.GenerateDataKey(t.Context(), "test-kms://mine/key", nil)
	require.ErrorIs(t, err, kms.ErrUnavailable)
}

// sdkError is what a service's SDK returns.
type sdkError struct{ code string }

func (e *sdkError) Error() string { return "service: " + e.code }

func TestErrors(t *testing.T) {
	classify := func(op kms.Operation, err error) error {
		e, ok := errors.AsType[*sdkError](err)
		switch {
		case !ok:
			return nil
		case e.code == "AccessDeniedException":
			return kms.ErrDenied
		case e.code == "OnlyDecrypt" && op == kms.OpDecrypt:
			return kms.ErrDisabled
		}
		return nil
	}
	for _, c := range []struct {
		name              string
		err               error
		generate, decrypt error
	}{
		{"unknown", errors.New("tag mismatch"), kms.ErrUnavailable, kms.ErrCiphertext},
		{"network", fmt.Errorf("rpc: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), kms.ErrUnavailable, kms.ErrUnavailable},
		{"timeout", os.ErrDeadlineExceeded, kms.ErrUnavailable, kms.ErrUnavailable},
		{"a deadline of its own", context.DeadlineExceeded, kms.ErrUnavailable, kms.ErrUnavailable},
		{"canceled by others", context.Canceled, kms.ErrUnavailable, kms.ErrUnavailable},
		{"denied", fmt.Errorf("op: %w", &sdkError{"AccessDeniedException"}), kms.ErrDenied, kms.ErrDenied},
		{"by operation", &sdkError{"OnlyDecrypt"}, kms.ErrUnavailable, kms.ErrDisabled},
		{"of package kms", fmt.Errorf("op: %w", kms.ErrPendingDeletion), kms.ErrPendingDeletion, kms.ErrPendingDeletion},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := newClient(t, &fault{AEAD: local(t), err: c.err}, &tinkkms.Options{Classify: classify})
			_, generated := client.GenerateDataKey(t.Context(), "key", nil)
			require.ErrorIs(t, generated, c.generate)
			_, decrypted := client.Decrypt(t.Context(), "key", []byte("x"), nil)
			require.ErrorIs(t, decrypted, c.decrypt)
			for _, err := range []error{generated, decrypted} {
				require.ErrorContains(t, err, c.err.Error(), "what the AEAD said stays visible")
				foreign := errors.Is(c.err, context.Canceled) || errors.Is(c.err, context.DeadlineExceeded)
				require.Equal(t, !foreign, errors.Is(err, c.err), "unless it is the end of another ctx")
			}
		})
	}
	// An AEAD that hides the end of ctx behind an error of its own.
	client := newClient(t, hiding{}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := client.Decrypt(ctx, "key", []byte("x"), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, kms.ErrCiphertext)
}

type hiding struct{}

func (hiding) EncryptWithContext(ctx context.Context, _, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, errors.New("gave up")
}

func (hiding) DecryptWithContext(ctx context.Context, _, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, errors.New("gave up")
}

// TestGarbage: plaintexts of another length are no data keys, and are cleared.
func TestGarbage(t *testing.T) {
	f := &fault{AEAD: local(t)}
	client := newClient(t, f, nil)
	for _, n := range []int{0, 1, 31, 33, 64} {
		f.plain = bytes.Repeat([]byte{7}, n)
		p, err := client.Decrypt(t.Context(), "key", []byte("x"), nil)
		require.ErrorIs(t, err, kms.ErrCiphertext)
		require.Nil(t, p)
		require.Equal(t, make([]byte, n), f.plain)
	}
}

// empty is a KMS client that has no AEADs, and does not say so.
type empty struct{}

func (empty) Supported(string) bool             { return true }
func (empty) GetAEAD(string) (tink.AEAD, error) { return nil, nil }

func TestNoAEAD(t *testing.T) {
	client, err := tinkkms.NewFromKMSClient(empty{}, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = client.GenerateDataKey(ctx, "key", nil)
	require.ErrorIs(t, err, kms.ErrNotFound)
	_, err = client.Decrypt(ctx, "key", []byte("x"), nil)
	require.ErrorIs(t, err, kms.ErrNotFound)
}
