package s3gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/localkms"
)

// copyInput returns the request that copies the object at src, in one mode, to dst, in
// another.
func copyInput(from mode, src string, to mode, dst string) *s3.CopyObjectInput {
	var source s3.GetObjectInput
	from.get(&source)
	var headers s3.PutObjectInput
	to.put(&headers)
	return &s3.CopyObjectInput{
		Bucket: ptr(bucket), Key: &dst, CopySource: ptr(bucket + "/" + src),
		CopySourceSSECustomerAlgorithm: source.SSECustomerAlgorithm, CopySourceSSECustomerKey: source.SSECustomerKey,
		CopySourceSSECustomerKeyMD5: source.SSECustomerKeyMD5, ServerSideEncryption: headers.ServerSideEncryption,
		SSECustomerAlgorithm: headers.SSECustomerAlgorithm, SSECustomerKey: headers.SSECustomerKey,
		SSECustomerKeyMD5: headers.SSECustomerKeyMD5,
	}
}

// putIn stores content in a mode.
func putIn(t *testing.T, c *s3.Client, m mode, key string, content []byte) {
	in := &s3.PutObjectInput{
		Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(content), Metadata: map[string]string{"camera": "one"},
		ContentEncoding: ptr("gzip"), Tagging: ptr("a=b"),
	}
	m.put(in)
	_, err := c.PutObject(t.Context(), in)
	require.NoError(t, err)
}

// putParts stores content in a mode, in parts of 5 MiB and more.
func putParts(t *testing.T, c *s3.Client, m mode, key string, parts ...[]byte) {
	u := begin(t, c, m, key)
	for i, part := range parts {
		u.part(t, c, int32(i+1), part)
	}
	_, err := u.complete(t, c, u.done...)
	require.NoError(t, err)
}

// requireObject reads an object, as a whole and its end.
func requireObject(t *testing.T, c *s3.Client, m mode, key string, want []byte) {
	t.Helper()
	get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key}
	m.get(get)
	out, err := c.GetObject(t.Context(), get)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, readAll(t, out.Body)), "%s differs", key)
	require.Equal(t, "one", out.Metadata["camera"])
	require.Equal(t, "gzip", *out.ContentEncoding)
	get.Range = ptr("bytes=-70000")
	out, err = c.GetObject(t.Context(), get)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want[len(want)-70_000:], readAll(t, out.Body)), "the end of %s differs", key)
}

// copies is a way through the modes, the last step of which is a copy onto itself.
func copies() []struct {
	from, to mode
	src, dst string
} {
	m := modes()
	return []struct {
		from, to mode
		src, dst string
	}{
		{m[1], m[2], "a", "b c+d%ü"}, {m[2], m[3], "b c+d%ü", "c"}, {m[3], m[1], "c", "d"},
		{m[1], m[1], "d", "e"}, {m[1], m[3], "e", "e"}, {m[3], m[2], "e", "e"},
	}
}

// TestCopiesOverFilesKeepTheBody copies objects between modes and onto themselves, in a
// bucket with versions. The stored bodies are those of the source.
func TestCopiesOverFilesKeepTheBody(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: ptr(bucket), VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	require.NoError(t, err)
	whole := text(5<<20 + 100_000)
	for _, name := range []string{"simple", "parts"} {
		t.Run(name, func(t *testing.T) {
			if name == "simple" {
				putIn(t, c, modes()[1], "a", whole)
			} else {
				putParts(t, c, modes()[1], "a", whole[:5<<20], whole[5<<20:])
			}
			source, err := os.ReadFile(s.path("data/" + bucket + "/a"))
			require.NoError(t, err)
			for i, step := range copies() {
				in := copyInput(step.from, urlEscape(step.src), step.to, step.dst)
				if i == 5 { // the version that a copy has just replaced
					in.MetadataDirective, in.Metadata, in.ContentEncoding = "REPLACE", map[string]string{"camera": "one"}, ptr("gzip")
				}
				out, err := c.CopyObject(t.Context(), in)
				require.NoError(t, err, "%s to %s", step.src, step.dst)
				stored, err := os.ReadFile(s.path("data/" + bucket + "/" + step.dst))
				require.NoError(t, err)
				require.Len(t, stored, len(source))
				require.True(t, bytes.Equal(source[512:5<<20], stored[512:5<<20]), "%s to %s: another body", step.src, step.dst)
				require.False(t, bytes.Equal(source, stored))
				require.NotEmpty(t, *out.VersionId)
				requireEnds(t, c, step.to, step.dst, whole)
				head := &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &step.dst, ChecksumMode: types.ChecksumModeEnabled}
				step.to.head(head)
				got, err := c.HeadObject(t.Context(), head)
				require.NoError(t, err)
				require.Equal(t, *out.CopyObjectResult.ETag, *got.ETag)
				require.Equal(t, out.CopyObjectResult.ChecksumCRC32, got.ChecksumCRC32)
				require.Equal(t, out.CopyObjectResult.ChecksumCRC64NVME, got.ChecksumCRC64NVME)
				require.True(t, got.ChecksumCRC32 != nil || got.ChecksumCRC64NVME != nil)
				require.Equal(t, int64(len(whole)), *got.ContentLength)
			}
			versions, err := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: ptr(bucket), Prefix: ptr("e")})
			require.NoError(t, err)
			for i, v := range versions.Versions[:3] { // newest first
				m := []mode{modes()[2], modes()[3], modes()[1]}[i]
				get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("e"), VersionId: v.VersionId}
				m.get(get)
				_, err := c.GetObject(t.Context(), get)
				require.NoError(t, err)
				in := copyInput(m, "e%3FversionId="+*v.VersionId, modes()[2], fmt.Sprintf("from-%d", i))
				_, err = c.CopyObject(t.Context(), in)
				require.NoError(t, err)
				requireObject(t, c, modes()[2], fmt.Sprintf("from-%d", i), whole)
			}
		})
	}
}

// TestCopyETags: a copy in SSE-KMS or SSE-C does not have an ETag that is the MD5 of
// plaintext, whether its source is in SSE-S3 or was updated from there.
func TestCopyETags(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	_, key := newKey(t, s)
	managed, kms, customer := modes()[1], modes()[2], modes()[3]
	content := text(partSize + 70_000)
	for _, kind := range []string{"simple", "parts"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "simple" {
				putIn(t, c, managed, "managed", content)
			} else {
				putParts(t, c, managed, "managed", content[:partSize], content[partSize:])
			}
			etag := *head(t, c, "managed").ETag
			for _, step := range []struct {
				from, to mode
				src, dst string
				keeps    bool // the first object's ETag
			}{
				{managed, managed, "managed", "updated", true},
				{managed, kms, "managed", "kms", false},
				{managed, customer, "managed", "customer", false},
				{kms, customer, "kms", "customer", false},
				{customer, managed, "customer", "back", false},
				// As of here, "updated" is in SSE-KMS.
				{kms, managed, "updated", "managed again", true},
				{kms, kms, "updated", "kms", false},
				{kms, customer, "updated", "customer", false},
				{customer, kms, "customer", "kms", false},
				{kms, kms, "updated", "updated", false},
			} {
				if step.dst == "managed again" {
					require.NoError(t, update(t, c, "updated", key))
					require.Equal(t, etag, *head(t, c, "updated").ETag)
				}
				out, err := c.CopyObject(t.Context(), copyInput(step.from, step.src, step.to, step.dst))
				require.NoError(t, err)
				got := *out.CopyObjectResult.ETag
				require.Equal(t, step.keeps, got == etag, "%s to %s: %s", step.src, step.dst, got)
				require.Equal(t, !step.keeps || kind == "parts", strings.Contains(got, "-"), "%s to %s: %s", step.src, step.dst, got)
			}
		})
	}
}

// TestCopyConditions: a copy can have conditions on its destination.
func TestCopyConditions(t *testing.T) {
	_, _, over := overS3(t)
	for name, g := range map[string]*server{"files": newSetup(t).start(t), "S3": over} {
		t.Run(name, func(t *testing.T) {
			c := g.client(t)
			newBucket(t, c)
			sources := map[string]int{"small": 70_000}
			if name == "S3" {
				sources["big"] = 8 << 20
			}
			for src, size := range sources {
				putIn(t, c, modes()[1], src, text(size))
				in := copyInput(modes()[1], src, modes()[2], "to-"+src)
				in.IfNoneMatch = ptr("*")
				first, err := c.CopyObject(t.Context(), in)
				require.NoError(t, err)
				_, err = c.CopyObject(t.Context(), in)
				require.Equal(t, "PreconditionFailed", code(err))
				in.IfNoneMatch, in.IfMatch = nil, ptr(`"0123456789abcdef0123456789abcdef"`)
				_, err = c.CopyObject(t.Context(), in)
				require.Equal(t, "PreconditionFailed", code(err))
				in.IfMatch = first.CopyObjectResult.ETag
				_, err = c.CopyObject(t.Context(), in)
				require.NoError(t, err)
				in.IfMatch, in.CopySourceIfMatch = nil, ptr(`"0123456789abcdef0123456789abcdef"`)
				_, err = c.CopyObject(t.Context(), in)
				require.Equal(t, "PreconditionFailed", code(err))

				head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &src})
				require.NoError(t, err)
				onto := copyInput(modes()[1], src, modes()[2], src)
				onto.IfMatch = ptr(`"0123456789abcdef0123456789abcdef"`)
				_, err = c.CopyObject(t.Context(), onto)
				require.Equal(t, "PreconditionFailed", code(err))
				onto.IfMatch = head.ETag
				_, err = c.CopyObject(t.Context(), onto)
				require.NoError(t, err)
			}
		})
	}
}

// requireEnds reads the first and the last bytes of an object.
func requireEnds(t *testing.T, c *s3.Client, m mode, key string, want []byte) {
	t.Helper()
	for asked, want := range map[string][]byte{"bytes=0-999": want[:1000], "bytes=-1000": want[len(want)-1000:]} {
		get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key, Range: &asked}
		m.get(get)
		out, err := c.GetObject(t.Context(), get)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, readAll(t, out.Body)), "%s of %s differs", asked, key)
	}
}

// TestDamagedSource copies objects whose stored bodies lost a bit or their end: the
// copies do not read as whole.
func TestDamagedSource(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	content := text(5<<20 + 70_000)
	putIn(t, c, modes()[1], "simple", content)
	putParts(t, c, modes()[1], "parts", content[:5<<20], content[5<<20:])
	for _, kind := range []string{"simple", "parts"} {
		path := s.path("data/" + bucket + "/" + kind)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{1, 2, 3}, 3<<20)
		require.NoError(t, err)
		_, err = c.CopyObject(t.Context(), copyInput(modes()[1], kind, modes()[2], "copy"))
		require.NoError(t, err) // the store's damage stays where it is
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("copy")})
		require.NoError(t, err)
		got, err := io.ReadAll(out.Body)
		out.Body.Close()
		require.Error(t, err)
		require.True(t, bytes.HasPrefix(content, got))

		info, err := f.Stat()
		require.NoError(t, err)
		require.NoError(t, f.Truncate(info.Size()-16400*3-5))
		require.NoError(t, f.Close())
		_, err = c.CopyObject(t.Context(), copyInput(modes()[1], kind, modes()[2], "cut"))
		if err != nil {
			continue
		}
		out, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("cut")})
		if err == nil {
			_, err = io.Copy(io.Discard, out.Body)
			out.Body.Close()
		}
		require.Error(t, err)
	}
}

// TestCopiesNeedBothKeys: a copy needs the right to open its source and to use the key
// of its destination. A refused copy stores nothing.
func TestCopiesNeedBothKeys(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	client := s.keyClient(t)
	var ids [2]string
	for i := range ids {
		made, err := client.CreateKey(t.Context(), &localkms.CreateKeyInput{})
		require.NoError(t, err)
		ids[i] = made.ID
		in := &s3.PutObjectInput{
			Bucket: ptr(bucket), Key: ptr(fmt.Sprintf("under-%d", i)), Body: bytes.NewReader(text(70_000)),
			ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: &ids[i],
		}
		_, err = c.PutObject(t.Context(), in)
		require.NoError(t, err)
	}
	refused := func(src, dst string, keyID *string) string {
		in := copyInput(modes()[1], src, modes()[2], dst)
		in.SSEKMSKeyId = keyID
		_, err := c.CopyObject(t.Context(), in)
		return code(err)
	}
	require.NoError(t, client.DisableKey(t.Context(), ids[1]))
	require.Equal(t, "KMS.DisabledException", refused("under-0", "copy", &ids[1]))
	require.Equal(t, "KMS.DisabledException", refused("under-1", "copy", &ids[0]))
	require.Equal(t, "KMS.DisabledException", refused("under-0", "under-0", &ids[1]))
	_, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("copy")})
	require.Error(t, err)
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("under-0")})
	require.NoError(t, err)
	require.Equal(t, ids[0], keyName(*out.SSEKMSKeyId))
	require.True(t, bytes.Equal(text(70_000), readAll(t, out.Body)))
}

// keyName returns the id of a key from its ARN, if it is one.
func keyName(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }
