package console

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
)

// Width returns how many columns the terminal has that a stream is, or 0 if the stream
// is no terminal, or one that does not say.
func (c *Console) Width(stream any) int {
	f, ok := stream.(*os.File)
	if !ok || !c.IsTerminal(stream) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Table writes a table to standard output. print writes a line for each row and
// separates cells by tabs; the first line has the names of the columns. On a terminal
// that is too narrow, each cell gets a line of its own, behind the name of its column.
// Nothing is cut off: people copy ids from tables.
func (c *Console) Table(print func(w io.Writer)) error {
	var rows strings.Builder
	print(&rows)
	table := Align(rows.String())
	if width := c.Width(c.Stdout); width > 0 && widest(table) > width {
		table = formatUpright(rows.String(), width)
	}
	return c.Printf("%s", table)
}

// Align returns lines whose cells, which tabs separate, form columns.
func Align(rows string) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	io.WriteString(w, rows)
	w.Flush()
	return text.String()
}

func widest(text string) (width int) {
	for line := range strings.Lines(text) {
		width = max(width, utf8.RuneCountInString(strings.TrimRight(line, " \n")))
	}
	return width
}

// formatUpright returns the rows of a table as blocks of lines, which fit into a width as far
// as their words do.
func formatUpright(rows string, width int) string {
	var text strings.Builder
	var names []string
	longest := 0
	for line := range strings.Lines(rows) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if names == nil {
			names = cells
			for _, name := range names {
				longest = max(longest, utf8.RuneCountInString(name))
			}
			continue
		}
		if text.Len() > 0 {
			fmt.Fprintln(&text)
		}
		for i, cell := range cells {
			name := names[min(i, len(names)-1)]
			for _, part := range wrap(cell, width-longest-2) {
				fmt.Fprintf(&text, "%-*s  %s\n", longest, name, part)
				name = ""
			}
		}
	}
	return text.String()
}

// wrap breaks a text between words, into at least one line.
func wrap(text string, width int) (lines []string) {
	for _, word := range strings.Split(text, " ") {
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last]+" "+word) <= width {
			lines[last] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}
