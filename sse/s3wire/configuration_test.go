package s3wire_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse/s3wire"
)

func rule(inner string) string {
	return `<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>` + inner + `</Rule></ServerSideEncryptionConfiguration>`
}

func byDefault(inner string) string {
	return `<ApplyServerSideEncryptionByDefault>` + inner + `</ApplyServerSideEncryptionByDefault>`
}

const (
	aes256 = `<SSEAlgorithm>AES256</SSEAlgorithm>`
	awsKMS = `<SSEAlgorithm>aws:kms</SSEAlgorithm>`
	photos = `<KMSMasterKeyID>photos</KMSMasterKeyID>`
)

func TestParseConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		xml  string
		want s3wire.Configuration
	}{
		"SSE-S3":  {rule(byDefault(aes256)), s3wire.Configuration{Algorithm: s3wire.AES256}},
		"SSE-KMS": {rule(byDefault(awsKMS)), s3wire.Configuration{Algorithm: s3wire.AWSKMS}},
		"SSE-KMS with a key": {
			rule(byDefault(photos+awsKMS) + `<BucketKeyEnabled>true</BucketKeyEnabled>`),
			s3wire.Configuration{Algorithm: s3wire.AWSKMS, KeyID: "photos", BucketKeyEnabled: true},
		},
		"SSE-C allowed": {
			rule(byDefault(aes256) + `<BlockedEncryptionTypes><EncryptionType>NONE</EncryptionType></BlockedEncryptionTypes>`),
			s3wire.Configuration{Algorithm: s3wire.AES256, AllowCustomerKeys: true},
		},
		"SSE-C blocked, and nothing else": {
			rule(`<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>`),
			s3wire.Configuration{Algorithm: s3wire.AES256},
		},
		"no namespace, a declaration and comments": {
			`<?xml version="1.0" encoding="UTF-8"?><!-- a --><ServerSideEncryptionConfiguration><Rule>` +
				byDefault(aes256) + "</Rule></ServerSideEncryptionConfiguration>\n<!-- b -->\n",
			s3wire.Configuration{Algorithm: s3wire.AES256},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s3wire.ParseConfiguration(strings.NewReader(c.xml))
			require.NoError(t, err)
			require.Equal(t, &c.want, got)
			out, err := got.XML()
			require.NoError(t, err)
			again, err := s3wire.ParseConfiguration(strings.NewReader(string(out)))
			require.NoError(t, err, "%s", out)
			require.Equal(t, got, again)
		})
	}
}

func TestParseConfigurationRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		xml  string
		code string
	}{
		"nothing":              {"", "MalformedXML"},
		"no XML":               {"AES256", "MalformedXML"},
		"no end":               {rule(byDefault(aes256))[:100], "MalformedXML"},
		"another document":     {"<CORSConfiguration/>", "MalformedXML"},
		"another namespace":    {strings.Replace(rule(byDefault(aes256)), "s3.amazonaws.com", "example.com", 1), "MalformedXML"},
		"no rule":              {"<ServerSideEncryptionConfiguration/>", "MalformedXML"},
		"an empty rule":        {rule(""), "MalformedXML"},
		"two rules":            {rule(byDefault(aes256) + "</Rule><Rule>" + byDefault(aes256)), "MalformedXML"},
		"two defaults":         {rule(byDefault(aes256) + byDefault(awsKMS)), "MalformedXML"},
		"no algorithm":         {rule(byDefault("")), "MalformedXML"},
		"two algorithms":       {rule(byDefault(aes256 + awsKMS)), "MalformedXML"},
		"an unknown algorithm": {rule(byDefault("<SSEAlgorithm>aes:kms</SSEAlgorithm>")), "MalformedXML"},
		"two keys":             {rule(byDefault(awsKMS + photos + photos)), "MalformedXML"},
		"an empty key":         {rule(byDefault(awsKMS + "<KMSMasterKeyID/>")), "MalformedXML"},
		"a key id with AES256": {rule(byDefault(aes256 + photos)), "InvalidArgument"},
		"two layers":           {rule(byDefault("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>")), "NotImplemented"},
		"a bucket key of yes":  {rule(byDefault(awsKMS) + "<BucketKeyEnabled>yes</BucketKeyEnabled>"), "MalformedXML"},
		"two bucket keys": {
			rule(byDefault(awsKMS) + "<BucketKeyEnabled>true</BucketKeyEnabled><BucketKeyEnabled>false</BucketKeyEnabled>"), "MalformedXML",
		},
		"an unknown type": {
			rule(byDefault(aes256) + "<BlockedEncryptionTypes><EncryptionType>SSE-KMS</EncryptionType></BlockedEncryptionTypes>"), "MalformedXML",
		},
		"types that contradict": {
			rule(byDefault(aes256) + "<BlockedEncryptionTypes><EncryptionType>NONE</EncryptionType><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>"),
			"MalformedXML",
		},
		"an unknown element":                {rule(byDefault(aes256) + "<Encrypt>twice</Encrypt>"), "MalformedXML"},
		"an element in an algorithm":        {rule(byDefault("<SSEAlgorithm>AES256<Encrypt/></SSEAlgorithm>")), "MalformedXML"},
		"a child of another namespace":      {rule(strings.Replace(byDefault(aes256), ">", ` xmlns="http://example.com/">`, 1)), "MalformedXML"},
		"text in front":                     {"text" + rule(byDefault(aes256)), "MalformedXML"},
		"an unknown element in the default": {rule(byDefault(aes256 + "<Encrypt>twice</Encrypt>")), "MalformedXML"},
		"a second document":                 {rule(byDefault(aes256)) + rule(byDefault(aes256)), "MalformedXML"},
		"text behind":                       {rule(byDefault(aes256)) + "text", "MalformedXML"},
		"an entity":                         {`<!DOCTYPE a [<!ENTITY b "c">]>` + rule(byDefault("<SSEAlgorithm>&b;</SSEAlgorithm>")), "MalformedXML"},
		"more than 16 KiB":                  {rule(byDefault(aes256)) + strings.Repeat(" ", 16<<10), "MalformedXML"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s3wire.ParseConfiguration(strings.NewReader(c.xml))
			require.Nil(t, got)
			requireCode(t, c.code, err)
		})
	}
	t.Run("a failing reader", func(t *testing.T) {
		broken := errors.New("connection lost")
		_, err := s3wire.ParseConfiguration(iotest.ErrReader(broken))
		require.ErrorIs(t, err, broken)
	})
}

// TestConfigurationOverHTTP: the server answers with what it was told.
func TestConfigurationOverHTTP(t *testing.T) {
	b := newBed(t)
	response, body := b.do(t, http.MethodPut, "/b?encryption", nil, rule(byDefault(awsKMS+photos)))
	require.Equal(t, 200, response.StatusCode, body)
	response, body = b.do(t, http.MethodGet, "/b?encryption", nil, "")
	require.Equal(t, 200, response.StatusCode)
	require.Contains(t, body, "<KMSMasterKeyID>photos</KMSMasterKeyID>")
	require.Contains(t, body, "<EncryptionType>SSE-C</EncryptionType>")
	require.Equal(t, "aws:kms", b.put(t, "/b/k", nil).Get(s3wire.HeaderEncryption))
	response, body = b.do(t, http.MethodPut, "/b?encryption", nil, rule(""))
	require.Equal(t, 400, response.StatusCode, body)
	require.Equal(t, "aws:kms", b.put(t, "/b/k", nil).Get(s3wire.HeaderEncryption))
}
