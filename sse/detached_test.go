package sse_test

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// TestDetachedWritersDoNotMix lets two writers store each key at once, as the
// Encryption example does. Every key stays readable.
func TestDetachedWritersDoNotMix(t *testing.T) {
	a := &album{cipher: newCustomer(t, customerKey)}
	pictures := [][]byte{pattern(1000), pattern(2000)}
	var wg sync.WaitGroup
	for i := range 200 {
		for _, picture := range pictures {
			wg.Go(func() {
				if err := a.put(t.Context(), fmt.Sprint(i), bytes.NewReader(picture)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for i := range 200 {
		r, err := a.get(t.Context(), fmt.Sprint(i))
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Contains(t, pictures, got)
	}
}

// TestBodyID: an id names one body, whoever its envelope belongs to.
func TestBodyID(t *testing.T) {
	seen := map[string]bool{}
	for mode, cs := range ciphers(t) {
		for range 10 {
			e, err := cs[0].Encrypt(t.Context(), object)
			require.NoError(t, err)
			id := e.Envelope().BodyID()
			require.Regexp(t, "^[0-9a-f]{64}$", id)
			require.False(t, seen[id], mode)
			seen[id] = true

			d, err := cs[0].Decrypt(t.Context(), object, e.Envelope())
			require.NoError(t, err)
			renamed := sse.Object{Bucket: "photos", Key: "copy.jpg", Context: object.Context}
			env, err := cs[1].Rewrap(t.Context(), renamed, d)
			require.NoError(t, err)
			require.Equal(t, id, env.BodyID())
		}
	}
}
