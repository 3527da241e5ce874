package keyringtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// clock tests a store that is a [keyring.Clock].
func (c *contract) clock(t *testing.T) {
	ctx, s := c.start(t)
	clock, ok := s.(keyring.Clock)
	if !ok {
		t.Skip("store has no clock")
	}
	first, err := clock.Now(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("store has no clock")
	}
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond)
	second, err := clock.Now(ctx)
	require.NoError(t, err)
	require.True(t, second.After(first), "%v later it is %v, and was %v", 50*time.Millisecond, second, first)
	if c.caps.Another != nil {
		other, err := c.caps.Another(t, s).(keyring.Clock).Now(ctx)
		require.NoError(t, err)
		require.False(t, other.Before(second), "through another handle it is %v, and was %v", other, second)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = clock.Now(ended)
	require.ErrorIs(t, err, context.Canceled)
}
