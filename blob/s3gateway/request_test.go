package s3gateway_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

func newRequest(t *testing.T, g *server, method, path, body string) (*http.Request, error) {
	return http.NewRequestWithContext(t.Context(), method, g.url+path, strings.NewReader(body))
}

// sign signs a request, which the SDK would not send, and sends it.
func sign(t *testing.T, g *server, r *http.Request, body string) *http.Response {
	return signAs(t, g, r, body, rootUser, rootSecret)
}

func signAs(t *testing.T, g *server, r *http.Request, body, user, secret string) *http.Response {
	sum := sha256.Sum256([]byte(body))
	r.Header.Set("x-amz-content-sha256", hex.EncodeToString(sum[:]))
	credentials := aws.Credentials{AccessKeyID: user, SecretAccessKey: secret}
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), credentials, r, hex.EncodeToString(sum[:]), "s3", "us-east-1", time.Now()))
	response, err := g.http(t).Do(r)
	require.NoError(t, err)
	return response
}

// send sends a presigned request.
func send(t *testing.T, g *server, signed *v4.PresignedHTTPRequest, body string) *http.Response {
	r, err := http.NewRequestWithContext(t.Context(), signed.Method, signed.URL, strings.NewReader(body))
	require.NoError(t, err)
	for name, values := range signed.SignedHeader {
		if !strings.EqualFold(name, "host") {
			r.Header[name] = values
		}
	}
	response, err := g.http(t).Do(r)
	require.NoError(t, err)
	return response
}

// createUser creates an account by the engine's admin API.
func createUser(t *testing.T, g *server, user, secret string) {
	body := "<Account><Access>" + user + "</Access><Secret>" + secret + "</Secret><Role>user</Role></Account>"
	r, err := newRequest(t, g, http.MethodPatch, "/create-user", body)
	require.NoError(t, err)
	response := sign(t, g, r, body)
	require.Equal(t, 201, response.StatusCode, "%s", readAll(t, response.Body))
}

// allowAll lets every account use the bucket's objects.
func allowAll(t *testing.T, c *s3.Client) {
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::` + bucket + `","arn:aws:s3:::` + bucket + `/*"]}]}`
	_, err := c.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: ptr(bucket), Policy: &policy})
	require.NoError(t, err)
}
