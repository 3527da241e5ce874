package main

import (
	"context"
	"errors"
	"fmt"
	"go/types"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/exp/apidiff"
	"golang.org/x/mod/semver"
	"golang.org/x/tools/go/packages"
	"golang.org/x/tools/txtar"
)

// apiFolder holds the baseline: the API of the last release, a file per module. The
// file's comment is the version.
const apiFolder = "internal/release/api"

// runAPI runs the command api.
func runAPI(ctx context.Context, out io.Writer, args []string) error {
	flags := newFlags("api")
	version := flags.String("update", "", "write the baseline of `version` instead of checking against it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("api takes no arguments")
	}
	tree, err := runner{dir: "."}.output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if *version != "" {
		return writeBaseline(ctx, tree, *version)
	}
	return checkAPI(ctx, out, tree)
}

// baselineName returns the file of a module's baseline.
func baselineName(tree string, m *goModule) string {
	return filepath.Join(tree, apiFolder, m.fileName()+".txt")
}

// writeBaseline replaces the baseline by the API that tree has.
func writeBaseline(ctx context.Context, tree, version string) error {
	modules, err := findModules(tree)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(tree, apiFolder)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(tree, apiFolder), 0o755); err != nil {
		return err
	}
	for _, m := range modules {
		if !m.released() {
			continue
		}
		loaded, err := loadTypes(ctx, filepath.Join(tree, m.folder))
		if err != nil {
			return err
		}
		texts := apiTexts(loaded)
		if len(texts) == 0 { // a module of commands
			continue
		}
		archive := &txtar.Archive{Comment: []byte(version + "\n")}
		for _, path := range slices.Sorted(maps.Keys(texts)) {
			archive.Files = append(archive.Files, txtar.File{Name: path, Data: []byte(texts[path])})
		}
		if err := os.WriteFile(baselineName(tree, m), txtar.Format(archive), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// loadConfig is how packages of the module in dir are loaded: without a workspace,
// which some modules are not part of.
func loadConfig(ctx context.Context, dir string) *packages.Config {
	return &packages.Config{
		Context: ctx,
		Dir:     dir,
		Env:     append(os.Environ(), "GOWORK=off"),
		Mode:    packages.NeedName | packages.NeedTypes,
	}
}

// loadTypes returns the packages of the module in dir, except commands.
func loadTypes(ctx context.Context, dir string) ([]*types.Package, error) {
	loaded, err := packages.Load(loadConfig(ctx, dir), "./...")
	if err != nil {
		return nil, err
	}
	var found []*types.Package
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, p.Errors[0]
		}
		if p.Name != "main" {
			found = append(found, p.Types)
		}
	}
	return found, nil
}

// A broken is an incompatible change of a package's API.
type broken struct{ pkg, message string }

var typeParams = regexp.MustCompile(`\[[^\]]*\]`)

// identifier returns what changed, as a changelog names it: "sse.Envelope.Size".
func (b broken) identifier() string {
	what, _, _ := strings.Cut(b.message, ":")
	what = typeParams.ReplaceAllString(what, "")
	what = strings.NewReplacer("(", "", ")", "", "*", "").Replace(what)
	what = strings.TrimPrefix(strings.TrimSpace(what), "./")
	if what == "package removed" {
		return b.pkg
	}
	return b.pkg[strings.LastIndex(b.pkg, "/")+1:] + "." + what
}

// checkAPI compares the API of tree with the baseline. Before v1, the changelog must
// name each incompatible change; from v1 on, there must be none.
func checkAPI(ctx context.Context, out io.Writer, tree string) error {
	changelog, err := os.ReadFile(filepath.Join(tree, changelogName))
	if err != nil {
		return err
	}
	version, changes, err := compareAPI(ctx, tree)
	if err != nil {
		return err
	}
	_, released, err := section(string(changelog), version)
	if err != nil {
		return err
	}
	since, _, _ := strings.Cut(string(changelog), "\n## "+version+" ")
	var refused []string
	for _, c := range changes {
		fmt.Fprintf(out, "%s: %s\n", c.pkg, c.message)
		if semver.Major(version) != "v0" || !strings.Contains(since, "`"+c.identifier()+"`") {
			refused = append(refused, c.identifier())
		}
	}
	switch {
	case len(changes) == 0:
		fmt.Fprintf(out, "the API is compatible with %s\n", version)
	case !released:
		fmt.Fprintf(out, "%d changes are incompatible with the API noted for %s, which is not released yet\n", len(changes), version)
	case len(refused) > 0 && semver.Major(version) != "v0":
		return fmt.Errorf("the API breaks programs that use %s: %s (restore it; see CONTRIBUTING.md)", version, strings.Join(refused, ", "))
	case len(refused) > 0:
		return fmt.Errorf("incompatible changes since %s that %s does not name (add each, in `backquotes`, to the section of the next version): %s",
			version, changelogName, strings.Join(refused, ", "))
	}
	return nil
}

// compareAPI returns the version of the baseline and the incompatible changes since.
func compareAPI(ctx context.Context, tree string) (version string, changes []broken, err error) {
	modules, err := findModules(tree)
	if err != nil {
		return "", nil, err
	}
	base := &baseline{ctx: ctx, texts: map[string]string{}, folders: map[string]string{}}
	current := map[string]*types.Package{}
	currentTexts := map[string]string{}
	for _, m := range modules {
		archive, err := txtar.ParseFile(baselineName(tree, m))
		if errors.Is(err, os.ErrNotExist) || !m.released() { // a module that is new, or has commands only
			continue
		}
		if err != nil {
			return "", nil, err
		}
		version = strings.TrimSpace(string(archive.Comment))
		for _, f := range archive.Files {
			base.texts[f.Name] = string(f.Data)
			base.folders[f.Name] = filepath.Join(tree, m.folder)
		}
		loaded, err := loadTypes(ctx, filepath.Join(tree, m.folder))
		if err != nil {
			return "", nil, err
		}
		for _, p := range loaded {
			current[p.Path()] = p
		}
		maps.Copy(currentTexts, apiTexts(loaded))
	}
	if version == "" {
		return "", nil, fmt.Errorf("%s: no baseline (write one with: go run ./internal/release api -update VERSION)", apiFolder)
	}
	for _, path := range base.paths() {
		if currentTexts[path] == base.texts[path] {
			continue
		}
		if current[path] == nil {
			changes = append(changes, broken{path, "package removed"})
			continue
		}
		was, err := base.check(path)
		if err != nil {
			return "", nil, err
		}
		for _, c := range apidiff.Changes(was, current[path]).Changes {
			if !c.Compatible {
				changes = append(changes, broken{path, c.Message})
			}
		}
	}
	return version, changes, nil
}
