package layers

import (
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// consumer is a service that encrypts, and uses nothing but the three packages.
const consumer = `package main

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

func main() {
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "consumer"})
	root, err := keyring.NewPassphraseRoot([]byte("correct horse battery staple"), nil)
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		log.Fatal(err)
	}
	var dst bytes.Buffer
	w, err := sse.NewWriter(ctx, &dst, sse.NewManaged(ring), sse.Object{Bucket: "b", Key: "k"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Print("sealed")
}
`

// TestConsumersBuild: who imports sse, kms and keyring links these modules and
// no others: no cloud SDK, no database driver, no policy engine, no gocloud.
func TestConsumersBuild(t *testing.T) {
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	for name, text := range map[string]string{
		"main.go": consumer,
		"go.sum":  string(sums),
		"go.mod": "module example.com/consumer\n\ngo 1.26.0\n\nrequire " + module + " v0.0.0\n\nreplace " +
			module + " => " + filepath.ToSlash(root) + "\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	binary := filepath.Join(dir, "consumer.exe")
	run("go", "build", "-o", binary, ".")
	require.True(t, strings.HasSuffix(run(binary), "sealed"))

	info, err := buildinfo.ReadFile(binary)
	require.NoError(t, err)
	var linked []string
	for _, dep := range info.Deps {
		linked = append(linked, dep.Path)
	}
	t.Logf("linked: %s", strings.Join(linked, ", "))
	require.Equal(t, []string{
		module,
		"github.com/gofrs/flock",
		"github.com/tink-crypto/tink-go/v2",
		"golang.org/x/crypto",
		"golang.org/x/sys",
		"google.golang.org/protobuf",
	}, linked)
}
