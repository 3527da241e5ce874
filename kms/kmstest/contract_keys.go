package kmstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

func testRoundTrip(ctx context.Context, t *testing.T, s Subject) {
	for _, ec := range []kms.Context{nil, {}, {"blobseal:object": "photos/cat.jpg"}, {"a": "1", "b": "2", "c": "3"}} {
		k := generate(ctx, t, s, ec)
		for range 2 {
			requireOpens(ctx, t, s, k, ec)
		}
	}
}

func testDataKey(ctx context.Context, t *testing.T, s Subject) {
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

func testUnique(ctx context.Context, t *testing.T, s Subject) {
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

func testKeyID(ctx context.Context, t *testing.T, s Subject) {
	for range 2 {
		require.Equal(t, s.KeyID, generate(ctx, t, s, nil).KeyID)
	}
}

func testAlias(ctx context.Context, t *testing.T, s Subject) {
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

func testSameKey(_ context.Context, t *testing.T, s Subject) {
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

// testMovedAlias tests what package sse relies on to pin the key behind an alias.
func testMovedAlias(ctx context.Context, t *testing.T, s Subject) {
	if s.Alias == "" || s.OtherKeyID == "" {
		t.Skip("no alias or no other key")
	}
	k := generateBy(ctx, t, s, s.OtherKeyID, nil)
	for range 2 {
		_, err := s.Client.Decrypt(ctx, s.Alias, k.Ciphertext, nil)
		if !errors.Is(err, kms.ErrNotFound) { // Azure: the alias has no such version
			RequireKind(t, err, kms.ErrCiphertext, "%s with a ciphertext of %s", s.Alias, s.OtherKeyID)
		}
	}
}

func testOtherContext(ctx context.Context, t *testing.T, s Subject) {
	if s.UnboundContext {
		t.Skip("the service binds no context")
	}
	ec := kms.Context{"ab": "cd", "Key": "Value"}
	k := generate(ctx, t, s, ec)
	requireOpens(ctx, t, s, k, ec) // from a cache, too
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
		RequireKind(t, err, kms.ErrCiphertext, "context %q instead of %q", other, ec)
	}
	requireOpens(ctx, t, s, k, ec)
}

func testContextOrder(ctx context.Context, t *testing.T, s Subject) {
	const pairs = 40
	up, down := kms.Context{}, kms.Context{}
	for i := range pairs {
		up[fmt.Sprint("key", i)] = fmt.Sprint("value", i)
		down[fmt.Sprint("key", pairs-1-i)] = fmt.Sprint("value", pairs-1-i)
	}
	for range 10 {
		k := generate(ctx, t, s, up)
		requireOpens(ctx, t, s, k, down)
		requireOpens(ctx, t, s, k, maps.Clone(up))
	}
}

func testNoContext(ctx context.Context, t *testing.T, s Subject) {
	requireOpens(ctx, t, s, generate(ctx, t, s, nil), kms.Context{})
	requireOpens(ctx, t, s, generate(ctx, t, s, kms.Context{}), nil)
}

func testAnyContext(ctx context.Context, t *testing.T, s Subject) {
	for _, ec := range []kms.Context{
		{"": ""}, {"": "x"}, {"x": ""}, {"ключ": "значение", "鍵": "値"}, {"{\"a\":": "\"b\"}\n"},
		{"a=b&c": "d;e,f"}, {"long": strings.Repeat("x", 1000)},
	} {
		k, err := s.Client.GenerateDataKey(ctx, s.KeyID, ec)
		if errors.Is(err, kms.ErrInvalid) {
			continue // the service has limits of its own
		}
		require.NoError(t, err, "context %q", ec)
		requireOpens(ctx, t, s, k, ec)
	}
}

// sampleIndices returns up to 120 numbers below n: the first, the last and some between.
func sampleIndices(n int) []int {
	step := max(1, n/100)
	var out []int
	for i := 0; i < n; i++ {
		if i < 10 || i >= n-10 || i%step == 0 {
			out = append(out, i)
		}
	}
	return out
}

func testChangedCiphertext(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	requireOpens(ctx, t, s, k, nil)
	for _, i := range sampleIndices(len(k.Ciphertext)) {
		c := slices.Clone(k.Ciphertext)
		c[i] ^= 1 << (i % 8)
		plaintext, err := s.Client.Decrypt(ctx, s.KeyID, c, nil)
		if err == nil && bytes.Equal(plaintext, k.Plaintext()) {
			continue // a bit without meaning, as base64 can have at its end
		}
		RequireKind(t, err, kms.ErrCiphertext, "byte %d changed", i)
		require.Nil(t, plaintext, "byte %d changed", i)
	}
	requireOpens(ctx, t, s, k, nil)
}

func testCiphertextLength(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	c := k.Ciphertext
	for _, n := range sampleIndices(len(c)) {
		_, err := s.Client.Decrypt(ctx, s.KeyID, c[:n:n], nil)
		RequireKind(t, err, kms.ErrCiphertext, "cut to %d of %d bytes", n, len(c))
		_, err = s.Client.Decrypt(ctx, s.KeyID, c[len(c)-n:], nil)
		RequireKind(t, err, kms.ErrCiphertext, "last %d of %d bytes", n, len(c))
	}
	for _, longer := range [][]byte{
		slices.Concat(c, []byte{0}), slices.Concat(c, []byte("A")), slices.Concat([]byte{0}, c), slices.Concat(c, c),
	} {
		_, err := s.Client.Decrypt(ctx, s.KeyID, longer, nil)
		RequireKind(t, err, kms.ErrCiphertext, "grown to %d of %d bytes", len(longer), len(c))
	}
	_, err := s.Client.Decrypt(ctx, s.KeyID, nil, nil)
	RequireKind(t, err, kms.ErrCiphertext, "nil")
	requireOpens(ctx, t, s, k, nil)
}

func testGarbage(ctx context.Context, t *testing.T, s Subject) {
	for _, c := range [][]byte{
		{0}, []byte("garbage"), make([]byte, 32), make([]byte, 104), bytes.Repeat([]byte{0xff}, 4096), []byte("vault:v1:"), []byte("{}"),
	} {
		_, err := s.Client.Decrypt(ctx, s.KeyID, c, nil)
		RequireKind(t, err, kms.ErrCiphertext, "%d bytes %.20q", len(c), c)
	}
}

func testOtherKey(ctx context.Context, t *testing.T, s Subject) {
	if s.OtherKeyID == "" {
		t.Skip("no other key")
	}
	k := generate(ctx, t, s, nil)
	requireOpens(ctx, t, s, k, nil)
	_, err := s.Client.Decrypt(ctx, s.OtherKeyID, k.Ciphertext, nil)
	RequireKind(t, err, kms.ErrCiphertext, "under the other key")
	other := generateBy(ctx, t, s, s.OtherKeyID, nil)
	require.Equal(t, s.OtherKeyID, other.KeyID)
	_, err = s.Client.Decrypt(ctx, s.KeyID, other.Ciphertext, nil)
	RequireKind(t, err, kms.ErrCiphertext, "the other key's")
}
