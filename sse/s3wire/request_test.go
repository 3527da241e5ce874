package s3wire_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// The known-good pair of a customer's key and its MD5.
const (
	customerKey = "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs="
	customerMD5 = "DWygnHRtgiJ77HCm+1rvHw=="
)

// headers returns a header of names and values in turn.
func headers(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// customerHeaders returns the three headers of the known-good key, with changes.
// The value "-" removes a header.
func customerHeaders(changes ...string) http.Header {
	h := headers(s3wire.HeaderCustomerAlgorithm, "AES256", s3wire.HeaderCustomerKey, customerKey, s3wire.HeaderCustomerKeyMD5, customerMD5)
	for i := 0; i < len(changes); i += 2 {
		h.Set(changes[i], changes[i+1])
		if changes[i+1] == "-" {
			h.Del(changes[i])
		}
	}
	return h
}

func encoded(json string) string { return base64.StdEncoding.EncodeToString([]byte(json)) }

// requireCode requires an *Error of this code that shows nothing of the key.
func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	var e *s3wire.Error
	require.True(t, errors.As(err, &e), "%v", err)
	require.Equal(t, code, e.Code, "%v", err)
	require.NotEmpty(t, e.ClientMessage())
	for _, text := range []string{e.ClientMessage(), e.Error(), fmt.Sprintf("%+v", e), string(e.XML("/b/k", "1"))} {
		require.NotContains(t, text, customerKey[:8])
		require.NotContains(t, text, customerMD5[:8])
	}
}

func TestParseWrite(t *testing.T) {
	t.Run("nothing", func(t *testing.T) {
		w, err := s3wire.ParseWrite(headers().Values, false)
		require.NoError(t, err)
		require.Equal(t, &s3wire.Write{}, w)
	})
	t.Run("SSE-S3", func(t *testing.T) {
		w, err := s3wire.ParseWrite(headers(s3wire.HeaderEncryption, "AES256").Values, false)
		require.NoError(t, err)
		require.Equal(t, &s3wire.Write{Algorithm: s3wire.AES256}, w)
	})
	t.Run("SSE-KMS", func(t *testing.T) {
		enabled := true
		w, err := s3wire.ParseWrite(headers(
			s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, "alias/mine", s3wire.HeaderBucketKey, "true",
			s3wire.HeaderContext, encoded(`{"tenant":"ä","empty":""}`),
		).Values, false)
		require.NoError(t, err)
		require.Equal(t, &s3wire.Write{
			Algorithm: s3wire.AWSKMS, KeyID: "alias/mine", BucketKey: &enabled,
			Context: kms.Context{"tenant": "ä", "empty": ""},
		}, w)
	})
	t.Run("SSE-C", func(t *testing.T) {
		w, err := s3wire.ParseWrite(customerHeaders().Values, true)
		require.NoError(t, err)
		require.Equal(t, customerMD5, w.Customer.KeyMD5())
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			require.NotContains(t, fmt.Sprintf(format, w), customerKey[:8])
			require.NotContains(t, fmt.Sprintf(format, *w.Customer), "a4edeea4")
		}
	})
	t.Run("SSE-C form fields", func(t *testing.T) {
		form := map[string][]string{}
		for name, values := range customerHeaders() {
			form[strings.ToLower(name)] = values
		}
		get := func(name string) []string { return form[strings.ToLower(name)] }
		w, err := s3wire.ParseWrite(get, true)
		require.NoError(t, err)
		require.NotNil(t, w.Customer)
	})
}

func TestParseWriteRefuses(t *testing.T) {
	kmsWith := func(pairs ...string) http.Header {
		return headers(append([]string{s3wire.HeaderEncryption, "aws:kms"}, pairs...)...)
	}
	for name, h := range map[string]http.Header{
		"an empty algorithm":              headers(s3wire.HeaderEncryption, ""),
		"an algorithm in lower case":      headers(s3wire.HeaderEncryption, "aes256"),
		"two algorithms":                  headers(s3wire.HeaderEncryption, "AES256", s3wire.HeaderEncryption, "AES256"),
		"two key ids":                     kmsWith(s3wire.HeaderKeyID, "a", s3wire.HeaderKeyID, "b"),
		"an empty key id":                 kmsWith(s3wire.HeaderKeyID, ""),
		"a long key id":                   kmsWith(s3wire.HeaderKeyID, strings.Repeat("k", 4000)),
		"a bucket key of yes":             kmsWith(s3wire.HeaderBucketKey, "yes"),
		"a bucket key with AES256":        headers(s3wire.HeaderEncryption, "AES256", s3wire.HeaderBucketKey, "true"),
		"a context without algorithm":     headers(s3wire.HeaderContext, encoded(`{}`)),
		"a context not in base64":         kmsWith(s3wire.HeaderContext, `{"a":"b"}`),
		"a context not in JSON":           kmsWith(s3wire.HeaderContext, encoded(`{"a":"b"`)),
		"a context with more":             kmsWith(s3wire.HeaderContext, encoded(`{"a":"b"} {}`)),
		"a context in loose base64":       kmsWith(s3wire.HeaderContext, "e30="[:2]+"1="),
		"a context of null":               kmsWith(s3wire.HeaderContext, encoded(`null`)),
		"a context of a list":             kmsWith(s3wire.HeaderContext, encoded(`["a","b"]`)),
		"a context with a number":         kmsWith(s3wire.HeaderContext, encoded(`{"a":1}`)),
		"a context in depth":              kmsWith(s3wire.HeaderContext, encoded(`{"a":{"b":"c"}}`)),
		"a context with a name twice":     kmsWith(s3wire.HeaderContext, encoded(`{"a":"b","a":"c"}`)),
		"a context that is not UTF-8":     kmsWith(s3wire.HeaderContext, encoded("{\"a\":\"\xff\"}")),
		"a context too long":              kmsWith(s3wire.HeaderContext, encoded(`{"a":"`+strings.Repeat("b", 8192)+`"}`)),
		"a context with aws:s3:arn":       kmsWith(s3wire.HeaderContext, encoded(`{"aws:s3:arn":"arn:aws:s3:::b/k"}`)),
		"a context with AWS:S3:arn":       kmsWith(s3wire.HeaderContext, encoded(`{"AWS:S3:arn":"arn:aws:s3:::b/k"}`)),
		"a context with blobseal:object":  kmsWith(s3wire.HeaderContext, encoded(`{"Blobseal:object":"b/k"}`)),
		"two customer keys":               customerAdded(s3wire.HeaderCustomerKey, customerKey),
		"a customer key of zeros":         customerHeaders(s3wire.HeaderCustomerKey, base64.StdEncoding.EncodeToString(make([]byte, 32)), s3wire.HeaderCustomerKeyMD5, "cLyPS3KoaSFGi/joRB3OUQ=="),
		"a customer key in base64url":     customerHeaders(s3wire.HeaderCustomerKey, strings.NewReplacer("/", "_").Replace(customerKey)),
		"a customer key and a bucket key": customerAdded(s3wire.HeaderBucketKey, "false"),
		"a customer key and a context":    customerAdded(s3wire.HeaderContext, encoded(`{}`)),
	} {
		t.Run(name, func(t *testing.T) {
			w, err := s3wire.ParseWrite(h.Values, true)
			require.Nil(t, w)
			requireCode(t, "InvalidArgument", err)
		})
	}
}

// TestCustomerMessages: S3's own words say which header is at fault.
func TestCustomerMessages(t *testing.T) {
	for message, h := range map[string]http.Header{
		"valid encryption algorithm": customerHeaders(s3wire.HeaderCustomerAlgorithm, "-"),
		"appropriate secret key":     customerHeaders(s3wire.HeaderCustomerKey, "-"),
		"client calculated MD5":      customerHeaders(s3wire.HeaderCustomerKeyMD5, "-"),
		"key was invalid":            customerHeaders(s3wire.HeaderCustomerKey, "%%%"),
		"did not match":              customerHeaders(s3wire.HeaderCustomerKeyMD5, "AAAAAAAAAAAAAAAAAAAAAA=="),
	} {
		t.Run(message, func(t *testing.T) {
			_, err := s3wire.ParseWrite(h.Values, true)
			require.Contains(t, s3wire.FromError(err).ClientMessage(), message)
		})
	}
}

func customerAdded(name, value string) http.Header {
	h := customerHeaders()
	h.Add(name, value)
	return h
}

func TestConditions(t *testing.T) {
	require.Empty(t, s3wire.Conditions(headers().Values))
	require.Equal(t, map[string][]string{
		"s3:x-amz-server-side-encryption":                {"aws:kms"},
		"s3:x-amz-server-side-encryption-aws-kms-key-id": {"alias/mine"},
	}, s3wire.Conditions(headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, "alias/mine").Values))
	require.Equal(t, map[string][]string{
		"s3:x-amz-server-side-encryption-customer-algorithm": {"AES256"},
	}, s3wire.Conditions(customerHeaders().Values))
}
