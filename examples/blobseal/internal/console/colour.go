package console

import (
	"os"

	"github.com/fatih/color"
)

// Colour is a colour of words.
type Colour = color.Attribute

const (
	Green  = color.FgGreen
	Yellow = color.FgYellow
	Red    = color.FgRed
)

// Colour returns text in a colour, if standard output is a terminal that shows colours
// and the user wants them: NO_COLOR and TERM=dumb turn them off.
func (c *Console) Colour(colour Colour, text string) string {
	if !c.IsTerminal(c.Stdout) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	painter := color.New(colour)
	painter.EnableColor() // package color looks at the process's own standard output
	return painter.Sprint(text)
}
