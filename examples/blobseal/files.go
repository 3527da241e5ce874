package main

import (
	"context"
	"fmt"
	"strings"
	"unicode"
)

// forEach calls f with each name, goes on after a failure, and returns one error
// for all. It stops when ctx ends.
func forEach(ctx context.Context, names []string, f func(name string) error) error {
	var first error
	failed := 0
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return about(name, err)
		}
		if err := f(name); err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return problemf(first, "%s (and %d more of %d files failed)", oneLine(first), failed-1, len(names))
	}
	return first
}

// printable is a text on one line that shows as it is: white space is a space, and
// whatever else does not print, such as what a terminal obeys or what turns the
// order of letters about, is a question mark.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsGraphic(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '?'
	}, text)
}

// printf writes to standard output. An error of that shows.
func (c *console) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.stdout, format, args...)
	return about("standard output", err)
}
