package main

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// panel is a panel of a dashboard of Grafana.
type panel struct {
	Title       string
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ Expr, LegendFormat string }
}

// line is a series in a panel.
type line struct {
	name   string
	points [][2]float64 // Unix seconds and value
}

// draw draws the panels that have data into dashboard.svg, and prints which alerts
// fired.
func draw(t *testing.T, server, dir string, begin, end time.Time) {
	text, err := os.ReadFile(filepath.Join(dir, "dashboard.json"))
	require.NoError(t, err)
	var dashboard struct{ Panels []panel }
	require.NoError(t, json.Unmarshal(text, &dashboard))
	var drawn []string
	for _, p := range dashboard.Panels {
		var lines []line
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "30s").Replace(target.Expr)
			lines = append(lines, query(t, server, expr, target.LegendFormat, begin, end)...)
		}
		if len(lines) > 0 {
			drawn = append(drawn, drawPanel(p, lines, len(drawn), begin, end))
		}
	}
	rows := (len(drawn) + 2) / 3
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1220 %d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="#fff"/>
%s</svg>
`, rows*240+10, strings.Join(drawn, ""))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dashboard.svg"), []byte(svg), 0o644))
	for _, l := range query(t, server, `ALERTS{alertstate="firing"}`, "{{alertname}} {{instance}} {{error_type}}", begin, end) {
		first, last := l.points[0][0], l.points[len(l.points)-1][0]
		t.Logf("fired: %-40s from %.1f to %.1f minutes", l.name, (first-float64(begin.Unix()))/60, (last-float64(begin.Unix()))/60)
	}
}

var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}`)

// query returns the series of an expression.
func query(t *testing.T, server, expr, legend string, begin, end time.Time) (lines []line) {
	reply, err := http.Get(server + "/api/v1/query_range?" + url.Values{
		"query": {expr}, "start": {fmt.Sprint(begin.Unix())}, "end": {fmt.Sprint(end.Unix())}, "step": {"5"},
	}.Encode())
	require.NoError(t, err)
	defer reply.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	require.NoError(t, json.NewDecoder(reply.Body).Decode(&answer))
	require.Empty(t, answer.Error, expr)
	for _, series := range answer.Data.Result {
		l := line{name: placeholder.ReplaceAllStringFunc(legend, func(m string) string { return series.Metric[m[2:len(m)-2]] })}
		for _, v := range series.Values {
			var value float64
			fmt.Sscan(v[1].(string), &value)
			if !math.IsNaN(value) && !math.IsInf(value, 0) {
				l.points = append(l.points, [2]float64{v[0].(float64), value})
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	return lines
}

var colors = []string{"#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"}

// drawPanel draws a panel at its place in the grid.
func drawPanel(p panel, lines []line, place int, begin, end time.Time) string {
	const left, top, width, height = 52, 26, 330, 150
	most := 0.0
	for _, l := range lines {
		for _, point := range l.points {
			most = max(most, point[1])
		}
	}
	if most == 0 {
		most = 1
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<g transform=\"translate(%d %d)\">\n", place%3*400+5, place/3*240+5)
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"16\" font-weight=\"bold\" font-size=\"13\">%s</text>\n", left, html.EscapeString(p.Title))
	for i := range 4 {
		y := top + height - height*i/3
		fmt.Fprintf(&b, "<path d=\"M%d %dh%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#555\">%s</text>\n",
			left, y, width, left-4, y+4, amount(most*float64(i)/3, p.FieldConfig.Defaults.Unit))
	}
	seconds := end.Sub(begin).Seconds()
	for i := range 4 {
		x := left + width*i/3
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">%.0f min</text>\n", x, top+height+14, seconds*float64(i)/180)
	}
	for i, l := range lines {
		color := colors[i%len(colors)]
		fmt.Fprintf(&b, "<path fill=\"none\" stroke=\"%s\" d=\"", color)
		last := math.Inf(-1)
		for _, point := range l.points {
			command := "L"
			if point[0]-last > 11 { // nothing was scraped meanwhile
				command = "M"
			}
			last = point[0]
			fmt.Fprintf(&b, "%s%.1f %.1f", command, left+width*(point[0]-float64(begin.Unix()))/seconds, top+height*(1-point[1]/most))
		}
		b.WriteString("\"/>\n")
		if i < 6 {
			x, y := left+165*(i%2), top+height+28+12*(i/2)
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"9\" height=\"3\" fill=\"%s\"/><text x=\"%d\" y=\"%d\" font-size=\"10\">%s</text>\n",
				x, y-5, color, x+13, y, html.EscapeString(l.name))
		}
	}
	b.WriteString("</g>\n")
	return b.String()
}

// amount returns a value in the unit of a panel.
func amount(v float64, unit string) string {
	switch {
	case unit == "s" && v > 0 && v < 1e-3:
		return fmt.Sprintf("%.0f µs", v*1e6)
	case unit == "s" && v > 0 && v < 1:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case unit == "s" && v >= 2*86400:
		return fmt.Sprintf("%.0f d", v/86400)
	case unit == "s" && v >= 600:
		return fmt.Sprintf("%.0f min", v/60)
	case unit == "s":
		return fmt.Sprintf("%.0f s", v)
	case unit == "Bps":
		return fmt.Sprintf("%.0f kB/s", v/1e3)
	case unit == "ops":
		return fmt.Sprintf("%.1f/s", v)
	}
	return fmt.Sprintf("%.1f", v)
}
