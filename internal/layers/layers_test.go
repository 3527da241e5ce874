// Package layers holds tests of the whole repository: imports, exported identifiers, the
// length of files, links of documents.
package layers

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/blobseal/blobseal"

// order is the direction of imports, from the top: a package imports packages of later
// rows, and those in folders of its own. The last row is for packages that only this
// project can import.
var order = [][]string{
	{"blob/bloburl/localkms"},
	{"blob/awss3", "blob/bloburl", "blob/internal/blobtest", "blob/jobs", "blob/objstore", "blob/s3gateway", "blob/signedurl"},
	{"blob"},
	{"blob/internal/store"},
	{"blob/stored"},
	{"internal/testbed/pgserver", "sse/s3wire", "sse/sseotel"},
	{"internal/testbed"},
	{"sse"},
	{"kms/localkms"},
	{"keyring/etcdstore", "keyring/keyringtest", "keyring/sqlstore"},
	{"keyring"},
	{"kms/awskms", "kms/azurekms", "kms/gcpkms", "kms/kmstest", "kms/tinkkms", "kms/vaultkms"},
	{"kms/audit", "kms/cache"},
	{"kms"},
	{"internal"},
}

// row returns the row of order that has a package, or else the folder around it.
func row(t *testing.T, pkg string) int {
	for folder := pkg; folder != "."; folder = path.Dir(folder) {
		if i := slices.IndexFunc(order, func(row []string) bool { return slices.Contains(row, folder) }); i >= 0 {
			return i
		}
	}
	require.Fail(t, "a package without a place in the order of imports", pkg)
	return -1
}

// goList runs go list in the root module.
func goList(t *testing.T, args ...string) []string { return goListIn(t, "../..", args...) }

func goListIn(t *testing.T, dir string, args ...string) []string {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off") // the workspace does not have every module
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestImportsGoDown: imports follow the order of the design, without exceptions.
func TestImportsGoDown(t *testing.T) {
	packages := 0
	for _, dir := range modules(t) {
		if strings.HasPrefix(dir, "examples") {
			continue // above all rows, and imported by nobody: their packages are called main or internal
		}
		for _, line := range goListIn(t, filepath.Join("../..", dir), "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
			packages++
			fields := strings.Fields(line)
			pkg := strings.TrimPrefix(fields[0], module+"/")
			for _, imported := range fields[1:] {
				imported, ours := strings.CutPrefix(imported, module+"/")
				if !ours || strings.HasPrefix(imported, pkg+"/") {
					continue
				}
				if row(t, pkg) == len(order)-1 {
					require.True(t, strings.HasPrefix(imported, "internal/"), "%s imports %s", pkg, imported)
					continue
				}
				require.Greater(t, row(t, imported), row(t, pkg), "%s imports %s upward or sideways", pkg, imported)
			}
		}
	}
	require.Greater(t, packages, 30)
}

// modules returns the folders of the modules that are released, the root's first.
func modules(t *testing.T) (dirs []string) {
	require.NoError(t, fs.WalkDir(os.DirFS("../.."), ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (file == "internal" || entry.Name() == ".git" || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		if entry.Name() == "go.mod" {
			dirs = append(dirs, path.Dir(file))
		}
		return nil
	}))
	slices.Sort(dirs)
	require.Equal(t, ".", dirs[0])
	require.Greater(t, len(dirs), 10)
	return dirs
}

// TestCoreStaysSmall: who imports sse gets no network, no cloud SDK and no
// policy engine.
func TestCoreStaysSmall(t *testing.T) {
	for _, pkg := range []string{"./sse", "./keyring", "./kms"} {
		for _, dep := range goList(t, "-deps", pkg) {
			for _, banned := range []string{"net/http", "gocloud.dev", "github.com/cedar-policy", "google.golang.org/grpc", "github.com/aws", "cloud.google.com"} {
				require.False(t, dep == banned || strings.HasPrefix(dep, banned+"/"), "%s depends on %s", pkg, dep)
			}
		}
	}
	for _, dep := range goListIn(t, "../../blob", "-deps", "./stored") { // which packages without gocloud use
		require.False(t, strings.HasPrefix(dep, "gocloud.dev"), "blob/stored depends on %s", dep)
	}
	for _, dep := range goListIn(t, "../../blob/awss3", "-deps", ".") {
		require.False(t, strings.HasPrefix(dep, "gocloud.dev"), "blob/awss3 depends on %s", dep)
	}
	alone := []string{"-deps", ".", "./jobs", "./signedurl", "./bloburl"} // bloburl/localkms has the policy engine
	for _, dep := range goListIn(t, "../../blob", alone...) {             // gocloud.dev alone, whose drivers are the caller's
		for _, banned := range []string{"github.com/aws", "cloud.google.com", "github.com/Azure", "github.com/cedar-policy"} {
			require.False(t, strings.HasPrefix(dep, banned+"/"), "blob depends on %s", dep)
		}
	}
	for _, dep := range goListIn(t, "../../sse/sseotel", "-deps", ".") { // OpenTelemetry's API, which does nothing by itself
		for _, banned := range []string{"go.opentelemetry.io/otel/sdk", "github.com/prometheus", "gocloud.dev", "github.com/cedar-policy"} {
			require.False(t, dep == banned || strings.HasPrefix(dep, banned+"/"), "sse/sseotel depends on %s", dep)
		}
	}
	ours := slices.DeleteFunc(goList(t, "./internal/..."), func(pkg string) bool { return strings.Contains(pkg, "/testbed/") })
	for _, dep := range goList(t, append([]string{"-deps"}, ours...)...) {
		require.False(t, strings.HasPrefix(dep, "github.com/") && !strings.HasPrefix(dep, module),
			"internal depends on %s", dep)
	}
}

// TestNestedModulesUseExportedAPI: no code of a module but its tests imports an internal
// package of another module, so that a module may change its internal packages without
// breaking one that is published.
func TestNestedModulesUseExportedAPI(t *testing.T) {
	for _, dir := range modules(t) {
		t.Run(dir, func(t *testing.T) {
			within := strings.TrimSuffix(module+"/"+dir, "/.")
			for _, line := range goListIn(t, filepath.Join("../..", dir), "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
				fields := strings.Fields(line)
				for _, imported := range fields[1:] {
					foreign := strings.HasPrefix(imported, module+"/") && !strings.HasPrefix(imported, within+"/")
					require.False(t, foreign && strings.Contains(imported+"/", "/internal/"), "%s imports %s", fields[0], imported)
				}
			}
		})
	}
}
