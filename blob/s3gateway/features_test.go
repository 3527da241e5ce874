package s3gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

func TestPrincipalsAndAudit(t *testing.T) {
	s := newSetup(t)
	client := s.keyClient(t)
	owner := kms.WithPrincipal(t.Context(), kms.Principal{ID: rootUser})
	id, err := client.CreateKey(owner, &localkms.CreateKeyInput{Policy: `permit (principal == Principal::"` + rootUser + `", action, resource);`})
	require.NoError(t, err)
	g, c := s.startWithBucket(t)
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: ptr(bucket), Key: ptr("audited"), Body: strings.NewReader("x"),
		ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: &id.ID,
	})
	require.NoError(t, err)
	trail, err := os.ReadFile(s.path(fmt.Sprintf("trail-%d", g.cmd.Process.Pid)))
	require.NoError(t, err)
	for _, word := range []string{`"id":"` + rootUser + `"`, id.ID, bucket + "/audited", "GenerateDataKey"} {
		require.Contains(t, string(trail), word)
	}
	createUser(t, g, "bob", "bob-secret")
	allowAll(t, c)
	bob := g.clientAs(t, "bob", "bob-secret")
	_, err = bob.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("audited")})
	require.Equal(t, "AccessDenied", code(err))
	_, err = bob.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("bobs"), Body: strings.NewReader("x")})
	require.NoError(t, err)
}

func TestPresigned(t *testing.T) {
	g, c := newSetup(t).startWithBucket(t)
	presign := s3.NewPresignClient(c)
	in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), ServerSideEncryption: types.ServerSideEncryptionAwsKms}
	put, err := presign.PresignPutObject(t.Context(), in)
	require.NoError(t, err)
	response := send(t, g, put, "text")
	require.Equal(t, 200, response.StatusCode, "%s", readAll(t, response.Body))
	require.Equal(t, "aws:kms", response.Header.Get("x-amz-server-side-encryption"))
	get, err := presign.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k")})
	require.NoError(t, err)
	response = send(t, g, get, "")
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, "text", string(readAll(t, response.Body)))
}

func TestConditions(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	ctx := context.WithoutCancel(t.Context())
	put, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("x"), IfNoneMatch: ptr("*")})
	require.NoError(t, err)
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("y"), IfNoneMatch: ptr("*")})
	require.Equal(t, "PreconditionFailed", code(err))
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("y"), IfMatch: put.ETag})
	require.NoError(t, err)
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), IfMatch: put.ETag})
	require.Equal(t, "PreconditionFailed", code(err))
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), IfMatch: put.ETag, Range: ptr("bytes=0-0")})
	require.Equal(t, "PreconditionFailed", code(err))
}

// TestVersionsOfUploads replaces objects that were uploaded in parts, and restores them.
func TestVersionsOfUploads(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: ptr(bucket), VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	require.NoError(t, err)
	want := text(partSize + 99)
	u := begin(t, c, modes()[1], "k")
	u.part(t, c, 1, want[:partSize])
	u.part(t, c, 2, want[partSize:])
	done, err := u.complete(t, c, u.done...)
	require.NoError(t, err)
	check := func(version *string) {
		t.Helper()
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), VersionId: version})
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, readAll(t, out.Body)))
		require.Equal(t, *done.ETag, *out.ETag)
		out, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), VersionId: version, PartNumber: ptr(int32(2))})
		require.NoError(t, err)
		require.Equal(t, want[partSize:], readAll(t, out.Body))
		require.Equal(t, int32(2), *out.PartsCount)
	}
	put, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("in its place")})
	require.NoError(t, err)
	check(done.VersionId)
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: ptr(bucket), Key: ptr("k"), VersionId: put.VersionId})
	require.NoError(t, err)
	check(nil)
	marker, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: ptr(bucket), Key: ptr("k")})
	require.NoError(t, err)
	check(done.VersionId)
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: ptr(bucket), Key: ptr("k"), VersionId: marker.VersionId})
	require.NoError(t, err)
	check(nil)
}

func TestVersions(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	status := func(s types.BucketVersioningStatus) {
		_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: ptr(bucket), VersioningConfiguration: &types.VersioningConfiguration{Status: s}})
		require.NoError(t, err)
	}
	put := func(text string) string {
		out, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader(text)})
		require.NoError(t, err)
		if out.VersionId == nil {
			return "null"
		}
		return *out.VersionId
	}
	get := func(id *string) string {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), VersionId: id})
		require.NoError(t, err)
		whole := string(readAll(t, out.Body))
		out, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), VersionId: id, Range: ptr("bytes=1-")})
		require.NoError(t, err)
		require.Equal(t, whole[1:], string(readAll(t, out.Body)))
		return whole
	}
	status(types.BucketVersioningStatusEnabled)
	first, second := put("first"), put("second one")
	require.Equal(t, "second one", get(nil))
	require.Equal(t, "first", get(&first))
	require.Equal(t, "second one", get(&second))
	status(types.BucketVersioningStatusSuspended)
	put("third one of them")
	require.Equal(t, "third one of them", get(nil))
	require.Equal(t, "first", get(&first))
	list, err := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	var sizes []int64
	for _, v := range list.Versions {
		sizes = append(sizes, *v.Size)
	}
	require.ElementsMatch(t, []int64{5, 10, 17}, sizes)
}

// TestBlobReadsObjects reads a gateway's objects with package blob.
func TestBlobReadsObjects(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	want := text(50_000)
	for _, m := range modes()[1:] {
		in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("dir/" + m.name), Body: bytes.NewReader(want)}
		m.put(in)
		_, err := c.PutObject(t.Context(), in)
		require.NoError(t, err)
	}
	ring, _, err := open(t.Context(), s)
	require.NoError(t, err)
	kmsMode, err := sse.NewKMS(s.keyClient(t), localkms.DefaultAlias, &sse.KMSOptions{Accept: sse.AnyKey})
	require.NoError(t, err)
	files, err := fileblob.OpenBucket(s.path("data/"+bucket), nil)
	require.NoError(t, err)
	defer files.Close()
	b, err := blob.NewBucket(files, bucket, sse.NewManaged(ring), &blob.Options{
		Decrypters: sse.ByMode{sse.ModeKMS: kmsMode, sse.ModeCustomer: ssetest.NewCustomer(t, 7)},
	})
	require.NoError(t, err)
	reader, err := b.With(blob.Request{AnyContext: true})
	require.NoError(t, err)
	for _, m := range modes()[1:] {
		got, err := reader.ReadAll(t.Context(), "dir/"+m.name)
		require.NoError(t, err, m.name)
		require.Equal(t, want, got, m.name)
	}
}

// TestChecksums sends right and wrong checksums of every algorithm.
func TestChecksums(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	for _, algorithm := range []types.ChecksumAlgorithm{
		types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmSha1,
		types.ChecksumAlgorithmSha256, types.ChecksumAlgorithmCrc64nvme,
	} {
		t.Run(string(algorithm), func(t *testing.T) {
			put, err := c.PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("hello"), ChecksumAlgorithm: algorithm,
			})
			require.NoError(t, err)
			attributes, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
				Bucket: ptr(bucket), Key: ptr("k"),
				ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesChecksum, types.ObjectAttributesObjectSize, types.ObjectAttributesEtag},
			})
			require.NoError(t, err)
			require.Equal(t, int64(5), *attributes.ObjectSize)
			require.Equal(t, strings.Trim(*put.ETag, `"`), *attributes.ETag)
			require.Equal(t, put.ChecksumCRC32, attributes.Checksum.ChecksumCRC32)
			require.Equal(t, put.ChecksumSHA256, attributes.Checksum.ChecksumSHA256)
		})
	}
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: ptr(bucket), Key: ptr("new"), Body: strings.NewReader("hello"), ChecksumCRC32: ptr("AAAAAA=="),
	})
	require.Equal(t, "BadDigest", code(err))
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: ptr(bucket), Key: ptr("new"), Body: strings.NewReader("hello"), ContentMD5: ptr("AAAAAAAAAAAAAAAAAAAAAA=="),
	})
	require.Equal(t, "BadDigest", code(err))
	_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("new")})
	require.Equal(t, "NotFound", code(err))
}

// TestDirectories uses empty objects whose keys end in a slash.
func TestDirectories(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	put, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("dir/")})
	require.NoError(t, err)
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("dir/")})
	require.NoError(t, err)
	require.Empty(t, readAll(t, out.Body))
	require.Equal(t, *put.ETag, *out.ETag)
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("dir/"), Range: ptr("bytes=0-1")})
	require.Equal(t, "InvalidRange", code(err))
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("dir/"), Body: strings.NewReader("x")})
	require.Equal(t, "DirectoryObjectContainsData", code(err))
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket)})
	require.NoError(t, err)
	require.Equal(t, *put.ETag, *list.Contents[0].ETag)
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: ptr("copy/"), CopySource: ptr(bucket + "/dir/")})
	require.NoError(t, err)
}
