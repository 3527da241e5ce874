package s3gateway_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

// TestFullDisk fills the disk of a gateway over files. Writes then fail and leave nothing,
// existing objects stay, and everything works again once there is space.
func TestFullDisk(t *testing.T) {
	s := newSetup(t)
	if err := syscall.Mount("none", s.path("data"), "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small disk takes root: mount: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(s.path("data"), 0)) })
	g := s.start(t)
	t.Cleanup(g.kill) // before the disk goes
	c := g.client(t)
	newBucket(t, c)
	put := func(key string, content []byte) error {
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(content)})
		return err
	}
	get := func(key string) []byte {
		t.Helper()
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key})
		require.NoError(t, err)
		return readAll(t, out.Body)
	}
	first, part, last := text(200_000), text(partSize), text(600_000)
	require.NoError(t, put("first", first))
	u := begin(t, c, modes()[1], "parts")
	u.part(t, c, 1, part)

	require.Equal(t, "InsufficientStorage", storageCode(put("big", text(30<<20))), "an object larger than the disk")
	filler := s.path("data/filler")
	fill(t, filler)
	for _, size := range []int{50_000, 5 << 20} {
		require.Equal(t, "InsufficientStorage", storageCode(put("new", text(size))))
		require.Equal(t, "InsufficientStorage", storageCode(put("first", text(size))), "in place of another")
	}
	_, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, PartNumber: ptr(int32(2)), Body: bytes.NewReader(last),
	})
	require.Equal(t, "InsufficientStorage", storageCode(err))
	_, err = u.complete(t, c, u.done...)
	require.Equal(t, "InsufficientStorage", storageCode(err))
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket)})
	require.NoError(t, err)
	require.Len(t, list.Contents, 1)
	require.Equal(t, first, get("first"))

	require.NoError(t, os.Remove(filler))
	u.part(t, c, 2, last)
	_, err = u.complete(t, c, u.done...)
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(bytes.Clone(part), last...), get("parts")))
	require.NoError(t, put("new", last))
	require.Equal(t, last, get("new"))
	left, err := filepath.Glob(s.path("data/" + bucket + "/.sgwtmp/*"))
	require.NoError(t, err)
	for _, path := range left { // the engine's directories may stay, and are empty
		entries, err := os.ReadDir(path)
		require.NoError(t, err)
		require.Empty(t, entries, path)
	}
}

// storageCode returns "InsufficientStorage" for each of the codes that say so.
func storageCode(err error) string {
	c := code(err)
	for _, full := range []string{"NoSpaceLeftOnDevice", "XMinioStorageFull", "InsufficientCapacity", "StorageFull"} {
		if strings.EqualFold(c, full) {
			return "InsufficientStorage"
		}
	}
	return c
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		_, err := f.Write(block)
		if errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
			continue
		}
		require.NoError(t, err)
	}
}
