package s3test

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

func requireCode(t *testing.T, want string, err error) {
	t.Helper()
	var answer smithy.APIError
	require.ErrorAs(t, err, &answer)
	require.Equal(t, want, answer.ErrorCode())
}

func base64Of(sum []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum)) }

// TestSDKConditions: S3 decides about conditions on writes and on reads of all kinds.
func TestSDKConditions(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		c := newSDK(t, s, nil, nil, nil)
		put := func(change func(in *s3.PutObjectInput)) (*s3.PutObjectOutput, error) {
			in := &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Body: strings.NewReader("text")}
			change(in)
			return c.PutObject(ctx, in)
		}
		first, err := put(func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
		require.NoError(t, err)
		_, err = put(func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
		requireCode(t, "PreconditionFailed", err)
		second, err := put(func(in *s3.PutObjectInput) { in.IfMatch = first.ETag })
		require.NoError(t, err)
		_, err = put(func(in *s3.PutObjectInput) { in.IfMatch = first.ETag })
		requireCode(t, "PreconditionFailed", err)

		for _, rng := range []*string{nil, aws.String("bytes=1-2")} {
			get := &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("o"), Range: rng, IfNoneMatch: second.ETag}
			_, err = c.GetObject(ctx, get)
			var response *awshttp.ResponseError
			require.ErrorAs(t, err, &response)
			require.Equal(t, http.StatusNotModified, response.HTTPStatusCode())
			get.IfNoneMatch, get.IfMatch = nil, second.ETag
			out, err := c.GetObject(ctx, get)
			require.NoError(t, err)
			require.Equal(t, *second.ETag, *out.ETag)
			require.NoError(t, out.Body.Close())
		}
	})
}

// TestSDKKeepsWhatS3Keeps: metadata, tags, Content-Encoding and the like survive a write
// and a copy.
func TestSDKKeepsWhatS3Keeps(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		c := newSDK(t, s, nil, nil, nil)
		metadata := map[string]string{"owner": "me & you"}
		_, err := c.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &c.bucket, Key: aws.String("o"), Body: strings.NewReader("text"), Metadata: metadata,
			ContentType: aws.String("text/plain"), ContentEncoding: aws.String("gzip"), CacheControl: aws.String("no-store"),
			Tagging: aws.String("team=a%2Bb&tier=1"),
		})
		require.NoError(t, err)
		copyTo := func(key string, change func(in *s3.CopyObjectInput)) {
			in := &s3.CopyObjectInput{Bucket: &c.bucket, Key: &key, CopySource: aws.String(c.bucket + "/o")}
			change(in)
			_, err := c.CopyObject(ctx, in)
			require.NoError(t, err)
		}
		copyTo("copy", func(*s3.CopyObjectInput) {})
		for _, key := range []string{"o", "copy"} {
			out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: &key})
			require.NoError(t, err)
			data, err := io.ReadAll(out.Body)
			require.NoError(t, err)
			require.NoError(t, out.Body.Close())
			require.Equal(t, "text", string(data))
			require.Equal(t, metadata, out.Metadata, key)
			require.Equal(t, []string{"text/plain", "gzip"}, []string{*out.ContentType, *out.ContentEncoding})
			if s.name == "versitygw" { // gofakes3 forgets it
				require.Equal(t, "no-store", *out.CacheControl)
			}
			head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &key})
			require.NoError(t, err)
			require.Equal(t, metadata, head.Metadata)
			require.Equal(t, "gzip", *head.ContentEncoding)
			bare, err := c.bare.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &key})
			require.NoError(t, err)
			require.Empty(t, aws.ToString(bare.ContentEncoding))
			if s.name == "versitygw" { // gofakes3 serves no tags
				require.Equal(t, map[string]string{"team": "a+b", "tier": "1"}, tagsOf(t, c, key), key)
			}
		}
		copyTo("replaced", func(in *s3.CopyObjectInput) {
			in.MetadataDirective, in.TaggingDirective = s3types.MetadataDirectiveReplace, s3types.TaggingDirectiveReplace
			in.Metadata, in.Tagging = map[string]string{"a": "b"}, aws.String("new=1")
		})
		head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: aws.String("replaced")})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "b"}, head.Metadata)
		if s.name == "versitygw" {
			require.Equal(t, map[string]string{"new": "1"}, tagsOf(t, c, "replaced"))
		}
		require.Empty(t, aws.ToString(head.ContentEncoding))

		_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("p"), Metadata: map[string]string{"Blobseal-Mode": "SSE-C"}})
		require.ErrorIs(t, err, stored.ErrReserved)
	})
}

func tagsOf(t *testing.T, c sdk, key string) map[string]string {
	out, err := c.bare.GetObjectTagging(context.Background(), &s3.GetObjectTaggingInput{Bucket: &c.bucket, Key: &key})
	require.NoError(t, err)
	tags := map[string]string{}
	for _, tag := range out.TagSet {
		tags[*tag.Key] = *tag.Value
	}
	return tags
}

// TestSDKChecksums: a body that does not match the caller's checksum is not stored.
func TestSDKChecksums(t *testing.T) {
	ctx := context.Background()
	s := startFake(t)
	c := newSDK(t, s, nil, nil, nil)
	text := "123456789" // whose checksums are in every specification
	sha, sum := sha256.Sum256([]byte(text)), md5.Sum([]byte(text))
	for name, set := range map[string]func(in *s3.PutObjectInput, other string){
		"ContentMD5":        func(in *s3.PutObjectInput, other string) { in.ContentMD5 = aws.String(other + *base64Of(sum[:])) },
		"ChecksumSHA256":    func(in *s3.PutObjectInput, other string) { in.ChecksumSHA256 = aws.String(other + *base64Of(sha[:])) },
		"ChecksumCRC32":     func(in *s3.PutObjectInput, other string) { in.ChecksumCRC32 = aws.String(other + "y/Q5Jg==") },
		"ChecksumCRC32C":    func(in *s3.PutObjectInput, other string) { in.ChecksumCRC32C = aws.String(other + "4waSgw==") },
		"ChecksumCRC64NVME": func(in *s3.PutObjectInput, other string) { in.ChecksumCRC64NVME = aws.String(other + "rosUhgp5mIg=") },
		"ContentLength":     func(in *s3.PutObjectInput, other string) { in.ContentLength = aws.Int64(int64(9 + len(other))) },
	} {
		in := &s3.PutObjectInput{Bucket: &c.bucket, Key: &name, Body: strings.NewReader(text)}
		set(in, "A")
		_, err := c.PutObject(ctx, in)
		require.ErrorIs(t, err, sse.ErrInvalid, name)
		_, err = c.bare.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &name})
		require.Error(t, err, name)
		in.Body = strings.NewReader(text)
		set(in, "")
		out, err := c.PutObject(ctx, in)
		require.NoError(t, err, name)
		require.Nil(t, out.ChecksumCRC32)
	}
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("x"), ChecksumXXHASH3: aws.String("x")})
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestJobsOnSDKObjects: the jobs of package jobs work on what the client wrote.
func TestJobsOnSDKObjects(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		ring := keyringtest.NewRing(t, nil)
		c := newSDK(t, s, nil, sse.NewManaged(ring), nil)
		b := encrypted(t, s.open(t, c.bucket, nil), sse.NewManaged(ring), &blob.Options{IfUnchanged: ifMatch})
		for _, key := range []string{"a", "b/ü", "c"} {
			require.NoError(t, c.put(ctx, key, content(40_000)))
		}
		old := ring.Versions()[0].ID
		_, err := ring.Rotate(ctx)
		require.NoError(t, err)
		report, err := jobs.Rewrap(ctx, b, nil)
		require.NoError(t, err)
		require.Equal(t, int64(3), report.Done)
		for finding, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
			require.NoError(t, err)
			require.NoError(t, finding.Err)
		}
		for e, err := range jobs.Inventory(ctx, b, nil) {
			require.NoError(t, err)
			require.NotEqual(t, old, e.Seal.KeyID)
		}
		got, err := c.get(ctx, "b/ü", "bytes=16000-17000")
		require.NoError(t, err)
		require.Equal(t, content(40_000)[16000:17001], got)
	})
}

// TestSDKErrors: errors of keys are those of this library, behind the SDK's wrapping and
// apart from S3's own.
func TestSDKErrors(t *testing.T) {
	ctx := context.Background()
	s := startFake(t)
	fake := kmstest.NewFake("key")
	cipher, err := sse.NewKMS(fake, "key", nil)
	require.NoError(t, err)
	c := newSDK(t, s, nil, cipher, nil)
	require.NoError(t, c.put(ctx, "o", []byte("text")))

	_, err = c.get(ctx, "nothing", "")
	require.ErrorAs(t, err, new(*s3types.NoSuchKey))
	_, err = c.get(ctx, "nothing", "bytes=0-1")
	require.ErrorAs(t, err, new(*s3types.NoSuchKey))

	for _, kind := range []error{kms.ErrDenied, kms.ErrUnavailable, kms.ErrDisabled, keyring.ErrUnknownKey, errors.Join(kms.ErrNotFound, &s3types.NoSuchKey{})} {
		broken, err := awss3.New(c.bare, failingCipher{kind}, &awss3.Options{Names: map[string]string{c.bucket: bucketName}})
		require.NoError(t, err)
		b := sdk{broken, c.bare, c.bucket}
		want := kind
		if errors.Is(kind, kms.ErrNotFound) {
			want = kms.ErrNotFound
		}
		for _, rng := range []string{"", "bytes=0-1"} {
			_, err = b.get(ctx, "o", rng)
			require.ErrorIs(t, err, want)
			require.False(t, errors.As(err, new(*s3types.NoSuchKey)))
			require.False(t, errors.As(err, new(smithy.APIError)))
		}
		require.ErrorIs(t, b.put(ctx, "o", nil), want)
	}

	unnamed, err := awss3.New(c.bare, cipher, nil)
	require.NoError(t, err)
	_, err = sdk{unnamed, c.bare, c.bucket}.get(ctx, "o", "")
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorContains(t, err, "Options.Names")

	_, err = c.PresignGetObject(ctx, &s3.GetObjectInput{})
	require.ErrorIs(t, err, awss3.ErrPresign)
	_, err = c.get(ctx, "../o", "")
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = awss3.New(c.bare, ssetest.NewCustomer(t, 1), nil)
	require.ErrorIs(t, err, awss3.ErrCustomerKey)
}

// failingCipher fails each key operation.
type failingCipher struct{ err error }

func (f failingCipher) Mode() sse.Mode { return sse.ModeKMS }
func (f failingCipher) Encrypt(context.Context, sse.Object) (*sse.Encryption, error) {
	return nil, f.err
}
func (f failingCipher) Decrypt(context.Context, sse.Object, *sse.Envelope) (*sse.Decryption, error) {
	return nil, f.err
}
func (f failingCipher) Rewrap(context.Context, sse.Object, *sse.Decryption) (*sse.Envelope, error) {
	return nil, f.err
}

// TestSDKTenants: what one tenant wrote, no other reads, and a customer's key in an input
// stays here.
func TestSDKTenants(t *testing.T) {
	ctx := context.Background()
	s := startFake(t)
	c := newSDK(t, s, nil, nil, nil)
	ours := sdk{c.With(awss3.Request{Cipher: ssetest.NewKMS(t, "ours"), Context: kms.Context{"tenant": "ours"}}), c.bare, c.bucket}
	theirs := sdk{c.With(awss3.Request{Cipher: ssetest.NewKMS(t, "theirs"), Context: kms.Context{"tenant": "theirs"}}), c.bare, c.bucket}
	require.NoError(t, ours.put(ctx, "o", []byte("text")))
	requireObject(t, ours, "o", []byte("text"))
	_, err := theirs.get(ctx, "o", "")
	require.ErrorIs(t, err, sse.ErrKey)
	_, err = c.get(ctx, "o", "")
	require.ErrorIs(t, err, sse.ErrMode)

	key := []byte("0123456789abcdef0123456789abcdef")
	sum := md5.Sum(key)
	_, err = c.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &c.bucket, Key: aws.String("customer"), Body: strings.NewReader("text"),
		SSECustomerAlgorithm: aws.String("AES256"), SSECustomerKey: base64Of(key), SSECustomerKeyMD5: base64Of(sum[:]),
	})
	require.NoError(t, err)
	_, err = c.get(ctx, "customer", "")
	require.ErrorIs(t, err, sse.ErrMode)
	out, err := c.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &c.bucket, Key: aws.String("customer"),
		SSECustomerAlgorithm: aws.String("AES256"), SSECustomerKey: base64Of(key), SSECustomerKeyMD5: base64Of(sum[:]),
	})
	require.NoError(t, err)
	require.Equal(t, *base64Of(sum[:]), *out.SSECustomerKeyMD5)
	require.NoError(t, out.Body.Close())
	_, err = c.bare.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("customer")})
	require.NoError(t, err)
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &c.bucket, Key: aws.String("managed"), CopySource: aws.String(c.bucket + "/customer"),
		CopySourceSSECustomerAlgorithm: aws.String("AES256"), CopySourceSSECustomerKey: base64Of(key), CopySourceSSECustomerKeyMD5: base64Of(sum[:]),
	})
	require.NoError(t, err)
	requireObject(t, c, "managed", []byte("text"))
}

// TestSDKPlain: plain objects are refused unless they are allowed.
func TestSDKPlain(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		c := newSDK(t, s, nil, nil, nil)
		lax := newSDK(t, s, nil, nil, &awss3.Options{AllowPlain: true})
		for _, text := range []string{"", "plain"} {
			for _, c := range []sdk{c, lax} {
				require.NoError(t, gcblobOf(t, s, c).WriteAll(ctx, "o", []byte(text), nil))
			}
			_, err := c.get(ctx, "o", "")
			require.ErrorIs(t, err, stored.ErrPlain)
			_, err = c.get(ctx, "o", "bytes=0-2")
			require.ErrorIs(t, err, stored.ErrPlain)
			_, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
			require.ErrorIs(t, err, stored.ErrPlain)
			got, err := lax.get(ctx, "o", "")
			require.NoError(t, err)
			require.Equal(t, text, string(got))
			if text != "" {
				got, err = lax.get(ctx, "o", "bytes=1-2")
				require.NoError(t, err)
				require.Equal(t, "la", string(got))
			}
		}
	})
}

func gcblobOf(t *testing.T, s *server, c sdk) *gcblob.Bucket { return s.open(t, c.bucket, nil) }
