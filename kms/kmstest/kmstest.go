// Package kmstest tests implementations of [kms.Client], and the services that
// use one.
//
// [Run] has one subtest for each sentence of the contract:
//
//	func TestClient(t *testing.T) {
//		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
//			s := newService(t)
//			return kmstest.Subject{Client: s, KeyID: s.createKey(t), Disable: s.disable}
//		})
//	}
//
// [Fake] is a key service in memory, with programmable faults, for the unit
// tests of a service that encrypts.
//
// A suite cannot prove that a context is bound by sound cryptography, nor every
// race. Run it with -race, against the real service.
package kmstest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

// Subject is a client to test, and what the suite may do with the service
// behind it. A zero field skips the subtests that need it.
type Subject struct {
	// Client is what is tested; required.
	Client kms.Client

	// KeyID is the id, not an alias, of an enabled key, as results name it;
	// required. The principal "kmstest" and the zero principal may use it.
	KeyID string

	// Alias is another name of the key.
	Alias string

	// OtherKeyID is the id of another enabled key.
	OtherKeyID string

	// UnknownKeyID is an id, of the right form, that names no key.
	UnknownKeyID string

	// Disable, ScheduleDeletion and Enable set the state of the key KeyID.
	Disable, ScheduleDeletion, Enable func(t *testing.T)

	// Deny takes from p the permission to do op with the key KeyID.
	Deny func(t *testing.T, p kms.Principal, op kms.Operation)

	// Break makes the service unavailable until Repair.
	Break, Repair func(t *testing.T)

	// Stall makes the service take seconds for every call.
	Stall func(t *testing.T)

	// UnboundContext says that the service cannot bind an encryption context, as
	// the client's documentation admits.
	UnboundContext bool

	// ReusesDataKeys says that the client is a cache: data keys may repeat.
	ReusesDataKeys bool
}

const (
	timeout = 2 * time.Minute        // ends a test whose client hangs
	prompt  = 50 * time.Millisecond  // how soon a call ends after its ctx
	grace   = 950 * time.Millisecond // more of it, for a loaded machine
)

// principal is who asks in the suite.
var principal = kms.Principal{ID: "kmstest", Type: "User"}

// Run tests the clients that newSubject returns, which share no state of keys.
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

// sentences are the contract.
var sentences = []struct {
	name string
	test func(ctx context.Context, t *testing.T, s Subject)
}{
	{"Decrypt returns the plaintext of a data key", roundTrip},
	{"A data key is 32 random bytes", dataKey},
	{"Every data key is new", unique},
	{"A data key names its key by id", names},
	{"An alias stands for its key", alias},
	{"Another context is ErrCiphertext", otherContext},
	{"A context is compared without regard to order", order},
	{"No context is the empty context", noContext},
	{"A context may be any text", anyContext},
	{"A changed ciphertext is ErrCiphertext", flipped},
	{"A ciphertext of another length is ErrCiphertext", resized},
	{"Garbage is ErrCiphertext", garbage},
	{"Another key's ciphertext is ErrCiphertext", otherKey},
	{"An unknown key is ErrNotFound", unknown},
	{"An empty key id is an error", emptyKeyID},
	{"A disabled key is ErrDisabled until it is enabled", disabled},
	{"A key pending deletion is ErrPendingDeletion", pendingDeletion},
	{"A denied principal is ErrDenied, and no other", denied},
	{"A service that is down is ErrUnavailable until it is back", unavailable},
	{"After the end of ctx a call returns its error", canceled},
	{"A call returns soon after the end of ctx", stalled},
	{"A client keeps nothing that it was given", keepsNothing},
	{"A caller may change what it got", sharesNothing},
	{"Calls may be concurrent", concurrent},
	{"A data key does not print", printing},
	{"An error holds no key", errorText},
	{"An error names the operation and the key", namedError},
	{"A report names the key", report},
	{"An Authorizer says what the operation would", authorizer},
	{"SameKey knows the names of a key", sameKey},
	{"An alias opens only ciphertexts of its key", aliasOfOtherKey},
}

func roundTrip(ctx context.Context, t *testing.T, s Subject) {
	for _, ec := range []kms.Context{nil, {}, {"blobseal:object": "photos/cat.jpg"}, {"a": "1", "b": "2", "c": "3"}} {
		k := generate(ctx, t, s, ec)
		for range 2 {
			opens(ctx, t, s, k, ec)
		}
	}
}

func dataKey(ctx context.Context, t *testing.T, s Subject) {
	var or, and [kms.DataKeySize]byte
	for i := range and {
		and[i] = 0xff
	}
	for i := range 64 {
		// Contexts differ, so that caches call.
		k := generate(ctx, t, s, kms.Context{"kmstest": fmt.Sprint(i)})
		for j, b := range k.Plaintext() {
			or[j] |= b
			and[j] &= b
		}
	}
	// A bit that never changes in 64 keys has a chance of 2^-63.
	for i := range or {
		require.True(t, or[i] == 0xff && and[i] == 0, "bits of byte %d of 64 data keys do not change", i)
	}
}

func unique(ctx context.Context, t *testing.T, s Subject) {
	if s.ReusesDataKeys {
		t.Skip("a cache reuses data keys")
	}
	plaintexts, ciphertexts := make(map[string]bool), make(map[string]bool)
	for range 50 {
		k := generate(ctx, t, s, nil)
		require.False(t, plaintexts[string(k.Plaintext())], "plaintext of a data key repeats")
		require.False(t, ciphertexts[string(k.Ciphertext)], "ciphertext of a data key repeats")
		plaintexts[string(k.Plaintext())], ciphertexts[string(k.Ciphertext)] = true, true
	}
}

func names(ctx context.Context, t *testing.T, s Subject) {
	for range 2 {
		require.Equal(t, s.KeyID, generate(ctx, t, s, nil).KeyID)
	}
}

func alias(ctx context.Context, t *testing.T, s Subject) {
	if s.Alias == "" {
		t.Skip("no alias")
	}
	for range 2 {
		k := generateBy(ctx, t, s, s.Alias, nil)
		require.Equal(t, s.KeyID, k.KeyID, "key that the alias stands for")
		for _, keyID := range []string{s.KeyID, s.Alias} {
			plaintext, err := s.Client.Decrypt(ctx, keyID, k.Ciphertext, nil)
			require.NoError(t, err)
			require.True(t, bytes.Equal(k.Plaintext(), plaintext), "plaintext by %s", keyID)
		}
	}
}

func namedError(ctx context.Context, t *testing.T, s Subject) {
	requireNamed := func(op kms.Operation, keyID string, err error) {
		t.Helper()
		failed, ok := errors.AsType[*kms.KeyError](err)
		require.True(t, ok, "not a *kms.KeyError: %v (call kms.CallError)", err)
		require.Equal(t, op, failed.Op)
		require.Equal(t, keyID, failed.KeyID)
	}
	_, err := s.Client.Decrypt(ctx, s.KeyID, []byte("garbage"), nil)
	requireNamed(kms.OpDecrypt, s.KeyID, err)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Client.GenerateDataKey(canceled, s.KeyID, nil)
	requireNamed(kms.OpGenerateDataKey, s.KeyID, err)
	if s.UnknownKeyID != "" {
		_, err = s.Client.GenerateDataKey(ctx, s.UnknownKeyID, nil)
		requireNamed(kms.OpGenerateDataKey, s.UnknownKeyID, err)
	}
}

func sameKey(_ context.Context, t *testing.T, s Subject) {
	for _, tc := range []struct {
		name, id    string
		same, known bool
	}{
		{s.KeyID, s.KeyID, true, true},
		{s.OtherKeyID, s.OtherKeyID, true, true},
		{s.KeyID, s.OtherKeyID, false, true},
		{s.OtherKeyID, s.KeyID, false, true},
		{s.KeyID, s.UnknownKeyID, false, true},
	} {
		if tc.name == "" || tc.id == "" {
			continue
		}
		same, known := kms.SameKey(s.Client, tc.name, tc.id)
		require.Equal(t, tc.same, same, "%q means the key %q", tc.name, tc.id)
		require.Equal(t, tc.known, known, "the client knows whether %q means the key %q", tc.name, tc.id)
	}
	if s.Alias != "" { // known, if the client resolves aliases itself
		same, known := kms.SameKey(s.Client, s.Alias, s.KeyID)
		require.Equal(t, same, known, "the alias %q means the key %q", s.Alias, s.KeyID)
		if s.OtherKeyID != "" {
			same, _ = kms.SameKey(s.Client, s.Alias, s.OtherKeyID)
			require.False(t, same, "the alias %q means the key %q", s.Alias, s.OtherKeyID)
		}
	}
	for _, none := range []string{"", "\xff"} {
		same, known := kms.SameKey(s.Client, none, s.KeyID)
		require.False(t, same || !known, "%q means the key %q", none, s.KeyID)
	}
}

// aliasOfOtherKey: package sse relies on this to pin the key of a cipher that was
// set up with an alias.
func aliasOfOtherKey(ctx context.Context, t *testing.T, s Subject) {
	if s.Alias == "" || s.OtherKeyID == "" {
		t.Skip("no alias or no other key")
	}
	k := generateBy(ctx, t, s, s.OtherKeyID, nil)
	for range 2 {
		_, err := s.Client.Decrypt(ctx, s.Alias, k.Ciphertext, nil)
		if !errors.Is(err, kms.ErrNotFound) { // Azure: the alias has no such version
			isKind(t, err, kms.ErrCiphertext, "%s with a ciphertext of %s", s.Alias, s.OtherKeyID)
		}
	}
}

func otherContext(ctx context.Context, t *testing.T, s Subject) {
	if s.UnboundContext {
		t.Skip("the service binds no context")
	}
	ec := kms.Context{"ab": "cd", "Key": "Value"}
	k := generate(ctx, t, s, ec)
	opens(ctx, t, s, k, ec) // and so it is in caches
	for _, other := range []kms.Context{
		nil,
		{},
		{"ab": "cd"},
		{"Key": "Value"},
		{"ab": "cd", "Key": "Value", "more": ""},
		{"ab": "cd", "Key": "Value", "": ""},
		{"ab": "cd", "Key": "value"},
		{"ab": "cd", "key": "Value"},
		{"ab": "cd", "Key": "Value "},
		{"ab": "cd", "Key": ""},
		{"ab": "Value", "Key": "cd"},
		{"cd": "ab", "Value": "Key"},
		{"a": "bcd", "Key": "Value"},
		{"abc": "d", "Key": "Value"},
		{"Key": "Valueab", "": "cd"},
		{"KeyValue": "abcd"},
		{"Key": "Value,ab=cd"},
		{"Key": `Value","ab":"cd`},
		{"Key": "Value\x00ab\x00cd"},
		{"Key\x00Value\x00ab": "cd"},
	} {
		_, err := s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, other)
		isKind(t, err, kms.ErrCiphertext, "context %q instead of %q", other, ec)
	}
	opens(ctx, t, s, k, ec)
}

func order(ctx context.Context, t *testing.T, s Subject) {
	const pairs = 40
	up, down := kms.Context{}, kms.Context{}
	for i := range pairs {
		up[fmt.Sprint("key", i)] = fmt.Sprint("value", i)
		down[fmt.Sprint("key", pairs-1-i)] = fmt.Sprint("value", pairs-1-i)
	}
	for range 10 {
		k := generate(ctx, t, s, up)
		opens(ctx, t, s, k, down)
		opens(ctx, t, s, k, up.Clone())
	}
}

func noContext(ctx context.Context, t *testing.T, s Subject) {
	opens(ctx, t, s, generate(ctx, t, s, nil), kms.Context{})
	opens(ctx, t, s, generate(ctx, t, s, kms.Context{}), nil)
}

func anyContext(ctx context.Context, t *testing.T, s Subject) {
	for _, ec := range []kms.Context{
		{"": ""}, {"": "x"}, {"x": ""}, {"ключ": "значение", "鍵": "値"}, {"{\"a\":": "\"b\"}\n"},
		{"a=b&c": "d;e,f"}, {"long": strings.Repeat("x", 1000)},
	} {
		k, err := s.Client.GenerateDataKey(ctx, s.KeyID, ec)
		if errors.Is(err, kms.ErrInvalid) {
			continue // a service has limits of its own, and says so
		}
		require.NoError(t, err, "context %q", ec)
		opens(ctx, t, s, k, ec)
	}
}

// sampled returns up to 120 numbers below n: the first, the last, some between.
func sampled(n int) []int {
	step := max(1, n/100)
	var out []int
	for i := 0; i < n; i++ {
		if i < 10 || i >= n-10 || i%step == 0 {
			out = append(out, i)
		}
	}
	return out
}

func flipped(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	opens(ctx, t, s, k, nil)
	for _, i := range sampled(len(k.Ciphertext)) {
		c := slices.Clone(k.Ciphertext)
		c[i] ^= 1 << (i % 8)
		plaintext, err := s.Client.Decrypt(ctx, s.KeyID, c, nil)
		if err == nil && bytes.Equal(plaintext, k.Plaintext()) {
			continue // a bit without meaning, such as the last of base64
		}
		isKind(t, err, kms.ErrCiphertext, "byte %d changed", i)
		require.Nil(t, plaintext, "byte %d changed", i)
	}
	opens(ctx, t, s, k, nil)
}

func resized(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	c := k.Ciphertext
	for _, n := range sampled(len(c)) {
		_, err := s.Client.Decrypt(ctx, s.KeyID, c[:n:n], nil)
		isKind(t, err, kms.ErrCiphertext, "cut to %d of %d bytes", n, len(c))
		_, err = s.Client.Decrypt(ctx, s.KeyID, c[len(c)-n:], nil)
		isKind(t, err, kms.ErrCiphertext, "last %d of %d bytes", n, len(c))
	}
	for _, longer := range [][]byte{
		slices.Concat(c, []byte{0}), slices.Concat(c, []byte("A")), slices.Concat([]byte{0}, c), slices.Concat(c, c),
	} {
		_, err := s.Client.Decrypt(ctx, s.KeyID, longer, nil)
		isKind(t, err, kms.ErrCiphertext, "grown to %d of %d bytes", len(longer), len(c))
	}
	_, err := s.Client.Decrypt(ctx, s.KeyID, nil, nil)
	isKind(t, err, kms.ErrCiphertext, "nil")
	opens(ctx, t, s, k, nil)
}

func garbage(ctx context.Context, t *testing.T, s Subject) {
	for _, c := range [][]byte{
		{0}, []byte("garbage"), make([]byte, 32), make([]byte, 104), bytes.Repeat([]byte{0xff}, 4096), []byte("vault:v1:"), []byte("{}"),
	} {
		_, err := s.Client.Decrypt(ctx, s.KeyID, c, nil)
		isKind(t, err, kms.ErrCiphertext, "%d bytes %.20q", len(c), c)
	}
}

func otherKey(ctx context.Context, t *testing.T, s Subject) {
	if s.OtherKeyID == "" {
		t.Skip("no other key")
	}
	k := generate(ctx, t, s, nil)
	opens(ctx, t, s, k, nil)
	_, err := s.Client.Decrypt(ctx, s.OtherKeyID, k.Ciphertext, nil)
	isKind(t, err, kms.ErrCiphertext, "under the other key")
	other := generateBy(ctx, t, s, s.OtherKeyID, nil)
	require.Equal(t, s.OtherKeyID, other.KeyID)
	_, err = s.Client.Decrypt(ctx, s.KeyID, other.Ciphertext, nil)
	isKind(t, err, kms.ErrCiphertext, "the other key's")
}

// both fails the test unless both operations with keyID end with an error of kind.
func both(ctx context.Context, t *testing.T, s Subject, keyID string, ciphertext []byte, kind error) {
	t.Helper()
	for range 2 {
		k, err := s.Client.GenerateDataKey(ctx, keyID, nil)
		isKind(t, err, kind, "GenerateDataKey")
		require.Nil(t, k, "data key beside an error")
		plaintext, err := s.Client.Decrypt(ctx, keyID, ciphertext, nil)
		isKind(t, err, kind, "Decrypt")
		require.Nil(t, plaintext, "plaintext beside an error")
	}
}

func unknown(ctx context.Context, t *testing.T, s Subject) {
	if s.UnknownKeyID == "" {
		t.Skip("no unknown key id")
	}
	both(ctx, t, s, s.UnknownKeyID, generate(ctx, t, s, nil).Ciphertext, kms.ErrNotFound)
}

func emptyKeyID(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	for _, call := range []func() error{
		func() error { _, err := s.Client.GenerateDataKey(ctx, "", nil); return err },
		func() error { _, err := s.Client.Decrypt(ctx, "", k.Ciphertext, nil); return err },
	} {
		err := call()
		require.True(t, errors.Is(err, kms.ErrInvalid) || errors.Is(err, kms.ErrNotFound), "empty key id: %v", err)
	}
}

func disabled(ctx context.Context, t *testing.T, s Subject) {
	if s.Disable == nil {
		t.Skip("keys cannot be disabled")
	}
	k := generate(ctx, t, s, nil)
	opens(ctx, t, s, k, nil)
	s.Disable(t)
	both(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrDisabled)
	if s.Enable == nil {
		return
	}
	s.Enable(t)
	opens(ctx, t, s, k, nil)
	opens(ctx, t, s, generate(ctx, t, s, nil), nil)
}

func pendingDeletion(ctx context.Context, t *testing.T, s Subject) {
	if s.ScheduleDeletion == nil {
		t.Skip("keys cannot be scheduled for deletion")
	}
	k := generate(ctx, t, s, nil)
	opens(ctx, t, s, k, nil)
	s.ScheduleDeletion(t)
	both(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrPendingDeletion)
}

func denied(ctx context.Context, t *testing.T, s Subject) {
	if s.Deny == nil {
		t.Skip("principals cannot be denied")
	}
	k := generate(ctx, t, s, nil)
	opens(ctx, t, s, k, nil)
	generates := func() error { _, err := s.Client.GenerateDataKey(ctx, s.KeyID, nil); return err }
	decrypts := func() error { _, err := s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, nil); return err }
	s.Deny(t, principal, kms.OpDecrypt)
	for range 2 {
		isKind(t, decrypts(), kms.ErrDenied, "Decrypt")
		require.NoError(t, generates(), "GenerateDataKey, which was not denied")
	}
	s.Deny(t, principal, kms.OpGenerateDataKey)
	both(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrDenied)
	ctx = kms.WithPrincipal(ctx, kms.Principal{})
	opens(ctx, t, s, k, nil)
	generate(ctx, t, s, nil)
}

func unavailable(ctx context.Context, t *testing.T, s Subject) {
	if s.Break == nil || s.Repair == nil {
		t.Skip("the service cannot be broken")
	}
	k := generate(ctx, t, s, kms.Context{"before": "the break"})
	for range 2 {
		s.Break(t)
		both(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrUnavailable)
		s.Repair(t)
		opens(ctx, t, s, k, kms.Context{"before": "the break"})
		generate(ctx, t, s, nil)
		s.Break(t)
		_, err := s.Client.GenerateDataKey(ctx, s.KeyID, kms.Context{"in": "the break"})
		isKind(t, err, kms.ErrUnavailable, "GenerateDataKey")
		s.Repair(t)
		if s.ReusesDataKeys {
			return // the second round would find what the first one cached
		}
	}
}

func canceled(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	expired, cancel := context.WithDeadline(ctx, time.Unix(1, 0))
	defer cancel()
	for _, end := range []struct {
		ctx context.Context
		err error
	}{{ended, context.Canceled}, {expired, context.DeadlineExceeded}} {
		for _, ec := range []kms.Context{nil, {"kmstest": "new"}} {
			key, err := s.Client.GenerateDataKey(end.ctx, s.KeyID, ec)
			require.ErrorIs(t, err, end.err, "GenerateDataKey")
			require.Nil(t, key)
			plaintext, err := s.Client.Decrypt(end.ctx, s.KeyID, k.Ciphertext, ec)
			require.ErrorIs(t, err, end.err, "Decrypt")
			require.Nil(t, plaintext)
		}
	}
	opens(ctx, t, s, k, nil)
}

func stalled(ctx context.Context, t *testing.T, s Subject) {
	if s.Stall == nil {
		t.Skip("the service cannot be stalled")
	}
	k := generate(ctx, t, s, kms.Context{"before": "the stall"})
	s.Stall(t)
	for _, call := range []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := s.Client.GenerateDataKey(ctx, s.KeyID, nil); return err },
		func(ctx context.Context) error {
			_, err := s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, kms.Context{"before": "the stall"})
			return err
		},
	} {
		late := time.Duration(math.MaxInt64)
		for range 5 { // a busy machine is late now and then, a client that waits is so each time
			short, cancel := context.WithTimeout(ctx, prompt)
			start := time.Now()
			err := call(short)
			late = min(late, time.Since(start)-prompt)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			if late < prompt+grace {
				break
			}
		}
		require.Less(t, late, prompt+grace, "time from the end of a call's ctx until it returned")
	}
}

func keepsNothing(ctx context.Context, t *testing.T, s Subject) {
	ec := kms.Context{"a": "1"}
	k := generate(ctx, t, s, ec)
	require.Equal(t, kms.Context{"a": "1"}, ec, "context after GenerateDataKey")
	ec["a"] = "2"
	ec["b"] = "3"
	opens(ctx, t, s, k, kms.Context{"a": "1"})
	ec = kms.Context{"a": "1"}
	ciphertext := slices.Clone(k.Ciphertext)
	_, err := s.Client.Decrypt(ctx, s.KeyID, ciphertext, ec)
	require.NoError(t, err)
	require.Equal(t, kms.Context{"a": "1"}, ec, "context after Decrypt")
	require.Equal(t, k.Ciphertext, ciphertext, "ciphertext after Decrypt")
	clear(ciphertext)
	clear(ec)
	opens(ctx, t, s, k, kms.Context{"a": "1"})
}

func sharesNothing(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	want, ciphertext := slices.Clone(k.Plaintext()), slices.Clone(k.Ciphertext)
	for range 3 {
		plaintext, err := s.Client.Decrypt(ctx, s.KeyID, ciphertext, nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, plaintext), "plaintext after a caller cleared what it got")
		clear(plaintext)
		k := generate(ctx, t, s, nil)
		opens(ctx, t, s, k, nil)
		clear(k.Ciphertext)
		k.Clear()
	}
}

func concurrent(ctx context.Context, t *testing.T, s Subject) {
	const workers, each = 8, 10
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			ec := kms.Context{"worker": fmt.Sprint(w % 3)}
			for range each {
				k, err := s.Client.GenerateDataKey(ctx, s.KeyID, ec)
				if err != nil || k == nil {
					errs[w] = fmt.Errorf("data key %v, error %w", k, err)
					return
				}
				plaintext, err := s.Client.Decrypt(ctx, k.KeyID, k.Ciphertext, ec)
				if err != nil {
					errs[w] = err
					return
				}
				if !bytes.Equal(plaintext, k.Plaintext()) {
					errs[w] = errors.New("another plaintext")
					return
				}
				clear(plaintext) // the caller's alone, or the race detector tells
				k.Clear()
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// encodings are the ways in which text can show a key.
func encodings(key []byte) []string {
	decimal := strings.Trim(fmt.Sprint(key), "[]")
	return []string{
		string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), decimal, strings.ReplaceAll(decimal, " ", ","),
		base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key), base64.RawStdEncoding.EncodeToString(key),
	}
}

func printing(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{k, *k, []*kms.DataKey{k}, struct{ K *kms.DataKey }{k}} {
			text := fmt.Sprintf(verb, v)
			for _, e := range encodings(k.Plaintext()) {
				require.NotContains(t, text, e, "%s of %T", verb, v)
			}
		}
	}
}

func errorText(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	check := func(_ any, err error) {
		if err == nil {
			return
		}
		for _, e := range encodings(k.Plaintext()) {
			if strings.Contains(err.Error(), e) || strings.Contains(fmt.Sprintf("%+v", err), e) {
				require.Fail(t, "an error's text holds the plaintext") // and this text does not
			}
		}
	}
	// The plaintext in place of what is sent, as a confused caller would have it.
	check(s.Client.Decrypt(ctx, s.KeyID, k.Plaintext(), nil))
	check(s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, kms.Context{"another": "context"}))
	check(s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext[:len(k.Ciphertext)-1], nil))
	if s.Disable != nil {
		s.Disable(t)
		check(s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, nil))
	}
}

func report(ctx context.Context, t *testing.T, s Subject) {
	for range 2 {
		var r kms.Report
		k := generate(kms.WithReport(ctx, &r), t, s, nil)
		if r.KeyID != "" {
			require.Equal(t, s.KeyID, r.KeyID, "Report.KeyID of GenerateDataKey")
		}
		require.False(t, r.Cached && !s.ReusesDataKeys, "Report.Cached of a client that is no cache")
		r = kms.Report{}
		_, err := s.Client.Decrypt(kms.WithReport(ctx, &r), s.KeyID, k.Ciphertext, nil)
		require.NoError(t, err)
		if r.KeyID != "" {
			require.Equal(t, s.KeyID, r.KeyID, "Report.KeyID of Decrypt")
		}
	}
}

func authorizer(ctx context.Context, t *testing.T, s Subject) {
	a, ok := s.Client.(kms.Authorizer)
	if !ok {
		t.Skip("no Authorizer")
	}
	ops := []kms.Operation{kms.OpGenerateDataKey, kms.OpDecrypt}
	for _, op := range ops {
		require.NoError(t, a.Authorize(ctx, op, s.KeyID, nil), "%s", op)
		if s.Alias != "" {
			require.NoError(t, a.Authorize(ctx, op, s.Alias, nil), "%s by alias", op)
		}
		if s.UnknownKeyID != "" {
			isKind(t, a.Authorize(ctx, op, s.UnknownKeyID, nil), kms.ErrNotFound, "%s with an unknown key", op)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.Authorize(ended, kms.OpDecrypt, s.KeyID, nil); err != nil { // it may as well answer
		require.ErrorIs(t, err, context.Canceled)
	}
	if s.Deny != nil {
		s.Deny(t, principal, kms.OpDecrypt)
		isKind(t, a.Authorize(ctx, kms.OpDecrypt, s.KeyID, nil), kms.ErrDenied, "Decrypt")
		require.NoError(t, a.Authorize(ctx, kms.OpGenerateDataKey, s.KeyID, nil), "GenerateDataKey, which was not denied")
	}
	if s.Disable != nil {
		s.Disable(t)
		isKind(t, a.Authorize(ctx, kms.OpGenerateDataKey, s.KeyID, nil), kms.ErrDisabled, "GenerateDataKey")
	}
	if s.Enable != nil {
		s.Enable(t)
		require.NoError(t, a.Authorize(ctx, kms.OpGenerateDataKey, s.KeyID, nil))
	}
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

// opens fails the test unless Decrypt returns k's plaintext.
func opens(ctx context.Context, t *testing.T, s Subject, k *kms.DataKey, ec kms.Context) {
	t.Helper()
	ciphertext := slices.Clone(k.Ciphertext)
	plaintext, err := s.Client.Decrypt(ctx, k.KeyID, ciphertext, ec)
	require.NoError(t, err)
	require.True(t, bytes.Equal(k.Plaintext(), plaintext), "Decrypt returned another plaintext")
	require.True(t, bytes.Equal(k.Ciphertext, ciphertext), "Decrypt changed the ciphertext")
}

// isKind fails the test unless err is of that kind and of no other.
func isKind(t *testing.T, err, kind error, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	require.ErrorIs(t, err, kind, what)
	for _, other := range kinds {
		if other != kind {
			require.NotErrorIs(t, err, other, what)
		}
	}
}
