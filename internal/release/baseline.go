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
	"strconv"

	"golang.org/x/tools/go/packages"
)

// A baseline is the API of a release, as texts.
type baseline struct {
	ctx     context.Context
	texts   map[string]string // by import path
	folders map[string]string // of the modules that the texts belong to, by import path
	checked map[string]*types.Package
	loaded  map[string][]*packages.Package // what the texts of a folder import beside each other
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

// load loads what the texts of the module in folder import, except packages of the
// baseline. One call of the go command answers for all.
func (b *baseline) load(folder string) ([]*packages.Package, error) {
	if loaded, ok := b.loaded[folder]; ok {
		return loaded, nil
	}
	var paths []string
	for path, text := range b.texts {
		if b.folders[path] != folder {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly)
		if err != nil {
			return nil, err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return nil, err
			}
			if _, ok := b.texts[imported]; !ok {
				paths = append(paths, imported)
			}
		}
	}
	loaded, err := packages.Load(loadConfig(b.ctx, folder), paths...)
	if err != nil {
		return nil, err
	}
	if b.loaded == nil {
		b.loaded = map[string][]*packages.Package{}
	}
	b.loaded[folder] = loaded
	return loaded, nil
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
	loaded, err := i.load(i.folder)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(loaded, func(p *packages.Package) bool { return p.PkgPath == path })
	switch {
	case at < 0:
		return nil, fmt.Errorf("%s: not found", path)
	case len(loaded[at].Errors) > 0:
		return nil, loaded[at].Errors[0]
	}
	return loaded[at].Types, nil
}
