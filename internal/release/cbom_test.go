package main

import (
	"os"
	"path/filepath"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/stretchr/testify/require"
)

// TestCBOM makes the bill of cryptographic materials of this tree and reads it back.
func TestCBOM(t *testing.T) {
	tree, err := filepath.Abs("../..")
	require.NoError(t, err)
	modules, err := findModules(tree)
	require.NoError(t, err)
	p := &proof{tree: tree, env: []string{"GOWORK=off"}}
	for _, m := range modules {
		if m.released() {
			p.modules = append(p.modules, &provedModule{goModule: m})
		}
	}
	users, err := p.findAssets(t.Context())
	require.NoError(t, err)
	for imported, assets := range cryptoImports {
		require.True(t, isCryptoImport(imported), imported)
		for _, a := range assets {
			require.NotEmpty(t, users[a.name], "nobody uses %s, which %s stands for", a.name, imported)
		}
	}

	name := filepath.Join(t.TempDir(), cbomName)
	require.NoError(t, writeBOM(name, newCBOM("v0.1.0", users)))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	var bom cdx.BOM
	require.NoError(t, cdx.NewBOMDecoder(f, cdx.BOMFileFormatJSON).Decode(&bom))
	require.Equal(t, "v0.1.0", bom.Metadata.Component.Version)
	require.Len(t, *bom.Components, len(users))
	for _, c := range *bom.Components {
		require.Equal(t, cdx.ComponentTypeCryptographicAsset, c.Type, c.Name)
		require.NotEmpty(t, *c.Evidence.Occurrences, c.Name)
		require.Equal(t, cdx.CryptoAssetTypeAlgorithm, c.CryptoProperties.AssetType, c.Name)
	}
}

// TestUnknownCryptography: an import that the table does not know is an error.
func TestUnknownCryptography(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "go.mod"), "module "+rootModule+"\n\ngo 1.26.0\n")
	write(t, filepath.Join(tree, "sse/sse.go"), "package sse\n\nimport _ \"crypto/des\"\n")
	p := &proof{tree: tree, env: []string{"GOWORK=off"}, modules: []*provedModule{{goModule: &goModule{path: rootModule, folder: "."}}}}
	_, err := p.findAssets(t.Context())
	require.ErrorContains(t, err, "sse imports crypto/des")
}
