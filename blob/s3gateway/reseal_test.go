package s3gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
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

// overS3 starts a gateway over another S3 server, with a proxy in between.
func overS3(t *testing.T) (store *server, between *proxy, gateway *server) {
	bare := newSetup(t)
	bare.Bare, bare.Plain = true, true
	store = bare.start(t)
	between = startProxy(t, store.url)
	s := newSetup(t)
	s.Inner = between.url
	return store, between, s.start(t)
}

// TestCopiesOverS3MoveNoBody copies objects between modes and onto themselves, and
// counts the bytes that pass between the gateway and the server that has the objects.
func TestCopiesOverS3MoveNoBody(t *testing.T) {
	store, between, g := overS3(t)
	c := g.client(t)
	newBucket(t, c)
	whole := text(40 << 20)
	for name, bound := range map[string]int64{"simple": 5<<20 + 32<<10, "parts": 32 << 10} {
		t.Run(name, func(t *testing.T) {
			if name == "simple" {
				putIn(t, c, modes()[1], "a", whole)
			} else {
				putParts(t, c, modes()[1], "a", whole[:11<<20], whole[11<<20:30<<20], whole[30<<20:])
			}
			for _, step := range copies() {
				between.reset()
				in := copyInput(step.from, urlEscape(step.src), step.to, step.dst)
				out, err := c.CopyObject(t.Context(), in)
				require.NoError(t, err)
				require.Contains(t, *out.CopyObjectResult.ETag, "-")
				sent, received := between.counts()
				require.Less(t, sent, bound, "%s to %s", step.src, step.dst)
				require.Less(t, received, bound+2*70<<10, "%s to %s", step.src, step.dst)
				get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &step.dst, Range: ptr("bytes=20000000-20000999")}
				step.to.get(get)
				read, err := c.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.True(t, bytes.Equal(whole[20_000_000:20_001_000], readAll(t, read.Body)))
			}
			requireObject(t, c, modes()[2], "e", whole)
			uploads, err := store.client(t).ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket)})
			require.NoError(t, err)
			require.Empty(t, uploads.Uploads)
		})
	}
}

// TestCopiesOverFilesKeepTheBody copies objects between modes and onto themselves, in a
// bucket with versions. The stored bodies are those of the source.
func TestCopiesOverFilesKeepTheBody(t *testing.T) {
	s := newSetup(t)
	c := s.start(t).client(t)
	newBucket(t, c)
	_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: ptr(bucket), VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	require.NoError(t, err)
	whole := text(6 << 20)
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
				requireObject(t, c, step.to, step.dst, whole)
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
				out, err := c.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.True(t, bytes.Equal(whole, readAll(t, out.Body)))
				in := copyInput(m, "e%3FversionId="+*v.VersionId, modes()[2], fmt.Sprintf("from-%d", i))
				_, err = c.CopyObject(t.Context(), in)
				require.NoError(t, err)
				requireObject(t, c, modes()[2], fmt.Sprintf("from-%d", i), whole)
			}
		})
	}
}

// TestCopyETags: an ETag that is the MD5 of plaintext does not leave SSE-S3, and no
// other ETag looks like one.
func TestCopyETags(t *testing.T) {
	c := newSetup(t).start(t).client(t)
	newBucket(t, c)
	putIn(t, c, modes()[1], "a", text(70_000))
	etags := map[string]string{}
	for _, step := range copies()[:4] {
		out, err := c.CopyObject(t.Context(), copyInput(step.from, urlEscape(step.src), step.to, step.dst))
		require.NoError(t, err)
		etags[step.dst] = *out.CopyObjectResult.ETag
	}
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("a")})
	require.NoError(t, err)
	require.NotContains(t, *head.ETag, "-")
	for name, etag := range etags {
		require.Contains(t, etag, "-", name)
	}
	out, err := c.CopyObject(t.Context(), copyInput(modes()[1], "a", modes()[1], "f"))
	require.NoError(t, err)
	require.Equal(t, *head.ETag, *out.CopyObjectResult.ETag)
}

// TestCopyConditions: a copy can demand what its destination is.
func TestCopyConditions(t *testing.T) {
	_, _, over := overS3(t)
	for name, g := range map[string]*server{"files": newSetup(t).start(t), "S3": over} {
		t.Run(name, func(t *testing.T) {
			c := g.client(t)
			newBucket(t, c)
			sources := map[string]int{"small": 70_000}
			if name == "S3" {
				sources["big"] = 10 << 20
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

// changing is an object in another S3 server that tests replace while it is copied.
type changing struct {
	inner   *s3.Client
	between *proxy
}

// overwrite puts a stored object, which was written under the name "src", back there.
func (c *changing) overwrite(t *testing.T, with string) {
	_, err := c.inner.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: ptr("src"), CopySource: ptr(bucket + "/" + with)})
	if err != nil {
		t.Error(err)
	}
}

// save keeps the stored object "src" under another name.
func (c *changing) save(t *testing.T, as string) {
	_, err := c.inner.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: &as, CopySource: ptr(bucket + "/src")})
	require.NoError(t, err)
}

// during calls change when the first request of an operation comes.
func (c *changing) during(t *testing.T, operation string, change func()) {
	var once sync.Once
	c.between.intercept(func(got string, r *http.Request) {
		if got == operation {
			once.Do(change)
		}
	})
	t.Cleanup(func() { c.between.intercept(nil) })
}

// requireNoUploads fails if a copy left an upload behind.
func (c *changing) requireNoUploads(t *testing.T) {
	t.Helper()
	uploads, err := c.inner.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	require.Empty(t, uploads.Uploads)
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

// TestCopiesOfChangingObjects replaces the source while a server copies it, onto itself
// or elsewhere. The copy is of one version, and a newer version is not lost.
func TestCopiesOfChangingObjects(t *testing.T) {
	store, between, g := overS3(t)
	c := g.client(t)
	newBucket(t, c)
	x := &changing{store.client(t), between}
	old, next := text(10<<20+20_000), text(10<<20)
	putIn(t, c, modes()[1], "src", next)
	x.save(t, "next")
	putIn(t, c, modes()[1], "src", old)
	x.save(t, "simple")
	putParts(t, c, modes()[1], "src", old[:5<<20], old[5<<20:])
	x.save(t, "parts")
	for _, kind := range []string{"simple", "parts"} {
		for _, operation := range []string{"CreateMultipartUpload", "UploadPartCopy", "UploadPart", "CompleteMultipartUpload"} {
			t.Run(kind+"/during "+operation, func(t *testing.T) {
				x.overwrite(t, kind)
				x.during(t, operation, func() { x.overwrite(t, "next") })
				_, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "dst"))
				require.NoError(t, err)
				want := next
				if operation == "CompleteMultipartUpload" || operation == "UploadPart" && kind == "parts" {
					want = old // the server had copied all of it
				}
				requireEnds(t, c, modes()[2], "dst", want)
				requireEnds(t, c, modes()[1], "src", next)
				x.requireNoUploads(t)
			})
			t.Run(kind+"/onto itself during "+operation, func(t *testing.T) {
				x.overwrite(t, kind)
				x.during(t, operation, func() { x.overwrite(t, "next") })
				_, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "src"))
				require.NoError(t, err)
				requireEnds(t, c, modes()[2], "src", next)
				x.requireNoUploads(t)
			})
		}
		t.Run(kind+"/onto itself, changing for ever", func(t *testing.T) {
			x.overwrite(t, kind)
			turns := map[bool]string{true: kind, false: "next"}
			turn := false
			between.intercept(func(operation string, r *http.Request) { // one at a time
				if operation == "CompleteMultipartUpload" {
					x.overwrite(t, turns[turn])
					turn = !turn
				}
			})
			t.Cleanup(func() { between.intercept(nil) })
			_, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "src"))
			require.Equal(t, "OperationAborted", code(err))
			x.requireNoUploads(t)
		})
	}
}

// TestFailedCopiesLeaveNothing lets each request of a copy fail in its turn.
func TestFailedCopiesLeaveNothing(t *testing.T) {
	store, between, g := overS3(t)
	c := g.client(t)
	newBucket(t, c)
	x := &changing{store.client(t), between}
	content := text(10 << 20)
	putIn(t, c, modes()[1], "simple", content)
	putParts(t, c, modes()[1], "parts", content[:5<<20], content[5<<20:])
	for _, kind := range []string{"simple", "parts"} {
		for _, operation := range []string{"CreateMultipartUpload", "UploadPartCopy", "UploadPart", "CompleteMultipartUpload"} {
			t.Run(kind+"/"+operation, func(t *testing.T) {
				between.intercept(func(got string, r *http.Request) {
					if got == operation {
						r.Header.Set("Authorization", "none")
					}
				})
				_, err := c.CopyObject(t.Context(), copyInput(modes()[1], kind, modes()[2], "never"))
				require.Error(t, err)
				between.intercept(nil)
				x.requireNoUploads(t)
				_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("never")})
				require.Error(t, err)
			})
		}
	}
}

// TestDamagedSource copies objects whose stored bodies lost a bit or their end: the
// copies do not read as whole.
func TestDamagedSource(t *testing.T) {
	s := newSetup(t)
	c := s.start(t).client(t)
	newBucket(t, c)
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
