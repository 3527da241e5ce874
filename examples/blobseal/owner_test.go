//go:build linux

package main

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// asRoot skips a test that needs files of several users.
func asRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of other users")
	}
}

const nobodyID = 65534

func ownerOf(t *testing.T, name string) [2]int {
	t.Helper()
	s := stat(t, name).Sys().(*syscall.Stat_t)
	return [2]int{int(s.Uid), int(s.Gid)}
}

func TestRewrapKeepsOwner(t *testing.T) {
	asRoot(t)
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	require.NoError(t, os.Chown("sealed", nobodyID, nobodyID))
	require.NoError(t, os.Chmod("sealed", 0o460))
	ok(t, args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed")...)
	require.Equal(t, [2]int{nobodyID, nobodyID}, ownerOf(t, "sealed"))
	require.EqualValues(t, 0o460, stat(t, "sealed").Mode().Perm())
}

// A user who may not give files away does not take over a file by rewrapping it.
func TestRewrapRefusesToChangeOwner(t *testing.T) {
	asRoot(t)
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	for _, name := range []string{"sealed", "my.key", "other.key"} {
		require.NoError(t, os.Chmod(name, 0o644))
	}
	require.NoError(t, os.Chmod(".", 0o777))
	before := files(t)
	cmd := command(t, "nobody", args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed")...)
	execute(t, cmd).fails(t, 1, "sealed: not changed: cannot keep its owner 0 and group 0")
	require.Equal(t, before, files(t))
	require.Equal(t, [2]int{0, 0}, ownerOf(t, "sealed"))
	ok(t, args("verify", "-q", customer, "sealed")...)
}

// A named pipe of another user gets nothing, unless --force says so.
func TestOutputToForeignPipe(t *testing.T) {
	asRoot(t)
	workspace(t)
	write(t, "plain", []byte("plain"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	require.NoError(t, syscall.Mkfifo("pipe", 0o666))
	require.NoError(t, os.Symlink("pipe", "link"))
	both, err := os.OpenFile("pipe", os.O_RDWR|syscall.O_NONBLOCK, 0) // so that no open waits
	require.NoError(t, err)
	defer both.Close()
	got := make([]byte, 100)

	ok(t, args("decrypt", customer, "sealed", "pipe")...)
	n, err := both.Read(got)
	require.NoError(t, err)
	require.Equal(t, "plain", string(got[:n]), "a pipe of our own")

	require.NoError(t, os.Chown("pipe", nobodyID, nobodyID))
	for _, test := range [][]string{
		args("decrypt", customer, "sealed", "pipe"),
		args("decrypt", customer, "sealed", "link"),
		args("encrypt", customer, "plain", "pipe"),
	} {
		blobseal(test...).fails(t, 1, test[len(test)-1]+": is a named pipe of another user, who would read it; --force writes to it")
	}
	conn, err := both.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, conn.Control(func(fd uintptr) {
		_, err = syscall.Read(int(fd), got)
		require.ErrorIs(t, err, syscall.EAGAIN, "nothing arrived")
	}))
	ok(t, args("decrypt", customer, "--force", "sealed", "link")...)
	n, err = both.Read(got)
	require.NoError(t, err)
	require.Equal(t, "plain", string(got[:n]))
}
