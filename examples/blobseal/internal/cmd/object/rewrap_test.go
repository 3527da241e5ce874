package object

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/sse"
)

// sealed writes a sealed file and returns its path and its cipher.
func sealed(t *testing.T, text string) (string, *sse.Customer) {
	t.Helper()
	cipher, err := sse.NewCustomer([]byte(strings.Repeat("\x07k", 16)))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "sealed")
	seal(t, path, text, cipher)
	return path, cipher
}

func seal(t *testing.T, path, text string, cipher sse.Encrypter) {
	t.Helper()
	e, err := cipher.Encrypt(t.Context(), sse.Object{})
	require.NoError(t, err)
	env, err := e.Envelope().WithSize(EnvelopeUnit)
	require.NoError(t, err)
	head, err := env.MarshalBinary()
	require.NoError(t, err)
	body, err := io.ReadAll(e.Reader(strings.NewReader(text)))
	require.NoError(t, err)
	temp := path + ".new"
	require.NoError(t, os.WriteFile(temp, append(head, body...), 0o600))
	require.NoError(t, os.Rename(temp, path))
}

// A file that another process puts in place while rewrap copies the old one stays.
func TestReplaceLosesNoWrite(t *testing.T) {
	path, cipher := sealed(t, "old")
	in, err := file.OpenToReplace(t.Context(), path)
	require.NoError(t, err)
	o, err := readObject(in)
	require.NoError(t, err)
	defer o.Close()
	seal(t, path, "new", cipher)
	newest, err := os.ReadFile(path)
	require.NoError(t, err)

	job := Job{Console: console.New(nil, nil, io.Discard)}
	require.ErrorContains(t, job.Replace(t.Context(), o, &Changed{Head: make([]byte, 2048), Stay: o.bodyAt()}), path+": not changed: the file was replaced meanwhile")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, newest, after)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// misnaming seals data keys for another object than it was asked to.
type misnaming struct{ sse.Cipher }

func (m misnaming) Rewrap(ctx context.Context, obj sse.Object, d *sse.Decryption) (*sse.Envelope, error) {
	obj.Key += "?"
	return m.Cipher.Rewrap(ctx, obj, d)
}

// Rewrap proves that the new envelope opens before it replaces the file.
func TestRewrapProvesTheEnvelope(t *testing.T) {
	path, cipher := sealed(t, "text")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	job := Job{Console: console.New(nil, io.Discard, io.Discard), source: &keys.Keys{Cipher: cipher}, target: &keys.Keys{Cipher: misnaming{cipher}}}
	require.ErrorContains(t, job.run(t.Context(), path), path+": not changed: the new envelope does not open")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)

	job.target = job.source
	require.NoError(t, job.run(t.Context(), path))
}

// interrupting calls a function before it seals a data key again.
type interrupting struct {
	sse.Cipher
	meanwhile func()
}

func (i interrupting) Rewrap(ctx context.Context, obj sse.Object, d *sse.Decryption) (*sse.Envelope, error) {
	i.meanwhile()
	return i.Cipher.Rewrap(ctx, obj, d)
}

// A new envelope never goes in front of another body.
func TestRewrapNoticesAnotherBody(t *testing.T) {
	path, cipher := sealed(t, "old")
	other, _ := sealed(t, "new")
	text, err := os.ReadFile(other)
	require.NoError(t, err)
	overwrite := func() { require.NoError(t, os.WriteFile(path, text, 0o600)) }
	job := Job{Console: console.New(nil, io.Discard, io.Discard), source: &keys.Keys{Cipher: cipher}, target: &keys.Keys{Cipher: interrupting{cipher, overwrite}}}
	require.ErrorContains(t, job.run(t.Context(), path), path+": not changed: the file changed meanwhile")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, after)
}
