// Package message puts errors into words for an operator.
package message

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// UsageError is a command line that cannot be right, whatever the files say.
type UsageError struct{ text string }

func (e UsageError) Error() string { return e.text }

func Usagef(format string, args ...any) error { return UsageError{fmt.Sprintf(format, args...)} }

// Problem is an error that was put into words for an operator. It names its
// subject, and stays the outermost one that is shown.
type Problem struct {
	text string
	err  error
}

func (p *Problem) Error() string { return p.text }

func (p *Problem) Unwrap() error { return p.err }

func Problemf(err error, format string, args ...any) error {
	return &Problem{text: fmt.Sprintf(format, args...), err: err}
}

// About puts an error of a file or a stream into words; nil stays nil.
func About(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*Problem)), errors.As(err, new(UsageError)):
		return err
	case errors.Is(err, context.Canceled):
		return &Problem{"interrupted", err}
	}
	if name == "" { // as of a variable of the shell that is not set
		name = `""`
	}
	return Problemf(err, "%s: %s", name, Plain(err))
}

var ErrIsDirectory = errors.New("is a directory")

func IsDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Plain is what the system says, without the operation and the path.
func Plain(err error) string {
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	switch {
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	case errors.As(err, &call):
		err = call.Err
	}
	text := err.Error()
	for _, prefix := range []string{"sse: ", "kms: ", "audit: ", "keyring: ", "store failed: ", "load: ", "swap: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// OneLine is an error's text on one line, whatever names are in it.
func OneLine(err error) string {
	text := err.Error()
	if p := new(Problem); errors.As(err, &p) {
		text = p.Error()
	}
	return Printable(text)
}

// Printable is a text on one line that shows as it is: white space is a space, and
// whatever else does not print, such as what a terminal obeys or what turns the
// order of letters about, is a question mark.
func Printable(text string) string {
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

func OrNone(text string) string {
	if text == "" {
		return "-"
	}
	return Printable(text)
}
