package keyring

import (
	"context"
	"time"
)

// refreshSpread is the time over which the replicas that hear of a change load it.
const refreshSpread = 250 * time.Millisecond

// Run refreshes the ring every RefreshInterval and rotates it in time, until
// ctx ends, and returns ctx's error. If the store is a [Watcher], Run also
// refreshes within a quarter of a second of hearing of a change; the processes
// that hear of it spread their loads over that time.
//
// Failures go to the Logger, and Run goes on: a refresh that failed is tried again
// sooner than after an interval, and so is a watch, each after a pause that grows
// from about a second. Once a refresh works again, a rotation that is due is tried
// at once.
//
// Run returns only when ctx ends. A load or rotation that is under way then goes on.
//
// Call Run once for each Ring, in every process. Without it, a ring still seals, opens,
// rotates and finds new versions when it is used, but learns of disabled and destroyed
// versions only from [Ring.Refresh].
func (r *Ring) Run(ctx context.Context) error {
	return r.doc.Run(ctx, func(ctx context.Context, recovered bool) {
		if recovered {
			r.rotation.retryNow()
		}
		if a, _, _ := r.beginRotation(ctx); a != nil {
			select {
			case <-a.done:
			case <-ctx.Done():
			}
		}
	})
}
