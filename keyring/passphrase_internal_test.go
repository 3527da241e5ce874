package keyring

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzPassphraseHeader(f *testing.F) {
	good := passphraseHeader{params: PassphraseParams{Time: 2, Memory: 19 << 10, Threads: 1}}.marshal()
	f.Add(good)
	f.Add(append(good, make([]byte, 72)...))
	f.Add(good[:25])
	f.Add([]byte{})
	f.Add([]byte("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff0123456789abcdef"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, message, err := parsePassphraseHeader(data)
		if err != nil {
			return
		}
		require.NoError(t, h.params.check(), "within bounds before anything is derived")
		require.LessOrEqual(t, h.params.Memory, uint32(1<<20))
		require.Equal(t, data, append(h.marshal(), message...))
	})
}
