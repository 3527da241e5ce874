package signedurl_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/fileblob"
)

// TestGocloudSigner keeps what the documentation of Signer says of gocloud's own.
// When it fails, that one has become better.
func TestGocloudSigner(t *testing.T) {
	base, err := url.Parse(signerBase)
	require.NoError(t, err)
	theirs := fileblob.NewURLSignerHMAC(base, []byte("k")) // one byte
	key := func(signer fileblob.URLSigner, raw string) string {
		key, err := signer.KeyFromURL(t.Context(), &url.URL{RawQuery: raw})
		if err != nil {
			return ""
		}
		return key
	}
	from := func(opts *driver.SignedURLOptions) string {
		u, err := theirs.URLFromKey(t.Context(), "a/b c", opts)
		require.NoError(t, err)
		return u.RawQuery
	}
	put := from(&driver.SignedURLOptions{Method: "PUT", Expiry: time.Hour})
	require.NotContains(t, from(&driver.SignedURLOptions{Method: "PUT", Expiry: time.Hour, EnforceAbsentContentType: true}), "ontent", "absence is not carried")
	require.Equal(t, "a/b c", key(theirs, put+"&obj=other&more"), "parameters beside it")
	elsewhere, err := url.Parse("https://other.example/bucket")
	require.NoError(t, err)
	require.Equal(t, "a/b c", key(fileblob.NewURLSignerHMAC(elsewhere, []byte("k")), put), "the base is not bound")
	require.Contains(t, fmt.Sprintf("%v", fileblob.NewURLSignerHMAC(base, []byte("secret"))), "115 101 99 114 101 116", "fmt shows the secret")
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, signerBase, secretOf(1), nil)
	r := request("GET", queryOf(b, sign(b, s, "2026/03/cat.jpg", "GET", "")))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(r); err != nil {
			b.Fatal(err)
		}
	}
}
