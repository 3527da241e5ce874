package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

func fileStore(t testing.TB, path string) keyring.Store {
	t.Helper()
	store, err := keyring.NewFileStore(path)
	require.NoError(t, err)
	return store
}

// names lists a directory.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestFileStoreModeAndNames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	ring := create(t, fileStore(t, path), nil)
	rotate(t, ring)
	require.ElementsMatch(t, []string{"ring", "ring.lock"}, names(t, dir))
	if runtime.GOOS == "windows" {
		return
	}
	for _, name := range []string{"ring", "ring.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode(), name)
	}
	require.NoError(t, os.Chmod(path, 0o640))
	rotate(t, ring)
	for _, name := range []string{"ring", "ring.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o640), info.Mode(), "%s: who could read it still can", name)
	}
}

func TestFileStorePaths(t *testing.T) {
	_, err := keyring.NewFileStore("")
	require.Error(t, err)

	// A relative path is resolved when the store is made.
	dir := t.TempDir()
	t.Chdir(dir)
	store := fileStore(t, "ring")
	t.Chdir(t.TempDir())
	create(t, store, nil)
	require.FileExists(t, filepath.Join(dir, "ring"))
}

func TestFileStoreThatIsNotMissing(t *testing.T) {
	ctx := t.Context()
	for name, prepare := range map[string]func(t *testing.T, dir, path string){
		"no directory":       func(t *testing.T, dir, path string) { require.NoError(t, os.Remove(dir)) },
		"directory":          func(t *testing.T, dir, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
		"link to nothing":    func(t *testing.T, dir, path string) { require.NoError(t, os.Symlink("nothing", path)) },
		"link to itself":     func(t *testing.T, dir, path string) { require.NoError(t, os.Symlink("ring", path)) },
		"file for directory": func(t *testing.T, dir, path string) { require.NoError(t, os.Remove(dir)); touch(t, dir, 1) },
		"empty":              func(t *testing.T, dir, path string) { touch(t, path, 0) },
		"huge":               func(t *testing.T, dir, path string) { touch(t, path, 1<<40) },
		"a byte too large":   func(t *testing.T, dir, path string) { touch(t, path, keyring.MaxDocumentSize+1) },
		"as large as may be": func(t *testing.T, dir, path string) { touch(t, path, keyring.MaxDocumentSize) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			require.NoError(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "ring")
			prepare(t, dir, path)
			before, _ := os.Lstat(path)
			store := fileStore(t, path)
			ring, err := keyring.Create(ctx, store, keyRoot(t, 1), nil)
			require.Error(t, err)
			require.Nil(t, ring)
			require.NotErrorIs(t, err, keyring.ErrNotExist)
			_, err = store.Swap(ctx, "", []byte("x"))
			require.Error(t, err)
			if !errors.Is(err, keyring.ErrConflict) {
				require.ErrorContains(t, err, dir, "it says which")
			}
			after, _ := os.Lstat(path)
			require.Equal(t, before == nil, after == nil)
			if before != nil {
				require.Equal(t, before.Size(), after.Size())
				require.Equal(t, before.Mode(), after.Mode())
			}
		})
	}
}

func touch(t *testing.T, path string, size int64) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, size))
}

func TestFileStoreThroughLinks(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	target, link, dirLink := filepath.Join(dir, "real", "ring"), filepath.Join(dir, "link"), filepath.Join(dir, "dirlink")
	require.NoError(t, os.Mkdir(filepath.Dir(target), 0o700))
	require.NoError(t, os.Symlink(filepath.Join("real", "ring"), link))
	require.NoError(t, os.Symlink("real", dirLink))

	ring := create(t, fileStore(t, filepath.Join(dirLink, "ring")), nil)
	byLink, byName := reopen(t, fileStore(t, link)), reopen(t, fileStore(t, target))
	rotate(t, byLink)
	require.NoError(t, byName.Refresh(ctx))
	require.NoError(t, ring.Refresh(ctx))
	require.Equal(t, byLink.Versions(), byName.Versions())
	require.Equal(t, byLink.Versions(), ring.Versions())
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSymlink, "the link is still one")
	require.ElementsMatch(t, []string{"ring", "ring.lock"}, names(t, filepath.Dir(target)), "one lock, whatever the path")
}

// A writer removes the temporary files that killed writers left, and no others, not even
// those of another store in the same directory.
func TestFileStoreRemovesStaleFiles(t *testing.T) {
	dir := t.TempDir()
	store := fileStore(t, filepath.Join(dir, "ring"))
	ring := create(t, store, nil)
	stale := []string{".ring.1.tmp", ".ring.4294967295.tmp", ".ring.007.tmp"}
	other := []string{
		".ring..tmp", ".ring.1.tmp~", ".ring.x.tmp", ".ring.1x.tmp", ".ring.-1.tmp", "ring.1.tmp", ".ring1.2.tmp", ".ring.1.2.tmp",
		".ring.bak", "ring.bak", ".Ring.1.tmp", ".other.1.tmp",
	}
	for _, name := range append(append([]string{}, stale...), other...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".ring.5.tmp"), 0o700))
	rotate(t, ring)
	require.ElementsMatch(t, append(other, "ring", "ring.lock", ".ring.5.tmp"), names(t, dir))
}

func TestFileStoreWaitsForTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	store := newHooked()
	store.Store = fileStore(t, path)
	ring := create(t, store, nil)
	lock := flock.New(path + ".lock")
	require.NoError(t, lock.Lock())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	store.set(nil, func(_ context.Context, swap func() error) error {
		time.AfterFunc(50*time.Millisecond, cancel) // while it waits
		return swap()
	})
	_, err := ring.Rotate(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, keyring.ErrStore)
	store.up()
	require.NoError(t, ring.Refresh(t.Context()), "readers take no lock")
	time.AfterFunc(20*time.Millisecond, func() { lock.Unlock() })
	rotate(t, ring)
	require.Len(t, ring.Versions(), 2)
}

// Many goroutines, each with its own store of one file.
func TestFileStoreWithManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	create(t, fileStore(t, path), nil)
	var wg sync.WaitGroup
	const writers, each = 8, 5
	made := make([][]string, writers)
	for w := range writers {
		ring := reopen(t, fileStore(t, path))
		wg.Go(func() {
			for range each {
				info, err := ring.Rotate(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				made[w] = append(made[w], info.ID)
			}
		})
	}
	wg.Wait()
	ring := reopen(t, fileStore(t, path))
	for _, ids := range made {
		for _, id := range ids {
			_, err := ring.Key(t.Context(), id)
			require.NoError(t, err)
		}
	}
}

// A ring that was damaged in place, at any byte, is not taken for a missing one.
func TestFileStoreHoldsADamagedRing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	create(t, fileStore(t, path), nil)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, n := range []int{0, 1, 8, 9, 50, len(data) - 1} {
		require.NoError(t, os.WriteFile(path, data[:n], 0o600))
		_, err := keyring.Open(t.Context(), fileStore(t, path), keyRoot(t, 1), nil)
		require.ErrorIs(t, err, keyring.ErrDamaged, "%d bytes", n)
		_, err = keyring.Create(t.Context(), fileStore(t, path), keyRoot(t, 1), nil)
		require.ErrorIs(t, err, keyring.ErrExist, "%d bytes", n)
	}
	// As an editor in text mode would.
	crlf := strings.ReplaceAll(string(data), "\n", "\r\n")
	require.NoError(t, os.WriteFile(path, []byte(crlf), 0o600))
	_, err = keyring.Open(t.Context(), fileStore(t, path), keyRoot(t, 1), nil)
	require.ErrorIs(t, err, keyring.ErrDamaged)
	require.ErrorContains(t, err, "does not begin")
}

func BenchmarkFileStoreRotate(b *testing.B) {
	ring := create(b, fileStore(b, filepath.Join(b.TempDir(), "ring")), nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := ring.Rotate(b.Context()); err != nil {
			b.Fatal(fmt.Errorf("rotation %d: %w", i, err))
		}
	}
}
