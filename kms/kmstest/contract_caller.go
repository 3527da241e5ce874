package kmstest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

func testKeepsNothing(ctx context.Context, t *testing.T, s Subject) {
	ec := kms.Context{"a": "1"}
	k := generate(ctx, t, s, ec)
	require.Equal(t, kms.Context{"a": "1"}, ec, "context after GenerateDataKey")
	ec["a"] = "2"
	ec["b"] = "3"
	requireOpens(ctx, t, s, k, kms.Context{"a": "1"})
	ec = kms.Context{"a": "1"}
	ciphertext := slices.Clone(k.Ciphertext)
	_, err := s.Client.Decrypt(ctx, s.KeyID, ciphertext, ec)
	require.NoError(t, err)
	require.Equal(t, kms.Context{"a": "1"}, ec, "context after Decrypt")
	require.Equal(t, k.Ciphertext, ciphertext, "ciphertext after Decrypt")
	clear(ciphertext)
	clear(ec)
	requireOpens(ctx, t, s, k, kms.Context{"a": "1"})
}

func testSharesNothing(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	want, ciphertext := slices.Clone(k.Plaintext()), slices.Clone(k.Ciphertext)
	for range 3 {
		plaintext, err := s.Client.Decrypt(ctx, s.KeyID, ciphertext, nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, plaintext), "plaintext after a caller cleared what it got")
		clear(plaintext)
		k := generate(ctx, t, s, nil)
		requireOpens(ctx, t, s, k, nil)
		clear(k.Ciphertext)
		k.Clear()
	}
}

func testConcurrent(ctx context.Context, t *testing.T, s Subject) {
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
				clear(plaintext) // the race detector notices if anyone else has it
				k.Clear()
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// encodings returns the ways in which text can show a key.
func encodings(key []byte) []string {
	decimal := strings.Trim(fmt.Sprint(key), "[]")
	return []string{
		string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), decimal, strings.ReplaceAll(decimal, " ", ","),
		base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key), base64.RawStdEncoding.EncodeToString(key),
	}
}

func testPrinting(ctx context.Context, t *testing.T, s Subject) {
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

func testErrorText(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	check := func(_ any, err error) {
		if err == nil {
			return
		}
		for _, e := range encodings(k.Plaintext()) {
			if strings.Contains(err.Error(), e) || strings.Contains(fmt.Sprintf("%+v", err), e) {
				require.Fail(t, "an error's text holds the plaintext") // do not print it here
			}
		}
	}
	// A confused caller passes the plaintext.
	check(s.Client.Decrypt(ctx, s.KeyID, k.Plaintext(), nil))
	check(s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, kms.Context{"another": "context"}))
	check(s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext[:len(k.Ciphertext)-1], nil))
	if s.Disable != nil {
		s.Disable(t)
		check(s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, nil))
	}
}
