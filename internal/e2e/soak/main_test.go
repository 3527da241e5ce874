package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/pgserver"
	"github.com/blobseal/blobseal/internal/testbed/program"
)

// TestMain lets the test binary be the program, and its replicas.
func TestMain(m *testing.M) { program.Main(m, main, replicaEnv) }

// TestSoak runs the program, which checks what it reports.
func TestSoak(t *testing.T) {
	for name, args := range map[string][]string{
		"PostgreSQL": nil,
		"SQLite":     {"-dsn", "file:" + filepath.Join(t.TempDir(), "fleet.db")},
	} {
		t.Run(name, func(t *testing.T) {
			if args == nil && pgserver.Programs() == "" {
				t.Skip("no PostgreSQL: apt-get install postgresql")
			}
			dir, err := os.MkdirTemp("", "blobseal-soak-test-") // t.TempDir is closed to PostgreSQL's user
			require.NoError(t, err)
			defer os.RemoveAll(dir)
			require.NoError(t, os.Chmod(dir, 0o711))
			text := program.Output(t, dir, append(args, "-replicas", "4", "-seconds", "3")...)
			for _, line := range []string{
				"^" + name + ", 4 replicas\n",
				`\nobjects    [1-9]\d* written and all read back; `,
				`\nkills      [1-9]\d* replicas were killed and replaced\n`,
				`\n           it wrote [1-9]\d* objects and read [1-9]`,
				`\n           - .*[0-9a-f]{16}\.[0-9a-f]{8}: .*could not refresh: .*store failed: `,
				`\n           - .*: key service is unavailable: `,
				`\nSSE-KMS arn:blobseal:kms:local:000000000000:key/\S+  [1-9]`,
				`\nall as it should be\n$`,
			} {
				require.Regexp(t, line, text)
			}
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// The program fails if a run does not show what it should.
func TestSoakFails(t *testing.T) {
	f := &fleet{counts: make(map[string]int)}
	f.noteUnless(true, "this holds")
	require.NoError(t, f.verdict())
	f.noteUnless(false, "that does not hold")
	f.noteProblem("%s is lost", "x/1")
	require.EqualError(t, f.verdict(), "2 things are not as they should be:\n  not proved: that does not hold\n  x/1 is lost")
}
