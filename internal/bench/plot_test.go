package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"text/template"
)

// TestPlot: speed.svg shows the table of README.md.
func TestPlot(t *testing.T) {
	var want bytes.Buffer
	if err := plot.Execute(&want, readPanels(t)); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("BLOBSEAL_DRAW") != "" {
		if err := os.WriteFile("speed.svg", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("speed.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("speed.svg is not what README.md's table says (draw it: BLOBSEAL_DRAW=1 go test ./internal/bench -run Plot)")
	}
}

const unit = 132 // the length of a bar of 1

// A panel shows one column of the table, below and right of X and Y.
type panel struct {
	Title      string
	X, Y, Unit int
	Bars       []bar
}

type bar struct {
	Name, Value, Class string
	Y, Length          int
}

// readPanels lays out the table of README.md: encryption left, decryption right.
func readPanels(t *testing.T) (panels []panel) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|-") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|\n"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		if panels == nil {
			panels = makePanels(cells[1:])
			continue
		}
		for i, cell := range cells[1:] {
			value, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			p := &panels[i]
			b := bar{Name: cells[0], Value: cell, Class: "peer", Y: 12 + 22*len(p.Bars), Length: int(value*unit + 0.5)}
			if len(p.Bars) == 0 {
				b.Class = "ours"
			}
			p.Bars = append(p.Bars, b)
		}
	}
	if len(panels) != 7 || len(panels[0].Bars) == 0 {
		t.Fatalf("README.md's table has %d columns of figures, want 7", len(panels))
	}
	return panels
}

// makePanels returns the panels of columns with these titles. A title that is only a size
// has the verb of the one before it.
func makePanels(titles []string) (panels []panel) {
	verb := "encrypt"
	for i, title := range titles {
		switch first, _, _ := strings.Cut(title, " "); {
		case first == "encrypt" || first == "decrypt":
			verb = first
		case strings.HasSuffix(title, "iB"):
			title = verb + " " + title
		default:
			title = "read " + title
		}
		column, row := i/3%2, i%3+i/6*3
		panels = append(panels, panel{Title: title, X: 16 + 472*column, Y: 64 + 128*row, Unit: unit})
	}
	return panels
}

var plot = template.Must(template.New("plot").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 568" width="960" height="568" role="img" aria-labelledby="title desc" font-family="system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif" font-size="13">
  <title id="title">Speed of blobseal and other libraries</title>
  <desc id="desc">The table of README.md as bars, in multiples of the speed of bare AES-256-GCM on one core.</desc>
  <style>
    text { fill: #1f2328; }
    .head { font-size: 14px; font-weight: 600; }
    .note { fill: #57606a; }
    .ours { fill: #0969da; }
    .peer { fill: #afb8c1; }
    .one { stroke: #1f2328; stroke-dasharray: 3 3; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .note { fill: #8b949e; }
      .ours { fill: #58a6ff; }
      .peer { fill: #6e7681; }
      .one { stroke: #e6edf3; }
    }
  </style>
  <text class="head" x="16" y="28">Speed, in multiples of bare AES-256-GCM on one core (dashed line: 1). Longer is faster.</text>
{{- range .}}
  <g transform="translate({{.X}} {{.Y}})">
    <text class="head" y="0">{{.Title}}</text>
{{- range .Bars}}
    <text class="note" x="180" y="{{.Y}}" dy="13" text-anchor="end">{{.Name}}</text>
    <text x="220" y="{{.Y}}" dy="13" text-anchor="end">{{.Value}}</text>
    <rect class="{{.Class}}" x="228" y="{{.Y}}" width="{{.Length}}" height="18"/>
{{- end}}
    <path class="one" transform="translate(228)" d="M{{.Unit}} 6V102"/>
  </g>
{{- end}}
</svg>
`))
