package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

const programEnv = "BLOBSEAL_TEST_PROGRAM"

// TestMain lets the test binary be the program, and its replicas.
func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" || os.Getenv(replicaEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestFleet(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), programEnv+"=1")
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	require.Regexp(t, `^bob reads a: written before the rotation
bob rotates to version [0-9a-f.]+
cid reads b: written under the new version
ann, after a restart, reads a and b: written before the rotation and written under the new version
1 object was rewrapped to [0-9a-f.]+
all as it should be
$`, string(text))
}
