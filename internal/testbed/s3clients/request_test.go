package s3clients

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/signer"
	"github.com/stretchr/testify/require"
)

// mode is how an object is encrypted, and with whose key. Clients that are programs of
// ours read its JSON.
type mode struct {
	Name     string `json:"name"`
	KeyID    string `json:"keyID"`    // in SSE-KMS
	Customer []byte `json:"customer"` // in SSE-C
}

// modes returns the three modes, with a new customer's key of 32 printable characters,
// since rclone and mc take no others.
func (b *bed) modes() []mode {
	return []mode{{Name: "SSE-S3"}, {Name: "SSE-KMS", KeyID: b.keyID}, {Name: "SSE-C", Customer: newCustomer()}}
}

// bucketDefault is the mode of objects whose requests name none.
const bucketDefault = "default"

func newCustomer() []byte { return []byte(rand.Text() + rand.Text())[:32] }

const sseHeader = "X-Amz-Server-Side-Encryption"

// customerHeaders are those of a customer's key, with a prefix for the source of a copy.
func (m mode) customerHeaders(prefix string) map[string]string {
	if m.Customer == nil {
		return nil
	}
	sum := md5.Sum(m.Customer)
	return map[string]string{
		prefix + "Server-Side-Encryption-Customer-Algorithm": "AES256",
		prefix + "Server-Side-Encryption-Customer-Key":       base64.StdEncoding.EncodeToString(m.Customer),
		prefix + "Server-Side-Encryption-Customer-Key-MD5":   base64.StdEncoding.EncodeToString(sum[:]),
	}
}

// readHeaders are those of a request that reads an object.
func (m mode) readHeaders() map[string]string { return m.customerHeaders("X-Amz-") }

// writeHeaders are those of a request that stores an object.
func (m mode) writeHeaders() map[string]string {
	switch m.Name {
	case "SSE-S3":
		return map[string]string{sseHeader: "AES256"}
	case "SSE-KMS":
		return map[string]string{sseHeader: "aws:kms", sseHeader + "-Aws-Kms-Key-Id": m.KeyID}
	}
	return m.readHeaders()
}

// check checks what a response says of an object's encryption.
func (m mode) check(h http.Header) error {
	want := m.writeHeaders()
	if m.Name == bucketDefault {
		want = map[string]string{sseHeader: "aws:kms"}
	}
	delete(want, "X-Amz-Server-Side-Encryption-Customer-Key") // which no response has
	for name, value := range want {
		// The key service answers with the key's full name.
		if got := h.Get(name); got != value && (m.KeyID == "" || !strings.HasSuffix(got, value)) {
			return fmt.Errorf("%s: the response has %s: %q, want %q", m.Name, name, got, value)
		}
	}
	if key := h.Get("X-Amz-Server-Side-Encryption-Customer-Key"); key != "" {
		return fmt.Errorf("%s: the response has the customer's key", m.Name)
	}
	return nil
}

// response is a response that was read to its end.
type response struct {
	*http.Response
	body []byte
}

// send signs a request of the tests' own and sends it.
func (b *bed) send(t *testing.T, method, path, body string, headers map[string]string) response {
	r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	answer, err := do(b.http, signer.SignV4(*r, b.user, b.secret, "", region))
	require.NoError(t, err)
	return answer
}

// sendPresigned sends a request that a client has signed.
func (b *bed) sendPresigned(ctx context.Context, method, url string, headers map[string]string, body []byte) (response, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	return do(b.http, r)
}

func do(client *http.Client, r *http.Request) (response, error) {
	answer, err := client.Do(r)
	if err != nil {
		return response{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return response{answer, body}, err
}

// verify checks, by requests of the tests' own, that an object has a mode and a content.
func (b *bed) verify(t *testing.T, key string, m mode, content []byte) {
	head := b.send(t, http.MethodHead, "/"+bucket+"/"+key, "", m.readHeaders())
	require.Equal(t, http.StatusOK, head.StatusCode, "HEAD of %s, %v", key, head.Header)
	require.NoError(t, m.check(head.Header))
	require.Equal(t, int64(len(content)), head.ContentLength)
	got := b.send(t, http.MethodGet, "/"+bucket+"/"+key, "", m.readHeaders())
	require.Equal(t, http.StatusOK, got.StatusCode, "%s", got.body)
	require.True(t, bytes.Equal(content, got.body), "%s has another content", key)
}
