// Command bench compares blobseal with other Go libraries that encrypt streams, and with
// the bare AEAD. All do the same work, in memory, on the same machine.
//
//	go run ./internal/bench [-filter regexp] [-count n] [-time d] [-check]
//
// Absolute figures depend on the machine and its load; compare the ratios. All entrants of
// a race take turns, round after round, and a ratio is the median of the rounds' ratios.
// With -check, the command ends with status 1 if a target is missed three times in a row.
//
// The same races are also ordinary benchmarks: go test -bench . ./internal/bench
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"
)

func main() {
	filter := flag.String("filter", "", "run only the races whose name matches this regular `expression`")
	count := flag.Int("count", 9, "rounds in each race")
	each := flag.Duration("time", 20*time.Millisecond, "how long each entrant works in each round, at least one operation")
	check := flag.Bool("check", false, "fail if a target is missed three times in a row")
	flag.Parse()
	match, err := regexp.Compile(*filter)
	if err == nil && (flag.NArg() > 0 || *count < 1) {
		err = fmt.Errorf("usage: bench [-filter regexp] [-count n] [-time d] [-check]")
	}
	if err == nil {
		err = bench(os.Stdout, match, *count, *each, *check)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func bench(w io.Writer, match *regexp.Regexp, count int, each time.Duration, check bool) error {
	all, err := contestants()
	if err != nil {
		return err
	}
	header(w, count, each)
	list := races(all, match)
	outcomes, err := runAll(w, list, count, each)
	if err != nil {
		return err
	}
	summary(w, outcomes)
	missed := judge(w, outcomes)
	if !check {
		return nil
	}
	for range 2 {
		if len(missed) == 0 {
			break
		}
		again := slices.DeleteFunc(slices.Clone(list), func(r race) bool { return !slices.Contains(missed, r.name) })
		if outcomes, err = runAll(w, again, count, each); err != nil {
			return err
		}
		missed = judge(w, outcomes)
	}
	if len(missed) > 0 {
		return fmt.Errorf("bench: missed three times: %q", slices.Compact(missed))
	}
	return nil
}

func runAll(w io.Writer, list []race, count int, each time.Duration) ([]*outcome, error) {
	var outcomes []*outcome
	for _, r := range list {
		o, err := r.run(count, each)
		if err != nil {
			return nil, err
		}
		o.print(w)
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}
