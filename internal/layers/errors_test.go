package layers

import (
	"go/ast"
	"go/parser"
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
	for _, dir := range []string{
		"sse", "keyring", "keyring/sqlstore", "keyring/etcdstore", "kms", "kms/audit", "kms/localkms",
		"blob", "blob/stored", "blob/jobs", "blob/signedurl", "blob/awss3",
	} {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files, dir)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			require.NoError(t, err)
			for _, name := range sentinels(parsed) {
				found++
				require.Regexp(t, "\\b"+name+"`", string(text), "%s.%s is not in sse/ERRORS.md", dir, name)
			}
		}
	}
	require.Greater(t, found, 40)
}

// sentinels returns the names of a file's exported error variables.
func sentinels(file *ast.File) (names []string) {
	for _, decl := range file.Decls {
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
