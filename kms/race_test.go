//go:build race

package kms_test

import "time"

// raceGrace is what the race detector may take.
const raceGrace = time.Second
