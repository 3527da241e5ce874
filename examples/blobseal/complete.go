package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	mangokong "github.com/alecthomas/mango-kong"
	"github.com/muesli/roff"
	"github.com/posener/complete"
	"github.com/willabides/kongplete"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// completionScripts make a shell run this command to complete a command line, which it
// passes in COMP_LINE.
var completionScripts = map[string]string{
	"bash": "complete -o default -C blobseal blobseal\n",
	"zsh":  "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\ncomplete -o default -C blobseal blobseal\n",
	"fish": `function __complete_blobseal
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    blobseal
end
complete -c blobseal -a "(__complete_blobseal)"
`,
}

func (cmd completionCmd) Run(_ context.Context, c *console.Console) error {
	return c.Printf("%s", completionScripts[cmd.Shell])
}

// completeLine completes the command line that a shell asks about, up to the cursor, and
// reports whether there was one.
func completeLine(out io.Writer) bool {
	line := os.Getenv("COMP_LINE")
	if line == "" {
		return false
	}
	if cursor, err := strconv.Atoi(os.Getenv("COMP_POINT")); err == nil && cursor >= 0 && cursor < len(line) {
		line = line[:cursor]
	}
	parser := newParser()
	command, err := kongplete.Command(parser)
	if err != nil {
		return true // a shell would show an error as a completion
	}
	predictFiles(&command, parser.Model.Node)
	args := splitLine(line)
	for _, option := range command.Predict(args) {
		if strings.HasPrefix(option, args.Last) {
			fmt.Fprintln(out, option)
		}
	}
	return true
}

// splitLine returns the words of a command line. The last one is being typed. Package
// complete's own way would link what installs completions; see [parse].
func splitLine(line string) complete.Args {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasSuffix(line, " ") {
		words = append(words, "")
	}
	last := words[len(words)-1]
	if flag, value, found := strings.Cut(last, "="); found {
		words = append(words[:len(words)-1], flag, value)
		last = value
	}
	all := words[1:]
	done := all[:max(len(all)-1, 0)]
	args := complete.Args{All: all, Completed: done, Last: last}
	if len(done) > 0 {
		args.LastCompleted = done[len(done)-1]
	}
	return args
}

// predictFiles lets flags complete names of files and directories.
func predictFiles(command *complete.Command, node *kong.Node) {
	for _, flag := range node.Flags {
		switch flag.PlaceHolder {
		case "FILE", "OUT":
			command.GlobalFlags["--"+flag.Name] = complete.PredictFiles("*")
		case "DIR":
			command.GlobalFlags["--"+flag.Name] = complete.PredictDirs("*")
		}
	}
	for _, positional := range node.Positional {
		if name := positional.Name; name == "in" || name == "out" || name == "file" || name == "copy" {
			command.Args = complete.PredictFiles("*")
		}
	}
	for _, child := range node.Children {
		if sub, ok := command.Sub[child.Name]; ok {
			predictFiles(&sub, child)
			command.Sub[child.Name] = sub
		}
	}
}

type manCmd struct{}

func (manCmd) Run(_ context.Context, c *console.Console) error {
	parser := c.Parser
	parser.Model.Help = "encrypt files and buckets under keys that rotate\n" + joinParagraphs(parser.Model.Help)
	_ = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if n, ok := node.(*kong.Node); ok && n.Type == kong.CommandNode { // mango writes the detail first
			n.Help, n.Detail = "", "\n"+n.Help+"\n"+joinParagraphs(n.Detail)
		}
		return next(nil)
	})
	page := mangokong.NewManPage(1, parser.Model)
	_, err := io.Copy(c.Stdout, bytes.NewBufferString(page.Build(roff.NewDocument())))
	return message.About("standard output", err)
}

// joinParagraphs returns a text with one line for each paragraph. Examples, which are
// indented, keep their lines.
func joinParagraphs(text string) string {
	var lines []string
	joins := false // the next line continues the last one
	for line := range strings.SplitSeq(text, "\n") {
		prose := line != "" && !strings.HasPrefix(line, " ")
		if prose && joins {
			lines[len(lines)-1] += " " + line
		} else if line != "" {
			lines = append(lines, line)
		}
		joins = prose
	}
	return strings.Join(lines, "\n")
}
