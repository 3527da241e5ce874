package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// cbomName is the file of the bill of cryptographic materials.
const cbomName = "cbom.cdx.json"

// sbomTool makes the bills of software materials.
const sbomTool = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0"

// writeBOMs writes CycloneDX bills of materials to the folder to: one of software for
// each library, one of software for the command line as built here, and one of
// cryptography for all. The command line is installed.
func (p *proof) writeBOMs(ctx context.Context, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := p.writeSBOMs(ctx, to); err != nil {
		return err
	}
	users, err := p.findAssets(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\t%s: %d algorithms\n", cbomName, len(users))
	return writeBOM(filepath.Join(to, cbomName), newCBOM(p.version, users))
}

// writeSBOMs writes the bills of software materials.
func (p *proof) writeSBOMs(ctx context.Context, to string) error {
	bin := filepath.Join(p.dir, "bin")
	if err := (runner{dir: p.dir, env: []string{"GOBIN=" + bin, "GOWORK=off"}}).run(ctx, "go", "install", sbomTool); err != nil {
		return err
	}
	if err := p.tagTree(ctx); err != nil {
		return err
	}
	tool := filepath.Join(bin, "cyclonedx-gomod")
	for _, m := range p.modules {
		if !m.isLibrary {
			continue
		}
		name := m.fileName()
		r := runner{dir: filepath.Join(p.tree, m.folder), env: p.env}
		if err := r.run(ctx, tool, "mod", "-json", "-type", "library", "-output", filepath.Join(to, name+".cdx.json"), "."); err != nil {
			return err
		}
	}
	r := runner{dir: p.dir, env: p.env}
	return r.run(ctx, tool, "bin", "-json", "-std", "-version", p.version, "-output", filepath.Join(to, "command.cdx.json"), filepath.Join(bin, "blobseal"))
}

// tagTree makes a git repository of the tree, since the tool learns versions from
// tags.
func (p *proof) tagTree(ctx context.Context) error {
	git := runner{dir: p.tree, env: []string{
		"GIT_AUTHOR_NAME=release", "GIT_AUTHOR_EMAIL=release", "GIT_COMMITTER_NAME=release", "GIT_COMMITTER_EMAIL=release",
	}}
	for _, args := range [][]string{
		{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message", p.version}, {"tag", p.version},
	} {
		if err := git.run(ctx, "git", args...); err != nil {
			return err
		}
	}
	return nil
}
