package jobs

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
)

// window is how many objects per worker may be under way or wait for an earlier one,
// since results come in the order of the listing.
const window = 32

// defaultWorkers exceeds the number of cores, since workers mostly wait for the store.
const defaultWorkers = 8

// listed is an object as the store's listing shows it.
type listed struct {
	key   string
	size  int64 // as stored; below zero if unknown
	again bool  // it failed in an earlier run and comes from the checkpoint
}

// inOrder has workers work on everything that list visits and passes their results to
// collect, in the order of the listing and in the caller's goroutine. It ends with the
// first error of list, collect or ctx, and leaves no goroutine behind. After the end of
// ctx, collect still gets the results of objects under way, which may have failed for
// that reason; it ends the walk by returning the error of ctx.
func inOrder[R any](
	ctx context.Context,
	workers int,
	list func(ctx context.Context, visit func(listed) error) error,
	work func(context.Context, listed) R,
	collect func(listed, R) error,
) error {
	type task struct {
		object listed
		result chan R
	}
	parent := ctx
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	queue := make(chan task)
	order := make(chan task, window*workers)
	var listErr error
	group.Go(func() {
		defer close(order)
		defer close(queue)
		listErr = list(ctx, func(object listed) error {
			t := task{object, make(chan R, 1)}
			select {
			case order <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case queue <- t:
			case <-ctx.Done():
				close(t.result)
				return ctx.Err()
			}
			return nil
		})
	})
	for range workers {
		group.Go(func() {
			for t := range queue {
				t.result <- work(ctx, t.object)
			}
		})
	}
	for t := range order {
		result, worked := <-t.result
		if !worked {
			break
		}
		if err := collect(t.object, result); err != nil {
			return err
		}
	}
	if err := parent.Err(); err != nil {
		return err // not what the store made of it
	}
	return listErr // no longer written: order is closed
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

// wait waits for the limiter, if there is one.
func wait(ctx context.Context, l Limiter) error {
	if l == nil {
		return nil
	}
	return l.Wait(ctx)
}

// compareKeys orders by mode and id.
func compareKeys(x, y KeyRef) int {
	return cmp.Or(cmp.Compare(x.Mode, y.Mode), strings.Compare(x.KeyID, y.KeyID))
}
