package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/transit"
)

// startVault starts Vault's own Transit engine with keys of these names, and returns
// what a client needs.
func startVault(t *testing.T, keys ...string) []string {
	address := transit.URL(t)
	client := &http.Client{Timeout: patience}
	post := func(path, body string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/v1/"+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("X-Vault-Token", transit.Token)
		response, err := client.Do(r)
		require.NoError(t, err)
		response.Body.Close()
		require.Less(t, response.StatusCode, 300, path)
	}
	post("sys/mounts/transit", `{"type": "transit"}`)
	for _, key := range keys {
		post("transit/keys/"+key, `{"derived": true}`)
	}
	return []string{"VAULT_ADDR=" + address, "VAULT_TOKEN=" + transit.Token}
}

// TestVault: Vault's keys are the root and the key service. Other keys of the service
// are accepted on request alone.
func TestVault(t *testing.T) {
	env := startVault(t, "rings", "photos", "other")
	dir := t.TempDir()
	flags := []string{"--root-kms-key", "hashivault://rings", "--key-service", "hashivault://photos"}
	strict := startAs(t, dir, env, flags...)
	lax := startAs(t, dir, env, append(flags, "--any-kms-key", "--audit", filepath.Join(dir, "second.jsonl"))...)
	_, err := strict.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("photos")})
	require.NoError(t, err)
	put(t, strict, "managed", "text", "")
	put(t, strict, "kms", "text", types.ServerSideEncryptionAwsKms)
	for _, client := range []*s3.Client{strict, lax} {
		requireText(t, client, "managed", "text")
		requireText(t, client, "kms", "text")
	}

	in := &s3.PutObjectInput{
		Bucket: aws.String("photos"), Key: aws.String("other"), Body: strings.NewReader("text"),
		ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: aws.String("other"),
	}
	_, err = strict.PutObject(t.Context(), in)
	require.ErrorContains(t, err, "AccessDenied")
	in.Body = strings.NewReader("text")
	_, err = lax.PutObject(t.Context(), in)
	require.NoError(t, err)
	requireText(t, lax, "other", "text")
	_, err = strict.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("photos"), Key: aws.String("other")})
	require.ErrorContains(t, err, "AccessDenied")

	require.NoFileExists(t, filepath.Join(dir, "root.key"))
	require.NoDirExists(t, filepath.Join(dir, "kms"))
	trail, err := os.ReadFile(filepath.Join(dir, "audit.jsonl"))
	require.NoError(t, err)
	for _, word := range []string{`"id":"admin"`, "photos/kms", "GenerateDataKey", "Decrypt"} {
		require.Contains(t, string(trail), word)
	}
}
