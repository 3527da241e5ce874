//go:build !race

package kms_test

import "time"

const raceGrace time.Duration = 0
