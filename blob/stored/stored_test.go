package stored

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// TestLocks: writers of one key take turns, watchers see changes, no lock is leaked.
func TestLocks(t *testing.T) {
	ctx := context.Background()
	var locks Locks
	w := locks.Watch("k")
	require.NoError(t, locks.Commit(ctx, "other", func() error { return nil }))
	require.NoError(t, w.Change(ctx, func(changed bool) error {
		require.False(t, changed, "another key")
		return nil
	}))
	w.End()

	w = locks.Watch("k")
	boom := errors.New("boom")
	require.ErrorIs(t, locks.Commit(ctx, "k", func() error { return boom }), boom)
	require.NoError(t, w.Change(ctx, func(changed bool) error {
		require.True(t, changed, "a commit that failed may have happened")

		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		ran := false
		require.ErrorIs(t, locks.Commit(cancelled, "k", func() error { ran = true; return nil }), context.Canceled)
		require.False(t, ran)
		return nil
	}))
	w.End()

	// What need not wait is for fn to decide, and not left to chance.
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for range 50 {
		require.ErrorIs(t, locks.Commit(cancelled, "k", func() error { return boom }), boom)
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
		md := hint.Metadata(map[string]string{"owner": "me", "BlobSeal-Key-ID": "stale"})
		require.Equal(t, map[string]string{"owner": "me"}, CallerMetadata(md))
		got, present := ParseHint(md)
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
			got, present := ParseHint(md)
			require.True(t, present)
			require.Zero(t, got)
		})
	}
	_, present := ParseHint(map[string]string{"owner": "me"})
	require.False(t, present)
	require.Nil(t, CallerMetadata(map[string]string{hintMode: "SSE-S3"}))
}

// TestLocksOf: one bucket has one set of locks, which goes with the bucket.
func TestLocksOf(t *testing.T) {
	type bucket struct{ name string }
	first, second := &bucket{"first"}, &bucket{"second"}
	require.Same(t, LocksOf(first), LocksOf(first))
	require.NotSame(t, LocksOf(first), LocksOf(second))

	count := func() (n int) {
		shared.Range(func(any, any) bool { n++; return true })
		return n
	}
	runtime.KeepAlive(first)
	runtime.KeepAlive(second)
	first, second = nil, nil
	for wait := time.Now(); count() > 0; time.Sleep(time.Millisecond) {
		require.Less(t, time.Since(wait), time.Minute, "the locks of %d collected buckets are kept", count())
		runtime.GC()
	}
}

// BenchmarkReadEnvelope reads an envelope of the expected size.
func BenchmarkReadEnvelope(b *testing.B) {
	e, err := ssetest.NewCustomer(b, 7).Encrypt(b.Context(), sse.Object{Bucket: "photos", Key: "k"})
	require.NoError(b, err)
	env, err := e.Envelope().WithSize(DefaultEnvelopeSize)
	require.NoError(b, err)
	data, err := env.MarshalBinary()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _, err := ReadEnvelope(bytes.NewReader(data), DefaultEnvelopeSize)
		require.NoError(b, err)
	}
}
