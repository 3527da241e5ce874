package freeport_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// A server can take the port, and it is none of the system's own choice.
func TestGet(t *testing.T) {
	port := freeport.Get(t)
	require.Less(t, port, 32_768)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
