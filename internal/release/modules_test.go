package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReleasedModules: a released module requires the first release of a version of Go,
// not a patch level, which everybody who imports it would need, and no module of test
// vectors or beds.
func TestReleasedModules(t *testing.T) {
	tree, err := filepath.Abs("../..")
	require.NoError(t, err)
	modules, err := findModules(tree)
	require.NoError(t, err)
	released := 0
	for _, m := range modules {
		if !m.released() {
			continue
		}
		released++
		require.Equal(t, "1.26.0", m.file.Go.Version, "%s/go.mod", m.folder)
		require.Nil(t, m.file.Toolchain, "%s/go.mod", m.folder)
		for _, r := range m.file.Require {
			require.NotContains(t, r.Mod.Path, "wycheproof", "%s/go.mod", m.folder)
			require.NotContains(t, r.Mod.Path, rootModule+"/internal", "%s/go.mod", m.folder)
		}
	}
	require.Greater(t, released, 8)
}
