//go:build !race

package chunked_test

const raceEnabled = false
