package pgserver

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Attributes has a program run as the user postgres if we are root, which the server
// refuses, and end if we do.
func Attributes() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	uid, gid, err := serverUser()
	if err != nil {
		return nil, err
	}
	if uid != os.Geteuid() {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr, nil
}

// giveAway makes dir the server's user's.
func giveAway(dir string) error {
	uid, gid, err := serverUser()
	if err != nil || uid == os.Geteuid() {
		return err
	}
	return os.Chown(dir, uid, gid)
}

// serverUser returns whom the server runs as.
func serverUser() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid(), nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, fmt.Errorf("pgserver: the package makes this user: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}
