package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	fileLines     = 450
	functionLines = 60
	// excuse begins the sentence of a doc comment, or of a package comment in the
	// same file, that says why something may be longer.
	excuse = "is long because"
)

// TestNothingIsTooLong: a file has at most 450 lines, and a function 60 without
// its tables, unless its comment contains "is long because".
func TestNothingIsTooLong(t *testing.T) {
	files := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		if lines := set.File(parsed.Pos()).LineCount(); lines > fileLines && !excused(parsed.Doc) {
			t.Errorf("%s has %d lines, and the limit is %d: split it", path, lines, fileLines)
		}
		for _, decl := range parsed.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok || excused(function.Doc) {
				continue
			}
			for _, part := range parts(function) {
				if lines := codeLines(set, part); lines > functionLines {
					t.Errorf("%s: %s has %d lines, and the limit is %d: split it", path, function.Name.Name, lines, functionLines)
				}
			}
		}
		return nil
	}))
	require.Greater(t, files, 500)
}

// excused reports whether a comment says why its subject is long.
func excused(doc *ast.CommentGroup) bool {
	return strings.Contains(strings.Join(strings.Fields(doc.Text()), " "), excuse)
}

// parts returns a function, and the subtests in it, each of which reads by itself.
func parts(function *ast.FuncDecl) []ast.Node {
	parts := []ast.Node{function}
	ast.Inspect(function, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok {
			if body, ok := subtest(call); ok {
				parts = append(parts, body)
			}
		}
		return true
	})
	return parts
}

// subtest returns the function in a call of t.Run(name, func(t *testing.T) {...}).
func subtest(call *ast.CallExpr) (*ast.FuncLit, bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || method.Sel.Name != "Run" || len(call.Args) != 2 {
		return nil, false
	}
	body, ok := call.Args[1].(*ast.FuncLit)
	return body, ok
}

// codeLines counts the lines of a function or subtest, without those of its
// tables, which are array and map literals, and of the subtests in it.
func codeLines(set *token.FileSet, function ast.Node) int {
	span := func(node ast.Node) int { return set.Position(node.End()).Line - set.Position(node.Pos()).Line }
	lines := span(function) + 1
	ast.Inspect(function, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.CompositeLit:
			switch node.Type.(type) {
			case *ast.ArrayType, *ast.MapType:
				lines -= span(node)
				return false
			}
		case *ast.CallExpr:
			if body, ok := subtest(node); ok {
				lines -= span(body)
				return false
			}
		}
		return true
	})
	return lines
}

// TestCodeLines: tables do not count, subtests count alone, and the rest counts.
func TestCodeLines(t *testing.T) {
	const source = `package p

// f is long
// because it shows this.
func f() {
	for _, x := range []int{
		1,
		2,
	} {
		g(x)
	}
	h(struct{ a int }{
		a: 1,
	})
	t.Run("name", func(t *testing.T) {
		g(1)
	})
}
`
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, "p.go", source, parser.ParseComments)
	require.NoError(t, err)
	function := parsed.Decls[0].(*ast.FuncDecl)
	both := parts(function)
	require.Len(t, both, 2)
	require.Equal(t, 9, codeLines(set, both[0]))
	require.Equal(t, 3, codeLines(set, both[1]))
	require.True(t, excused(function.Doc))
	require.False(t, excused(parsed.Doc))
}
