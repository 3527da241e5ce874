package blob

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// TestKeyLocks: one key at a time; who watches sees changes; nothing is left.
func TestKeyLocks(t *testing.T) {
	ctx := context.Background()
	var locks keyLocks
	w := locks.watch("k")
	require.NoError(t, locks.commit(ctx, "other", func() error { return nil }))
	require.NoError(t, w.change(ctx, func(changed bool) error {
		require.False(t, changed, "another key")
		return nil
	}))
	w.end()

	w = locks.watch("k")
	boom := errors.New("boom")
	require.ErrorIs(t, locks.commit(ctx, "k", func() error { return boom }), boom)
	require.NoError(t, w.change(ctx, func(changed bool) error {
		require.True(t, changed, "a commit that failed may have happened")

		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		ran := false
		require.ErrorIs(t, locks.commit(cancelled, "k", func() error { ran = true; return nil }), context.Canceled)
		require.False(t, ran)
		return nil
	}))
	w.end()

	// What need not wait is for fn to decide, and not left to chance.
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for range 50 {
		require.ErrorIs(t, locks.commit(cancelled, "k", func() error { return boom }), boom)
	}
	require.Empty(t, locks.keys)
}

// TestHint: a hint is what it was, and nothing else makes one.
func TestHint(t *testing.T) {
	for _, hint := range []Hint{
		{Mode: sse.ModeManaged, KeyID: "k1", EnvelopeSize: 1024},
		{Mode: sse.ModeCustomer, EnvelopeSize: 1},
		{Mode: sse.ModeKMS, KeyID: "arn:aws:kms:eu-west-1:1:key/ü", EnvelopeSize: sse.MaxEnvelopeSize},
	} {
		md := hint.metadata(map[string]string{"owner": "me", "BlobSeal-Key-ID": "stale"})
		require.Equal(t, map[string]string{"owner": "me"}, withoutHint(md))
		got, present := parseHint(md)
		require.True(t, present)
		require.Equal(t, hint, got)
	}
	for name, md := range map[string]map[string]string{
		"no size":   {hintMode: "SSE-S3"},
		"no mode":   {hintEnvelopeSize: "1024"},
		"size":      {hintMode: "SSE-S3", hintEnvelopeSize: "-1"},
		"huge":      {hintMode: "SSE-S3", hintEnvelopeSize: "99999999"},
		"no number": {hintMode: "SSE-S3", hintEnvelopeSize: "1k"},
		"mode":      {hintMode: "SSE-X", hintEnvelopeSize: "1024"},
		"other":     {ReservedPrefix + "future": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, present := parseHint(md)
			require.True(t, present)
			require.Zero(t, got)
		})
	}
	_, present := parseHint(map[string]string{"owner": "me"})
	require.False(t, present)
	require.Nil(t, withoutHint(map[string]string{hintMode: "SSE-S3"}))
}

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
