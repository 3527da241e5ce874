package main

import (
	"context"
	"debug/buildinfo"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	commandPackage    = rootModule + "/examples/blobseal"
	quickstartPackage = rootModule + "/examples/quickstart"
)

// maxLinked bounds the modules that a consumer of sse, keyring and kms links.
const maxLinked = 10

// notForCore are modules that a consumer of sse, keyring and kms must not require.
var notForCore = []string{"gocloud", "grpc", "opentelemetry", "wycheproof"}

// service is the program of a consumer of sse, keyring and kms.
//
//go:embed testdata/service.go.txt
var service []byte

// getFirst gets a module into an empty module, before any other module of ours, and
// lists the packages that consumers may import.
func (p *proof) getFirst(ctx context.Context, m *provedModule) error {
	r, err := p.consumer(ctx, "get-"+m.fileName())
	if err != nil {
		return err
	}
	if err := r.run(ctx, "go", "get", m.path+"@"+p.version); err != nil {
		return err
	}
	tree := runner{dir: filepath.Join(p.tree, m.folder), env: p.env}
	// -mod=readonly also proves that the release's go.mod and go.sum are complete.
	list, err := tree.output(ctx, "go", "list", "-mod=readonly", "-f", "{{if ne .Name \"main\"}}{{.ImportPath}}{{end}}", "./...")
	if err != nil {
		return err
	}
	for pkg := range strings.FieldsSeq(list) {
		if !isInternal(pkg) {
			m.packages = append(m.packages, pkg)
		}
	}
	m.isLibrary = len(m.packages) > 0
	return nil
}

// buildConsumer builds and runs a program that imports every package of a module.
func (p *proof) buildConsumer(ctx context.Context, m *provedModule) error {
	var program strings.Builder
	program.WriteString("package main\n\nimport (\n")
	for _, pkg := range m.packages {
		fmt.Fprintf(&program, "\t_ %q\n", pkg)
	}
	program.WriteString(")\n\nfunc main() {}\n")
	r, err := p.writeConsumer(ctx, m.fileName(), m.path, []byte(program.String()))
	if err != nil {
		return err
	}
	return r.run(ctx, "go", "run", "-ldflags=-s -w", ".")
}

// writeConsumer makes a module with one program, which requires modulePath.
func (p *proof) writeConsumer(ctx context.Context, name, modulePath string, program []byte) (runner, error) {
	r, err := p.consumer(ctx, name)
	if err != nil {
		return r, err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "main.go"), program, 0o644); err != nil {
		return r, err
	}
	if err := r.run(ctx, "go", "get", modulePath+"@"+p.version); err != nil {
		return r, err
	}
	return r, r.run(ctx, "go", "mod", "tidy")
}

// checkService builds a service on sse, keyring and kms, and checks which modules it
// links and requires.
func (p *proof) checkService(ctx context.Context) error {
	linked, gomod, err := p.buildService(ctx)
	if err != nil {
		return err
	}
	for _, module := range linked {
		fmt.Fprintf(p.out, "\tlinks %s\n", module)
	}
	if len(linked) > maxLinked {
		return fmt.Errorf("the service links %d modules, more than %d", len(linked), maxLinked)
	}
	for _, name := range notForCore {
		if strings.Contains(strings.ToLower(gomod), name) {
			return fmt.Errorf("the service's go.mod names %s:\n%s", name, gomod)
		}
	}
	return nil
}

// buildService builds and runs the service. It returns the modules that the service
// links and its tidy go.mod.
func (p *proof) buildService(ctx context.Context) (linked []string, gomod string, err error) {
	r, err := p.writeConsumer(ctx, "service", rootModule, service)
	if err != nil {
		return nil, "", err
	}
	binary := filepath.Join(r.dir, "service.exe")
	if err := r.run(ctx, "go", "build", "-o", binary, "."); err != nil {
		return nil, "", err
	}
	said, err := r.output(ctx, binary)
	if err != nil {
		return nil, "", err
	}
	if said != "sealed" {
		return nil, "", fmt.Errorf("the service said %q", said)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, "", err
	}
	for _, dep := range info.Deps {
		linked = append(linked, dep.Path)
	}
	data, err := os.ReadFile(filepath.Join(r.dir, "go.mod"))
	return linked, string(data), err
}

// installCommand installs the command line as a user does, and asks for its version.
func (p *proof) installCommand(ctx context.Context) error {
	r, err := p.emptyDir()
	if err != nil {
		return err
	}
	if err := r.run(ctx, "go", "install", commandPackage+"@"+p.version); err != nil {
		return err
	}
	said, err := r.output(ctx, filepath.Join(p.dir, "bin", "blobseal"), "--version")
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\tblobseal --version: %s\n", said)
	if !strings.HasPrefix(said, "blobseal "+p.version+",") {
		return fmt.Errorf("blobseal --version does not say %s", p.version)
	}
	return nil
}

// runQuickstart runs the first example without a clone.
func (p *proof) runQuickstart(ctx context.Context) error {
	r, err := p.emptyDir()
	if err != nil {
		return err
	}
	said, err := r.output(ctx, "go", "run", quickstartPackage+"@"+p.version)
	if err != nil {
		return err
	}
	if said == "" {
		return errors.New("it printed nothing")
	}
	fmt.Fprintf(p.out, "\t%s\n", strings.ReplaceAll(said, "\n", "\n\t"))
	return nil
}

// emptyDir returns a runner in a new directory outside of any module.
func (p *proof) emptyDir() (runner, error) {
	dir, err := os.MkdirTemp(p.dir, "empty")
	return runner{dir: dir, env: p.env}, err
}
