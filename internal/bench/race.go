package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"time"
)

// A race is a group of entrants that do the same work. They take turns, so that a
// disturbance of the machine affects all of them.
type race struct {
	name  string
	size  int // bytes that one operation moves
	procs int // GOMAXPROCS; 0 means unchanged
	base  string
	enter func() ([]entrant, error) // sets up the entrants, just before the race
}

// An entrant is a contestant at one size and in one direction.
type entrant struct {
	name       string
	contestant *contestant // nil for the floor
	ways       []operation
}

type operation struct {
	name string
	run  func() error
}

// A result holds the measurements of one entrant in all rounds of a race.
type result struct {
	name, way  string
	contestant *contestant
	rounds     []time.Duration // time of one operation, by round
	bytes      uint64          // allocated in one operation; the median
	allocs     uint64
}

// outcome holds the results of a race.
type outcome struct {
	race
	results []result
}

// find returns the result of the entrant with that name, or nil.
func (o *outcome) find(name string) *result {
	i := slices.IndexFunc(o.results, func(r result) bool { return r.name == name })
	if i < 0 {
		return nil
	}
	return &o.results[i]
}

// time returns the median of the rounds.
func (r *result) time() time.Duration { return median(r.rounds) }

// speed returns how many times as fast as other r is. It compares round by round, so that
// a disturbance of a round or more cancels out.
func (r *result) speed(other *result) float64 {
	ratios := make([]float64, len(r.rounds))
	for i := range ratios {
		ratios[i] = float64(other.rounds[i]) / float64(r.rounds[i])
	}
	return median(ratios)
}

func median[T time.Duration | float64 | uint64](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[mid-1] + sorted[mid]) / 2
	}
	return sorted[mid]
}

// run runs the race: as many rounds as count, in each of which every entrant
// works for about the given time.
func (r race) run(count int, each time.Duration) (*outcome, error) {
	if r.procs > 0 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(r.procs))
	}
	entrants, err := r.enter()
	if err != nil {
		return nil, err
	}
	o := &outcome{race: r}
	ops := make([]operation, len(entrants))
	n := make([]int, len(entrants))
	for i, e := range entrants {
		if ops[i], n[i], err = e.choose(each); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", r.name, e.name, err)
		}
		o.results = append(o.results, result{name: e.name, contestant: e.contestant, way: ops[i].name})
	}
	bytes, allocs := make([][]uint64, len(ops)), make([][]uint64, len(ops))
	for range count {
		for i, op := range ops {
			s, err := op.sample(n[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", r.name, o.results[i].name, err)
			}
			o.results[i].rounds = append(o.results[i].rounds, s.time)
			bytes[i], allocs[i] = append(bytes[i], s.bytes), append(allocs[i], s.allocs)
		}
	}
	for i := range o.results {
		o.results[i].bytes, o.results[i].allocs = median(bytes[i]), median(allocs[i])
	}
	return o, nil
}

// choose returns the fastest way of an entrant, and how often it fits into the given time.
func (e entrant) choose(each time.Duration) (best operation, n int, err error) {
	fastest := time.Duration(0)
	for _, op := range e.ways {
		var tries []time.Duration
		n := 1
		for len(tries) < 5 {
			s, err := op.sample(n)
			if err != nil {
				return op, 0, err
			}
			if total := s.time * time.Duration(n); total < each/8 { // too short to tell
				n *= 4
				continue
			}
			tries = append(tries, s.time)
		}
		if t := slices.Min(tries); fastest == 0 || t < fastest {
			fastest, best = t, op
		}
	}
	return best, int(max(1, each/max(1, fastest))), nil
}

type sample struct {
	time          time.Duration // all fields are of one operation
	bytes, allocs uint64
}

// sample runs op n times. The garbage of earlier operations, and the pools and caches that
// they disturbed, do not count.
func (op operation) sample(n int) (sample, error) {
	runtime.GC()
	if err := op.run(); err != nil {
		return sample{}, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range n {
		if err := op.run(); err != nil {
			return sample{}, err
		}
	}
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	return sample{
		time:   elapsed / time.Duration(n),
		bytes:  (after.TotalAlloc - before.TotalAlloc) / uint64(n),
		allocs: (after.Mallocs - before.Mallocs) / uint64(n),
	}, nil
}

// The sizes of the objects.
const (
	kib = 1 << 10
	mib = 1 << 20
)

var sizes = []int{kib, 64 * kib, mib, 64 * mib}

const largest = 64 * mib

func sizeName(n int) string {
	if n < mib {
		return fmt.Sprintf("%d KiB", n/kib)
	}
	return fmt.Sprintf("%d MiB", n/mib)
}

// The names of races. Targets refer to them.
func encryptName(size int) string  { return "encrypt " + sizeName(size) }
func decryptName(size int) string  { return "decrypt " + sizeName(size) }
func oneCoreName(of string) string { return of + " on one core" }

const (
	readName  = "random read of 4 KiB in 64 MiB"
	floorName = "encrypt 1 KiB beside its floor"
	floorBase = "floor: the cryptography alone"
)

// races returns all races whose name matches.
func races(all []*contestant, match *regexp.Regexp) []race {
	var list []race
	for _, size := range sizes {
		list = append(list, encryptRace(all, size))
	}
	for _, size := range sizes {
		list = append(list, decryptRace(all, size))
	}
	list = append(list, readRace(all), floorRace(all))
	two := []*contestant{find(all, rawName), find(all, customerName)}
	for _, size := range []int{mib, 64 * mib} {
		for _, r := range []race{encryptRace(two, size), decryptRace(two, size)} {
			r.name, r.procs = oneCoreName(r.name), 1
			list = append(list, r)
		}
	}
	return slices.DeleteFunc(list, func(r race) bool { return !match.MatchString(r.name) })
}

func encryptRace(all []*contestant, size int) race {
	return race{name: encryptName(size), size: size, base: rawName, enter: func() (list []entrant, err error) {
		p := randomBytes(size)
		for _, c := range all {
			if !c.decryptOnly {
				list = append(list, entrant{c.name, c, operations(c.encrypt, p)})
			}
		}
		return list, nil
	}}
}

func decryptRace(all []*contestant, size int) race {
	return race{name: decryptName(size), size: size, base: rawName, enter: func() (list []entrant, err error) {
		p := randomBytes(size)
		for _, c := range all {
			sealed, err := c.seal(p)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			list = append(list, entrant{c.name, c, operations(c.decrypt, sealed)})
		}
		return list, nil
	}}
}

func operations(ways []way, src []byte) (list []operation) {
	for _, w := range ways {
		list = append(list, operation{w.name, func() error { return w.run(sink{}, src) }})
	}
	return list
}

// readRace returns a race of random reads from an open object. All entrants read at the
// same offsets.
func readRace(all []*contestant) race {
	const n = 4 * kib
	return race{name: readName, size: n, base: rawName, enter: func() (list []entrant, err error) {
		p := randomBytes(largest)
		for _, c := range all {
			if c.open == nil {
				continue
			}
			sealed, err := c.seal(p)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			r, err := c.open(sealed)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			buf := make([]byte, n)
			places := rand.New(rand.NewPCG(1, 2))
			list = append(list, entrant{c.name, c, []operation{{"ReadAt", func() error {
				off := places.IntN(largest - n)
				if m, err := r.ReadAt(buf, int64(off)); m < n {
					return fmt.Errorf("%d bytes at %d: %w", m, off, err)
				}
				if !bytes.Equal(buf[:16], p[off:off+16]) {
					return fmt.Errorf("other bytes at %d", off)
				}
				return nil
			}}}})
		}
		return list, nil
	}}
}

// floorRace compares encrypting a small managed object with the cryptography that it needs.
func floorRace(all []*contestant) race {
	return race{name: floorName, size: kib, base: floorBase, enter: func() ([]entrant, error) {
		p := randomBytes(kib)
		seal := floor()
		managed := find(all, managedName)
		return []entrant{
			{floorBase, nil, []operation{{"bare calls", func() error { return seal(p) }}}},
			{managed.name, managed, operations(managed.encrypt, p)},
		}, nil
	}}
}
