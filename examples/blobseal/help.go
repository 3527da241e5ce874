package main

import (
	"embed"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/tools/txtar"
)

//go:embed help/*.txtar
var helpFiles embed.FS

// helpTexts returns the help texts by command, such as "ring create".
func helpTexts() map[string]string {
	texts := map[string]string{}
	files, err := helpFiles.ReadDir("help")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		data, err := helpFiles.ReadFile("help/" + file.Name())
		if err != nil {
			panic(err)
		}
		for _, section := range txtar.Parse(data).Files {
			texts[section.Name] = strings.TrimSpace(string(section.Data))
		}
	}
	return texts
}

// addHelp gives each command its help text.
func addHelp(parser *kong.Kong) {
	texts := helpTexts()
	parser.Model.Help = texts["blobseal"]
	_ = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if n, ok := node.(*kong.Node); ok && n.Type == kong.CommandNode {
			n.Detail = texts[commandName(n)]
		}
		return next(nil)
	})
}

// commandName returns the words of a command, such as "ring create".
func commandName(n *kong.Node) string {
	if n.Parent == nil || n.Parent.Type != kong.CommandNode {
		return n.Name
	}
	return commandName(n.Parent) + " " + n.Name
}
