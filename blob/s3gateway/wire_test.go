package s3gateway_test

import (
	"bytes"
	"encoding/base64"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse/s3wire"
)

// encryptionHeaders returns the encryption headers of a response.
func encryptionHeaders(h http.Header) http.Header {
	found := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(strings.ToLower(name), s3wire.HeaderEncryption) {
			found[name] = values
		}
	}
	return found
}

// TestResponseHeaders sends every kind of request in every mode, and compares the
// headers about encryption with what S3 answers.
func TestResponseHeaders(t *testing.T) {
	f := newFacts(t)
	key := newCustomerKey(7)
	ec := base64.StdEncoding.EncodeToString([]byte(`{"team":"red"}`))
	customer := values(s3wire.HeaderCustomerAlgorithm, "AES256", s3wire.HeaderCustomerKeyMD5, key.sum)
	managed := values(s3wire.HeaderEncryption, "AES256")
	keyed := values(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, f.key)
	for _, c := range []struct {
		name              string
		write, read, want http.Header
	}{
		{"default", nil, nil, managed},
		{"SSE-S3", managed, nil, managed},
		{"SSE-KMS", keyed, nil, keyed},
		{"SSE-KMS with context", with(keyed, s3wire.HeaderContext, ec), nil, with(keyed, s3wire.HeaderContext, ec)},
		{"SSE-KMS with bucket key", with(keyed, s3wire.HeaderBucketKey, "true"), nil, with(keyed, s3wire.HeaderBucketKey, "true")},
		{"SSE-C", withKey(7), withKey(7), customer},
	} {
		t.Run(c.name, func(t *testing.T) {
			do := func(method, path string, h http.Header, body string) (http.Header, string) {
				r, err := newRequest(t, f.tls, method, path, body)
				require.NoError(t, err)
				for name, values := range h {
					r.Header[name] = values
				}
				response := sign(t, f.tls, r, body)
				answer := string(readAll(t, response.Body))
				require.Contains(t, []int{200, 206}, response.StatusCode, "%s %s: %s", method, path, answer)
				got, want := encryptionHeaders(response.Header), c.want.Clone()
				if h.Get(s3wire.HeaderContext) != "" { // the answers to other requests do not have it
					require.NotEmpty(t, got.Get(s3wire.HeaderContext), "%s %s", method, path)
					got.Del(s3wire.HeaderContext) // S3 adds a pair
				}
				want.Del(s3wire.HeaderContext)
				if got.Get(s3wire.HeaderBucketKey) == "false" {
					got.Del(s3wire.HeaderBucketKey)
				}
				require.Equal(t, want, got, "%s %s", method, path)
				return response.Header, answer
			}
			put, _ := do(http.MethodPut, pathOf("k"), c.write, "text")
			if c.want.Get(s3wire.HeaderContext) != "" {
				raw, err := base64.StdEncoding.DecodeString(put.Get(s3wire.HeaderContext))
				require.NoError(t, err)
				require.Contains(t, string(raw), `"team":"red"`)
			}
			do(http.MethodGet, pathOf("k"), c.read, "")
			do(http.MethodHead, pathOf("k"), c.read, "")
			do(http.MethodGet, pathOf("k"), with(c.read, "Range", "bytes=0-"), "")
			do(http.MethodPut, pathOf("copy"), addCopySource("SSE-KMS", c.write, nil), "")
			_, answer := do(http.MethodPost, pathOf("u?uploads="), c.write, "")
			_, id, _ := strings.Cut(answer, "<UploadId>")
			id, _, _ = strings.Cut(id, "</UploadId>")
			part, _ := do(http.MethodPut, pathOf("u?partNumber=1&uploadId="+id), c.read, "text")
			do(http.MethodPut, pathOf("u?partNumber=2&uploadId="+id), addCopySource("SSE-KMS", c.read, nil), "")
			do(http.MethodPost, pathOf("u?uploadId="+id), c.read, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+
				strings.Trim(part.Get("ETag"), `"`)+"</ETag></Part></CompleteMultipartUpload>")
		})
	}
}

// with returns headers with one more.
func with(h http.Header, name, value string) http.Header {
	h = h.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(name, value)
	return h
}

// TestForms posts forms, as browsers do.
func TestForms(t *testing.T) {
	f := newFacts(t)
	post := func(t *testing.T, g *server, name string, fields http.Header) (int, http.Header, string) {
		var conditions []any
		for field, value := range fields {
			conditions = append(conditions, map[string]string{strings.ToLower(field): value[0]})
		}
		form, err := s3.NewPresignClient(f.c).PresignPostObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: &name}, func(o *s3.PresignPostOptions) {
			o.Conditions = conditions
		})
		require.NoError(t, err)
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		for field, value := range form.Values {
			require.NoError(t, w.WriteField(field, value))
		}
		for field, value := range fields {
			require.NoError(t, w.WriteField(strings.ToLower(field), value[0]))
		}
		file, err := w.CreateFormFile("file", "f")
		require.NoError(t, err)
		_, err = file.Write(text(50_000))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/"+bucket, &body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", w.FormDataContentType())
		response, err := g.http(t).Do(r)
		require.NoError(t, err)
		return response.StatusCode, encryptionHeaders(response.Header), string(readAll(t, response.Body))
	}
	for _, c := range []struct {
		mode   mode
		fields http.Header
		want   string
	}{
		{modes()[1], nil, "AES256"},
		{modes()[1], values(s3wire.HeaderEncryption, "AES256"), "AES256"},
		{modes()[2], values(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, f.key), "aws:kms"},
		{modes()[3], withKey(7), ""},
	} {
		status, headers, answer := post(t, f.tls, "form", c.fields)
		require.Equal(t, 204, status, answer)
		require.Equal(t, c.want, headers.Get(s3wire.HeaderEncryption), c.mode.name)
		get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("form")}
		c.mode.get(get)
		out, err := f.c.GetObject(t.Context(), get)
		require.NoError(t, err)
		require.Equal(t, text(50_000), readAll(t, out.Body))
		require.Equal(t, c.want, string(out.ServerSideEncryption))
	}
	for _, c := range []struct {
		over   *server
		fields http.Header
		code   string
	}{
		{f.tls, values(s3wire.HeaderEncryption, "aes:kms"), "InvalidArgument"},
		{f.tls, values(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, "alias/none"), "KMS.NotFoundException"},
		{f.tls, withKey(7, s3wire.HeaderCustomerKeyMD5, newCustomerKey(8).sum), "InvalidArgument"},
		{f.tls, withKey(7, s3wire.HeaderEncryption, "AES256"), "InvalidArgument"},
		{f.plain, withKey(7), "InvalidRequest"},
	} {
		before := f.listStore(t)
		status, _, answer := post(t, c.over, "new", c.fields)
		require.Equal(t, 400, status, answer)
		require.Contains(t, answer, "<Code>"+c.code+"</Code>")
		require.Equal(t, before, f.listStore(t))
	}
}

// TestReadOnly: a read-only gateway writes nothing for clients.
func TestReadOnly(t *testing.T) {
	s := newSetup(t)
	_, c := s.startWithBucket(t)
	_, key := newKey(t, s)
	putIn(t, c, modes()[1], "k", text(10))
	before := storedBytes(t, s, "k")
	s.ReadOnly = true
	c = s.start(t).client(t)
	require.Equal(t, "AccessDenied", code(update(t, c, "k", key)))
	_, err := c.DeleteBucketEncryption(t.Context(), &s3.DeleteBucketEncryptionInput{Bucket: ptr(bucket)})
	require.Equal(t, "AccessDenied", code(err))
	_, err = c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: ptr(bucket)})
	require.NoError(t, err, "the configuration is gone")
	require.Equal(t, before, storedBytes(t, s, "k"))
}
