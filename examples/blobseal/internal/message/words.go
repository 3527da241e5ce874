package message

import "fmt"

// Words say what happened and what to do about it.
type Words struct {
	Text   string
	Does   string // what Advice does if it is a command, such as "enable it"
	Advice string // may be empty
}

func (w Words) String() string {
	switch {
	case w.Advice == "":
		return w.Text
	case w.Does != "":
		return fmt.Sprintf("%s (%s with: %s)", w.Text, w.Does, w.Advice)
	}
	return fmt.Sprintf("%s (%s)", w.Text, w.Advice)
}

// say returns Words without advice.
func say(format string, args ...any) Words { return Words{Text: fmt.Sprintf(format, args...)} }

// withPrefix returns the same words with a text before them.
func (w Words) withPrefix(format string, args ...any) Words {
	w.Text = fmt.Sprintf(format, args...) + w.Text
	return w
}
