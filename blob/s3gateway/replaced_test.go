package s3gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/s3gateway"
	"github.com/blobseal/blobseal/internal/testbed/await"
)

// pausingFiles pauses a gateway when it reads the tags of an object "paused-..." for the first
// time: it writes a file with the object's name and ".seen" to a directory, and continues when
// there is a file with ".resume".
type pausingFiles struct {
	*s3gateway.Files
	dir    string
	paused sync.Map // by key
}

func (p *pausingFiles) GetObjectTagging(ctx context.Context, bucket, key, version string) (map[string]string, error) {
	tags, err := p.Files.GetObjectTagging(ctx, bucket, key, version)
	if !strings.HasPrefix(key, "paused-") {
		return tags, err
	}
	if _, before := p.paused.LoadOrStore(key, true); before {
		return tags, err
	}
	if err := os.WriteFile(filepath.Join(p.dir, key+".seen"), nil, 0o600); err != nil {
		return nil, err
	}
	return tags, waitForFile(filepath.Join(p.dir, key+".resume"), err)
}

// waitForFile returns err when there is a file.
func waitForFile(path string, err error) error {
	for deadline := time.Now().Add(await.Longest); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, statErr := os.Stat(path); statErr == nil {
			return err
		}
	}
	return fmt.Errorf("waited in vain for %s", path)
}

// TestTagsOverS3WhileUpdated changes the tags of an object in another S3 server while its
// encryption is updated. The new tags stay.
func TestTagsOverS3WhileUpdated(t *testing.T) {
	x, c := newChanging(t)
	_, key := newKey(t, x.gateway.setup)
	whole := text(2*partSize + 70_000)
	putParts(t, c, modes()[1], "k", whole[:partSize], whole[partSize:])
	x.changeDuring(t, "UploadPartCopy", func() {
		_, err := x.inner.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{
			Bucket: ptr(bucket), Key: ptr("k"), Tagging: &types.Tagging{TagSet: []types.Tag{{Key: ptr("a"), Value: ptr("new")}}},
		})
		if err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, update(t, c, "k", key))
	tags, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: ptr(bucket), Key: ptr("k")})
	require.NoError(t, err)
	require.Len(t, tags.TagSet, 1)
	require.Equal(t, "new", *tags.TagSet[0].Value)
	require.Equal(t, key, *head(t, c, "k").SSEKMSKeyId)
	requireObject(t, c, modes()[2], "k", whole)
	x.requireNoUploads(t)
}

// TestChangesBehindAnETag updates the encryption of objects and copies them onto themselves,
// while a client makes changes that do not change the ETag. The changes stay.
func TestChangesBehindAnETag(t *testing.T) {
	for name, sidecar := range map[string]bool{"extended attributes": false, "SideCarDir": true} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t)
			s.Pause, s.Unversioned, s.SideCar = true, true, sidecar
			c := s.start(t).client(t)
			_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(bucket), ObjectLockEnabledForBucket: ptr(true)})
			require.NoError(t, err)
			_, key := newKey(t, s)
			during := func(t *testing.T, name string, operate func() error, change func()) error {
				result := make(chan error, 1)
				go func() { result <- operate() }()
				require.NoError(t, waitForFile(s.path(name+".seen"), nil))
				change()
				require.NoError(t, os.WriteFile(s.path(name+".resume"), nil, 0o600))
				return await.Value(t, result, "the operation to end")
			}
			operations := map[string]func(name string) func() error{
				"update": func(name string) func() error { return func() error { return update(t, c, name, key) } },
				"copy": func(name string) func() error {
					return func() error {
						_, err := c.CopyObject(t.Context(), copyInput(modes()[1], name, modes()[2], name))
						return err
					}
				},
			}
			whole := text(100_000)
			for operation, operate := range operations {
				t.Run(operation+" and tags", func(t *testing.T) {
					name := "paused-tags-" + operation
					putIn(t, c, modes()[1], name, whole)
					require.NoError(t, during(t, name, operate(name), func() {
						_, err := c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{
							Bucket: ptr(bucket), Key: &name, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: ptr("a"), Value: ptr("new")}}},
						})
						require.NoError(t, err)
					}))
					tags, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: ptr(bucket), Key: &name})
					require.NoError(t, err)
					require.Len(t, tags.TagSet, 1)
					require.Equal(t, "new", *tags.TagSet[0].Value)
					require.Equal(t, types.ServerSideEncryptionAwsKms, head(t, c, name).ServerSideEncryption)
					requireObject(t, c, modes()[2], name, whole)
				})
				t.Run(operation+" and metadata", func(t *testing.T) {
					name := "paused-metadata-" + operation
					putIn(t, c, modes()[1], name, whole)
					require.NoError(t, during(t, name, operate(name), func() {
						in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: &name, Body: strings.NewReader(string(whole)), Metadata: map[string]string{"camera": "two"}}
						modes()[1].put(in)
						_, err := c.PutObject(t.Context(), in)
						require.NoError(t, err)
					}))
					got := head(t, c, name)
					require.Equal(t, "two", got.Metadata["camera"])
					require.Equal(t, types.ServerSideEncryptionAwsKms, got.ServerSideEncryption)
				})
				t.Run(operation+" and legal hold", func(t *testing.T) {
					name := "paused-hold-" + operation
					putIn(t, c, modes()[1], name, whole)
					require.Equal(t, "AccessDenied", code(during(t, name, operate(name), func() {
						_, err := c.PutObjectLegalHold(t.Context(), &s3.PutObjectLegalHoldInput{
							Bucket: ptr(bucket), Key: &name, LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOn},
						})
						require.NoError(t, err)
					})))
					hold, err := c.GetObjectLegalHold(t.Context(), &s3.GetObjectLegalHoldInput{Bucket: ptr(bucket), Key: &name})
					require.NoError(t, err)
					require.Equal(t, types.ObjectLockLegalHoldStatusOn, hold.LegalHold.Status)
					require.Equal(t, types.ServerSideEncryptionAes256, head(t, c, name).ServerSideEncryption)
				})
			}
		})
	}
}

// TestReadsWhileTheSameContentIsStored reads an object while writers store the same
// content again, under new data keys. The ETag stays, and no read fails.
func TestReadsWhileTheSameContentIsStored(t *testing.T) {
	g, c := newSetup(t).startWithBucket(t)
	whole := text(100_000)
	put := func() error {
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: bytes.NewReader(whole)})
		return err
	}
	require.NoError(t, put())
	// A writer stores the content once for each read that finds the writer idle, so that
	// the object changes at most twice during a read.
	reads := make(chan struct{})
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for range reads {
				if err := put(); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
	}
	overlap := func() {
		select {
		case reads <- struct{}{}:
		default:
		}
	}
	for range 100 {
		overlap()
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Range: ptr("bytes=20000-29999")})
		if assert.NoError(t, err) {
			assert.True(t, bytes.Equal(whole[20_000:30_000], readAll(t, out.Body)), "the range")
		}
		overlap()
		_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("k")})
		assert.NoError(t, err)
	}
	close(reads)
	writers.Wait()
	require.NotContains(t, g.log.String(), "request failed")
}
