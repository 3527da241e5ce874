// Package layers holds the test of which package may import which.
package layers

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/blobseal/blobseal"

// order is the direction of imports, from the top. A package may import those of
// later rows, and of its own row only its own folder.
var order = []string{"blob", "sse", "keyring", "kms", "internal"}

// exceptions are imports against the order that the design allows.
var exceptions = map[[2]string]bool{
	{"kms/localkms", "keyring"}: true, // its store and its root
}

// row returns the top folder of a package of this module, and its rank.
func row(t *testing.T, pkg string) (string, int) {
	folder, _, _ := strings.Cut(pkg, "/")
	for i, name := range order {
		if name == folder {
			return folder, i
		}
	}
	require.Fail(t, "unknown top folder", pkg)
	return "", 0
}

// blobOrder is the order within blob, from the top. A package imports those of
// later rows only; those under an internal folder belong to no row.
var blobOrder = [][]string{{"blob/bloburl/localkms"}, {"blob/jobs", "blob/signedurl", "blob/awss3", "blob/bloburl", "blob/objstore", "blob/s3gateway", "blob/internal/blobtest"}, {"blob"}, {"blob/internal/store"}, {"blob/stored"}}

// blobRank returns the row of blobOrder that has pkg, or -1.
func blobRank(pkg string) int {
	return slices.IndexFunc(blobOrder, func(row []string) bool { return slices.Contains(row, pkg) })
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

// TestImportsGoDown: imports follow the order of the design, and adapters under
// one folder do not import each other.
func TestImportsGoDown(t *testing.T) {
	const format = "{{.ImportPath}} {{join .Imports \" \"}}"
	lines := goList(t, "-f", format, "./...")
	require.Greater(t, len(lines), 5)
	for _, pattern := range []string{"../../blob", "../../blob/*", "../../sse/*", "../../kms/*", "../../keyring/*"} {
		nested, err := filepath.Glob(pattern + "/go.mod")
		require.NoError(t, err)
		for _, mod := range nested {
			lines = append(lines, goListIn(t, filepath.Dir(mod), "-f", format, "./...")...)
		}
	}
	for _, line := range lines {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module+"/")
		_, rank := row(t, pkg)
		for _, imported := range fields[1:] {
			imported, ours := strings.CutPrefix(imported, module+"/")
			if !ours || exceptions[[2]string{pkg, imported}] {
				continue
			}
			if from, to := blobRank(pkg), blobRank(imported); from >= 0 && to >= 0 {
				require.Greater(t, to, from, "%s imports %s", pkg, imported)
				continue
			}
			folder, under := row(t, imported)
			if under == rank {
				// Within a folder: only the folder's own package, a part of it, or kms/audit,
				// whose records localkms writes.
				require.True(t, imported == folder || imported == "kms/audit" && pkg != "kms" || strings.HasPrefix(imported, pkg+"/") || folder == "internal",
					"%s imports %s sideways", pkg, imported)
				continue
			}
			require.Greater(t, under, rank, "%s imports %s upward", pkg, imported)
		}
	}
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
	for _, dep := range goList(t, "-deps", "./internal/...") {
		require.False(t, strings.HasPrefix(dep, "github.com/") && !strings.HasPrefix(dep, module),
			"internal depends on %s", dep)
	}
}

// TestNestedModulesUseExportedAPI: the code of a nested module that is released
// imports no internal package of another module, so that the root may change its
// internal packages without breaking a published module.
func TestNestedModulesUseExportedAPI(t *testing.T) {
	for _, folder := range []string{
		"blob", "blob/awss3", "blob/objstore", "kms/awskms", "kms/azurekms", "kms/gcpkms", "kms/vaultkms", "keyring/etcdstore", "sse/sseotel", "examples", "examples/blobseal",
	} {
		t.Run(folder, func(t *testing.T) {
			for _, line := range goListIn(t, "../../"+folder, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
				fields := strings.Fields(line)
				for _, imported := range fields[1:] {
					require.False(t, strings.HasPrefix(imported, module+"/internal/"), "%s imports %s", fields[0], imported)
				}
			}
		})
	}
}
