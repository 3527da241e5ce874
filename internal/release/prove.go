package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// runProve runs the command prove.
func runProve(ctx context.Context, out io.Writer, args []string) error {
	flags := newFlags("prove")
	version := flags.String("version", "v0.0.0-proof", "publish the modules as this `version`")
	bom := flags.String("bom", "", "also write bills of materials to this `folder`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("prove takes no arguments")
	}
	repository, err := runner{dir: "."}.output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "blobseal-proof")
	if err != nil {
		return err
	}
	err = prove(ctx, out, repository, *version, *bom, dir)
	return errors.Join(err, removeAll(dir))
}

// prove publishes HEAD of repository under version and consumes what it published,
// in dir. Unless bom is empty, it writes bills of materials to that folder.
func prove(ctx context.Context, out io.Writer, repository, version, bom, dir string) error {
	if bom != "" {
		absolute, err := filepath.Abs(bom)
		if err != nil {
			return err
		}
		bom = absolute
	}
	tree := filepath.Join(dir, "tree")
	if err := exportHead(ctx, repository, tree); err != nil {
		return err
	}
	p, err := newProof(ctx, out, tree, version, dir)
	if err != nil {
		return err
	}
	for _, m := range p.modules {
		if err := p.step("go get "+m.path, func() error { return p.getFirst(ctx, m) }); err != nil {
			return err
		}
	}
	for _, m := range p.modules {
		if m.isLibrary {
			if err := p.step("consumer of "+m.path, func() error { return p.buildConsumer(ctx, m) }); err != nil {
				return err
			}
		}
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"consumer of sse, keyring and kms", p.checkService},
		{"go install " + commandPackage, p.installCommand},
		{"go run " + quickstartPackage, p.runQuickstart},
	}
	for _, s := range steps {
		if err := p.step(s.name, func() error { return s.run(ctx) }); err != nil {
			return err
		}
	}
	if bom != "" {
		if err := p.step("bills of materials", func() error { return p.writeBOMs(ctx, bom) }); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "proved: the %d modules of %s can be used\n", len(p.modules), version)
	return nil
}

// A proof is a module proxy with the modules of a tree, and a place for consumers.
type proof struct {
	out     io.Writer
	version string
	tree    string // with the versions of the release
	dir     string
	modules []*provedModule
	env     []string // of consumers: the proxy, and nothing of this repository
}

type provedModule struct {
	*goModule
	packages  []string // that a consumer can import
	isLibrary bool
}

// newProof gives the modules of tree a version and publishes them to a proxy in dir.
func newProof(ctx context.Context, out io.Writer, tree, version, dir string) (*proof, error) {
	p := &proof{out: out, version: version, dir: dir, tree: tree}
	proxy := filepath.Join(dir, "proxy")
	if err := setVersions(p.tree, proxy, version); err != nil {
		return nil, err
	}
	if err := p.setEnv(ctx, proxy); err != nil {
		return nil, err
	}
	all, err := findModules(p.tree)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.released() {
			p.modules = append(p.modules, &provedModule{goModule: m})
		}
	}
	return p, nil
}

// setEnv makes an environment without a workspace, whose module cache begins empty:
// a cached copy of the version would hide what this HEAD holds. What the machine's
// own cache has downloaded is taken from there.
func (p *proof) setEnv(ctx context.Context, proxy string) error {
	ambient, err := runner{dir: p.dir}.output(ctx, "go", "env", "GOPROXY", "GOMODCACHE")
	if err != nil {
		return err
	}
	ambientProxy, cache, _ := strings.Cut(ambient, "\n")
	downloads := filepath.Join(cache, "cache", "download")
	p.env = []string{
		"GOWORK=off",
		"GOFLAGS=-modcacherw", // and not -trimpath, for which no other step has built the standard library
		"GOMODCACHE=" + filepath.Join(p.dir, "modcache"),
		"GOPROXY=" + strings.Join([]string{fileURL(proxy), fileURL(downloads), ambientProxy}, ","),
		"GOSUMDB=off", // nobody else has this version; the repository's go.sum files pin the others
		"GOBIN=" + filepath.Join(p.dir, "bin"),
	}
	return nil
}

func fileURL(dir string) string { return "file://" + filepath.ToSlash(dir) }

// step runs one step and reports how long it took.
func (p *proof) step(name string, run func() error) error {
	start := time.Now()
	if err := run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(p.out, "ok\t%.1fs\t%s\n", time.Since(start).Seconds(), name)
	return nil
}

// consumer returns a runner in a new directory with an empty module.
func (p *proof) consumer(ctx context.Context, name string) (runner, error) {
	r := runner{dir: filepath.Join(p.dir, "consumers", name), env: p.env}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return r, err
	}
	return r, r.run(ctx, "go", "mod", "init", "example.com/consumer")
}

// exportHead writes the tree of HEAD to dir.
func exportHead(ctx context.Context, repository, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	archive := dir + ".tar"
	if err := (runner{dir: repository}).run(ctx, "git", "archive", "--output", archive, "HEAD"); err != nil {
		return err
	}
	return runner{dir: dir}.run(ctx, "tar", "-xf", archive)
}

// removeAll removes dir, read-only directories included.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o755)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
