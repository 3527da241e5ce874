package s3test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
)

// startFake starts gofakes3, which keeps objects in memory.
func startFake(t testing.TB) *server {
	s3 := gofakes3.New(paged{s3mem.New()}).Server()
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s3.ServeHTTP(partial{w}, r)
	}))
	t.Cleanup(fake.Close)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	return &server{name: "gofakes3", endpoint: fake.URL, base: base}
}

// partial removes the checksum from an answer with a part of an object. gofakes3 v1.2.0
// returns the checksum of the whole object, unlike S3, and the SDK would compare it with the
// part.
type partial struct{ http.ResponseWriter }

func (p partial) WriteHeader(status int) {
	if status == http.StatusPartialContent {
		for name := range p.Header() {
			if strings.HasPrefix(name, "X-Amz-Checksum-") {
				p.Header().Del(name)
			}
		}
	}
	p.ResponseWriter.WriteHeader(status)
}

// paged lists as S3 does. In gofakes3 v1.2.0, s3mem announces a page that does not exist, and
// returns pages of folders again and again.
type paged struct{ *s3mem.Backend }

// ListBucket returns the page behind page.Marker, the last key or common prefix of the page
// before.
func (p paged) ListBucket(name string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	all, err := p.Backend.ListBucket(name, nil, gofakes3.ListBucketPage{})
	if err != nil {
		return nil, err
	}
	list := gofakes3.NewObjectList()
	last := page.Marker
	var n int64
	for _, object := range all.Contents { // in the order of their keys
		entry, isPrefix := entryOf(object.Key, prefix)
		if !strings.HasPrefix(object.Key, prefix.Prefix) || entry <= last {
			continue
		}
		if page.MaxKeys > 0 && n == page.MaxKeys {
			list.IsTruncated, list.NextMarker = true, last
			break
		}
		if isPrefix {
			list.AddPrefix(entry)
		} else {
			list.Add(object)
		}
		last = entry
		n++
	}
	return list, nil
}

// entryOf returns the entry of a key in a list: the key, or the common prefix that ends with
// the delimiter.
func entryOf(key string, prefix *gofakes3.Prefix) (entry string, isPrefix bool) {
	rest, ok := strings.CutPrefix(key, prefix.Prefix)
	if !ok || !prefix.HasDelimiter {
		return key, false
	}
	at := strings.Index(rest, prefix.Delimiter)
	if at < 0 {
		return key, false
	}
	return prefix.Prefix + rest[:at] + prefix.Delimiter, true
}

// TestPaged: all pages of the fake together list all objects.
func TestPaged(t *testing.T) {
	backend := paged{s3mem.New()}
	require.NoError(t, backend.CreateBucket("b"))
	for _, key := range []string{"a", "d/1", "d/2", "d0", "e/1", "f"} {
		_, err := backend.PutObject("b", key, nil, strings.NewReader("x"), 1, nil)
		require.NoError(t, err)
	}
	slash := "/"
	for _, c := range []struct {
		prefix, delimiter *string
		want              []string
	}{
		{nil, nil, []string{"a", "d/1", "d/2", "d0", "e/1", "f"}},
		{nil, &slash, []string{"a", "d/", "d0", "e/", "f"}},
		{aString("d/"), &slash, []string{"d/1", "d/2"}},
		{aString("nothing"), nil, nil},
	} {
		prefix := gofakes3.NewPrefix(c.prefix, c.delimiter)
		for size := int64(1); size < 8; size++ {
			var got []string
			for marker, more := "", true; more; {
				page, err := backend.ListBucket("b", &prefix, gofakes3.ListBucketPage{Marker: marker, MaxKeys: size})
				require.NoError(t, err)
				var entries []string
				for _, o := range page.Contents {
					entries = append(entries, o.Key)
				}
				for _, p := range page.CommonPrefixes {
					entries = append(entries, p.Prefix)
				}
				slices.Sort(entries)
				got = append(got, entries...)
				marker, more = page.NextMarker, page.IsTruncated
			}
			require.Equal(t, c.want, got, "pages of %d", size)
		}
	}
}

func aString(s string) *string { return &s }
