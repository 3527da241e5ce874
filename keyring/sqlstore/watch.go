package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errDeaf ends a watch whose connection delivers no notifications.
var errDeaf = fmt.Errorf("no notification arrived within %v (Options.Listen must connect to the server, not to a pooler)", ListenTimeout)

// Watch implements [keyring.Watcher] with [Options.Listen]. Without Listen it returns
// [errors.ErrUnsupported].
func (s *Store) Watch(ctx context.Context, changed func()) error {
	if s.listen == nil {
		return fmt.Errorf("sqlstore: no Options.Listen: %w", errors.ErrUnsupported)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	listening, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var probes sync.WaitGroup
	defer probes.Wait()
	var probe string
	arrived := make(chan struct{})
	err := s.listen(listening, Channel, func(document string) {
		switch document {
		case "":
			if probe == "" {
				probe = "probe:" + rand.Text() // no document's name has a colon
				probes.Go(func() { s.awaitProbe(listening, probe, arrived, cancel) })
			}
			changed()
		case s.name:
			changed()
		case probe:
			select {
			case <-arrived:
			default:
				close(arrived)
			}
		}
	})
	if cause := context.Cause(listening); errors.Is(cause, errDeaf) {
		return s.wrap(ctx, "watch", cause)
	}
	cancel(nil)
	if err == nil {
		err = errors.New("Options.Listen returned nil")
	}
	return s.wrap(ctx, "watch", err)
}

// awaitProbe sends a notification, and cancels the watch if it does not arrive. If it could
// not be sent, that says nothing about the connection of the watch.
func (s *Store) awaitProbe(ctx context.Context, probe string, arrived <-chan struct{}, cancel context.CancelCauseFunc) {
	if _, err := s.db.ExecContext(ctx, s.sql.notify, probe); err != nil {
		return
	}
	select {
	case <-arrived:
	case <-ctx.Done():
	case <-time.After(ListenTimeout):
		cancel(errDeaf)
	}
}
