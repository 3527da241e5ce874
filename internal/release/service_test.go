package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestServiceLinksLittle builds a service from a module proxy on the file system.
// A service that imports sse, keyring and kms links these modules and no others: no
// cloud SDK, no database driver, no policy engine, no gocloud.
func TestServiceLinksLittle(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	copyTree(t, tree)
	p, err := newProof(t.Context(), io.Discard, tree, "v0.0.0-test", dir)
	require.NoError(t, err)
	linked, gomod, err := p.buildService(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{
		rootModule,
		"github.com/gofrs/flock",
		"github.com/tink-crypto/tink-go/v2",
		"golang.org/x/crypto",
		"golang.org/x/sys",
		"google.golang.org/protobuf",
	}, linked)
	require.Less(t, len(linked), maxLinked)
	for _, name := range notForCore {
		require.NotContains(t, gomod, name)
	}
}

// copyTree copies the repository's working tree without its history.
func copyTree(t *testing.T, to string) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(to, 0o755))
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		switch {
		case e.Name() == ".git":
		case e.IsDir():
			require.NoError(t, os.CopyFS(filepath.Join(to, e.Name()), os.DirFS(filepath.Join(root, e.Name()))))
		case e.Type().IsRegular():
			data, err := os.ReadFile(filepath.Join(root, e.Name()))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(to, e.Name()), data, 0o644))
		}
	}
}
