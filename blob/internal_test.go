package blob

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHook: a hook runs once, whatever it asks, and whoever is there to answer.
func TestHook(t *testing.T) {
	ours := func(i any) bool { _, ok := i.(*int); return ok }
	inner := func(i any) bool { _, ok := i.(*string); return ok }
	var calls int
	var keep func(any) bool
	ask := func(as func(any) bool) error {
		calls++
		keep = as
		if as(nil) || !as(new(int)) || !as(new(string)) || as(new(bool)) || !as(new(int)) || !as(new(string)) {
			return errors.New("a wrong answer")
		}
		return nil
	}
	h := callHook(ask, ours)
	require.True(t, h.held)
	require.NoError(t, h.inner()(inner))
	require.Equal(t, 1, calls)
	require.False(t, keep(new(string)), "after the end nobody answers")
	h.stop()

	h = callHook(ask, ours)
	h.stop() // the inner request was never made
	require.Error(t, h.err)
	require.Equal(t, 2, calls)

	h = callHook(func(as func(any) bool) error { as(new(int)); return nil }, ours)
	require.Nil(t, h.inner(), "nothing to ask the inner bucket")
	require.NoError(t, h.err)
	h = callHook(nil, ours)
	require.Nil(t, h.inner())
	h.stop()
}
