package document

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Clock is keyring.Clock.
type Clock interface {
	Now(ctx context.Context) (time.Time, error)
}

// ClockTolerance is by how much two clocks may differ.
const ClockTolerance = 10 * time.Minute

// ClockError is keyring.ClockError.
type ClockError struct {
	Process time.Time // by the clock of this process
	Store   time.Time // by the clock of the store, at the same moment
}

func (e *ClockError) Error() string {
	return fmt.Sprintf("keyring: clocks differ: this process says %s, the store says %s (set the one that is wrong)",
		e.Process.UTC().Format(time.RFC3339), e.Store.UTC().Format(time.RFC3339))
}

// Time returns the time to date a change by. If the store has a clock, it is the time of
// that clock, and ofStore is true. Otherwise it is the time of own, the clock of this process.
//
// If the two clocks differ by more than [ClockTolerance], the error is a [*ClockError], and
// now is still the store's time: a change that takes power away does not wait until
// somebody sets a clock. Any other error is [ErrStore].
func (r *Replica[S, O]) Time(ctx context.Context, own func() time.Time) (now time.Time, ofStore bool, err error) {
	return TimeOf(ctx, r.store, own)
}

// TimeOf is [Replica.Time] for a store that has no replica yet.
func TimeOf(ctx context.Context, store Store, own func() time.Time) (now time.Time, ofStore bool, err error) {
	clock, ok := store.(Clock)
	if !ok {
		return own(), false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	before := own()
	now, err = clock.Now(ctx)
	after := own()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return after, false, nil
	case err != nil:
		return time.Time{}, false, StoreError(ctx, "read clock", err)
	case now.Sub(after) > ClockTolerance || before.Sub(now) > ClockTolerance: // however long the answer took
		return now, true, &ClockError{Process: after, Store: now}
	}
	return now, true, nil
}
