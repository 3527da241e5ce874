package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// retryOnConflict repeats op while it fails because of a concurrent statement, until ctx
// ends.
func retryOnConflict(ctx context.Context, op func() error) error {
	for attempt := 0; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := op()
		if err == nil || !isConflict(err) {
			return err
		}
		limit := min(5*time.Millisecond<<min(attempt, 10), 100*time.Millisecond)
		select {
		case <-time.After(limit/2 + rand.N(limit/2)):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// isConflict reports whether a statement failed because of a concurrent one, and changed
// nothing. It works without importing a driver.
func isConflict(err error) bool {
	var state interface { // pgx, lib/pq
		error
		SQLState() string
	}
	if errors.As(err, &state) {
		switch state.SQLState() {
		case "40001", "40P01": // serialization_failure, deadlock_detected
			return true
		}
		return false
	}
	var code interface { // modernc.org/sqlite
		error
		Code() int
	}
	if errors.As(err, &code) {
		const busy, locked = 5, 6
		primary := code.Code() & 0xff
		return primary == busy || primary == locked
	}
	return strings.Contains(err.Error(), "database is locked") || // mattn/go-sqlite3, ncruces/go-sqlite3
		strings.Contains(err.Error(), "database table is locked")
}
