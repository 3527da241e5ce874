package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"slices"

	"golang.org/x/tools/go/packages"
)

// A baseline is the API of a release, as texts. It is a types.Importer: our packages
// come from their texts, all others from the module in dir, as it requires them now.
type baseline struct {
	ctx   context.Context
	dir   string
	texts map[string]string // by import path

	imported map[string]*types.Package
}

func (b *baseline) paths() []string { return slices.Sorted(maps.Keys(b.texts)) }

// Import returns the types of a package.
func (b *baseline) Import(path string) (*types.Package, error) {
	if p, ok := b.imported[path]; ok {
		return p, nil
	}
	load := b.load
	if _, ok := b.texts[path]; ok {
		load = b.check
	}
	p, err := load(path)
	if err != nil {
		return nil, err
	}
	if b.imported == nil {
		b.imported = map[string]*types.Package{}
	}
	b.imported[path] = p
	return p, nil
}

// check type checks the text of a package.
func (b *baseline) check(path string) (*types.Package, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, b.texts[path], parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	config := types.Config{Importer: b, IgnoreFuncBodies: true}
	return config.Check(path, fset, []*ast.File{file}, nil)
}

// load loads the types of a package that has no text.
func (b *baseline) load(path string) (*types.Package, error) {
	loaded, err := packages.Load(&packages.Config{Context: b.ctx, Dir: b.dir, Mode: packages.NeedName | packages.NeedTypes}, path)
	switch {
	case err != nil:
		return nil, err
	case len(loaded) != 1:
		return nil, fmt.Errorf("%s: found %d packages", path, len(loaded))
	case len(loaded[0].Errors) > 0:
		return nil, loaded[0].Errors[0]
	}
	return loaded[0].Types, nil
}
