package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// rootModule is the path of the module at the top of the repository. The paths of
// the others begin with it.
const rootModule = "github.com/blobseal/blobseal"

// A goModule is a module of this repository.
type goModule struct {
	path   string
	folder string // relative to the repository, with slashes; "." is the root
	file   *modfile.File
}

// released reports whether releases tag the module. Test beds are never tagged.
func (m *goModule) released() bool {
	return m.folder != "internal" && !strings.HasPrefix(m.folder, "internal/")
}

// tag returns the git tag of a version of the module.
func (m *goModule) tag(version string) string {
	if m.folder == "." {
		return version
	}
	return m.folder + "/" + version
}

// isExample reports whether the module shows how to use the others, and nobody runs it
// in production.
func (m *goModule) isExample() bool {
	return m.folder == "examples" || strings.HasPrefix(m.folder, "examples/") && m.path != commandPackage
}

// fileName returns the module's folder as the name of a file.
func (m *goModule) fileName() string {
	if m.folder == "." {
		return "root"
	}
	return strings.ReplaceAll(m.folder, "/", "-")
}

// requires reports whether the go.mod of m names the module o.
func (m *goModule) requires(o *goModule) bool {
	return slices.ContainsFunc(m.file.Require, func(r *modfile.Require) bool { return r.Mod.Path == o.path })
}

// isOurs reports whether a module path belongs to this repository.
func isOurs(modulePath string) bool {
	return modulePath == rootModule || strings.HasPrefix(modulePath, rootModule+"/")
}

// findModules returns the modules of a tree, each after those that it requires.
func findModules(tree string) ([]*goModule, error) {
	var found []*goModule
	err := filepath.WalkDir(tree, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.Name() != "go.mod":
			return nil
		}
		m, err := readModule(tree, filepath.Dir(name))
		if err == nil {
			found = append(found, m)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return sortModules(found)
}

func readModule(tree, dir string) (*goModule, error) {
	folder, err := filepath.Rel(tree, dir)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "go.mod")
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	file, err := modfile.Parse(name, data, nil)
	if err != nil {
		return nil, err
	}
	m := &goModule{path: file.Module.Mod.Path, folder: filepath.ToSlash(folder), file: file}
	if want := path.Join(rootModule, m.folder); m.path != want {
		return nil, fmt.Errorf("%s: the module is named %s (rename it to %s)", name, m.path, want)
	}
	return m, nil
}

// sortModules puts each module after those that it requires.
func sortModules(all []*goModule) (sorted []*goModule, err error) {
	for len(sorted) < len(all) {
		next := slices.IndexFunc(all, func(m *goModule) bool {
			return !slices.Contains(sorted, m) && !slices.ContainsFunc(all, func(o *goModule) bool {
				return m.requires(o) && !slices.Contains(sorted, o)
			})
		})
		if next < 0 {
			return nil, fmt.Errorf("modules require each other in a circle; sorted so far: %d of %d", len(sorted), len(all))
		}
		sorted = append(sorted, all[next])
	}
	return sorted, nil
}
