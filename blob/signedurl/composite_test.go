package signedurl_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// TestComposite: an object that was uploaded in parts is served as any other: whole, in
// ranges, its header, and under an ETag that survives a rewrap and goes with the content.
func TestComposite(t *testing.T) {
	const chunk = 16384
	for store, inner := range map[string]*gcblob.Bucket{"mem": blobtest.NewMem(t), "file": blobtest.NewFile(t)} {
		for name, sizes := range map[string][]int{"small": {10, 20}, "large": {20 * chunk, 100, 3 * chunk, 0}, "empty": {0}} {
			t.Run(store+"/"+name, func(t *testing.T) {
				ring := blobtest.NewRing(t)
				cipher := sse.NewManaged(ring)
				bucket := blobtest.NewBucketWith(t, inner, cipher, nil)
				b := newBed(t, "encrypted", bucket.Bucket, nil)
				want := string(blobtest.PutComposite(t, inner, name, cipher, sizes...))
				get := b.url(t, name, "GET", "")

				head := b.do(t, "HEAD", get, nil)
				require.Equal(t, 200, head.status)
				require.Equal(t, strconv.Itoa(len(want)), head.header["Content-Length"])
				require.Equal(t, "image/jpeg", head.header["Content-Type"])
				etag := head.header["Etag"]
				require.Regexp(t, `^"[0-9a-f]{64}"$`, etag)

				check := func() {
					t.Helper()
					whole := b.do(t, "GET", get, nil)
					require.Equal(t, 200, whole.status)
					require.True(t, want == whole.body)
					require.Equal(t, etag, whole.header["Etag"])
					require.Equal(t, 304, b.do(t, "GET", get, nil, "If-None-Match", etag).status)
					for _, part := range [][2]int{{0, 4}, {5, 15}, {chunk - 1, chunk}, {20*chunk - 3, 20*chunk + 120}, {1, len(want) - 1}, {len(want) - 1, len(want) - 1}} {
						if part[0] < 0 || part[1] < part[0] || part[1] >= len(want) {
							continue
						}
						got := b.do(t, "GET", get, nil, "Range", fmt.Sprintf("bytes=%d-%d", part[0], part[1]), "If-Range", etag)
						require.Equal(t, 206, got.status)
						require.True(t, want[part[0]:part[1]+1] == got.body, part)
					}
					if want != "" {
						beyond := b.do(t, "GET", get, nil, "Range", fmt.Sprintf("bytes=%d-", len(want)))
						require.Equal(t, 416, beyond.status)
						require.Equal(t, fmt.Sprintf("bytes */%d", len(want)), beyond.header["Content-Range"])
					}
				}
				check()
				before := blobtest.ReadAll(t, inner, name)
				_, err := ring.Rotate(t.Context())
				require.NoError(t, err)
				_, err = jobs.Rewrap(t.Context(), bucket, &jobs.RewrapOptions{Filter: jobs.Filter{Prefix: name}})
				require.NoError(t, err)
				require.NotEqual(t, before, blobtest.ReadAll(t, inner, name))
				check()

				blobtest.PutComposite(t, inner, name, cipher, sizes...) // the same content, uploaded again
				require.NotEqual(t, etag, b.do(t, "HEAD", get, nil).header["Etag"])
			})
		}
	}
}

// TestDamagedComposite: responses for a damaged object are errors or break off, and every
// byte that they bring is the object's.
func TestDamagedComposite(t *testing.T) {
	const chunk = 16384
	inner, cipher := blobtest.NewMem(t), ssetest.NewCustomer(t, 1)
	b := newBed(t, "encrypted", blobtest.NewBucketWith(t, inner, cipher, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}}).Bucket, nil)
	want := string(blobtest.PutComposite(t, inner, "k", cipher, 20*chunk, 3*chunk))
	good := blobtest.ReadAll(t, inner, "k")
	get := b.url(t, "k", "GET", "")
	for name, damage := range map[string]func(p []byte) []byte{
		"footer":     func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
		"cut":        func(p []byte) []byte { return p[:len(p)-16] },
		"first":      func(p []byte) []byte { p[100] ^= 1; return p },
		"last":       func(p []byte) []byte { p[2*68+23*chunk+24*16] ^= 1; return p },
		"cut inside": func(p []byte) []byte { return append(p[:100:100], p[116:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, inner.WriteAll(t.Context(), "k", damage(append([]byte(nil), good...)), nil))
			got := b.do(t, "GET", get, nil)
			if got.status == 200 {
				require.True(t, got.broken)
				require.True(t, len(got.body) < len(want) && want[:len(got.body)] == got.body)
				return
			}
			require.Equal(t, 500, got.status)
		})
	}
}
