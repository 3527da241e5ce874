package localkms_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
)

// The bounds that the package documentation states.
const (
	maxContext     = 8192
	maxDescription = 8192
	maxTags        = 50
	maxGrants      = 1000
	maxGrantName   = 255
	maxPrincipal   = 2048
)

const day = 24 * time.Hour

func keyRoot(t testing.TB, b byte) tink.AEADWithContext {
	t.Helper()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return root
}

// service is a service over a store in memory with a clock of its own.
type service struct {
	*localkms.Service
	*localkms.Client
	store keyring.Store
	clock *keyringtest.Clock
	opts  localkms.Options
	t     testing.TB
}

// open makes or opens the service in store; nil makes one in memory.
func open(t testing.TB, store keyring.Store, change func(*localkms.Options)) *service {
	t.Helper()
	if store == nil {
		store = keyring.NewMemStore()
	}
	s := &service{store: store, clock: keyringtest.NewClock(), t: t}
	s.opts = localkms.Options{Now: s.clock.Now, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&s.opts)
	}
	s.restart()
	return s
}

// restart opens the store anew, as another process would.
func (s *service) restart() {
	s.t.Helper()
	var err error
	s.Service, err = openOrCreate(s.t.Context(), s.store, keyRoot(s.t, 1), &s.opts)
	require.NoError(s.t, err)
	s.Client = s.client("", "")
}

// openOrCreate opens the service in store, or makes one.
func openOrCreate(ctx context.Context, store keyring.Store, root keyring.Root, opts *localkms.Options) (*localkms.Service, error) {
	s, err := localkms.Open(ctx, store, root, opts)
	if errors.Is(err, keyring.ErrNotExist) {
		s, err = localkms.Create(ctx, store, root, opts)
	}
	if errors.Is(err, keyring.ErrExist) {
		s, err = localkms.Open(ctx, store, root, opts)
	}
	return s, err
}

func (s *service) client(account, region string) *localkms.Client {
	s.t.Helper()
	c, err := s.Service.Client(account, region)
	require.NoError(s.t, err)
	return c
}

// key makes a key and returns its id.
func (s *service) key() string {
	s.t.Helper()
	info, err := s.CreateKey(s.t.Context(), nil)
	require.NoError(s.t, err)
	return info.ID
}

func (s *service) describe(id string) *localkms.Info {
	s.t.Helper()
	info, err := s.DescribeKey(s.t.Context(), id)
	require.NoError(s.t, err)
	return info
}

func (s *service) encrypt(id, text string, ec kms.Context) []byte {
	s.t.Helper()
	ciphertext, err := s.Encrypt(s.t.Context(), id, []byte(text), ec)
	require.NoError(s.t, err)
	return ciphertext
}

func (s *service) decrypts(ciphertext []byte, text string, ec kms.Context) {
	s.t.Helper()
	plaintext, err := s.Decrypt(s.t.Context(), keyOf(ciphertext), ciphertext, ec)
	require.NoError(s.t, err)
	require.Equal(s.t, text, string(plaintext))
}

// keyOf returns the id of the key that a ciphertext names.
func keyOf(ciphertext []byte) string { return uuid.UUID(ciphertext[1:17]).String() }

// as returns a ctx in which that principal asks.
func as(t testing.TB, id string) context.Context {
	return kms.WithPrincipal(t.Context(), kms.Principal{ID: id, Type: "Role"})
}

// kinds are all kinds of errors of package kms.
var kinds = []error{
	kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrDenied,
	kms.ErrCiphertext, kms.ErrInvalid, kms.ErrUnavailable,
}

// isKind checks that err is of that kind and of no other.
func isKind(t testing.TB, kind, err error) {
	t.Helper()
	for _, k := range kinds {
		require.Equal(t, k == kind, errors.Is(err, k), "%v: %v", k, err)
	}
}

// trail is a sink that remembers, and fails when told to.
type trail struct {
	mu      sync.Mutex
	records []audit.Record
	err     error
}

func (s *trail) Write(ctx context.Context, r audit.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.records = append(s.records, r)
	return nil
}

func (s *trail) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// take returns the records since the last call.
func (s *trail) take() []audit.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := s.records
	s.records = nil
	return records
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// swapless is a store that can be read and, when told so, not be written.
type swapless struct {
	faultyStore
	refuse atomic.Bool
}

func (s *swapless) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if s.refuse.Load() {
		return "", errDown
	}
	return s.faultyStore.Swap(ctx, version, data)
}

// bounded is a store that takes documents of up to keyring.MaxDocumentSize, as
// etcd does, and refuses larger ones with an error of its own.
type bounded struct{ keyring.Store }

func (s *bounded) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if len(data) > keyring.MaxDocumentSize {
		return "", errors.New("request is too large")
	}
	return s.Store.Swap(ctx, version, data)
}

// collect returns what a list has, or its error.
func collect[T any](list iter.Seq2[T, error]) (all []T, err error) {
	for one, err := range list {
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

var quiet = slog.New(slog.DiscardHandler)
