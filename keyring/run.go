package keyring

import (
	"context"
	"log/slog"
	"time"

	"github.com/blobseal/blobseal/internal/follow"
)

const (
	refreshTimeout = 10 * time.Second       // of one refresh in the background
	refreshSpread  = 250 * time.Millisecond // over which the replicas that hear of a change load it
)

// Run refreshes the ring every RefreshInterval and rotates it in time, until
// ctx ends, and returns ctx's error. If the store is a [Watcher], Run also
// refreshes within a quarter of a second of hearing of a change; the processes
// that hear of it spread their loads over that time.
//
// What fails goes to the Logger, and Run goes on: a refresh that failed is tried
// again sooner than after an interval, and so is a watch, each after a pause that
// grows from about a second. Once a refresh works again, a rotation that is due is
// tried at once.
//
// It returns for no other reason than the end of ctx, and what is still at work
// then goes on: a ring needs no Run to seal and to open.
//
// One Run for each Ring is enough, and any number of processes may each have
// theirs. Without it a ring still rotates and finds new versions when it is
// used, but learns of disabled and destroyed ones only when told to refresh.
func (r *Ring) Run(ctx context.Context) error {
	o := follow.Options{
		Interval: r.opts.RefreshInterval,
		Spread:   refreshSpread,
		Broken: func(failures int, err error) {
			r.log.LogAttrs(ctx, slog.LevelWarn, "keyring: watch of the store broke, changes are seen by interval until it is back",
				slog.String("ring", r.ID()), slog.Int("failures", failures), slog.Any("error", err))
		},
	}
	if w, ok := r.store.(Watcher); ok {
		o.Watch = w.Watch
	}
	return follow.Run(ctx, o, func(ctx context.Context, failures int) error {
		err := r.refreshInBackground(ctx, failures)
		if a, _, _ := r.beginRotation(ctx); a != nil {
			select {
			case <-a.done:
			case <-ctx.Done():
			}
		}
		return err
	})
}

// refreshInBackground is one refresh of Run, after so many that failed in a row.
func (r *Ring) refreshInBackground(ctx context.Context, failures int) error {
	bounded, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	err := r.Refresh(bounded)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.log.LogAttrs(ctx, slog.LevelError, "keyring: refresh failed, old document stays in use",
			slog.String("ring", r.ID()), slog.Int("failures", failures+1), slog.Any("error", err))
	case failures > 0:
		r.log.LogAttrs(ctx, slog.LevelInfo, "keyring: refresh works again",
			slog.String("ring", r.ID()), slog.Int("failures", failures), slog.Uint64("generation", r.Generation()))
		r.rotation.retryNow()
	}
	return err
}
