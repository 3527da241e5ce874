// Package kmstest tests implementations of [kms.Client], and services that use
// one.
//
// [Run] tests a client. It has a subtest for each sentence of the contract:
//
//	func TestClient(t *testing.T) {
//		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
//			s := newService(t)
//			return kmstest.Subject{Client: s, KeyID: s.createKey(t), Disable: s.disable}
//		})
//	}
//
// [Fake] is a key service in memory with programmable faults, for the unit tests
// of a service that encrypts. [Sink] is an audit trail in memory.
//
// Run the suite with -race and against the real service. It cannot prove that the
// cryptography which binds a context is sound.
package kmstest

import (
	"bytes"
	"context"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

// Subject is a client to test, and the means to change the service behind it. Run
// skips the subtests that need a zero field.
type Subject struct {
	// Client is the client to test. Required.
	Client kms.Client

	// KeyID is the id of an enabled key, not an alias, as results name the key. The
	// principal "kmstest" and the zero Principal may use it. Required.
	KeyID string

	// Alias is another name of the key.
	Alias string

	// OtherKeyID is the id of a second enabled key.
	OtherKeyID string

	// UnknownKeyID is a well-formed id that names no key.
	UnknownKeyID string

	// Disable, ScheduleDeletion and Enable set the state of the key KeyID.
	Disable, ScheduleDeletion, Enable func(t *testing.T)

	// Deny revokes p's permission to perform op with the key KeyID.
	Deny func(t *testing.T, p kms.Principal, op kms.Operation)

	// Break makes the service unavailable until Repair.
	Break, Repair func(t *testing.T)

	// Stall makes every call of the service take seconds.
	Stall func(t *testing.T)

	// UnboundContext is set if the service cannot bind an encryption context, and
	// the client's documentation says so.
	UnboundContext bool

	// ReusesDataKeys is set if the client is a cache, so data keys may repeat.
	ReusesDataKeys bool
}

const (
	timeout = 2 * time.Minute        // ends a test whose client hangs
	prompt  = 50 * time.Millisecond  // how soon after its ctx a call must end
	grace   = 950 * time.Millisecond // added on a loaded machine
)

// principal makes the suite's calls.
var principal = kms.Principal{ID: "kmstest", Type: "User"}

// Run tests the clients that newSubject returns. Each needs keys of its own, because
// subtests change their states.
func Run(t *testing.T, newSubject func(t *testing.T) Subject) {
	for _, sentence := range sentences {
		t.Run(sentence.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(kms.WithPrincipal(t.Context(), principal), timeout)
			defer cancel()
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("the client panicked: %v\n%s", p, debug.Stack())
				}
			}()
			sentence.test(ctx, t, newSubject(t))
		})
	}
}

// sentences state the contract.
var sentences = []struct {
	name string
	test func(ctx context.Context, t *testing.T, s Subject)
}{
	{"Decrypt returns the plaintext of a data key", testRoundTrip},
	{"A data key is 32 random bytes", testDataKey},
	{"Every data key is new", testUnique},
	{"A data key names its key by id", testKeyID},
	{"An alias stands for its key", testAlias},
	{"Another context is ErrCiphertext", testOtherContext},
	{"A context is compared without regard to order", testContextOrder},
	{"No context is the empty context", testNoContext},
	{"A context may be any text", testAnyContext},
	{"A changed ciphertext is ErrCiphertext", testChangedCiphertext},
	{"A ciphertext of another length is ErrCiphertext", testCiphertextLength},
	{"Garbage is ErrCiphertext", testGarbage},
	{"Another key's ciphertext is ErrCiphertext", testOtherKey},
	{"An unknown key is ErrNotFound", testUnknownKey},
	{"An empty key id is an error", testEmptyKeyID},
	{"A disabled key is ErrDisabled until it is enabled", testDisabled},
	{"A key pending deletion is ErrPendingDeletion", testPendingDeletion},
	{"A denied principal is ErrDenied, and no other", testDenied},
	{"A service that is down is ErrUnavailable until it is back", testUnavailable},
	{"After the end of ctx a call returns its error", testCanceled},
	{"A call returns soon after the end of ctx", testStalled},
	{"A client keeps nothing that it was given", testKeepsNothing},
	{"A caller may change what it got", testSharesNothing},
	{"Calls may be concurrent", testConcurrent},
	{"A data key does not print", testPrinting},
	{"An error holds no key", testErrorText},
	{"An error names the operation and the key", testKeyError},
	{"A report names the key", testReport},
	{"An Authorizer says what the operation would", testAuthorizer},
	{"SameKey knows the names of a key", testSameKey},
	{"An alias opens only ciphertexts of its key", testMovedAlias},
}

// generate returns a data key that looks like one.
func generate(ctx context.Context, t *testing.T, s Subject, ec kms.Context) *kms.DataKey {
	t.Helper()
	return generateBy(ctx, t, s, s.KeyID, ec)
}

// generateBy is generate with another name of a key.
func generateBy(ctx context.Context, t *testing.T, s Subject, keyID string, ec kms.Context) *kms.DataKey {
	t.Helper()
	k, err := s.Client.GenerateDataKey(ctx, keyID, ec)
	require.NoError(t, err)
	require.NotNil(t, k, "data key without an error")
	require.Len(t, k.Plaintext(), kms.DataKeySize)
	require.False(t, bytes.Equal(k.Plaintext(), make([]byte, kms.DataKeySize)), "data key of zeros")
	require.NotEmpty(t, k.Ciphertext)
	require.False(t, bytes.Contains(k.Ciphertext, k.Plaintext()), "ciphertext that holds its plaintext")
	return k
}

// requireOpens fails the test unless Decrypt returns k's plaintext.
func requireOpens(ctx context.Context, t *testing.T, s Subject, k *kms.DataKey, ec kms.Context) {
	t.Helper()
	ciphertext := slices.Clone(k.Ciphertext)
	plaintext, err := s.Client.Decrypt(ctx, k.KeyID, ciphertext, ec)
	require.NoError(t, err)
	require.True(t, bytes.Equal(k.Plaintext(), plaintext), "Decrypt returned another plaintext")
	require.True(t, bytes.Equal(k.Ciphertext, ciphertext), "Decrypt changed the ciphertext")
}
