//go:build !race

package jobs_test

const raceHeap = 0
