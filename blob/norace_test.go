//go:build !race

package blob_test

const raceHeap = 0
