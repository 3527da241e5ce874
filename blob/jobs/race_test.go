//go:build race

package jobs_test

// raceHeap is what the race detector may add to a heap: under it, pools drop
// what they are given.
const raceHeap = 5 << 20
