package s3gateway_test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/sse"
)

const partSize = 5 << 20

// uploading is an upload in one mode.
type uploading struct {
	m    mode
	key  string
	id   *string
	done []types.CompletedPart
}

// begin begins an upload.
func begin(t *testing.T, c *s3.Client, m mode, key string) *uploading {
	var headers s3.PutObjectInput
	m.put(&headers)
	out, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
		Bucket: ptr(bucket), Key: &key, Metadata: map[string]string{"camera": "one"}, ContentEncoding: ptr("gzip"),
		ServerSideEncryption: headers.ServerSideEncryption, SSECustomerAlgorithm: headers.SSECustomerAlgorithm,
		SSECustomerKey: headers.SSECustomerKey, SSECustomerKeyMD5: headers.SSECustomerKeyMD5,
	})
	require.NoError(t, err)
	require.Equal(t, headers.ServerSideEncryption, out.ServerSideEncryption)
	return &uploading{m: m, key: key, id: out.UploadId}
}

func (u *uploading) part(t *testing.T, c *s3.Client, number int32, content []byte) {
	var get s3.GetObjectInput
	u.m.get(&get)
	out, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, PartNumber: &number, Body: bytes.NewReader(content),
		SSECustomerAlgorithm: get.SSECustomerAlgorithm, SSECustomerKey: get.SSECustomerKey, SSECustomerKeyMD5: get.SSECustomerKeyMD5,
	})
	require.NoError(t, err)
	u.done = append(u.done, types.CompletedPart{PartNumber: &number, ETag: out.ETag})
}

func (u *uploading) complete(t *testing.T, c *s3.Client, parts ...types.CompletedPart) (*s3.CompleteMultipartUploadOutput, error) {
	return c.CompleteMultipartUpload(t.Context(), u.completion(parts...))
}

func (u *uploading) completion(parts ...types.CompletedPart) *s3.CompleteMultipartUploadInput {
	return &s3.CompleteMultipartUploadInput{
		Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}
}

// TestCompleteNamesMode completes uploads as minio-go does: the request names the
// upload's mode. Another mode is refused.
func TestCompleteNamesMode(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	named := map[string]string{"SSE-S3": "AES256", "SSE-KMS": "aws:kms"}
	for _, m := range modes()[1:] {
		t.Run(m.name, func(t *testing.T) {
			u := begin(t, c, m, m.name+"/named")
			u.part(t, c, 1, text(1000))
			for _, other := range []string{"AES256", "aws:kms", "aws:kms:dsse", "aes"} {
				if other == named[m.name] {
					continue
				}
				_, err := c.CompleteMultipartUpload(t.Context(), u.completion(u.done...), s3.WithAPIOptions(smithyhttp.AddHeaderValue("x-amz-server-side-encryption", other)))
				require.Contains(t, []string{"InvalidRequest", "InvalidArgument"}, code(err), other)
			}
			var options []func(*s3.Options)
			if name := named[m.name]; name != "" {
				options = append(options, s3.WithAPIOptions(smithyhttp.AddHeaderValue("x-amz-server-side-encryption", name)))
			}
			_, err := c.CompleteMultipartUpload(t.Context(), u.completion(u.done...), options...)
			require.NoError(t, err)
		})
	}
}

// TestUploadsInEveryMode uploads parts out of order through two gateways, one part twice, and a
// small last part. The first gateway is killed, and another one completes the upload.
func TestUploadsInEveryMode(t *testing.T) {
	s := newSetup(t)
	first, c := s.startWithBucket(t)
	one, two, three := text(partSize), text(partSize+12345), text(777)
	whole := bytes.Join([][]byte{one, two, three}, nil)
	var uploads []*uploading
	for _, m := range modes()[1:] {
		u := begin(t, c, m, m.name+"/big")
		u.part(t, c, 7, two)
		u.part(t, c, 2, three) // superseded
		u.part(t, c, 2, one)
		uploads = append(uploads, u)
	}
	underway, never := make(chan struct{}), make(chan struct{})
	cut := make(chan error, 1)
	go func() { cut <- slowPart(t, c, uploads[0], sync.OnceFunc(func() { close(underway) }), never) }()
	await.Value(t, underway, "a part to be under way")
	first.kill()
	close(never)
	require.Error(t, await.Value(t, cut, "a part to fail with its gateway"))
	c = s.start(t).client(t)
	for _, u := range uploads {
		t.Run(u.m.name, func(t *testing.T) {
			u.part(t, c, 9, three)
			list, err := c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: ptr(bucket), Key: &u.key, UploadId: u.id})
			require.NoError(t, err)
			require.Len(t, list.Parts, 3)
			require.Equal(t, int64(777), *list.Parts[2].Size)
			require.Equal(t, *u.done[3].ETag, *list.Parts[2].ETag)

			_, err = u.complete(t, c, u.done[1], u.done[0])
			require.Equal(t, "InvalidPart", code(err), "a superseded part")
			_, err = u.complete(t, c, u.done[0], u.done[2])
			require.Equal(t, "InvalidPartOrder", code(err))
			out, err := u.complete(t, c, u.done[2], u.done[0], u.done[3])
			require.NoError(t, err)
			again, err := u.complete(t, c, u.done[2], u.done[0], u.done[3])
			require.NoError(t, err)
			require.Equal(t, *out.ETag, *again.ETag)
			if u.m.name == "SSE-S3" {
				var sums []byte
				for _, p := range [][]byte{one, two, three} {
					sum := md5.Sum(p)
					sums = append(sums, sum[:]...)
				}
				require.Equal(t, fmt.Sprintf(`"%x-3"`, md5.Sum(sums)), *out.ETag)
			}

			get := func(edit func(*s3.GetObjectInput)) *s3.GetObjectOutput {
				in := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &u.key}
				u.m.get(in)
				edit(in)
				got, err := c.GetObject(t.Context(), in)
				require.NoError(t, err)
				return got
			}
			got := get(func(*s3.GetObjectInput) {})
			require.True(t, bytes.Equal(whole, readAll(t, got.Body)))
			require.Equal(t, *out.ETag, *got.ETag)
			require.Equal(t, "gzip", *got.ContentEncoding)
			require.Equal(t, map[string]string{"camera": "one"}, got.Metadata)
			got = get(func(in *s3.GetObjectInput) { in.Range = ptr(fmt.Sprintf("bytes=%d-%d", partSize-5, partSize+5)) })
			require.Equal(t, whole[partSize-5:partSize+6], readAll(t, got.Body))
			got = get(func(in *s3.GetObjectInput) { in.PartNumber = ptr(int32(3)) })
			require.Equal(t, three, readAll(t, got.Body))
			require.Equal(t, int32(3), *got.PartsCount)

			objects, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket), Prefix: ptr(u.m.name)})
			require.NoError(t, err)
			require.Equal(t, int64(len(whole)), *objects.Contents[0].Size)
			head := &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &u.key}
			u.m.head(head)
			headed, err := c.HeadObject(t.Context(), head)
			require.NoError(t, err)
			require.Equal(t, int64(len(whole)), *headed.ContentLength)
		})
	}
	requireNoRecords(t, s)

	ring, _, err := open(t.Context(), s)
	require.NoError(t, err)
	files, err := fileblob.OpenBucket(s.path("data/"+bucket), nil)
	require.NoError(t, err)
	defer files.Close()
	b, err := blob.NewBucket(files, bucket, sse.NewManaged(ring), nil)
	require.NoError(t, err)
	got, err := b.ReadAll(t.Context(), "SSE-S3/big")
	require.NoError(t, err)
	require.True(t, bytes.Equal(whole, got))
}

// requireNoRecords checks that no records of uploads are left.
func requireNoRecords(t *testing.T, s setup) {
	left, err := os.ReadDir(s.path("data/blobseal-gateway-state/uploads/" + bucket))
	if err == nil {
		require.Empty(t, left)
	}
}

// TestFailedCompletionKeepsParts: a completion that lists some of the parts fails at the
// end, and the next lists all.
func TestFailedCompletionKeepsParts(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("x")})
	require.NoError(t, err)
	u := begin(t, c, modes()[1], "k")
	one, two := text(partSize), text(99)
	u.part(t, c, 1, one)
	u.part(t, c, 2, two)
	for range 2 {
		_, err = c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
			Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, IfNoneMatch: ptr("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: u.done[:1]},
		})
		require.Equal(t, "PreconditionFailed", code(err))
	}
	_, err = u.complete(t, c, u.done...)
	require.NoError(t, err)
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: &u.key})
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(bytes.Clone(one), two...), readAll(t, out.Body)))
}

func TestUploadErrors(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	customer := begin(t, c, modes()[3], "customer")
	_, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: ptr(bucket), Key: ptr("customer"), UploadId: customer.id, PartNumber: ptr(int32(1)), Body: strings.NewReader("x"),
	})
	require.Equal(t, "InvalidRequest", code(err), "a part without the upload's key")
	other := newCustomerKey(8)
	_, err = c.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: ptr(bucket), Key: ptr("customer"), UploadId: customer.id, PartNumber: ptr(int32(1)), Body: strings.NewReader("x"),
		SSECustomerAlgorithm: ptr("AES256"), SSECustomerKey: &other.key, SSECustomerKeyMD5: &other.sum,
	})
	require.Equal(t, "InvalidRequest", code(err), "a part with another key")
	_, err = c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: ptr(bucket), Key: ptr("customer"), UploadId: ptr("none")})
	require.Equal(t, "NoSuchUpload", code(err))

	small := begin(t, c, modes()[1], "small")
	small.part(t, c, 1, text(100))
	small.part(t, c, 2, text(100))
	_, err = small.complete(t, c, small.done...)
	require.Equal(t, "EntityTooSmall", code(err))
	_, err = small.complete(t, c, types.CompletedPart{PartNumber: ptr(int32(3)), ETag: ptr("x")})
	require.Equal(t, "InvalidPart", code(err))
	_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("small")})
	require.Equal(t, "NotFound", code(err))
	for _, u := range []*uploading{customer, small} {
		_, err = c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: ptr(bucket), Key: &u.key, UploadId: u.id})
		require.NoError(t, err)
	}
	requireNoRecords(t, s)
}

func TestPartCopies(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	want := text(partSize + 100)
	for _, from := range modes()[1:] {
		in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("src"), Body: bytes.NewReader(want)}
		from.put(in)
		_, err := c.PutObject(t.Context(), in)
		require.NoError(t, err)
		for _, to := range modes()[1:] {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				u := begin(t, c, to, "dst")
				var get s3.GetObjectInput
				to.get(&get)
				for i, r := range []string{"bytes=50-" + fmt.Sprint(partSize+49), "bytes=0-49"} {
					out, err := c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
						Bucket: ptr(bucket), Key: ptr("dst"), UploadId: u.id, PartNumber: ptr(int32(i + 1)),
						CopySource: ptr(bucket + "/src"), CopySourceRange: &r,
						SSECustomerAlgorithm: get.SSECustomerAlgorithm, SSECustomerKey: get.SSECustomerKey, SSECustomerKeyMD5: get.SSECustomerKeyMD5,
						CopySourceSSECustomerAlgorithm: in.SSECustomerAlgorithm, CopySourceSSECustomerKey: in.SSECustomerKey,
						CopySourceSSECustomerKeyMD5: in.SSECustomerKeyMD5,
					})
					require.NoError(t, err)
					u.done = append(u.done, types.CompletedPart{PartNumber: ptr(int32(i + 1)), ETag: out.CopyPartResult.ETag})
				}
				_, err := u.complete(t, c, u.done...)
				require.NoError(t, err)
				get.Bucket, get.Key = ptr(bucket), ptr("dst")
				out, err := c.GetObject(t.Context(), &get)
				require.NoError(t, err)
				require.True(t, bytes.Equal(append(bytes.Clone(want[50:partSize+50]), want[:50]...), readAll(t, out.Body)))
			})
		}
	}
}

// TestUploadChecksums checks the checksums of whole objects, which are computed from those of
// their parts.
func TestUploadChecksums(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	content := text(partSize + 1000)
	for _, kind := range []types.ChecksumType{types.ChecksumTypeFullObject, types.ChecksumTypeComposite} {
		t.Run(string(kind), func(t *testing.T) {
			create, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
				Bucket: ptr(bucket), Key: ptr("k"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32, ChecksumType: kind,
			})
			require.NoError(t, err)
			var parts []types.CompletedPart
			for i, p := range [][]byte{content[:partSize], content[partSize:]} {
				out, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
					Bucket: ptr(bucket), Key: ptr("k"), UploadId: create.UploadId, PartNumber: ptr(int32(i + 1)),
					Body: bytes.NewReader(p), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
				})
				require.NoError(t, err)
				parts = append(parts, types.CompletedPart{PartNumber: ptr(int32(i + 1)), ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
			}
			done, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: ptr(bucket), Key: ptr("k"), UploadId: create.UploadId, ChecksumType: kind,
				MpuObjectSize: ptr(int64(len(content))), MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
			})
			require.NoError(t, err)
			got, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), ChecksumMode: types.ChecksumModeEnabled})
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, readAll(t, got.Body)))
			require.Equal(t, *done.ChecksumCRC32, *got.ChecksumCRC32)
			require.Equal(t, kind, got.ChecksumType)
		})
	}
}

// TestDamagedUpload flips bits of a composite object, cuts it and swaps its parts. A
// response is the object or an error; only filler and padding may change unseen.
func TestDamagedUpload(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	u := begin(t, c, modes()[1], "k")
	one, two := text(partSize), text(partSize+1)
	u.part(t, c, 1, one)
	u.part(t, c, 2, two)
	_, err := u.complete(t, c, u.done...)
	require.NoError(t, err)
	want := append(bytes.Clone(one), two...)
	file := s.path("data/" + bucket + "/k")
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	read := func(damaged []byte, byteRange *string) ([]byte, error) {
		return readDamaged(t, c, file, damaged, byteRange)
	}
	got, err := read(good, nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	n := len(good)
	for _, at := range []int{0, 7, 8, 9, 11, 12, 40, 68, 20_000, partSize / 2, partSize + 4000, n / 2, n - 2000, n - 700, n - 300, n - 31, n - 20, n - 10, n - 1} {
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		if got, err := read(flipped, nil); err == nil {
			require.True(t, bytes.Equal(want, got), "byte %d", at)
		}
	}
	for _, cut := range []int{0, 5, 1000, partSize, n / 2, n - 1000, n - 32, n - 1} {
		_, err := read(good[:cut], nil)
		require.Error(t, err, "cut at %d", cut)
		_, err = read(good[:cut], ptr("bytes=0-9"))
		require.Error(t, err, "range, cut at %d", cut)
	}
	_, err = read(append(bytes.Clone(good), 0), nil)
	require.Error(t, err)
}
