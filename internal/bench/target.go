package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

// A target is the speed that this library must reach in one race.
type target struct {
	race  string
	name  string
	least float64
	speed func(*outcome) float64
}

// targets returns the targets for this machine. They compare whole objects, key phase
// included, with all peers that are used as they should be, even peers that use one key
// for all objects and have no key phase.
func targets() (list []target) {
	against := func(race, ours, base string, least float64) {
		list = append(list, target{race, fmt.Sprintf("%s against %s", ours, base), least, func(o *outcome) float64 {
			return o.find(ours).speed(o.find(base))
		}})
	}
	for _, name := range []func(int) string{encryptName, decryptName} {
		if runtime.GOMAXPROCS(0) > 1 {
			against(name(largest), customerName, rawName, 1.7)
		}
		for _, size := range sizes {
			if size >= 64*kib {
				list = append(list, target{name(size), customerName + " against the fastest peer", 1, func(o *outcome) float64 {
					return o.find(customerName).lead(o)
				}})
			}
			if size >= mib {
				against(oneCoreName(name(size)), customerName, rawName, 0.95)
			}
		}
	}
	against(floorName, managedName, floorBase, 1/1.6)
	return list
}

// lead returns the speed of r relative to the fastest peer that is not misused.
func (r *result) lead(o *outcome) float64 {
	var all []float64
	for i := range o.results {
		if other := &o.results[i]; other.contestant.peer && !other.contestant.misused {
			all = append(all, r.speed(other))
		}
	}
	return slices.Min(all)
}

// judge prints the targets of the races that ran, and returns the names of the races that
// missed one.
func judge(w io.Writer, outcomes []*outcome) (missed []string) {
	rows := [][]string{{"Target", "least", "speed", "race"}}
	for _, t := range targets() {
		for _, o := range outcomes {
			if o.name != t.race {
				continue
			}
			speed := t.speed(o)
			race := t.race
			if speed < t.least {
				race += ": MISSED"
				missed = append(missed, t.race)
			}
			rows = append(rows, []string{t.name, fmt.Sprintf("%.3f", t.least), fmt.Sprintf("%.3f", speed), race})
		}
	}
	if len(rows) > 1 {
		fmt.Fprintf(w, "\n### Targets\n\n")
		table(w, rows, 3)
	}
	return missed
}
