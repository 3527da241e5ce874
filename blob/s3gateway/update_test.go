package s3gateway_test

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/localkms"
)

// newKey creates a key in the key service of a gateway.
func newKey(t *testing.T, s setup) (*localkms.Client, string) {
	client := s.keyClient(t)
	key, err := client.CreateKey(t.Context(), &localkms.CreateKeyInput{})
	require.NoError(t, err)
	return client, key.ARN
}

func update(t *testing.T, c *s3.Client, name, key string) error {
	_, err := c.UpdateObjectEncryption(t.Context(), &s3.UpdateObjectEncryptionInput{
		Bucket: ptr(bucket), Key: &name, ObjectEncryption: &types.ObjectEncryptionMemberSSEKMS{Value: types.SSEKMSEncryption{KMSKeyArn: &key}},
	})
	return err
}

// head returns the answer to HEAD.
func head(t *testing.T, c *s3.Client, name string) *s3.HeadObjectOutput {
	out, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &name, ChecksumMode: types.ChecksumModeEnabled})
	require.NoError(t, err)
	return out
}

// TestUpdateObjectEncryption updates objects of files from SSE-S3 to a key, and then to
// another one. Nothing but the envelope changes.
func TestUpdateObjectEncryption(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	keys, one := newKey(t, s)
	_, two := newKey(t, s)
	whole := text(2*partSize + 70_000)
	putIn(t, c, modes()[1], "b c+d%ü/x", whole)
	putParts(t, c, modes()[1], "parts", whole[:partSize], whole[partSize:])
	for _, name := range []string{"b c+d%ü/x", "parts"} {
		t.Run(name, func(t *testing.T) {
			before, stored := head(t, c, name), storedBytes(t, s, name)
			for _, key := range []string{one, two} {
				require.NoError(t, update(t, c, name, key))
				after := head(t, c, name)
				require.Equal(t, types.ServerSideEncryptionAwsKms, after.ServerSideEncryption)
				require.Equal(t, key, *after.SSEKMSKeyId)
				require.Equal(t, *before.ETag, *after.ETag)
				require.Equal(t, *before.LastModified, *after.LastModified)
				require.Equal(t, before.ChecksumCRC32, after.ChecksumCRC32)
				require.Equal(t, before.ChecksumCRC64NVME, after.ChecksumCRC64NVME)
				require.Equal(t, before.ContentLength, after.ContentLength)
				now := storedBytes(t, s, name)
				require.NotEqual(t, len(stored), sameBytes(stored, now))
				require.Greater(t, sameBytes(stored, now), len(stored)-2048, "the body changed")
				requireObject(t, c, modes()[2], name, whole)
			}
			if name != "parts" {
				tags, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: ptr(bucket), Key: &name})
				require.NoError(t, err)
				require.Equal(t, "b", *tags.TagSet[0].Value)
			}
		})
	}
	require.NoError(t, keys.DisableKey(t.Context(), one))
	requireObject(t, c, modes()[2], "parts", whole)
}

func storedBytes(t *testing.T, s setup, name string) []byte {
	p, err := os.ReadFile(s.path("data/" + bucket + "/" + name))
	require.NoError(t, err)
	return p
}

// sameBytes returns how many bytes of two texts of one length are the same.
func sameBytes(a, b []byte) (n int) {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			n++
		}
	}
	return n
}

func TestUpdateObjectEncryptionOverS3(t *testing.T) {
	x, c := newChanging(t)
	_, key := newKey(t, x.gateway.setup)
	whole := text(3*partSize + 70_000)
	putParts(t, c, modes()[1], "parts", whole[:partSize], whole[partSize:])
	x.between.reset()
	require.NoError(t, update(t, c, "parts", key))
	sent, _ := x.between.counts()
	require.Less(t, sent, int64(64<<10))
	requireObject(t, c, modes()[2], "parts", whole)
	require.Equal(t, key, *head(t, c, "parts").SSEKMSKeyId)
}

// TestUpdateObjectEncryptionRefuses makes updates that are refused and change nothing.
func TestUpdateObjectEncryptionRefuses(t *testing.T) {
	s := newSetup(t)
	s.AllowPlain = true
	g, c := s.startWithBucket(t)
	_, key := newKey(t, s)
	putIn(t, c, modes()[1], "managed", text(10))
	putIn(t, c, modes()[3], "customer", text(10))
	require.NoError(t, os.WriteFile(s.path("data/"+bucket+"/plain"), []byte("plain"), 0o600))
	createUser(t, g, "bob", "bob-secret")
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"bob","Action":"s3:PutObject","Resource":"arn:aws:s3:::` + bucket + `/*"}]}`
	_, err := c.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: ptr(bucket), Policy: &policy})
	require.NoError(t, err)
	stored := func() (all [][]byte) {
		for _, name := range []string{"managed", "customer", "plain"} {
			all = append(all, storedBytes(t, s, name))
		}
		return all
	}
	before := stored()
	raw := func(path, body string) string {
		r, err := newRequest(t, g, http.MethodPut, "/"+bucket+path, body)
		require.NoError(t, err)
		response := sign(t, g, r, body)
		answer := string(readAll(t, response.Body))
		require.GreaterOrEqual(t, response.StatusCode, 400)
		_, found, _ := strings.Cut(answer, "<Code>")
		found, _, _ = strings.Cut(found, "</Code>")
		return found
	}
	for name, c := range map[string]struct{ want, got string }{
		"plain":         {"InvalidRequest", code(update(t, c, "plain", key))},
		"SSE-C":         {"InvalidRequest", code(update(t, c, "customer", key))},
		"unknown key":   {"KMS.NotFoundException", code(update(t, c, "managed", key+"0"))},
		"no object":     {"NoSuchKey", code(update(t, c, "absent", key))},
		"no permission": {"AccessDenied", code(update(t, g.clientAs(t, "bob", "bob-secret"), "managed", key))},
		"no key":        {"InvalidRequest", raw("/managed?encryption=", `<ObjectEncryption><SSE-KMS></SSE-KMS></ObjectEncryption>`)},
		"SSE-S3":        {"InvalidRequest", raw("/managed?encryption=", `<ObjectEncryption><SSE-S3></SSE-S3></ObjectEncryption>`)},
		"other XML":     {"MalformedXML", raw("/managed?encryption=", `<Other></Other>`)},
		"no XML":        {"MalformedXML", raw("/managed?encryption=", `text`)},
		"no body":       {"MissingRequestBodyError", raw("/managed?encryption=", "")},
	} {
		require.Equal(t, c.want, c.got, name)
	}
	require.Equal(t, before, stored())
	allowAll(t, c)
	_, err = s3.New(g.client(t).Options(), func(o *s3.Options) { o.Credentials = aws.AnonymousCredentials{} }).UpdateObjectEncryption(t.Context(),
		&s3.UpdateObjectEncryptionInput{Bucket: ptr(bucket), Key: ptr("managed"), ObjectEncryption: &types.ObjectEncryptionMemberSSEKMS{
			Value: types.SSEKMSEncryption{KMSKeyArn: &key},
		}})
	require.Equal(t, "AccessDenied", code(err), "without a signature")
	require.Equal(t, before, stored())
	_, err = c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: ptr(bucket), VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	require.NoError(t, err)
	require.Equal(t, "NotImplemented", code(update(t, c, "managed", key)))
	require.True(t, bytes.Equal(before[0], storedBytes(t, s, "managed")))
}

func TestUpdateObjectEncryptionOfLockedObjects(t *testing.T) {
	s := newSetup(t)
	s.Unversioned = true // the engine locks objects there, too
	c := s.start(t).client(t)
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(bucket), ObjectLockEnabledForBucket: ptr(true)})
	require.NoError(t, err)
	_, key := newKey(t, s)
	putIn(t, c, modes()[1], "held", text(10))
	_, err = c.PutObjectLegalHold(t.Context(), &s3.PutObjectLegalHoldInput{
		Bucket: ptr(bucket), Key: ptr("held"), LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOn},
	})
	require.NoError(t, err)
	require.Equal(t, "AccessDenied", code(update(t, c, "held", key)))
}

// TestPolicyConditions: the engine refuses the condition keys that doc.go lists.
func TestPolicyConditions(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	for _, name := range []string{
		"s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id",
		"s3:x-amz-server-side-encryption-customer-algorithm",
	} {
		policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::` +
			bucket + `/*","Condition":{"StringNotEquals":{"` + name + `":"aws:kms"}}}]}`
		_, err := c.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: ptr(bucket), Policy: &policy})
		require.Equal(t, "MalformedPolicy", code(err), name)
	}
	_, err := c.GetBucketPolicy(t.Context(), &s3.GetBucketPolicyInput{Bucket: ptr(bucket)})
	require.Equal(t, "NoSuchBucketPolicy", code(err))
}

// TestUpdateObjectEncryptionWhileObjectsChange races updates with the only writer of an object.
// The writer must read what it wrote.
func TestUpdateObjectEncryptionWhileObjectsChange(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	_, one := newKey(t, s)
	_, two := newKey(t, s)
	putIn(t, c, modes()[1], "k", text(100_000))
	stop := make(chan struct{})
	var updates sync.WaitGroup
	for _, key := range []string{one, two} {
		updates.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := update(t, c, "k", key); err != nil && code(err) != "OperationAborted" {
					t.Errorf("update: %v", err)
					return
				}
			}
		})
	}
	for i := range 10 {
		want := text(100_000 + i)
		putIn(t, c, modes()[1+i%2], "k", want)
		for range 3 {
			requireObject(t, c, modes()[2], "k", want)
		}
	}
	close(stop)
	updates.Wait()
}
