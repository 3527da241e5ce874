package secret_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/secret"
)

func TestKeyNeverPrints(t *testing.T) {
	raw := bytes.Repeat([]byte("kEy!"), 8)
	key, err := secret.New(raw)
	require.NoError(t, err)
	holder := struct {
		Public  secret.Key
		private secret.Key
		ptr     *secret.Key
	}{key, key, &key}

	var printed bytes.Buffer
	for _, v := range []any{key, &key, holder, &holder, []secret.Key{key}, map[string]secret.Key{"k": key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		printed.Write(b)
		slog.New(slog.NewJSONHandler(&printed, nil)).Info("x", "key", v)
		slog.New(slog.NewTextHandler(&printed, nil)).Info("x", "key", v)
		printed.WriteString(errors.Join(fmt.Errorf("oops %v", v)).Error())
	}
	for _, form := range []string{
		string(raw), hex.EncodeToString(raw), fmt.Sprint(raw), "kEy!", hex.EncodeToString(raw[:4]), "107 69 121",
		"0x6b, 0x45", "a0V5I",
	} {
		require.NotContains(t, printed.String(), form)
	}
	require.Contains(t, printed.String(), "[redacted]")
}

func TestKeyIsACopy(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, secret.KeySize)
	key, err := secret.New(raw)
	require.NoError(t, err)
	raw[0] = 0
	require.Equal(t, byte(7), key.Bytes()[0])
}

func TestNewRefusesOtherLengths(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		_, err := secret.New(make([]byte, n))
		require.ErrorContains(t, err, fmt.Sprintf("%d bytes", n))
	}
}

func TestEqual(t *testing.T) {
	a, b := secret.Random(), secret.Random()
	require.True(t, a.Equal(a))
	require.False(t, a.Equal(b))
	require.False(t, a.IsZero())
	require.True(t, secret.Key{}.IsZero())
}
