//go:build !linux

package pgserver

import "syscall"

// Attributes are the system's own: whoever starts a server stops it.
func Attributes() (*syscall.SysProcAttr, error) { return nil, nil }

func giveAway(string) error { return nil }
