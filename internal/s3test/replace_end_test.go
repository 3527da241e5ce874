package s3test

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// inParts is a bucket with an object, "k", that was uploaded in parts.
type inParts struct {
	*server
	name   string
	ring   *keyring.Ring
	cipher sse.Cipher
	inner  *gcblob.Bucket
	bucket *blob.Bucket // lets S3 copy parts
	wire   *wire        // of bucket
	data   []byte
}

func newInParts(t *testing.T, s *server, sizes ...int) *inParts {
	total := 0
	for _, size := range sizes {
		total += size
	}
	x := &inParts{server: s, name: s.newBucket(t), ring: keyringtest.NewRing(t, nil), wire: new(wire), data: content(total)}
	x.cipher = sse.NewManaged(x.ring)
	x.inner = s.open(t, x.name, x.wire)
	var client *s3.Client
	require.True(t, x.inner.As(&client))
	x.bucket = encrypted(t, x.inner, x.cipher, &blob.Options{IfUnchanged: ifMatch, ReplaceEnd: awss3.ReplaceEnd(client)})
	putParts(t, x.inner, "k", x.cipher, x.data, sizes...)
	_, err := x.ring.Rotate(context.Background())
	require.NoError(t, err)
	x.wire.take()
	return x
}

// traffic returns the bytes of bodies and the requests by operation since the last call.
func (x *inParts) traffic() (sent, received int64, requests map[string]int) {
	requests = map[string]int{}
	for _, q := range x.wire.take() {
		sent += q.sent.Load()
		received += q.received.Load()
		requests[q.op]++
	}
	return sent, received, requests
}

func (x *inParts) requireWhole(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	requireObject(t, x.bucket, "k", x.data)
	a, err := x.bucket.Attributes(ctx, "k")
	require.NoError(t, err)
	require.EqualValues(t, len(x.data), a.Size)
	require.Equal(t, map[string]string{"author": "Zoë ☺"}, a.Metadata)
}

func (x *inParts) setTags(t *testing.T) {
	_, err := x.client(nil).PutObjectTagging(context.Background(), &s3.PutObjectTaggingInput{
		Bucket: &x.name, Key: aws.String("k"), Tagging: &s3types.Tagging{TagSet: []s3types.Tag{{Key: aws.String("a"), Value: aws.String("b c")}}},
	})
	require.NoError(t, err)
}

func (x *inParts) requireTags(t *testing.T) {
	out, err := x.client(nil).GetObjectTagging(context.Background(), &s3.GetObjectTaggingInput{Bucket: &x.name, Key: aws.String("k")})
	require.NoError(t, err)
	require.Len(t, out.TagSet, 1)
	require.Equal(t, "b c", *out.TagSet[0].Value)
}

// TestRewrapOfPartsSendsTheEnd: a rewrap of an object that was uploaded in parts sends its
// end, and S3 copies the rest. A server that cannot copy gets the whole object.
func TestRewrapOfPartsSendsTheEnd(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		x := newInParts(t, s, 12<<20, 20<<20, 8<<20)
		copies := s.name != "gofakes3" // takes UploadPartCopy for UploadPart
		if copies {
			x.setTags(t)
		}
		report, err := jobs.Rewrap(ctx, x.bucket, nil)
		require.NoError(t, err)
		require.EqualValues(t, 1, report.Done)
		sent, received, requests := x.traffic()
		t.Logf("sent %d, received %d: %v", sent, received, requests)
		require.Zero(t, unfinished(t, s, x.name))
		if copies {
			require.Less(t, sent, int64(4<<10))
			require.Less(t, report.Bytes, int64(4<<10))
			require.Less(t, received, int64(192<<10)) // its ends, and what the server says
			require.Equal(t, 2, requests["UploadPartCopy"])
			x.requireTags(t)
		}
		x.requireWhole(t)
		report, err = jobs.Rewrap(ctx, x.bucket, nil)
		require.NoError(t, err)
		require.EqualValues(t, 1, report.Current)
		if !copies {
			return
		}

		// The client of the SDK does so, too.
		w := new(wire)
		c, err := awss3.New(s.client(w), x.cipher, &awss3.Options{Names: map[string]string{x.name: bucketName}})
		require.NoError(t, err)
		x.wire = w
		for _, to := range []string{"copy of +%k", "k"} {
			_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &x.name, Key: &to, CopySource: aws.String(x.name + "/k")})
			require.NoError(t, err)
			sent, received, requests = x.traffic()
			require.Less(t, sent, int64(4<<10))
			require.Less(t, received, int64(192<<10), "%v", requests)
			requireObject(t, x.bucket, to, x.data)
		}
		x.requireTags(t)
	})
}

// TestReplaceEndWithChecksum: a caller asks for a checksum of an object whose beginning S3
// copies. The object is stored without the checksum.
func TestReplaceEndWithChecksum(t *testing.T) {
	ctx := context.Background()
	x := newInParts(t, startVersity(t), 6<<20, 1<<20)
	client := x.client(nil)
	c, err := awss3.New(client, x.cipher, &awss3.Options{Names: map[string]string{x.name: bucketName}})
	require.NoError(t, err)
	for _, algorithm := range []s3types.ChecksumAlgorithm{s3types.ChecksumAlgorithmSha256, s3types.ChecksumAlgorithmCrc64nvme} {
		_, err = c.CopyObject(ctx, &s3.CopyObjectInput{
			Bucket: &x.name, Key: aws.String("copy"), CopySource: aws.String(x.name + "/k"), ChecksumAlgorithm: algorithm,
		})
		require.NoError(t, err, algorithm)
		requireObject(t, x.bucket, "copy", x.data)
	}

	const off = 5 << 20
	whole, err := x.inner.ReadAll(ctx, "k")
	require.NoError(t, err)
	a, err := x.inner.Attributes(ctx, "k")
	require.NoError(t, err)
	hooked := x.hook(a.Metadata)
	publish, _, err := awss3.ReplaceEnd(client)(ctx, hooked, a.ETag, off, whole[off:])
	require.NoError(t, err)
	require.NoError(t, publish())
	requireObject(t, x.inner, "k", whole)
}

// hook returns the argument of the BeforeWrite hook of a write of "k" for which the caller
// asks for a checksum.
func (x *inParts) hook(md map[string]string) func(any) bool {
	return func(v any) bool {
		upload, ok := v.(**transfermanager.UploadObjectInput)
		if ok {
			*upload = &transfermanager.UploadObjectInput{
				Bucket: &x.name, Key: aws.String("k"), Metadata: md,
				ChecksumAlgorithm: tmtypes.ChecksumAlgorithmSha256, ChecksumType: tmtypes.ChecksumTypeComposite,
			}
		}
		return ok
	}
}

// refusing is a server that copies no part.
type refusing struct {
	awss3.API
	code string
}

func (r refusing) UploadPartCopy(context.Context, *s3.UploadPartCopyInput, ...func(*s3.Options)) (*s3.UploadPartCopyOutput, error) {
	return nil, &smithy.GenericAPIError{Code: r.code}
}

// TestRefusedPartOfUnchangedObject: a server that refuses to copy a part of an object
// which nobody has replaced is not asked again.
func TestRefusedPartOfUnchangedObject(t *testing.T) {
	ctx := context.Background()
	s := startFake(t)
	x := newInParts(t, s, 6<<20)
	a, err := x.inner.Attributes(ctx, "k")
	require.NoError(t, err)
	for code, changed := range map[string]bool{"InvalidArgument": false, "InvalidRequest": false, "InvalidRange": false, "PreconditionFailed": true} {
		_, _, err = awss3.ReplaceEnd(refusing{x.client(nil), code})(ctx, x.hook(nil), a.ETag, 5<<20, []byte("end"))
		if changed {
			require.ErrorIs(t, err, stored.ErrChanged)
			continue
		}
		requireCode(t, code, err)
		require.NotErrorIs(t, err, stored.ErrChanged)
	}
	require.Zero(t, unfinished(t, s, x.name))
}

// TestRewrapOfPartsAgainstWrites: another process replaces or deletes the object during
// a rewrap. What it wrote stays, and no upload is left behind.
func TestRewrapOfPartsAgainstWrites(t *testing.T) {
	ctx := context.Background()
	s := startVersity(t)
	for _, operation := range []string{"CreateMultipartUpload", "UploadPartCopy", "UploadPart", "ListParts", "CompleteMultipartUpload"} {
		for name, forestall := range map[string]func(b *blob.Bucket) error{
			"write":  func(b *blob.Bucket) error { return b.WriteAll(ctx, "k", []byte("theirs"), nil) },
			"delete": func(b *blob.Bucket) error { return b.Delete(ctx, "k") },
		} {
			t.Run(name+" during "+operation, func(t *testing.T) {
				x := newInParts(t, s, 5<<20, 1<<20)
				theirs := encrypted(t, s.open(t, x.name, nil), x.cipher, nil)
				x.wire.beforeFirst(t, func() error { return forestall(theirs) }, operation)
				report, err := jobs.Rewrap(ctx, x.bucket, nil)
				require.NoError(t, err)
				require.Zero(t, unfinished(t, s, x.name))
				if name == "delete" {
					require.EqualValues(t, 1, report.Deleted)
					return
				}
				requireObject(t, theirs, "k", []byte("theirs"))
			})
		}
	}
}

// TestRewrapOfPartsCancelled: a job that is cancelled leaves the object as it was, and
// no upload.
func TestRewrapOfPartsCancelled(t *testing.T) {
	s := startVersity(t)
	x := newInParts(t, s, 5<<20, 1<<20)
	for _, operation := range []string{"UploadPartCopy", "UploadPart", "ListParts", "CompleteMultipartUpload"} {
		t.Run(operation, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			x.wire.observe(func(q *request) {
				if q.op == operation {
					cancel()
				}
			})
			_, err := jobs.Rewrap(ctx, x.bucket, nil)
			x.wire.observe(nil)
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, unfinished(t, s, x.name))
			a, err := x.inner.Attributes(context.Background(), "k")
			require.NoError(t, err)
			require.NotEmpty(t, a.ETag)
		})
	}
	x.requireWhole(t)
	report, err := jobs.Rewrap(context.Background(), x.bucket, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done+report.Current)
	x.requireWhole(t)
}
