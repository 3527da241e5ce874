package visibility

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// The processes of a Fleet refresh in this interval, over a store whose calls take up
// to slowest.
const (
	Interval = time.Second
	slowest  = 200 * time.Millisecond
)

// Fleet is a service of several processes.
type Fleet struct {
	Store  *Store
	Length time.Duration // of a run
	Bound  time.Duration // after which a change is visible, without the time of calls

	// Open opens process i. act does one thing at random, and run runs until ctx ends,
	// or is nil.
	Open func(i int) (act func(*rand.Rand), run func(ctx context.Context) error)

	History History
}

// Process returns the name of process i in histories.
func Process(i int) string { return fmt.Sprint("process ", i) }

// Run lets the processes act at random, over a store that loses changes if failovers is
// set, and checks the history. It is for a bubble.
func (f *Fleet) Run(t *testing.T, seed uint64, failovers bool) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	var working sync.WaitGroup
	running, stop := context.WithCancel(context.Background())
	defer func() {
		stop()
		working.Wait()
		time.Sleep(time.Minute) // until loads that are under way have ended
	}()
	end := time.Now().Add(f.Length)
	for i := range 4 {
		act, run := f.Open(i)
		if run != nil {
			working.Go(func() { run(running) })
		}
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		working.Go(func() {
			for time.Now().Before(end) {
				time.Sleep(time.Duration(r.Int64N(int64(200 * time.Millisecond))))
				act(r)
			}
		})
	}
	bound := f.Bound + slowest
	if failovers {
		for time.Now().Before(end) {
			time.Sleep(10*time.Second + time.Duration(random.Int64N(int64(time.Second))))
			if err := f.Store.LoseWrites(t.Context(), 1+random.IntN(3)); err != nil {
				t.Fatal(err)
			}
		}
		bound = 3*Interval + 10*slowest // to learn of it, to heal, and to learn of that
	}
	time.Sleep(time.Until(end) + time.Second)
	if err := f.History.CheckServed(bound); err != nil {
		t.Fatal(err)
	}
	if !failovers { // an enabling of what the store had lost by then does not hold
		if err := f.History.CheckRefused(bound); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.History.Len(); n <= 500 {
		t.Fatalf("%d uses, want more than 500", n)
	}
}
