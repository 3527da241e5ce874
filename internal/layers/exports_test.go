package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// exportsRow is a row of the table of exports: package, limit, exports.
var exportsRow = regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)` \\| (\\d+) \\| (\\d+) \\|")

// TestExports: the API of the packages that services meet first does not grow
// unnoticed. Who adds an identifier changes the table and says who needs it.
func TestExports(t *testing.T) {
	text, err := os.ReadFile("../../.github/CONTRIBUTING.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## Exported identifiers\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	rows := exportsRow.FindAllStringSubmatch(section, -1)
	require.Len(t, rows, 6)
	for _, row := range rows {
		t.Run(row[1], func(t *testing.T) {
			limit, err := strconv.Atoi(row[2])
			require.NoError(t, err)
			stated, err := strconv.Atoi(row[3])
			require.NoError(t, err)
			names := exports(t, filepath.Join("../..", row[1]))
			require.Len(t, names, stated, "change the table in .github/CONTRIBUTING.md if this is meant")
			require.LessOrEqual(t, stated, limit, "cut, unexport or merge others, or move the identifier to the package that needs it")
		})
	}
}

// exports returns the exported identifiers of a folder: constants, variables, functions,
// types, their methods, and the methods of interfaces. Fields do not count.
func exports(t *testing.T, dir string) (names []string) {
	for _, decl := range declarations(t, dir) {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			names = appendExported(names, receiver(d), d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				names = append(names, exportsOf(spec)...)
			}
		}
	}
	return names
}

// declarations returns what the files of a folder declare, without tests.
func declarations(t *testing.T, dir string) (decls []ast.Decl) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, files, dir)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		decls = append(decls, parsed.Decls...)
	}
	return decls
}

// exportsOf returns the exported identifiers that a constant, variable or type declares.
func exportsOf(spec ast.Spec) (names []string) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		return appendExported(nil, "", s.Names...)
	case *ast.TypeSpec:
		names = appendExported(nil, "", s.Name)
		if methods, ok := s.Type.(*ast.InterfaceType); ok {
			for _, method := range methods.Methods.List {
				names = appendExported(names, s.Name.Name, method.Names...)
			}
		}
	}
	return names
}

// receiver returns the name of a method's type, or "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	expr := d.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return "_" // no type has that name
		}
	}
}

// appendExported appends the names that are exported, of a type that is; "" is no type.
func appendExported(names []string, of string, idents ...*ast.Ident) []string {
	for _, ident := range idents {
		if ident.IsExported() && (of == "" || ast.IsExported(of)) {
			names = append(names, strings.TrimPrefix(of+"."+ident.Name, "."))
		}
	}
	return names
}
