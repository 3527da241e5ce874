package objstore_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	thanos "github.com/thanos-io/objstore"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob/objstore"
)

// unsupported are options of writes that objstore has no place for.
var unsupported = []*gcblob.WriterOptions{
	{Metadata: map[string]string{"a": "b"}}, {Metadata: map[string]string{"blobseal-content-encoding": "gzip"}},
	{CacheControl: "no-store"}, {ContentDisposition: "inline"}, {ContentEncoding: "gzip"}, {ContentLanguage: "de"}, {IfNotExist: true},
}

// listAll lists a bucket in pages.
func listAll(t *testing.T, b *gcblob.Bucket, pageSize int, opts *gcblob.ListOptions) (all []string) {
	for token := gcblob.FirstPageToken; len(token) > 0; {
		page, next, err := b.ListPage(t.Context(), token, pageSize, opts)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), pageSize)
		for _, o := range page {
			all = append(all, fmt.Sprint(o.Key, " ", o.Size, " ", o.IsDir))
		}
		token = next
	}
	return all
}

// TestLists compares lists of random keys with those of gocloud's own bucket, over
// two providers, which order names in two ways.
func TestLists(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	want := memblob.OpenBucket(nil)
	defer want.Close()
	lists := map[string]*gcblob.Bucket{
		"memory": objstore.OpenBucket(thanos.NewInMemBucket()),
		"files":  objstore.OpenBucket(onFiles(t)),
	}
	segments := []string{"a", "a.b", "a-", "b", "ab", "c|d", "é"}
	taken := map[string]bool{} // as a directory, or as an object
	for range 60 {
		var parts []string
		for range 1 + random.IntN(3) {
			parts = append(parts, segments[random.IntN(len(segments))])
		}
		key := strings.Join(parts, "/")
		isObject, isFree := taken[key+" object"], true
		for i := range parts[:len(parts)-1] {
			isFree = isFree && !taken[strings.Join(parts[:i+1], "/")+" object"]
		}
		if !isFree || !isObject && taken[key] { // a file system has no object "a" beside "a/b"
			continue
		}
		for i := range parts {
			taken[strings.Join(parts[:i+1], "/")] = true
		}
		taken[key+" object"] = true
		for _, b := range []*gcblob.Bucket{want, lists["memory"], lists["files"]} {
			require.NoError(t, b.WriteAll(t.Context(), key, make([]byte, len(key)), nil))
		}
	}
	for name, b := range lists {
		t.Run(name, func(t *testing.T) {
			for _, delimiter := range []string{"", "/", "|", "a"} {
				for _, prefix := range []string{"", "a", "a/", "a.", "a/a", "a/b/", "c|", "z", "é"} {
					opts := &gcblob.ListOptions{Prefix: prefix, Delimiter: delimiter}
					all := listAll(t, want, 1000, opts)
					for _, size := range []int{1, 2, 7, 1000} {
						require.Equal(t, all, listAll(t, b, size, opts), "delimiter %q, prefix %q, pages of %d", delimiter, prefix, size)
					}
				}
			}
		})
	}
}
