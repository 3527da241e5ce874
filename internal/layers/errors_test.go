package layers

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestErrorReference: every exported sentinel error is explained in sse/ERRORS.md.
func TestErrorReference(t *testing.T) {
	text, err := os.ReadFile("../../sse/ERRORS.md")
	require.NoError(t, err)
	found := 0
	for _, dir := range modules(t) {
		for _, line := range goListIn(t, filepath.Join("../..", dir), "-f", "{{.ImportPath}} {{.Name}}", "./...") {
			pkg, name, _ := strings.Cut(line, " ")
			if name == "main" || strings.Contains(pkg+"/", "/internal/") {
				continue
			}
			for _, sentinel := range sentinels(t, filepath.Join("../..", strings.TrimPrefix(pkg, module))) {
				found++
				require.Regexp(t, "\\b"+sentinel+"`", string(text), "%s.%s is not in sse/ERRORS.md", name, sentinel)
			}
		}
	}
	require.Greater(t, found, 40)
}

// sentinels returns the names of a package's exported error variables.
func sentinels(t *testing.T, dir string) (names []string) {
	for _, decl := range declarations(t, dir) {
		vars, ok := decl.(*ast.GenDecl)
		if !ok || vars.Tok != token.VAR {
			continue
		}
		for _, spec := range vars.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names {
				if strings.HasPrefix(name.Name, "Err") {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}
