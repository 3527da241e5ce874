package atomicfile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/atomicfile"
)

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, atomicfile.Replace(path, strings.NewReader("one")))
	require.NoError(t, atomicfile.Replace(path, strings.NewReader("two")))
	require.Equal(t, "two", content(t, path))

	errRead := errors.New("read")
	err := atomicfile.Replace(path, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errRead)))
	require.ErrorIs(t, err, errRead)
	require.Equal(t, "two", content(t, path))
	require.Error(t, atomicfile.Replace(filepath.Join(dir, "none", "file"), strings.NewReader("x")))
	require.Error(t, atomicfile.Replace(dir, strings.NewReader("x")), "a directory")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left behind")

	t.Chdir(dir)
	require.NoError(t, atomicfile.Replace("file", strings.NewReader("three")))
	require.Equal(t, "three", content(t, path))
}

func TestReplaceALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, []byte("target"), 0o600))
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err) // Windows without the privilege
	}
	require.NoError(t, atomicfile.Replace(link, strings.NewReader("new")))
	require.Equal(t, "target", content(t, target))
	require.Equal(t, "new", content(t, link))
}

func TestRemoveStale(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{".file.1.tmp", ".file.12345.tmp", ".file.x.tmp", ".file.tmp", ".file2.1.tmp", "file", "file.1.tmp"} {
		require.NoError(t, os.WriteFile(name, nil, 0o600))
	}
	atomicfile.RemoveStale("file")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{".file.tmp", ".file.x.tmp", ".file2.1.tmp", "file", "file.1.tmp"}, names)
}
