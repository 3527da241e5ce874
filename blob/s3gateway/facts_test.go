package s3gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// faultyService is a key service that is down while a file exists.
type faultyService struct {
	kms.Client
	down string
}

func (f faultyService) check() error {
	if _, err := os.Stat(f.down); err == nil {
		return kms.ErrUnavailable
	}
	return nil
}

func (f faultyService) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.Client.GenerateDataKey(ctx, keyID, ec)
}

func (f faultyService) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.Client.Decrypt(ctx, keyID, ciphertext, ec)
}

// Authorize is what the cache asks, so that disabling a key takes effect at once.
func (f faultyService) Authorize(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.Client.(kms.Authorizer).Authorize(ctx, op, keyID, ec)
}

// facts has a gateway with objects of each mode, and uploads.
type facts struct {
	setup
	tls, plain *server
	c          *s3.Client
	keys       interface {
		DisableKey(context.Context, string) error
		EnableKey(context.Context, string) error
	}
	key     string // of the key service
	uploads map[string]*uploading
}

const blockedBucket = "blocked" // has no configuration: customer keys are blocked there

func newFacts(t *testing.T) *facts {
	f := &facts{setup: newSetup(t), uploads: map[string]*uploading{}}
	f.tls = f.start(t)
	s := f.setup
	s.Plain = true
	f.plain = s.start(t)
	f.c = f.tls.client(t)
	newBucket(t, f.c)
	f.keys, f.key = newKey(t, f.setup)
	for _, m := range modes()[1:] {
		putIn(t, f.c, m, m.name, text(10))
		f.uploads[m.name] = begin(t, f.c, m, m.name+"-parts")
	}
	require.NoError(t, putUnder(t, f.c, "key", f.key))
	_, err := f.c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(blockedBucket)})
	require.NoError(t, err)
	createUser(t, f.tls, "bob", "bob-secret")
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"bob","Action":"s3:PutObject","Resource":"arn:aws:s3:::` + bucket + `/*"}]}`
	_, err = f.c.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: ptr(bucket), Policy: &policy})
	require.NoError(t, err)
	return f
}

func putUnder(t *testing.T, c *s3.Client, name, key string) error {
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: ptr(bucket), Key: &name, Body: strings.NewReader("text"), ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: &key,
	})
	return err
}

// call is a request that a gateway refuses.
type call struct {
	method, path string
	headers      http.Header
	over         *server // the one with TLS if nil
	user, secret string  // the administrator if empty
	body         string
}

// values returns headers by names and values.
func values(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

// withKey returns the headers of a customer's key, as changed by pairs. The value "-"
// removes a header.
func withKey(seed byte, pairs ...string) http.Header {
	key := newCustomerKey(seed)
	h := values(s3wire.HeaderCustomerAlgorithm, "AES256", s3wire.HeaderCustomerKey, key.key, s3wire.HeaderCustomerKeyMD5, key.sum)
	for i := 0; i < len(pairs); i += 2 {
		if h.Set(pairs[i], pairs[i+1]); pairs[i+1] == "-" {
			h.Del(pairs[i])
		}
	}
	return h
}

// addCopySource adds the source of a copy, and the key that opens it, to headers.
func addCopySource(name string, h, key http.Header) http.Header {
	h = h.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("x-amz-copy-source", "/"+bucket+"/"+name)
	for name, value := range key {
		h[http.CanonicalHeaderKey("x-amz-copy-source-"+strings.TrimPrefix(strings.ToLower(name), "x-amz-"))] = value
	}
	return h
}

var errorCode = regexp.MustCompile(`<Code>([^<]*)</Code>`)

// requireRefused sends requests, each of which must fail with this status and code, and store
// nothing.
func (f *facts) requireRefused(t *testing.T, status int, code string, calls ...call) {
	t.Helper()
	for _, c := range calls {
		before := f.listStore(t)
		g := f.tls
		if c.over != nil {
			g = c.over
		}
		if c.user == "" {
			c.user, c.secret = rootUser, rootSecret
		}
		body := c.body
		if c.method == http.MethodPut && body == "" && c.headers.Get("x-amz-copy-source") == "" {
			body = "not stored"
		}
		r, err := newRequest(t, g, c.method, c.path, body)
		require.NoError(t, err)
		for name, values := range c.headers {
			r.Header[name] = values
		}
		response := signAs(t, g, r, body, c.user, c.secret)
		answer := readAll(t, response.Body)
		what := fmt.Sprintf("%s %s %v: %s", c.method, c.path, c.headers, answer)
		require.Equal(t, status, response.StatusCode, what)
		if c.method != http.MethodHead {
			found := errorCode.FindSubmatch(answer)
			require.NotNil(t, found, what)
			require.Equal(t, code, string(found[1]), what)
		}
		require.NotContains(t, string(answer), newCustomerKey(7).key)
		require.Equal(t, before, f.listStore(t), what)
	}
}

// listStore returns size and time of each file of the store.
func (f *facts) listStore(t *testing.T) map[string]string {
	files := map[string]string{}
	for _, dir := range []string{"data", "versions"} {
		require.NoError(t, filepath.WalkDir(f.path(dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				files[path] = fmt.Sprint(info.Size(), info.ModTime())
			}
			return err
		}))
	}
	return files
}

func pathOf(name string) string { return "/" + bucket + "/" + name }

// writesWith returns the requests that begin to store an object with headers.
func writesWith(h http.Header) []call {
	return []call{
		{method: http.MethodPut, path: pathOf("new"), headers: h},
		{method: http.MethodPut, path: pathOf("SSE-S3"), headers: h},
		{method: http.MethodPut, path: pathOf("new"), headers: addCopySource("SSE-KMS", h, nil)},
		{method: http.MethodPost, path: pathOf("new?uploads="), headers: h},
	}
}

// readsOf returns the requests that read an object with headers.
func readsOf(name string, h http.Header) []call {
	attributes := h.Clone()
	if attributes == nil {
		attributes = http.Header{}
	}
	attributes.Set("x-amz-object-attributes", "ObjectSize")
	ranged := attributes.Clone()
	ranged.Set("Range", "bytes=1-2")
	return []call{
		{method: http.MethodGet, path: pathOf(name), headers: h}, {method: http.MethodHead, path: pathOf(name), headers: h},
		{method: http.MethodGet, path: pathOf(name), headers: ranged}, {method: http.MethodGet, path: pathOf(name + "?attributes="), headers: attributes},
	}
}

// parts returns the requests that store a part of an upload.
func (f *facts) parts(mode string, h http.Header) []call {
	path := pathOf(fmt.Sprintf("%s-parts?partNumber=1&uploadId=%s", mode, *f.uploads[mode].id))
	return []call{{method: http.MethodPut, path: path, headers: h}, {method: http.MethodPut, path: path, headers: addCopySource("SSE-S3", h, nil)}}
}

// completion returns the request that completes an upload of a part that it does not have.
func (f *facts) completion(mode string, h http.Header) []call {
	return []call{{method: http.MethodPost, path: pathOf(fmt.Sprintf("%s-parts?uploadId=%s", mode, *f.uploads[mode].id)), headers: h,
		body: "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>0</ETag></Part></CompleteMultipartUpload>"}}
}

func each[T any](lists ...[]T) (all []T) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// TestFacts has a test for each row of S3's errors: situation, code and status. No
// refused request stores anything.
func TestFacts(t *testing.T) {
	f := newFacts(t)
	for row, test := range map[string]func(*testing.T){
		"SSE-C over plain HTTP": f.plainHTTP,
		"SSE-C algorithm other than AES256 or missing; key missing; MD5 missing; MD5 ≠ key; key not 32 bytes or not base64": f.checkCustomerHeaders,
		"SSE-C together with SSE-S3/KMS headers": func(t *testing.T) {
			for _, pair := range [][2]string{{s3wire.HeaderEncryption, "AES256"}, {s3wire.HeaderEncryption, "aws:kms"}, {s3wire.HeaderKeyID, f.key}} {
				f.requireRefused(t, 400, "InvalidArgument", writesWith(withKey(7, pair[0], pair[1]))...)
			}
		},
		"`AES256` + key id; unknown algorithm value (`aes:kms`); key id without algorithm; context with AES256": func(t *testing.T) {
			for _, h := range []http.Header{
				values(s3wire.HeaderEncryption, "AES256", s3wire.HeaderKeyID, f.key), values(s3wire.HeaderEncryption, "aes:kms"),
				values(s3wire.HeaderKeyID, f.key),
				values(s3wire.HeaderEncryption, "AES256", s3wire.HeaderContext, base64.StdEncoding.EncodeToString([]byte(`{"a":"b"}`))),
			} {
				f.requireRefused(t, 400, "InvalidArgument", writesWith(h)...)
			}
		},
		"GET and HEAD with the headers of SSE-S3 or SSE-KMS": func(t *testing.T) {
			f.requireRefused(t, 400, "InvalidArgument", readsOf("SSE-S3", values(s3wire.HeaderEncryption, "AES256"))...)
			f.requireRefused(t, 400, "InvalidArgument", readsOf("SSE-KMS", values(s3wire.HeaderEncryption, "aws:kms"))...)
		},
		"GET/HEAD of an SSE-C object without its key": func(t *testing.T) {
			f.requireRefused(t, 400, "InvalidRequest", each(readsOf("SSE-C", nil), []call{{method: http.MethodPut, path: pathOf("new"), headers: addCopySource("SSE-C", nil, nil)}})...)
		},
		"wrong SSE-C key": func(t *testing.T) {
			f.requireRefused(t, 403, "AccessDenied", each(readsOf("SSE-C", withKey(8)), []call{{method: http.MethodPut, path: pathOf("new"), headers: addCopySource("SSE-C", nil, withKey(8))}})...)
		},
		"SSE-C headers on an object that is not SSE-C": func(t *testing.T) {
			for _, name := range []string{"SSE-S3", "SSE-KMS"} {
				f.requireRefused(t, 400, "InvalidRequest", each(readsOf(name, withKey(7)), []call{{method: http.MethodPut, path: pathOf("new"), headers: addCopySource(name, nil, withKey(7))}})...)
			}
		},
		"self-copy to rotate with a wrong source key": func(t *testing.T) {
			f.requireRefused(t, 400, "InvalidArgument", call{method: http.MethodPut, path: pathOf("SSE-C"), headers: addCopySource("SSE-C", withKey(9), withKey(8))})
		},
		"copy to self that changes nothing": func(t *testing.T) {
			f.requireRefused(t, 400, "InvalidRequest", call{method: http.MethodPut, path: pathOf("SSE-S3"), headers: addCopySource("SSE-S3", nil, nil)})
		},
		"a part whose SSE parameters differ from the upload's": func(t *testing.T) {
			f.requireRefused(t, 400, "InvalidRequest", each(f.parts("SSE-C", nil), f.parts("SSE-C", withKey(8)), f.parts("SSE-S3", withKey(7)), f.parts("SSE-KMS", withKey(7)))...)
			f.requireRefused(t, 400, "InvalidArgument", f.parts("SSE-KMS", values(s3wire.HeaderEncryption, "AES256"))...)
		},
		"no bucket encryption configuration (GET)": func(t *testing.T) {
			f.requireRefused(t, 404, "ServerSideEncryptionConfigurationNotFoundError", call{method: http.MethodGet, path: "/" + blockedBucket + "?encryption="})
			_, err := f.c.DeleteBucketEncryption(t.Context(), &s3.DeleteBucketEncryptionInput{Bucket: ptr(blockedBucket)})
			require.NoError(t, err)
		},
		"policy denial; SSE-C blocked": f.checkDenials,
		"a configuration that says too much or too little": func(t *testing.T) {
			for _, by := range []string{
				"<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>" + f.key + "</KMSMasterKeyID>", "<SSEAlgorithm>aes:kms</SSEAlgorithm>", "",
			} {
				xml := "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>" + by + "</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
				wrong := call{method: http.MethodPut, path: "/" + blockedBucket + "?encryption=", body: xml}
				if strings.Contains(by, "KMSMasterKeyID") {
					f.requireRefused(t, 400, "InvalidArgument", wrong)
				} else {
					f.requireRefused(t, 400, "MalformedXML", wrong)
				}
			}
		},
	} {
		t.Run(row, test)
	}
	t.Run("key services", f.keyServices)
}

func (f *facts) plainHTTP(t *testing.T) {
	calls := each(writesWith(withKey(7)), readsOf("SSE-C", withKey(7)), f.parts("SSE-C", withKey(7)), f.completion("SSE-C", withKey(7)),
		[]call{{method: http.MethodPut, path: pathOf("new"), headers: addCopySource("SSE-C", nil, withKey(7))}})
	for i := range calls {
		calls[i].over = f.plain
	}
	f.requireRefused(t, 400, "InvalidRequest", calls...)
}

func (f *facts) checkCustomerHeaders(t *testing.T) {
	short := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 31))
	for _, h := range []http.Header{
		withKey(7, s3wire.HeaderCustomerAlgorithm, "aws:kms"), withKey(7, s3wire.HeaderCustomerAlgorithm, "-"),
		withKey(7, s3wire.HeaderCustomerKey, "-"), withKey(7, s3wire.HeaderCustomerKeyMD5, "-"),
		withKey(7, s3wire.HeaderCustomerKeyMD5, newCustomerKey(8).sum), withKey(7, s3wire.HeaderCustomerKey, short),
		withKey(7, s3wire.HeaderCustomerKey, "%%%"),
	} {
		f.requireRefused(t, 400, "InvalidArgument", each(writesWith(h), readsOf("SSE-C", h), f.parts("SSE-C", h), f.completion("SSE-C", h),
			[]call{{method: http.MethodPut, path: pathOf("new"), headers: addCopySource("SSE-C", nil, h)}})...)
	}
}

func (f *facts) checkDenials(t *testing.T) {
	calls := writesWith(nil)
	for i := range calls {
		calls[i].user, calls[i].secret = "bob", "bob-secret"
	}
	f.requireRefused(t, 403, "AccessDenied", calls...)
	f.requireRefused(t, 403, "AccessDenied",
		call{method: http.MethodPut, path: "/" + blockedBucket + "/new", headers: withKey(7)},
		call{method: http.MethodPut, path: "/" + blockedBucket + "/new", headers: addCopySource("SSE-S3", withKey(7), nil)},
		call{method: http.MethodPost, path: "/" + blockedBucket + "/new?uploads=", headers: withKey(7)})
}

// keyServices has the rows of the key service: unknown, disabled, pending, down.
func (f *facts) keyServices(t *testing.T) {
	under := func(id string) []call {
		xml := "<ObjectEncryption><SSE-KMS><KMSKeyArn>" + id + "</KMSKeyArn></SSE-KMS></ObjectEncryption>"
		return append(writesWith(values(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, id)),
			call{method: http.MethodPut, path: pathOf("SSE-S3?encryption="), body: xml})
	}
	t.Run("KMS key unknown", func(t *testing.T) {
		f.requireRefused(t, 400, "KMS.NotFoundException", each(under("alias/none"), under(f.key+"0"))...)
	})
	all := func() []call { return each(under(f.key), readsOf("key", nil)) }
	t.Run("KMS down", func(t *testing.T) {
		require.NoError(t, os.WriteFile(f.path(downFile), nil, 0o600))
		f.requireRefused(t, 503, "ServiceUnavailable", all()...)
		f.requireRefused(t, 503, "ServiceUnavailable", f.parts("SSE-KMS", nil)...)
		require.NoError(t, os.Remove(f.path(downFile)))
	})
	t.Run("KMS key disabled", func(t *testing.T) {
		require.NoError(t, f.keys.DisableKey(t.Context(), f.key))
		f.requireRefused(t, 400, "KMS.DisabledException", all()...)
		require.NoError(t, f.keys.EnableKey(t.Context(), f.key))
	})
	t.Run("KMS key pending deletion or import", func(t *testing.T) {
		client := f.setup.keyClient(t)
		_, err := client.ScheduleKeyDeletion(t.Context(), f.key, 7)
		require.NoError(t, err)
		f.requireRefused(t, 400, "KMS.KMSInvalidStateException", all()...)
	})
}

// downFile is the file that tells a gateway's key service to be down.
const downFile = "kms-down"
