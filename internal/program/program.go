// Package program lets a test binary be the program that it tests.
package program

import (
	"os"
	"os/exec"
	"testing"
)

const env = "BLOBSEAL_TEST_PROGRAM"

// Main runs main in a process that [Output] started, or in one that has one of these
// environment variables. In any other it runs the tests. It is a TestMain.
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
// returns what the program writes.
func Output(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), env+"=1", "TMPDIR="+dir)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("program failed: %v: %s", err, text)
	}
	return string(text)
}
