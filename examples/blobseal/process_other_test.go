//go:build !linux

package main

// beCommand makes the test binary the command.
func beCommand() { main() }
