package doccommands_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/doccommands"
)

func TestCommands(t *testing.T) {
	document := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(document, []byte("Copy it:\n\n```sh\ncp a b\n```\n\nList it:\n\n```sh\nls \\\n  b\necho $X\n```\n"), 0o600))
	require.Equal(t, "cp a b", doccommands.Commands(t, document, "Copy it:"))
	commands := doccommands.Commands(t, document, "List it:")
	require.Equal(t, "ls \\\n  b\necho $X", commands)

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), nil, 0o600))
	require.Equal(t, "b\nx\n", doccommands.Run(t, dir, []string{"X=x"}, commands))
}
