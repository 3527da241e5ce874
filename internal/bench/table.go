package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// header describes the machine of the measurements.
func header(w io.Writer, count int, each time.Duration) {
	fmt.Fprintf(w, "%s, GOMAXPROCS %d, %s, %s/%s; median of %d rounds of %v\n",
		cpuModel(), runtime.GOMAXPROCS(0), runtime.Version(), runtime.GOOS, runtime.GOARCH, count, each)
}

// cpuModel returns the name of the processor, if the system has it.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, found := strings.Cut(s.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// print writes the outcome as a Markdown table, aligned for a terminal. A ratio above 1
// means faster than the entrant in the column's title.
func (o *outcome) print(w io.Writer) {
	title := strings.ToUpper(o.name[:1]) + o.name[1:]
	fmt.Fprintf(w, "\n### %s\n\n", title)
	base, ours := o.find(o.base), o.find(customerName)
	head := []string{title, "time", "MB/s", "× " + baseTitle(o.base)}
	if ours != nil {
		head = append(head, "× blobseal")
	}
	head = append(head, "B/op", "allocs/op", "through")
	rows := [][]string{head}
	for _, r := range o.results {
		t := r.time()
		row := []string{r.name, formatDuration(t), fmt.Sprintf("%.0f", float64(o.size)/t.Seconds()/1e6), fmt.Sprintf("%.2f", r.speed(base))}
		if ours != nil {
			row = append(row, fmt.Sprintf("%.2f", r.speed(ours)))
		}
		rows = append(rows, append(row, fmt.Sprint(r.bytes), fmt.Sprint(r.allocs), r.way))
	}
	table(w, rows, len(head)-1)
}

func baseTitle(name string) string {
	first, _, _ := strings.Cut(name, " ")
	return strings.TrimSuffix(first, ":")
}

// table writes rows as aligned Markdown. The first row is the head. The first column and
// those with a given index hold text; the others hold numbers.
func table(w io.Writer, rows [][]string, texts ...int) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	text := func(i int) bool { return i == 0 || slices.Contains(texts, i) }
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if text(i) {
				cell += pad
			} else {
				cell = pad + cell
			}
			fmt.Fprintf(w, "| %s ", cell)
		}
		fmt.Fprintln(w, "|")
		if n > 0 {
			continue
		}
		for i := range row {
			if text(i) {
				fmt.Fprintf(w, "| %s ", strings.Repeat("-", width[i]))
			} else {
				fmt.Fprintf(w, "| %s:", strings.Repeat("-", width[i]))
			}
		}
		fmt.Fprintln(w, "|")
	}
}

// formatDuration writes a duration with three digits.
func formatDuration(d time.Duration) string {
	switch v := float64(d); {
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.2f µs", v/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.1f µs", v/1e3)
	default:
		return fmt.Sprintf("%.2f ms", v/1e6)
	}
}

// summary writes one table of all races against raw, for the README.
func summary(w io.Writer, outcomes []*outcome) {
	var columns []*outcome
	for _, o := range outcomes {
		if o.base == rawName && o.procs == 0 {
			columns = append(columns, o)
		}
	}
	if len(columns) < 2 {
		return
	}
	head := []string{"Speed, raw = 1"}
	var names []string
	seen := map[string]bool{}
	for _, o := range columns {
		name, _, _ := strings.Cut(o.name, " in ")
		head = append(head, name)
		for _, r := range o.results {
			if !seen[r.name] {
				seen[r.name] = true
				names = append(names, r.name)
			}
		}
	}
	rows := [][]string{head}
	for _, name := range names {
		row := []string{name}
		for _, o := range columns {
			cell := "–"
			if r := o.find(name); r != nil {
				cell = fmt.Sprintf("%.2f", r.speed(o.find(rawName)))
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	fmt.Fprintf(w, "\n### Summary\n\n")
	table(w, rows)
}
