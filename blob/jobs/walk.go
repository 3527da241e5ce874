package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/blobseal/blobseal/blob/internal/store"
)

// window is how many objects per worker may be under way or wait for an earlier one,
// since results come in the order of the listing.
const window = 32

// defaultWorkers exceeds the number of cores, since workers mostly wait for the store.
const defaultWorkers = 8

// pace is how fast a job visits the objects of a bucket.
type pace struct {
	workers int     // how many objects are in hand at once; 0 means the default
	limit   Limiter // nil means none
}

// list visits objects, until the first error.
type list func(ctx context.Context, visit func(store.Listed) error) error

// lister returns the list of the objects whose keys begin with prefix.
func lister(s *store.Store, prefix string) list {
	return func(ctx context.Context, visit func(store.Listed) error) error {
		if err := s.List(ctx, prefix, visit); err != nil {
			return fmt.Errorf("blob: listing %q: %w", prefix, err)
		}
		return nil
	}
}

// lookAtAll has look look at every object whose key begins with prefix and passes what
// look returns to collect, as walk does. It leaves out objects for which look returns
// [store.ErrDeleted]. After the end of ctx, collect gets nothing.
func lookAtAll[R any](
	ctx context.Context, s *store.Store, prefix string, p pace,
	look func(context.Context, store.Listed) (R, error),
	collect func(R, error) error,
) error {
	type result struct {
		seen R
		err  error
	}
	return walk(ctx, p, lister(s, prefix), func(ctx context.Context, object store.Listed) result {
		seen, err := look(ctx, object)
		return result{seen, err}
	}, func(r result) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(r.err, store.ErrDeleted):
			return nil
		}
		return collect(r.seen, r.err)
	})
}

// walk has workers work on everything that objects lists and passes their results to
// collect, in the order of the listing and in the caller's goroutine. It ends with the
// first error of objects, the limiter, collect or ctx, and leaves no goroutine behind.
// After the end of ctx, collect still gets the results of objects under way, which may
// have failed for that reason; it ends the walk by returning the error of ctx.
func walk[R any](ctx context.Context, p pace, objects list, work func(context.Context, store.Listed) R, collect func(R) error) error {
	parent := ctx
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	n := workers(p.workers)
	queue := make(chan *task[R])
	order := make(chan *task[R], window*n)
	var listErr error
	group.Go(func() {
		defer close(order)
		defer close(queue)
		listErr = objects(ctx, func(object store.Listed) error {
			t := &task[R]{object: object, done: make(chan struct{})}
			select {
			case order <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case queue <- t:
			case <-ctx.Done():
				t.err = ctx.Err()
				close(t.done)
				return ctx.Err()
			}
			return nil
		})
	})
	for range n {
		group.Go(func() {
			for t := range queue {
				t.run(ctx, p.limit, work)
			}
		})
	}
	for t := range order {
		<-t.done
		if t.err != nil {
			return cmp.Or(parent.Err(), t.err)
		}
		if err := collect(t.result); err != nil {
			return err
		}
	}
	if err := parent.Err(); err != nil {
		return err // not what the store made of it
	}
	return listErr // no longer written: order is closed
}

// task is an object of a walk. Its result and err are set when done is closed.
type task[R any] struct {
	object store.Listed
	done   chan struct{}
	result R
	err    error // why no worker worked on it
}

// run waits for the limiter and works on the object.
func (t *task[R]) run(ctx context.Context, limit Limiter, work func(context.Context, store.Listed) R) {
	defer close(t.done)
	if limit != nil {
		t.err = limit.Wait(ctx)
	}
	if t.err == nil {
		t.result = work(ctx, t.object)
	}
}

// sequence turns run into an iterator. yield fails after the caller left the loop.
func sequence[T any](run func(yield func(T) error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		err := run(func(value T) error {
			if !yield(value, nil) {
				return errLeft
			}
			return nil
		})
		if err != nil && err != errLeft {
			var none T
			yield(none, err)
		}
	}
}

var errLeft = errors.New("blob: caller left the loop")

// valueOr returns *opts, and the zero options for nil.
func valueOr[T any](opts *T) (value T) {
	if opts != nil {
		value = *opts
	}
	return value
}

// workers returns n, or the default if n is not positive.
func workers(n int) int {
	if n <= 0 {
		return defaultWorkers
	}
	return n
}
