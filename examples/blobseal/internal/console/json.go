package console

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// WriteJSON writes a value to standard output as indented JSON.
func (c *Console) WriteJSON(value any) error {
	e := json.NewEncoder(PlainJSON(c.Stdout))
	e.SetIndent("", "  ")
	return message.About("standard output", e.Encode(value))
}

// WriteLine writes a value to standard output as one line of JSON.
func (c *Console) WriteLine(value any) error {
	return message.About("standard output", json.NewEncoder(PlainJSON(c.Stdout)).Encode(value))
}

// PlainJSON returns a writer for JSON that escapes every character that a terminal
// obeys or does not show: control characters, and those that change the direction
// of text. Names and contexts come from files that anyone may have written. Each
// Write must be whole characters.
func PlainJSON(w io.Writer) io.Writer { return plainJSON{w} }

type plainJSON struct{ w io.Writer }

func (p plainJSON) Write(text []byte) (int, error) {
	escaped := make([]byte, 0, len(text))
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r < utf8.RuneSelf && r != '\x7f' || unicode.IsGraphic(r) { // encoding/json escapes the rest of ASCII
			escaped = append(escaped, rest[:size]...)
		} else {
			for _, unit := range utf16.AppendRune(nil, r) {
				escaped = fmt.Appendf(escaped, `\u%04x`, unit)
			}
		}
		rest = rest[size:]
	}
	if _, err := p.w.Write(escaped); err != nil {
		return 0, err
	}
	return len(text), nil
}
