package deadline_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/deadline"
)

// late is a ctx that has not noticed its own deadline.
type late struct {
	context.Context
	deadline time.Time
}

func (l late) Deadline() (time.Time, bool) { return l.deadline, true }

func TestEnded(t *testing.T) {
	ctx := t.Context()
	require.NoError(t, deadline.Ended(ctx))
	require.NoError(t, deadline.Ended(late{ctx, time.Now().Add(time.Hour)}))
	require.ErrorIs(t, deadline.Ended(late{ctx, time.Now()}), context.DeadlineExceeded)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, deadline.Ended(cancelled), context.Canceled)
	require.ErrorIs(t, deadline.Ended(late{cancelled, time.Now()}), context.Canceled, "ctx's own error comes first")
}
