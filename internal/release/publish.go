package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// setVersions gives the modules of tree a version, as the commit that a release tags
// has them, and publishes them to proxy, a directory in the layout of a module
// proxy. A released go.mod then holds no replacement and no placeholder, and its
// go.sum holds the hashes of the modules published before it.
func setVersions(tree, proxy, version string) error {
	all, err := findModules(tree)
	if err != nil {
		return err
	}
	var sums []string // lines of go.sum
	for _, m := range all {
		if !m.released() {
			if err := m.setVersion(tree, version, false); err != nil {
				return err
			}
			continue
		}
		if err := m.setVersion(tree, version, true); err != nil {
			return err
		}
		if err := m.addSums(tree, sums); err != nil {
			return err
		}
		lines, err := m.publish(tree, proxy, version)
		if err != nil {
			return err
		}
		sums = append(sums, lines...)
	}
	return nil
}

// developOn gives the modules of tree a version and keeps the replacements, as the
// commit after a release has them.
func developOn(tree, version string) error {
	all, err := findModules(tree)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := m.setVersion(tree, version, false); err != nil {
			return err
		}
	}
	return nil
}

// setVersion writes the go.mod of m with a version for each required module of this
// repository. With release, the go.mod also loses the replacements of these.
func (m *goModule) setVersion(tree, version string, release bool) error {
	for _, r := range m.file.Require {
		if !isOurs(r.Mod.Path) {
			continue
		}
		if o := (goModule{folder: strings.TrimPrefix(r.Mod.Path, rootModule+"/")}); release && !o.released() {
			return fmt.Errorf("%s requires %s, which no release tags", m.path, r.Mod.Path)
		}
		if err := m.file.AddRequire(r.Mod.Path, version); err != nil { // keeps "// indirect"
			return err
		}
	}
	if release {
		for _, r := range slices.Clone(m.file.Replace) {
			if !isOurs(r.Old.Path) {
				return fmt.Errorf("%s replaces %s, which a released module cannot", m.path, r.Old.Path)
			}
			if err := m.file.DropReplace(r.Old.Path, r.Old.Version); err != nil {
				return err
			}
		}
	}
	m.file.Cleanup()
	data, err := m.file.Format()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tree, m.folder, "go.mod"), data, 0o644)
}

// addSums adds those of the lines to the go.sum of m that name modules it requires.
func (m *goModule) addSums(tree string, lines []string) error {
	name := filepath.Join(tree, m.folder, "go.sum")
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // which is right for a module that requires none
		return err
	}
	all := strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
	for _, line := range lines {
		modulePath, _, _ := strings.Cut(line, " ")
		if slices.ContainsFunc(m.file.Require, func(r *modfile.Require) bool { return r.Mod.Path == modulePath }) {
			all = append(all, line)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return os.WriteFile(name, []byte(strings.Join(all, "\n")+"\n"), 0o644)
}

// publish puts a version of m into proxy, and returns the lines of go.sum for it.
func (m *goModule) publish(tree, proxy, version string) ([]string, error) {
	id := module.Version{Path: m.path, Version: version}
	escaped, err := module.EscapePath(m.path)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	zipped := filepath.Join(dir, version+".zip")
	if err := zipModule(zipped, id, tree, m.folder); err != nil {
		return nil, err
	}
	gomod, err := os.ReadFile(filepath.Join(tree, m.folder, "go.mod"))
	if err != nil {
		return nil, err
	}
	info, err := json.Marshal(map[string]any{"Version": version, "Time": time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{"list": []byte(version + "\n"), version + ".mod": gomod, version + ".info": info} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	zipHash, err := dirhash.HashZip(zipped, dirhash.Hash1)
	if err != nil {
		return nil, err
	}
	modHash, err := dirhash.Hash1([]string{"go.mod"}, openBytes(gomod))
	if err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("%s %s %s", m.path, version, zipHash),
		fmt.Sprintf("%s %s/go.mod %s", m.path, version, modHash),
	}, nil
}

// zipModule writes the zip of a module as the go command makes it from the
// repository: a module without a licence gets the repository's.
func zipModule(name string, id module.Version, tree, folder string) error {
	dir := filepath.Join(tree, folder)
	checked, err := zip.CheckDir(dir)
	if err != nil {
		return err
	}
	var files []zip.File
	for _, source := range checked.Valid {
		file, err := filepath.Rel(dir, source)
		if err != nil {
			return err
		}
		if file == ".git" { // a git worktree has this file in place of a folder
			continue
		}
		files = append(files, zipFile{name: filepath.ToSlash(file), source: source})
	}
	if !slices.ContainsFunc(files, func(f zip.File) bool { return f.Path() == "LICENSE" }) {
		files = append(files, zipFile{name: "LICENSE", source: filepath.Join(tree, "LICENSE")})
	}
	w, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := zip.Create(w, id, files); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
