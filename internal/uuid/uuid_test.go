package uuid_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/uuid"
)

func TestParseIsTheInverseOfString(t *testing.T) {
	seen := make(map[uuid.UUID]bool)
	for range 100 {
		id := uuid.New()
		require.False(t, seen[id])
		seen[id] = true
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id.String())
		again, ok := uuid.Parse(id.String())
		require.True(t, ok)
		require.Equal(t, id, again)
		require.Zero(t, id.Compare(again))
	}
}

func TestParseReadsOneForm(t *testing.T) {
	const good = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
	_, ok := uuid.Parse(good)
	require.True(t, ok)
	for name, text := range map[string]string{
		"empty": "", "upper case": strings.ToUpper(good), "braces": "{" + good + "}", "urn": "urn:uuid:" + good,
		"no dashes": strings.ReplaceAll(good, "-", ""), "other dashes": "6ba7b8109-dad-41d1-80b4-00c04fd430c8",
		"short": good[1:], "long": good + "0", "not hexadecimal": "g" + good[1:],
	} {
		id, ok := uuid.Parse(text)
		require.False(t, ok, name)
		require.Zero(t, id, name)
	}
}
