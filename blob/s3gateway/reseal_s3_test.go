package s3gateway_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
)

// overS3 starts a gateway over another S3 server, with a proxy in between.
func overS3(t *testing.T) (store *server, between *proxy, gateway *server) {
	store = startBare(t)
	between = startProxy(t, store.url)
	s := newSetup(t)
	s.Inner = between.url
	return store, between, s.start(t)
}

// TestCopiesOverS3MoveNoBody copies objects between modes and onto themselves, and
// counts the bytes that pass between the gateway and the server that has the objects.
func TestCopiesOverS3MoveNoBody(t *testing.T) {
	x, c := newChanging(t)
	whole := text(9 << 20)
	for name, bound := range map[string]int64{"simple": 5<<20 + 32<<10, "parts": 32 << 10} {
		t.Run(name, func(t *testing.T) {
			if name == "simple" {
				putIn(t, c, modes()[1], "a", whole)
			} else {
				putParts(t, c, modes()[1], "a", whole[:5<<20], whole[5<<20:])
			}
			for _, step := range copies() {
				x.between.reset()
				in := copyInput(step.from, urlEscape(step.src), step.to, step.dst)
				out, err := c.CopyObject(t.Context(), in)
				require.NoError(t, err)
				require.Contains(t, *out.CopyObjectResult.ETag, "-")
				sent, received := x.between.counts()
				require.Less(t, sent, bound, "%s to %s", step.src, step.dst)
				require.Less(t, received, bound+2*70<<10, "%s to %s", step.src, step.dst)
				get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &step.dst, Range: ptr("bytes=8000000-8000999")}
				step.to.get(get)
				read, err := c.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.True(t, bytes.Equal(whole[8_000_000:8_001_000], readAll(t, read.Body)))
			}
			requireObject(t, c, modes()[2], "e", whole)
			x.requireNoUploads(t)
		})
	}
}

// changing is an object in another S3 server that tests replace while it is copied.
type changing struct {
	inner   *s3.Client
	between *proxy
	gateway *server
}

// newChanging starts a gateway over another S3 server, and returns a client of the gateway.
func newChanging(t *testing.T) (*changing, *s3.Client) {
	store, between, g := overS3(t)
	c := g.client(t)
	newBucket(t, c)
	return &changing{store.client(t), between, g}, c
}

// overwrite puts a stored object, which was written under the name "src", back there.
func (c *changing) overwrite(t *testing.T, with string) {
	_, err := c.inner.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: ptr("src"), CopySource: ptr(bucket + "/" + with)})
	if err != nil {
		t.Error(err)
	}
}

// save keeps the stored object "src" under another name.
func (c *changing) save(t *testing.T, as string) {
	_, err := c.inner.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: &as, CopySource: ptr(bucket + "/src")})
	require.NoError(t, err)
}

// changeDuring calls change when the first request of an operation comes.
func (c *changing) changeDuring(t *testing.T, operation string, change func()) {
	var once sync.Once
	c.between.intercept(func(got string, r *http.Request) {
		if got == operation {
			once.Do(change)
		}
	})
	t.Cleanup(func() { c.between.intercept(nil) })
}

// requireNoUploads fails if a copy left an upload behind.
func (c *changing) requireNoUploads(t *testing.T) {
	t.Helper()
	uploads, err := c.inner.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	require.Empty(t, uploads.Uploads)
}

// TestCopiesOfChangingObjects replaces the source while a server copies it, onto itself
// or elsewhere. The copy is of one version, and a newer version is not lost.
func TestCopiesOfChangingObjects(t *testing.T) {
	x, c := newChanging(t)
	old, next := text(8<<20+20_000), text(8<<20)
	putIn(t, c, modes()[1], "src", next)
	x.save(t, "next")
	putIn(t, c, modes()[1], "src", old)
	x.save(t, "simple")
	putParts(t, c, modes()[1], "src", old[:5<<20], old[5<<20:])
	x.save(t, "parts")
	for kind, operations := range map[string][]string{"simple": {"UploadPartCopy"}, "parts": {"UploadPartCopy", "CompleteMultipartUpload"}} {
		for _, operation := range operations {
			t.Run(kind+"/during "+operation, func(t *testing.T) {
				x.overwrite(t, kind)
				x.changeDuring(t, operation, func() { x.overwrite(t, "next") })
				_, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "dst"))
				require.NoError(t, err)
				want := next
				if operation == "CompleteMultipartUpload" {
					want = old // the server had copied all of it
				}
				requireEnds(t, c, modes()[2], "dst", want)
				requireEnds(t, c, modes()[1], "src", next)
				x.requireNoUploads(t)
			})
			t.Run(kind+"/onto itself during "+operation, func(t *testing.T) {
				x.overwrite(t, kind)
				x.changeDuring(t, operation, func() { x.overwrite(t, "next") })
				_, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "src"))
				require.NoError(t, err)
				requireEnds(t, c, modes()[2], "src", next)
				x.requireNoUploads(t)
			})
		}
	}
	t.Run("onto itself, changing for ever", func(t *testing.T) {
		x.overwrite(t, "parts")
		turns := map[bool]string{true: "parts", false: "next"}
		turn := false
		x.between.intercept(func(operation string, r *http.Request) { // one at a time
			if operation == "CompleteMultipartUpload" {
				x.overwrite(t, turns[turn])
				turn = !turn
			}
		})
		t.Cleanup(func() { x.between.intercept(nil) })
		_, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "src"))
		require.Equal(t, "OperationAborted", code(err))
		x.requireNoUploads(t)
	})
}

// TestReadsOfChangingObjects replaces an object while its attributes are read, and while a part
// is copied from it. The answer is about the new object. If the object is replaced again and
// again, the answer is a conflict.
func TestReadsOfChangingObjects(t *testing.T) {
	x, c := newChanging(t)
	for _, size := range []int{1000, 2000} {
		putIn(t, c, modes()[1], "src", text(size))
		x.save(t, fmt.Sprint(size))
	}
	for name, sizeOf := range map[string]func() (int64, error){
		"GetObjectAttributes": func() (int64, error) {
			out, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
				Bucket: ptr(bucket), Key: ptr("src"), ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesObjectSize},
			})
			if err != nil {
				return 0, err
			}
			return *out.ObjectSize, nil
		},
		"UploadPartCopy": func() (int64, error) {
			u := begin(t, c, modes()[1], "dst")
			_, err := c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
				Bucket: ptr(bucket), Key: ptr("dst"), UploadId: u.id, PartNumber: ptr(int32(1)), CopySource: ptr(bucket + "/src"),
			})
			if err != nil {
				return 0, err
			}
			list, err := c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: ptr(bucket), Key: ptr("dst"), UploadId: u.id})
			require.NoError(t, err)
			return *list.Parts[0].Size, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			x.overwrite(t, "1000")
			var mu sync.Mutex
			var replaced, most int
			x.between.intercept(func(_ string, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.Method == http.MethodGet && r.Header.Get("If-Match") != "" && replaced < most {
					replaced++
					x.overwrite(t, []string{"1000", "2000"}[replaced%2])
				}
			})
			t.Cleanup(func() { x.between.intercept(nil) })
			ask := func(times int) (int64, error) {
				mu.Lock()
				most = times
				mu.Unlock()
				return sizeOf()
			}
			size, err := ask(1)
			require.NoError(t, err)
			require.EqualValues(t, 2000, size)
			_, err = ask(1000)
			require.Equal(t, "OperationAborted", code(err))
		})
	}
}

// TestCopyThatIsNotFound: a copy that was stored is no error if the store does not
// answer when asked about it.
func TestCopyThatIsNotFound(t *testing.T) {
	x, c := newChanging(t)
	putIn(t, c, modes()[1], "src", text(70_000))
	x.between.intercept(func(_ string, r *http.Request) {
		if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/dst") {
			r.Header.Set("Authorization", "none")
		}
	})
	out, err := c.CopyObject(t.Context(), copyInput(modes()[1], "src", modes()[2], "dst"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), *out.CopyObjectResult.LastModified, 10*time.Minute)
	x.between.intercept(nil)
	requireObject(t, c, modes()[2], "dst", text(70_000))
}

// putSources stores the objects "simple" and "parts", and returns the content of both.
func putSources(t *testing.T, c *s3.Client) []byte {
	content := text(8 << 20)
	putIn(t, c, modes()[1], "simple", content)
	putParts(t, c, modes()[1], "parts", content[:5<<20], content[5<<20:])
	return content
}

// TestFailedCopiesLeaveNothing lets each request of a copy fail in its turn.
func TestFailedCopiesLeaveNothing(t *testing.T) {
	x, c := newChanging(t)
	putSources(t, c)
	for _, kind := range []string{"simple", "parts"} {
		for _, operation := range []string{"CreateMultipartUpload", "UploadPartCopy", "UploadPart", "CompleteMultipartUpload"} {
			t.Run(kind+"/"+operation, func(t *testing.T) {
				x.between.intercept(func(got string, r *http.Request) {
					if got == operation {
						r.Header.Set("Authorization", "none")
					}
				})
				_, err := c.CopyObject(t.Context(), copyInput(modes()[1], kind, modes()[2], "never"))
				require.Error(t, err)
				x.between.intercept(nil)
				x.requireNoUploads(t)
				_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: ptr(bucket), Key: ptr("never")})
				require.Error(t, err)
			})
		}
	}
}

// TestServerThatCopiesNoParts: where UploadPartCopy is not implemented, the ciphertext
// passes through the gateway.
func TestServerThatCopiesNoParts(t *testing.T) {
	x, c := newChanging(t)
	content := putSources(t, c)
	x.between.intercept(func(operation string, r *http.Request) {
		if operation == "UploadPartCopy" {
			r.Method = notImplemented
		}
	})
	for _, kind := range []string{"simple", "parts"} {
		_, err := c.CopyObject(t.Context(), copyInput(modes()[1], kind, modes()[2], "copy"))
		require.NoError(t, err)
		requireObject(t, c, modes()[2], "copy", content)
		x.requireNoUploads(t)
	}
}
