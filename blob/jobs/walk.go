package jobs

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
)

// window is how many objects for each worker may be under way or wait for an
// earlier one to finish, since results come in the order of the listing.
const window = 32

// defaultWorkers is how many objects a job has in hand at once: more than there
// are cores, since most of the time goes to waiting for the store.
const defaultWorkers = 8

// listed is an object as the store's listing shows it.
type listed struct {
	key   string
	size  int64 // as stored; below zero if it is not known
	again bool  // it failed in an earlier run, and is not from the listing
}

// inOrder has workers work on all that list visits, and hands their results to
// collect, in the order of the listing and from the caller's goroutine. It ends
// with the first error of list, of collect or of ctx, and no goroutine is left
// when it returns. When ctx has ended, collect still gets what was under way,
// which may have failed for that reason: it ends the walk by returning ctx's error.
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
		return err // rather than what the store made of it
	}
	return listErr // settled, since order is closed
}

// sequence makes an iterator of run, whose yield fails when the loop was left.
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

var errLeft = errors.New("blob: the loop was left")

// valueOr returns *opts, and the zero options for nil.
func valueOr[T any](opts *T) (value T) {
	if opts != nil {
		value = *opts
	}
	return value
}

// workers returns how many workers n asks for.
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
