// Package program lets a test binary run as the program that it tests.
package program

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
)

const env = "BLOBSEAL_TEST_PROGRAM"

// Main is a TestMain. It runs main in a process that [Start] or [Output] started, or that
// has one of these environment variables. In any other process it runs the tests.
func Main(m *testing.M, main func(), variables ...string) {
	for _, name := range append(variables, env) {
		if os.Getenv(name) != "" {
			main()
			return
		}
	}
	os.Exit(m.Run())
}

// Output runs the program, which must succeed, with its temporary files in dir. It
// returns the program's output.
func Output(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := command(args)
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("program failed: %v: %s", err, text)
	}
	return string(text)
}

// Process is a program that runs while a test talks to it.
type Process struct {
	*exec.Cmd
	Stdin  io.Closer // closing it ends the standard input of the program
	Stdout *bufio.Scanner
	Stderr *bytes.Buffer // complete once Wait has returned
}

// Start starts the program.
func Start(t testing.TB, args ...string) *Process {
	t.Helper()
	p := &Process{Cmd: command(args), Stderr: new(bytes.Buffer)}
	p.Cmd.Stderr = p.Stderr
	in, inErr := p.StdinPipe()
	out, outErr := p.StdoutPipe()
	if err := errors.Join(inErr, outErr, p.Cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p.Stdin, p.Stdout = in, bufio.NewScanner(out)
	return p
}

func command(args []string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), env+"=1")
	return cmd
}
