package objstore_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	thanos "github.com/thanos-io/objstore"

	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// hooked calls a hook before each upload.
type hooked struct {
	thanos.Bucket
	hook func(r io.Reader)
}

func (h *hooked) Upload(ctx context.Context, name string, r io.Reader, opts ...thanos.ObjectUploadOption) error {
	h.hook(r)
	return h.Bucket.Upload(ctx, name, r, opts...)
}

// TestRewrapKeepsUploads: a rewrap in the same process never brings back what an
// upload has replaced, even if the upload begins while the rewrap writes.
func TestRewrapKeepsUploads(t *testing.T) {
	inner := &hooked{Bucket: thanos.NewInMemBucket(), hook: func(io.Reader) {}}
	b := newBucket(t, inner, sse.NewManaged(keyringtest.NewRing(t, nil)))
	require.NoError(t, b.Upload(t.Context(), "k", strings.NewReader("old")))

	var once sync.Once
	uploaded := make(chan error, 1)
	inner.hook = func(r io.Reader) {
		if _, ofJob := r.(*bytes.Reader); !ofJob {
			return
		}
		once.Do(func() {
			ended := make(chan struct{})
			go func() {
				uploaded <- b.Upload(t.Context(), "k", strings.NewReader("new"))
				close(ended)
			}()
			select { // the upload must wait for the rewrap; without its turn, it would end here
			case <-ended:
			case <-time.After(100 * time.Millisecond):
			}
		})
	}
	_, err := jobs.Rewrap(t.Context(), b.Encrypted(), &jobs.RewrapOptions{Force: true})
	require.NoError(t, err)
	require.NoError(t, await.Value(t, uploaded, "the end of the upload, after the rewrap"))
	r, err := b.Get(t.Context(), "k")
	require.NoError(t, err)
	defer r.Close()
	p, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "new", string(p))
}
