// Package message puts errors into words for an operator. table.go has the words
// for each kind of error, in the one place where there are any.
package message

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// UsageError is the error of a command line that is wrong, whatever the files hold.
type UsageError struct{ text string }

func (e UsageError) Error() string { return e.text }

// Usagef returns a [UsageError].
func Usagef(format string, args ...any) error { return UsageError{fmt.Sprintf(format, args...)} }

// Problem is an error in words. An error around it adds nothing that is shown.
type Problem struct {
	Subject string // the file, ring, bucket, object or service; may be empty
	Words   Words
	err     error
}

func (p *Problem) Error() string {
	if p.Subject == "" {
		return p.Words.String()
	}
	return fmt.Sprintf("%s: %v", p.Subject, p.Words)
}

func (p *Problem) Unwrap() error { return p.err }

// Problemf returns a [Problem], for err, with a subject and without advice.
func Problemf(err error, subject, format string, args ...any) error {
	return &Problem{subject, say(format, args...), err}
}

// Advise returns a [Problem], for err, with a subject and with advice.
func Advise(err error, subject string, words Words) error { return &Problem{subject, words, err} }

// About returns an error of a file or a stream as a [Problem].
func About(name string, err error) error {
	if name == "" { // as from an empty variable of the shell
		name = `""`
	}
	return about(name, err, func(err error) Words { return say("%s", Plain(err)) })
}

// about returns err as a [Problem] in the words of toWords, unless err is nil or in
// words already.
func about(subject string, err error, toWords func(error) Words) error {
	switch {
	case err == nil:
		return nil
	case InWords(err):
		return err
	case errors.Is(err, context.Canceled):
		return Problemf(err, "", "interrupted")
	}
	return &Problem{subject, toWords(err), err}
}

// InWords reports whether an error is a [Problem] or a [UsageError].
func InWords(err error) bool {
	return errors.As(err, new(*Problem)) || errors.As(err, new(UsageError))
}

// ErrIsDirectory is the error of a directory where a file is wanted.
var ErrIsDirectory = errors.New("is a directory")

// IsDirectory reports whether there is a directory at path.
func IsDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// packagePrefix is the prefix of this project's errors. Operators know no packages.
var packagePrefix = regexp.MustCompile(`^(sse|kms|localkms|audit|keyring|blob|jobs|signedurl): `)

// Plain returns what the system says, without operation and path, or else the text
// of err, without the name of a package.
func Plain(err error) string {
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	switch {
	case errors.As(err, &path):
		return path.Err.Error()
	case errors.As(err, &link):
		return link.Err.Error()
	case errors.As(err, &call):
		return call.Err.Error()
	}
	return packagePrefix.ReplaceAllString(err.Error(), "")
}

// OneLine returns the text of err as one line that is safe to show on a terminal.
func OneLine(err error) string {
	text := err.Error()
	if p := new(Problem); errors.As(err, &p) {
		text = p.Error()
	}
	return Printable(text)
}

// Reason is OneLine without the subject, which the line shows already.
func Reason(err error, subject string) string {
	return Printable(WordsOf(err, subject).String())
}

// WordsOf returns the words for err, without the subject if it is this one.
func WordsOf(err error, subject string) Words {
	p, ok := errors.AsType[*Problem](err)
	switch {
	case !ok:
		return say("%s", err)
	case p.Subject == subject || p.Subject == "":
		return p.Words
	}
	return p.Words.withPrefix("%s: ", p.Subject)
}

// Printable returns text as one line that is safe to show on a terminal. White
// space becomes a space. Any other character that does not print, such as one that a
// terminal obeys or one that turns text around, becomes a question mark.
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

// Count returns a number of things in words, such as "2 objects".
func Count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Pairs returns the pairs of a context, or tags, as texts such as "team=blue", in order.
func Pairs(pairs map[string]string) (texts []string) {
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		texts = append(texts, Printable(name+"="+pairs[name]))
	}
	return texts
}

// OrNone returns text for a cell of a table.
func OrNone(text string) string {
	if text == "" {
		return "-"
	}
	return Printable(text)
}
