package kmstest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// TestSink: faults take as many writes as a test asked for, and no others.
func TestSink(t *testing.T) {
	ctx := t.Context()
	errFull := errors.New("disk full")
	var s kmstest.Sink
	require.Empty(t, s.Records())
	require.NoError(t, s.Write(ctx, audit.Record{EventID: "1"}))
	s.Fail(errFull, 2)
	require.ErrorIs(t, s.Write(ctx, audit.Record{EventID: "2"}), errFull)
	require.ErrorIs(t, s.Write(ctx, audit.Record{EventID: "3"}), errFull)
	require.NoError(t, s.Write(ctx, audit.Record{EventID: "4"}))
	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, s.Write(ended, audit.Record{EventID: "5"}), context.Canceled)
	require.Equal(t, []audit.Record{{EventID: "1"}, {EventID: "4"}}, s.Records())
	s.Forget()
	require.Empty(t, s.Records())
}
