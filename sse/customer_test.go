package sse_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// TestCustomerKeys: 32 zeros are memory that nobody filled. Text is a key: S3's
// clients send some.
func TestCustomerKeys(t *testing.T) {
	parse := func(key []byte) (*sse.Customer, error) {
		sum := md5.Sum(key)
		return sse.ParseCustomerKey("AES256", base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(sum[:]))
	}
	for name, from := range map[string]func([]byte) (*sse.Customer, error){"NewCustomer": sse.NewCustomer, "ParseCustomerKey": parse} {
		_, err := from(make([]byte, 32))
		require.ErrorIs(t, err, sse.ErrInvalid, name)
		require.ErrorContains(t, err, "zeros", name)
		for _, key := range []string{"0123456789abcdef0123456789abcdef", strings.Repeat("\x00", 31) + "\x01"} {
			c, err := from([]byte(key))
			require.NoError(t, err, name)
			sum := md5.Sum([]byte(key))
			require.Equal(t, base64.StdEncoding.EncodeToString(sum[:]), c.KeyMD5(), name)
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
				require.NotContains(t, fmt.Sprintf(verb, c), key, name)
				require.NotContains(t, fmt.Sprintf(verb, c), fmt.Sprintf("%x", key), name)
			}
		}
	}
}

// ParseCustomerKey takes what S3 takes, and shows nothing of what it refuses.
func TestParseCustomerKey(t *testing.T) {
	const key, sum = "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs=", "DWygnHRtgiJ77HCm+1rvHw=="
	raw, err := base64.StdEncoding.DecodeString(key)
	require.NoError(t, err)
	parsed, err := sse.ParseCustomerKey("AES256", key, sum)
	require.NoError(t, err)
	same, err := sse.NewCustomer(raw)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "b", Key: "k"}
	e, err := parsed.Encrypt(t.Context(), obj)
	require.NoError(t, err)
	_, err = same.Decrypt(t.Context(), obj, e.Envelope())
	require.NoError(t, err)

	of := func(key []byte) (string, string) {
		sum := md5.Sum(key)
		return base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(sum[:])
	}
	short, shortSum := of(raw[:31])
	long, longSum := of(append(raw, 0))
	none, noneSum := of(nil)
	for name, c := range map[string][3]string{
		"nothing":                   {},
		"no algorithm":              {"", key, sum},
		"another algorithm":         {"AES128", key, sum},
		"algorithm in lower case":   {"aes256", key, sum},
		"key for the algorithm":     {key, key, sum},
		"no key":                    {"AES256", "", sum},
		"empty key with its MD5":    {"AES256", none, noneSum},
		"no MD5":                    {"AES256", key, ""},
		"MD5 of another key":        {"AES256", key, shortSum},
		"MD5 without padding":       {"AES256", key, strings.TrimRight(sum, "=")},
		"MD5 in hexadecimal":        {"AES256", key, "0d6ca09c746d82227bec70a6fb5aef1f"},
		"31 bytes":                  {"AES256", short, shortSum},
		"33 bytes":                  {"AES256", long, longSum},
		"no base64":                 {"AES256", key[:42] + "!=", sum},
		"base64 without padding":    {"AES256", strings.TrimRight(key, "="), sum},
		"base64 for URLs":           {"AES256", strings.ReplaceAll(key, "/", "_"), sum},
		"bits behind the last byte": {"AES256", strings.Replace(key, "Vs=", "Vt=", 1), sum},
		"white space":               {"AES256", key + " ", sum},
		"line end":                  {"AES256", key + "\n", sum},
		"raw key":                   {"AES256", string(raw), sum},
	} {
		customer, err := sse.ParseCustomerKey(c[0], c[1], c[2])
		require.ErrorIs(t, err, sse.ErrInvalid, name)
		require.Nil(t, customer, name)
		for _, part := range c {
			if len(part) > 6 { // AES256 is in the text
				require.NotContains(t, err.Error(), part, name)
			}
		}
	}
}

// TestNoSecretPrints. SPEC ERR-4
func TestNoSecretPrints(t *testing.T) {
	key := []byte("0123456789abcdefghijklmnopqrstuv")
	c := newCustomer(t, key)
	e, err := c.Encrypt(t.Context(), object)
	require.NoError(t, err)
	d, err := c.Decrypt(t.Context(), object, e.Envelope())
	require.NoError(t, err)
	_, wrong := newCustomer(t, customerKey).Decrypt(t.Context(), object, e.Envelope())
	m := sse.NewManaged(newRing(t))
	var out bytes.Buffer
	for _, v := range []any{c, *c, e, d, *d, m, wrong, struct{ C *sse.Customer }{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text, _ := json.Marshal(v)
		out.Write(text)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	for _, form := range []string{"0123456789abcdef", "30313233", "48 49 50 51", "0x30, 0x31", "MDEyMzQ1"} {
		require.NotContains(t, out.String(), form)
	}
}
