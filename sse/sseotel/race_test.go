//go:build race

package sseotel_test

const raceEnabled = true
