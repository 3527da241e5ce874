package s3gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/s3gateway"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// listStore is a store that counts the requests for objects. Objects without content have
// arbitrary sizes.
type listStore struct {
	backend.BackendUnsupported
	sizes   map[string]int64
	keys    []string
	content map[string][]byte

	mu      sync.Mutex
	looks   map[string]int // requests, by key
	current int
	most    int // at a time
}

func (s *listStore) CreateBucket(context.Context, *s3.CreateBucketInput, []byte) error { return nil }

func (s *listStore) ListObjectsV2(_ context.Context, in *s3.ListObjectsV2Input) (out s3response.ListObjectsV2Result, err error) {
	from, _ := slices.BinarySearch(s.keys, *in.ContinuationToken)
	to := min(from+int(*in.MaxKeys), len(s.keys))
	for _, key := range s.keys[from:to] {
		out.Contents = append(out.Contents, s3response.Object{Key: &key, Size: ptr(s.sizes[key]), ETag: ptr(`"x-1"`)})
	}
	if to < len(s.keys) {
		out.IsTruncated, out.NextContinuationToken = ptr(true), &s.keys[to]
	}
	return out, nil
}

func (s *listStore) GetObject(_ context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	s.enter(*in.Key)
	defer s.leave()
	var from, to int64
	if _, err := fmt.Sscanf(*in.Range, "bytes=%d-%d", &from, &to); err != nil {
		return nil, err
	}
	content, ok := s.content[*in.Key]
	if !ok {
		return nil, s3err.GetAPIError(s3err.ErrNoSuchKey)
	}
	time.Sleep(time.Millisecond) // so that others come meanwhile
	return &s3.GetObjectOutput{Body: io.NopCloser(bytes.NewReader(content[from:min(to+1, int64(len(content)))]))}, nil
}

func (s *listStore) HeadObject(_ context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	s.enter(*in.Key)
	defer s.leave()
	return nil, s3err.GetAPIError(s3err.ErrNoSuchKey)
}

func (s *listStore) enter(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks[key]++
	s.current++
	s.most = max(s.most, s.current)
}

func (s *listStore) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current--
}

// composite returns a stored object of n plaintext bytes that was uploaded in parts.
func composite(t *testing.T, cipher sse.Cipher, n int) []byte {
	m, err := sse.StartMultipart(t.Context(), cipher, sse.Object{Bucket: bucket, Key: "parts"})
	require.NoError(t, err)
	part, err := m.Part(1)
	require.NoError(t, err)
	body, err := io.ReadAll(part.Reader(bytes.NewReader(text(n))))
	require.NoError(t, err)
	receipt, err := part.Receipt()
	require.NoError(t, err)
	trailer, err := m.Trailer([][]byte{receipt}, &sse.TrailerOptions{EnvelopeSize: stored.DefaultEnvelopeSize})
	require.NoError(t, err)
	return append(body, trailer...)
}

// TestListsLookOnlyAtParts lists 10,000 objects, of which some were uploaded in parts:
// only those are looked at, at most 16 at a time, with two requests for each.
func TestListsLookOnlyAtParts(t *testing.T) {
	ring, _, err := open(t.Context(), newSetup(t))
	require.NoError(t, err)
	managed := sse.NewManaged(ring)
	keys, err := s3wire.NewKeys(s3wire.KeysOptions{Managed: managed})
	require.NoError(t, err)
	parts := composite(t, managed, 100_000)
	store := &listStore{sizes: map[string]int64{}, content: map[string][]byte{}, looks: map[string]int{}}
	want := map[string]int64{}
	for i := range 10_000 {
		key := fmt.Sprintf("%05d", i)
		if i%25 == 3 {
			key += "-parts"
			store.content[key], store.sizes[key], want[key] = parts, int64(len(parts)), 100_000
		} else {
			n := int64(i) * 17
			size, err := sse.CiphertextSize(n)
			require.NoError(t, err)
			store.sizes[key], want[key] = stored.DefaultEnvelopeSize+size, n
		}
		store.keys = append(store.keys, key)
	}
	slices.SortFunc(store.keys, cmp.Compare)
	g, err := s3gateway.New(t.Context(), store, keys, managed, nil)
	require.NoError(t, err)

	got := map[string]int64{}
	for token := ptr(""); token != nil; {
		page, err := g.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket), MaxKeys: ptr(int32(1000)), ContinuationToken: token})
		require.NoError(t, err)
		for _, o := range page.Contents {
			got[*o.Key] = *o.Size
		}
		token = page.NextContinuationToken
	}
	require.Equal(t, want, got)
	require.Len(t, store.looks, 400)
	for key, requests := range store.looks {
		require.True(t, strings.HasSuffix(key, "-parts"), key)
		require.LessOrEqual(t, requests, 2, key)
	}
	require.LessOrEqual(t, store.most, 16)
	t.Logf("%d requests at a time", store.most)
}
