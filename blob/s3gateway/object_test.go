package s3gateway_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

const bucket = "photos"

// text returns n bytes that do not repeat.
func text(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	r.Read(p)
	return p
}

func ptr[T any](v T) *T { return &v }

// customerKey is a customer's key with its MD5, as headers have them.
type customerKey struct{ key, sum string }

func newCustomerKey(seed byte) customerKey {
	raw := bytes.Repeat([]byte{seed}, 32)
	sum := md5.Sum(raw)
	return customerKey{base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(sum[:])}
}

// mode sets the headers with which an object is written and read.
type mode struct {
	name string
	put  func(*s3.PutObjectInput)
	get  func(*s3.GetObjectInput)
	head func(*s3.HeadObjectInput)
}

func modes() []mode {
	key := newCustomerKey(7)
	nothing := mode{get: func(*s3.GetObjectInput) {}, head: func(*s3.HeadObjectInput) {}}
	return []mode{
		{"default", func(*s3.PutObjectInput) {}, nothing.get, nothing.head},
		{"SSE-S3", func(in *s3.PutObjectInput) { in.ServerSideEncryption = types.ServerSideEncryptionAes256 }, nothing.get, nothing.head},
		{"SSE-KMS", func(in *s3.PutObjectInput) { in.ServerSideEncryption = types.ServerSideEncryptionAwsKms }, nothing.get, nothing.head},
		{"SSE-C", func(in *s3.PutObjectInput) {
			in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = ptr("AES256"), &key.key, &key.sum
		}, func(in *s3.GetObjectInput) {
			in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = ptr("AES256"), &key.key, &key.sum
		}, func(in *s3.HeadObjectInput) {
			in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = ptr("AES256"), &key.key, &key.sum
		}},
	}
}

// newBucket creates the bucket, which allows customer keys.
func newBucket(t *testing.T, c *s3.Client) {
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	allowCustomerKeys(t, c, types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256})
}

func allowCustomerKeys(t *testing.T, c *s3.Client, by types.ServerSideEncryptionByDefault) {
	_, err := c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{
		Bucket: ptr(bucket),
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &by,
			BlockedEncryptionTypes:             &types.BlockedEncryptionTypes{EncryptionType: []types.EncryptionType{types.EncryptionTypeNone}},
		}}},
	})
	require.NoError(t, err)
}

// code returns the code of S3's error, and the status.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return fmt.Sprint(err)
}

func readAll(t *testing.T, body io.ReadCloser) []byte {
	t.Helper()
	defer body.Close()
	p, err := io.ReadAll(body)
	require.NoError(t, err)
	return p
}

func TestObjectsInEveryMode(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			for _, size := range []int{0, 1, sse.ChunkSize - 1, sse.ChunkSize, sse.ChunkSize + 1, 3 * sse.ChunkSize, 100_000} {
				key := fmt.Sprintf("%s/%d", m.name, size)
				want := text(size)
				in := &s3.PutObjectInput{
					Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(want), ContentType: ptr("image/x"),
					ContentEncoding: ptr("gzip"), Metadata: map[string]string{"camera": "one"}, Tagging: ptr("a=b"),
				}
				m.put(in)
				put, err := c.PutObject(t.Context(), in)
				require.NoError(t, err)

				get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key, ChecksumMode: types.ChecksumModeEnabled}
				m.get(get)
				out, err := c.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.Equal(t, want, readAll(t, out.Body))
				require.Equal(t, int64(size), *out.ContentLength)
				require.Equal(t, *put.ETag, *out.ETag)
				require.Equal(t, "image/x", *out.ContentType)
				require.Equal(t, "gzip", *out.ContentEncoding)
				require.Equal(t, map[string]string{"camera": "one"}, out.Metadata)
				require.Equal(t, put.ChecksumCRC32, out.ChecksumCRC32)
				require.NotNil(t, out.ChecksumCRC32)

				headIn := &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &key}
				m.head(headIn)
				head, err := c.HeadObject(t.Context(), headIn)
				require.NoError(t, err)
				require.Equal(t, int64(size), *head.ContentLength)
				require.Equal(t, *put.ETag, *head.ETag)
				require.Equal(t, map[string]string{"camera": "one"}, head.Metadata)

				sum := md5.Sum(want)
				isMD5 := strings.Trim(*put.ETag, `"`) == hex.EncodeToString(sum[:])
				switch m.name {
				case "SSE-C":
					require.Equal(t, newCustomerKey(7).sum, *out.SSECustomerKeyMD5)
					require.False(t, isMD5)
				case "SSE-KMS":
					require.Equal(t, types.ServerSideEncryptionAwsKms, out.ServerSideEncryption)
					require.Equal(t, types.ServerSideEncryptionAwsKms, head.ServerSideEncryption)
					require.Contains(t, *out.SSEKMSKeyId, "arn:")
					require.False(t, isMD5)
				default:
					require.Equal(t, types.ServerSideEncryptionAes256, out.ServerSideEncryption)
					require.Equal(t, types.ServerSideEncryptionAes256, put.ServerSideEncryption)
					require.True(t, isMD5)
				}
			}
			list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket), Prefix: ptr(m.name + "/")})
			require.NoError(t, err)
			require.Len(t, list.Contents, 7)
			for _, o := range list.Contents {
				require.Equal(t, fmt.Sprintf("%s/%d", m.name, *o.Size), *o.Key)
			}
		})
	}
}

func TestRanges(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	want := text(5*sse.ChunkSize + 3)
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: bytes.NewReader(want)})
	require.NoError(t, err)
	n := len(want)
	for _, r := range []struct{ from, to int }{
		{0, 0}, {0, n - 1}, {1, n + 100}, {sse.ChunkSize - 1, sse.ChunkSize}, {sse.ChunkSize, 2*sse.ChunkSize - 1},
		{n - 1, n - 1}, {n - 4, n - 1}, {5 * sse.ChunkSize, n - 1}, {4 * sse.ChunkSize, 5*sse.ChunkSize - 1},
	} {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Range: ptr(fmt.Sprintf("bytes=%d-%d", r.from, r.to))})
		require.NoError(t, err, r)
		last := min(r.to, n-1)
		require.Equal(t, want[r.from:last+1], readAll(t, out.Body), r)
		require.Equal(t, fmt.Sprintf("bytes %d-%d/%d", r.from, last, n), *out.ContentRange)
	}
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Range: ptr("bytes=-5")})
	require.NoError(t, err)
	require.Equal(t, want[n-5:], readAll(t, out.Body))
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Range: ptr(fmt.Sprintf("bytes=%d-", n))})
	require.Equal(t, "InvalidRange", code(err))
}

// TestErrors tests the rows of S3's errors that requests to a gateway can get. Package s3wire
// tests every row. It is long because each answer follows its request.
func TestErrors(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	key := newCustomerKey(7)
	put := func(name string, edit func(*s3.PutObjectInput)) error {
		in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: &name, Body: strings.NewReader("text")}
		edit(in)
		_, err := c.PutObject(t.Context(), in)
		return err
	}
	get := func(name string, edit func(*s3.GetObjectInput)) error {
		in := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &name}
		edit(in)
		out, err := c.GetObject(t.Context(), in)
		if err == nil {
			out.Body.Close()
		}
		return err
	}
	customer := func(k customerKey) func(*s3.PutObjectInput) {
		return func(in *s3.PutObjectInput) {
			in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = ptr("AES256"), &k.key, &k.sum
		}
	}
	reader := func(k customerKey) func(*s3.GetObjectInput) {
		return func(in *s3.GetObjectInput) {
			in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = ptr("AES256"), &k.key, &k.sum
		}
	}
	none := func(*s3.GetObjectInput) {}
	kmsKey := func(id string) func(*s3.PutObjectInput) {
		return func(in *s3.PutObjectInput) {
			in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryptionAwsKms, &id
		}
	}
	require.NoError(t, put("customer", customer(key)))
	require.NoError(t, put("managed", func(*s3.PutObjectInput) {}))

	require.Equal(t, "InvalidRequest", code(get("customer", none)))
	require.Equal(t, "AccessDenied", code(get("customer", reader(newCustomerKey(8)))))
	require.Equal(t, "InvalidRequest", code(get("managed", reader(key))))
	require.Equal(t, "NoSuchKey", code(get("absent", none)))
	require.Equal(t, "KMS.NotFoundException", code(put("new", kmsKey("alias/none"))))
	require.Equal(t, "InvalidArgument", code(put("new", customer(customerKey{key.key, newCustomerKey(9).sum}))))
	require.Equal(t, "InvalidArgument", code(put("new", func(in *s3.PutObjectInput) { in.ServerSideEncryption = "aes:kms" })))
	require.Equal(t, "InvalidArgument", code(put("new", func(in *s3.PutObjectInput) { in.Metadata = map[string]string{"blobseal-mode": "x"} })))
	require.Equal(t, "KMS.NotFoundException", code(put("new", func(in *s3.PutObjectInput) {
		kmsKey("alias/none")(in)
		in.Body = bytes.NewReader(text(4 << 20))
	})), "the answer to a long upload")
	require.Equal(t, "NoSuchKey", code(get("new", none)), "a refused request stored something")

	client := s.keyClient(t)
	id, err := client.CreateKey(t.Context(), &localkms.CreateKeyInput{})
	require.NoError(t, err)
	require.NoError(t, put("kms", kmsKey(id.ID)))
	require.NoError(t, get("kms", none))
	require.NoError(t, client.DisableKey(t.Context(), id.ID))
	require.Equal(t, "KMS.DisabledException", code(put("new", kmsKey(id.ID))))
	require.Equal(t, "KMS.DisabledException", code(get("kms", none)))
	_, err = client.ScheduleKeyDeletion(t.Context(), id.ID, 7)
	require.NoError(t, err)
	require.Equal(t, "KMS.KMSInvalidStateException", code(get("kms", none)))
}

func TestPlainHTTPRefusesCustomerKeys(t *testing.T) {
	s := newSetup(t)
	s.Plain = true
	g, _ := s.startWithBucket(t)
	key := newCustomerKey(7)
	request, err := newRequest(t, g, "PUT", "/"+bucket+"/k", "text")
	require.NoError(t, err)
	request.Header.Set("x-amz-server-side-encryption-customer-algorithm", "AES256")
	request.Header.Set("x-amz-server-side-encryption-customer-key", key.key)
	request.Header.Set("x-amz-server-side-encryption-customer-key-MD5", key.sum)
	response := sign(t, g, request, "text")
	require.Equal(t, 400, response.StatusCode)
	body := readAll(t, response.Body)
	require.Contains(t, string(body), "<Code>InvalidRequest</Code>")
	require.Contains(t, string(body), "secure connection")
}

func TestCopies(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	want := text(70_000)
	for _, from := range modes()[1:] {
		for _, to := range modes()[1:] {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				in := &s3.PutObjectInput{
					Bucket: ptr(bucket), Key: ptr("src"), Body: bytes.NewReader(want), Metadata: map[string]string{"m": "1"},
					Tagging: ptr("a=b"), ContentType: ptr("text/x"),
				}
				from.put(in)
				_, err := c.PutObject(t.Context(), in)
				require.NoError(t, err)
				var headers s3.PutObjectInput
				to.put(&headers)
				copyIn := &s3.CopyObjectInput{
					Bucket: ptr(bucket), Key: ptr("dst"), CopySource: ptr(bucket + "/src"),
					ServerSideEncryption: headers.ServerSideEncryption, SSECustomerAlgorithm: headers.SSECustomerAlgorithm,
					SSECustomerKey: headers.SSECustomerKey, SSECustomerKeyMD5: headers.SSECustomerKeyMD5,
				}
				copyIn.CopySourceSSECustomerAlgorithm, copyIn.CopySourceSSECustomerKey, copyIn.CopySourceSSECustomerKeyMD5 =
					in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5
				copied, err := c.CopyObject(t.Context(), copyIn)
				require.NoError(t, err)
				require.Equal(t, headers.ServerSideEncryption, copied.ServerSideEncryption)

				get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("dst")}
				to.get(get)
				out, err := c.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.Equal(t, want, readAll(t, out.Body))
				require.Equal(t, map[string]string{"m": "1"}, out.Metadata)
				require.Equal(t, "text/x", *out.ContentType)
				tags, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: ptr(bucket), Key: ptr("dst")})
				require.NoError(t, err)
				require.Equal(t, "b", *tags.TagSet[0].Value)

				// Onto itself: with a new encryption it is a rewrap.
				copyIn.Key = ptr("src")
				_, err = c.CopyObject(t.Context(), copyIn)
				require.NoError(t, err)
				get.Key = ptr("src")
				out, err = c.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.Equal(t, want, readAll(t, out.Body))
			})
		}
	}
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("x")})
	require.NoError(t, err)
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: ptr("k"), CopySource: ptr(bucket + "/k")})
	require.Equal(t, "InvalidRequest", code(err))
}

func TestBucketEncryption(t *testing.T) {
	s := newSetup(t)
	g := s.start(t)
	c := g.client(t)
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	_, err = c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: ptr(bucket)})
	require.Equal(t, "ServerSideEncryptionConfigurationNotFoundError", code(err))
	allowCustomerKeys(t, c, types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAwsKms})

	// Another gateway obeys.
	other := s.start(t).client(t)
	got, err := other.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	require.Equal(t, types.ServerSideEncryptionAwsKms, got.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm)
	put, err := other.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("x")})
	require.NoError(t, err)
	require.Equal(t, types.ServerSideEncryptionAwsKms, put.ServerSideEncryption)

	for range 2 {
		_, err = c.DeleteBucketEncryption(t.Context(), &s3.DeleteBucketEncryptionInput{Bucket: ptr(bucket)})
		require.NoError(t, err)
	}
	put, err = other.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: strings.NewReader("x")})
	require.NoError(t, err)
	require.Equal(t, types.ServerSideEncryptionAes256, put.ServerSideEncryption)

	// Without a configuration, customer keys are blocked.
	in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("c"), Body: strings.NewReader("x")}
	modes()[3].put(in)
	_, err = c.PutObject(t.Context(), in)
	require.Equal(t, "AccessDenied", code(err))
}

// readDamaged writes to the file of object "k", and reads the object.
func readDamaged(t *testing.T, c *s3.Client, file string, damaged []byte, byteRange *string) ([]byte, error) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0) // which keeps its attributes
	require.NoError(t, err)
	_, err = f.Write(damaged)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Range: byteRange})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// TestDamage flips bits of stored objects, and cuts them.
func TestDamage(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	want := text(2*sse.ChunkSize + 10)
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("k"), Body: bytes.NewReader(want)})
	require.NoError(t, err)
	file := s.path("data/" + bucket + "/k")
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NotContains(t, string(good), string(want[:32]))
	read := func(damaged []byte, byteRange *string) error {
		_, err := readDamaged(t, c, file, damaged, byteRange)
		return err
	}
	require.NoError(t, read(good, nil))
	for at := 0; at < len(good); at += 997 {
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		require.Error(t, read(flipped, nil), "byte %d", at)
	}
	for _, n := range []int{0, 1, 8, 1000, 1024, 1024 + 16, 1024 + 16400, 1024 + 16400 + 16, 1024 + 2*16400, len(good) - 1} {
		require.Error(t, read(good[:n], nil), "cut at %d", n)
		require.Error(t, read(good[:n], ptr("bytes=0-9")), "range, cut at %d", n)
	}
	require.Error(t, read(append(bytes.Clone(good), 0), nil))
}
