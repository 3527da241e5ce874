//go:build unix

package keyring_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// A rotation by root's cron leaves the ring and its lock to the service that owns them.
// One who is not root may give files to a group of theirs only.
func TestFileStoreKeepsTheOwner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	ring := create(t, fileStore(t, path), nil)
	require.NoError(t, os.Remove(path+".lock"), "whoever rotates next makes it again")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 23456
	} else if groups, err := os.Getgroups(); err == nil && len(groups) > 0 {
		gid = groups[len(groups)-1]
	}
	require.NoError(t, os.Chown(path, uid, gid))
	require.NoError(t, os.Chmod(path, 0o640))
	rotate(t, ring)
	rotate(t, ring)
	for _, name := range []string{path, path + ".lock"} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		stat := info.Sys().(*syscall.Stat_t)
		require.Equal(t, []int{uid, gid}, []int{int(stat.Uid), int(stat.Gid)}, name)
		require.Equal(t, os.FileMode(0o640), info.Mode().Perm(), name)
	}
}

// Nobody gets a file of root's by putting it where the lock belongs.
func TestFileStoreLeavesWhatIsNoLockOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	ring := create(t, fileStore(t, path), nil)
	require.NoError(t, os.Chmod(path, 0o644))
	for name, prepare := range map[string]func(victim string) error{
		"link":      func(victim string) error { return os.Symlink(victim, path+".lock") },
		"hard link": func(victim string) error { return os.Link(victim, path+".lock") },
	} {
		victim := filepath.Join(dir, "victim of a "+name)
		require.NoError(t, os.WriteFile(victim, []byte("secret"), 0o600))
		require.NoError(t, os.Remove(path+".lock"))
		require.NoError(t, prepare(victim))
		_, err := ring.Rotate(t.Context())
		if err != nil {
			require.ErrorIs(t, err, keyring.ErrStore)
		}
		info, err := os.Stat(victim)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
}
