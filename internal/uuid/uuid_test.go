package uuid_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/uuid"
)

func TestUUID(t *testing.T) {
	id := uuid.UUID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	require.Equal(t, "01234567-89ab-cdef-0123-456789abcdef", id.String())
	seen := map[uuid.UUID]bool{}
	for range 100 {
		id := uuid.New()
		require.Regexp(t, "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", id.String())
		require.False(t, seen[id])
		seen[id] = true
	}
}
