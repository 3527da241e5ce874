package s3gateway_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/s3gateway"
	"github.com/blobseal/blobseal/blob/stored"
)

// copyingStore is a store that copies ranges of an object. It records where each range begins
// and ends, by the number of the part.
type copyingStore struct {
	backend.BackendUnsupported
	fail func(part int32) error // called for each range
	get  error                  // of a request for the object

	mu     sync.Mutex
	ranges map[int32][2]int64
}

func (s *copyingStore) UploadPartCopy(_ context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	var first, last int64
	if _, err := fmt.Sscanf(*in.CopySourceRange, "bytes=%d-%d", &first, &last); err != nil {
		return s3response.CopyPartResult{}, err
	}
	s.mu.Lock()
	s.ranges[*in.PartNumber] = [2]int64{first, last + 1}
	s.mu.Unlock()
	if s.fail != nil {
		return s3response.CopyPartResult{}, s.fail(*in.PartNumber)
	}
	return s3response.CopyPartResult{ETag: ptr("etag")}, nil
}

func (s *copyingStore) GetObject(context.Context, *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	if s.get != nil {
		return nil, s.get
	}
	return &s3.GetObjectOutput{Body: io.NopCloser(strings.NewReader("b"))}, nil
}

// TestCopiedRanges: the ranges of a copy cover the whole body. There are no more ranges than
// an upload can have parts, and no range is larger than a part can be.
func TestCopiedRanges(t *testing.T) {
	for _, tc := range []struct {
		name  string
		size  int64
		parts int // or 0
	}{
		{"8 MiB", 8 << 20, 1},
		{"one range", 32 << 20, 1},
		{"a byte more", 32<<20 + 1, 2},
		{"312 GiB", 312 << 30, 0},
		{"313 GiB", 313 << 30, 0},
		{"5 TiB", 5 << 40, 0},
		{"50 TB", 50e12, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := &copyingStore{ranges: map[int32][2]int64{}}
			require.NoError(t, s3gateway.CopyBody(t.Context(), store, tc.size))
			if tc.parts != 0 {
				require.Len(t, store.ranges, tc.parts)
			}
			require.LessOrEqual(t, len(store.ranges), 10_000-2)
			var at int64
			for number := range int32(len(store.ranges)) {
				part := store.ranges[number+1]
				require.Equal(t, at, part[0], "part %d", number+1)
				require.GreaterOrEqual(t, part[1]-part[0], int64(5<<20))
				require.LessOrEqual(t, part[1]-part[0], int64(5<<30))
				at = part[1]
			}
			require.Equal(t, tc.size, at)
		})
	}
}

// TestFailedRangeStopsTheCopy: after a range has failed, no other range begins.
func TestFailedRangeStopsTheCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &copyingStore{ranges: map[int32][2]int64{}, fail: func(part int32) error {
			if part == 3 {
				return s3err.GetAPIError(s3err.ErrAccessDenied)
			}
			time.Sleep(time.Second)
			return nil
		}}
		err := s3gateway.CopyBody(t.Context(), store, 1<<40)
		require.Equal(t, s3err.GetAPIError(s3err.ErrAccessDenied), err)
		require.LessOrEqual(t, len(store.ranges), 8, "at most those that began together")
	})
}

// TestRefusedRange: if a store refuses a range, the copy reports a changed source only if the
// source has changed.
func TestRefusedRange(t *testing.T) {
	for _, tc := range []struct {
		name         string
		refused, get s3err.APIError
		changed      bool
	}{
		{"invalid", s3err.APIError{Code: "InvalidArgument"}, s3err.APIError{}, false},
		{"out of an unchanged object", s3err.APIError{Code: "InvalidRange"}, s3err.APIError{}, false},
		{"not of this bucket", s3err.APIError{Code: "InvalidRequest"}, s3err.APIError{}, false},
		{"replaced by a shorter object", s3err.APIError{Code: "InvalidArgument"}, s3err.APIError{Code: "PreconditionFailed"}, true},
		{"deleted meanwhile", s3err.APIError{Code: "InvalidRange"}, s3err.APIError{Code: "NoSuchKey"}, true},
		{"replaced", s3err.APIError{Code: "PreconditionFailed"}, s3err.APIError{}, true},
		{"deleted", s3err.APIError{Code: "NoSuchKey"}, s3err.APIError{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := &copyingStore{ranges: map[int32][2]int64{}, fail: func(int32) error { return tc.refused }}
			if tc.get.Code != "" {
				store.get = tc.get
			}
			err := s3gateway.CopyBody(t.Context(), store, 8<<20)
			if tc.changed {
				require.ErrorIs(t, err, stored.ErrChanged)
			} else {
				require.Equal(t, tc.refused, err)
			}
		})
	}
}
