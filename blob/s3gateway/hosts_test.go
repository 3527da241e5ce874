package s3gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
)

// hostClient returns a client that sends requests to the host of each bucket.
func (g *server) hostClient(t *testing.T) *s3.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", g.Port))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return s3.New(s3.Options{
		BaseEndpoint: ptr("http://" + g.Domain), Region: "us-east-1", RetryMaxAttempts: 1,
		HTTPClient:  &http.Client{Transport: transport, Timeout: await.Longest},
		Credentials: credentials.NewStaticCredentialsProvider(rootUser, rootSecret, ""),
	})
}

// TestBucketHosts sends requests for ?encryption to the hosts of buckets.
func TestBucketHosts(t *testing.T) {
	s := newSetup(t)
	s.Plain, s.Domain = true, "s3.test"
	g := s.start(t)
	c := g.hostClient(t)
	newBucket(t, c)
	other := "other"
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &other})
	require.NoError(t, err)
	for _, c := range []*s3.Client{c, g.client(t)} { // the second one's paths begin with the bucket
		allowCustomerKeys(t, c, types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAwsKms})
		got, err := c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: ptr(bucket)})
		require.NoError(t, err)
		by := got.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault
		require.Equal(t, types.ServerSideEncryptionAwsKms, by.SSEAlgorithm)
		put, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: &other, Body: strings.NewReader("x")})
		require.NoError(t, err)
		require.Equal(t, types.ServerSideEncryptionAwsKms, put.ServerSideEncryption)
		_, err = c.DeleteBucketEncryption(t.Context(), &s3.DeleteBucketEncryptionInput{Bucket: ptr(bucket)})
		require.NoError(t, err)
		_, err = c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: ptr(bucket)})
		require.Equal(t, "ServerSideEncryptionConfigurationNotFoundError", code(err))
		_, err = c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{
			Bucket: &other, ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
				ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAwsKms},
			}}},
		})
		require.NoError(t, err)
	}
	_, key := newKey(t, s)
	require.NoError(t, update(t, c, other, key))
	require.Equal(t, key, *head(t, c, other).SSEKMSKeyId)
	// An object whose key is the name of a bucket is not that bucket.
	request, err := newRequest(t, g, http.MethodGet, "/"+other+"?encryption=", "")
	require.NoError(t, err)
	request.Host = bucket + "." + s.Domain
	response := sign(t, g, request, "")
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, "x", string(readAll(t, response.Body)))
}
