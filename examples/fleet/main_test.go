package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/program"
)

// TestMain lets the test binary be the program, and its replicas.
func TestMain(m *testing.M) { program.Main(m, main, replicaEnv) }

func TestFleet(t *testing.T) {
	text := program.Output(t, t.TempDir())
	require.Regexp(t, `^bob reads a: written before the rotation
bob rotates to version [0-9a-f.]+
cid reads b: written under the new version
ann, after a restart, reads a and b: written before the rotation and written under the new version
1 object was rewrapped to [0-9a-f.]+
all as it should be
$`, text)
}
