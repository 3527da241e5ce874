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

// A baseline is the API of a release, as texts.
type baseline struct {
	ctx     context.Context
	texts   map[string]string // by import path
	folders map[string]string // of the modules that the texts belong to, by import path
	checked map[string]*types.Package
}

func (b *baseline) paths() []string { return slices.Sorted(maps.Keys(b.texts)) }

// check type checks the text of a package.
func (b *baseline) check(path string) (*types.Package, error) {
	if p, ok := b.checked[path]; ok {
		return p, nil
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, b.texts[path], parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	config := types.Config{Importer: importer{b, b.folders[path]}, IgnoreFuncBodies: true}
	p, err := config.Check(path, fset, []*ast.File{file}, nil)
	if err != nil {
		return nil, fmt.Errorf("baseline of %s: %w", path, err)
	}
	if b.checked == nil {
		b.checked = map[string]*types.Package{}
	}
	b.checked[path] = p
	return p, nil
}

// An importer imports packages of the baseline from their texts, and all others as
// the module in folder requires them now.
type importer struct {
	*baseline
	folder string
}

func (i importer) Import(path string) (*types.Package, error) {
	if _, ok := i.texts[path]; ok {
		return i.check(path)
	}
	loaded, err := packages.Load(loadConfig(i.ctx, i.folder), path)
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
