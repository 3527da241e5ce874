package s3gateway_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/backend"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/captured"
)

// killBed is a store with one gateway that keeps running while others are killed.
type killBed struct {
	gateways setup
	store    setup // whose directory has the files
	client   *s3.Client
	log      *captured.Buffer
}

// killBeds calls test over files and over another S3 server.
func killBeds(t *testing.T, test func(*testing.T, *killBed)) {
	overFiles(t, test)
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		bare := startBare(t)
		s := newSetup(t)
		s.Inner = bare.url
		test(t, &killBed{gateways: s, store: bare.setup})
	})
}

// overFiles calls test over files.
func overFiles(t *testing.T, test func(*testing.T, *killBed)) {
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		s := newSetup(t)
		test(t, &killBed{gateways: s, store: s})
	})
}

func (b *killBed) start(t *testing.T) {
	g := b.gateways.start(t)
	b.client, b.log = g.client(t), g.log
	newBucket(t, b.client)
	_, err := b.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("source"), Body: bytes.NewReader(text(100_000))})
	require.NoError(t, err)
}

// script is an upload of two parts, the second of them a copy. It ends at the first
// error, and knows what was acknowledged.
type script struct {
	uploading
	contents   [][]byte
	acked      map[int32]types.CompletedPart
	completing bool // the client has sent CompleteMultipartUpload
	plain      bool // no part is a copy
}

func newScript(m mode, key string) *script {
	return &script{
		uploading: uploading{m: m, key: key}, acked: map[int32]types.CompletedPart{},
		contents: [][]byte{text(partSize + 1), text(100_000)},
	}
}

func (u *script) content() []byte { return bytes.Join(u.contents, nil) }

func (u *script) create(t *testing.T, c *s3.Client) error {
	var headers s3.PutObjectInput
	u.m.put(&headers)
	out, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
		Bucket: ptr(bucket), Key: &u.key, ServerSideEncryption: headers.ServerSideEncryption, SSECustomerAlgorithm: headers.SSECustomerAlgorithm,
		SSECustomerKey: headers.SSECustomerKey, SSECustomerKeyMD5: headers.SSECustomerKeyMD5,
	})
	if err == nil {
		u.id = out.UploadId
	}
	return err
}

// upload creates the upload and uploads its parts.
func (u *script) upload(t *testing.T, c *s3.Client) error {
	if err := u.create(t, c); err != nil {
		return err
	}
	return u.parts(t, c)
}

// parts uploads the parts that are not acknowledged.
func (u *script) parts(t *testing.T, c *s3.Client) error {
	var get s3.GetObjectInput
	u.m.get(&get)
	for i, content := range u.contents {
		number := int32(i + 1)
		if _, ok := u.acked[number]; ok {
			continue
		}
		var etag *string
		if number == 2 && !u.plain {
			out, err := c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
				Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, PartNumber: &number, CopySource: ptr(bucket + "/source"),
				SSECustomerAlgorithm: get.SSECustomerAlgorithm, SSECustomerKey: get.SSECustomerKey, SSECustomerKeyMD5: get.SSECustomerKeyMD5,
			})
			if err != nil {
				return err
			}
			etag = out.CopyPartResult.ETag
		} else {
			out, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
				Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, PartNumber: &number, Body: bytes.NewReader(content),
				SSECustomerAlgorithm: get.SSECustomerAlgorithm, SSECustomerKey: get.SSECustomerKey, SSECustomerKeyMD5: get.SSECustomerKeyMD5,
			})
			if err != nil {
				return err
			}
			etag = out.ETag
		}
		u.acked[number] = types.CompletedPart{PartNumber: &number, ETag: etag}
	}
	return nil
}

func (u *script) finish(t *testing.T, c *s3.Client) error {
	u.completing = true
	var parts []types.CompletedPart
	for i := range u.contents {
		parts = append(parts, u.acked[int32(i+1)])
	}
	_, err := u.complete(t, c, parts...)
	return err
}

func (u *script) abort(t *testing.T, c *s3.Client) error {
	_, err := c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: ptr(bucket), Key: &u.key, UploadId: u.id})
	return err
}

// requireWhole checks that the object reads back exactly, by HEAD, GET and list.
func (u *script) requireWhole(t *testing.T, c *s3.Client) {
	t.Helper()
	get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &u.key}
	u.m.get(get)
	out, err := c.GetObject(t.Context(), get)
	require.NoError(t, err)
	require.True(t, bytes.Equal(u.content(), readAll(t, out.Body)), "the object")
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket), Prefix: &u.key})
	require.NoError(t, err)
	require.Len(t, list.Contents, 1)
	require.Equal(t, int64(len(u.content())), *list.Contents[0].Size)
}

// exists reports whether the object is there. If so, it must be whole.
func (u *script) exists(t *testing.T, c *s3.Client) bool {
	t.Helper()
	head := &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &u.key}
	u.m.head(head)
	if _, err := c.HeadObject(t.Context(), head); err != nil {
		require.Equal(t, "NotFound", code(err))
		return false
	}
	u.requireWhole(t, c)
	return true
}

// requireClean checks that nothing of any upload is left: no parts, no records, no
// temporary files. Another S3 server may need a moment to notice a cut connection.
func (b *killBed) requireClean(t *testing.T) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(await.Longest); ; time.Sleep(10 * time.Millisecond) {
		if left = b.listLeftovers(t); len(left) == 0 {
			return
		}
		if b.gateways.Inner == "" || time.Now().After(deadline) {
			break
		}
	}
	require.Empty(t, left, "leftovers")
}

func (b *killBed) listLeftovers(t *testing.T) (left []string) {
	for _, dir := range []string{"data/blobseal-gateway-state/uploads", "data/blobseal-gateway-state/.sgwtmp", "data/" + bucket} {
		err := filepath.WalkDir(b.store.path(dir), func(path string, e fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // while the server cleans up
			}
			if err != nil {
				return err
			}
			inside, object := strings.Contains(path, ".sgwtmp"), strings.HasSuffix(dir, bucket)
			parent := filepath.Base(filepath.Dir(path))
			if !e.IsDir() && (inside || !object) || e.IsDir() && (parent == "multipart" || parent == bucket && !object) {
				left = append(left, path)
			}
			return nil
		})
		require.NoError(t, err)
	}
	return left
}

// run runs a script against a gateway that kills itself at step n, and returns where
// that was, or "" if the script ended before.
func (b *killBed) run(t *testing.T, n int, inAbort bool, script func(*s3.Client) error) string {
	s := b.gateways
	s.Faults = faults{KillAt: n, InAbort: inAbort}
	g := s.start(t)
	err := script(g.client(t))
	if err == nil {
		// The process may still die, at a step after its answer.
		g.kill()
	} else {
		g.cmd.Wait()
	}
	_, at, killed := strings.Cut(g.log.String(), "killed at: ")
	require.Equal(t, err != nil, killed, "%v: %s", err, g.log)
	return strings.TrimSpace(at)
}

// variants returns how uploads continue after the n-th step: in all ways, or in one of them in
// a short run.
func variants(n int) []string {
	all := []string{"complete", "abort"}
	if os.Getenv("BLOBSEAL_STRESS") != "" {
		return all
	}
	return all[n%2 : n%2+1]
}

// TestKilledUploads kills a gateway at each step of an upload, and completes or aborts
// the upload through another one. BLOBSEAL_STRESS=1m does both at each step, and again
// with SideCarDir.
func TestKilledUploads(t *testing.T) {
	test := func(t *testing.T, b *killBed) {
		b.start(t)
		steps, whole := 0, 0
		for n, ended := 1, false; !ended && !t.Failed(); n++ {
			require.Less(t, n, 200, "the script has no end")
			for _, variant := range variants(n) {
				u := newScript(modes()[1+n%3], fmt.Sprintf("%s/%d/%s", victim, n, variant))
				at := b.run(t, n, false, func(c *s3.Client) error {
					if err := u.upload(t, c); err != nil {
						return err
					}
					return u.finish(t, c)
				})
				t.Run(fmt.Sprintf("%d %s %s", n, at, variant), func(t *testing.T) {
					if b.resume(t, u, variant) {
						whole++
					}
				})
				steps++
				ended = at == ""
			}
		}
		t.Logf("%d uploads, killed at every step: %d became whole objects, %d nothing, 0 anything else", steps, whole, steps-whole)
	}
	killBeds(t, test)
	if os.Getenv("BLOBSEAL_STRESS") == "" { // see TestUploadKilledBeforeItsObject
		return
	}
	t.Run("files with SideCarDir", func(t *testing.T) {
		t.Parallel()
		s := newSetup(t)
		s.SideCar = true
		test(t, &killBed{gateways: s, store: s})
	})
}

// resume completes or aborts an upload whose gateway was killed, and reports whether the
// object is there.
func (b *killBed) resume(t *testing.T, u *script, variant string) bool {
	if u.id == nil { // the client has no id, and finds it in the list
		list, err := b.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket), Prefix: &u.key})
		require.NoError(t, err)
		for _, found := range list.Uploads {
			u.id = found.UploadId
			require.NoError(t, u.abort(t, b.client))
		}
		require.False(t, u.exists(t, b.client))
		b.requireClean(t)
		return false
	}
	if variant == "complete" {
		if !u.completing {
			require.NoError(t, u.parts(t, b.client))
			require.NoError(t, u.finish(t, b.client))
		} else if err := u.finish(t, b.client); err != nil {
			// Another S3 server knows no completed uploads. S3 says NoSuchUpload, too, of
			// an upload that "might have been aborted or completed".
			require.NotEmpty(t, b.gateways.Inner, "%v", err)
			require.Equal(t, "NoSuchUpload", code(err))
		}
		u.requireWhole(t, b.client)
		b.requireClean(t)
		if err := u.finish(t, b.client); b.gateways.Inner == "" {
			require.NoError(t, err, "the same request once more")
		} else {
			require.Equal(t, "NoSuchUpload", code(err))
		}
		return true
	}
	if err := u.abort(t, b.client); err != nil {
		require.Equal(t, "NoSuchUpload", code(err))
	}
	b.requireClean(t)
	there := u.exists(t, b.client)
	require.True(t, u.completing || !there)
	if !there {
		require.Equal(t, "NoSuchUpload", code(u.finish(t, b.client)))
		require.False(t, u.exists(t, b.client))
	}
	return there
}

// TestKilledAborts kills a gateway at each step of an abort. The upload is then gone,
// or can be aborted again; it never becomes an object.
func TestKilledAborts(t *testing.T) {
	killBeds(t, func(t *testing.T, b *killBed) {
		b.start(t)
		for n, ended := 1, false; !ended && !t.Failed(); n++ {
			require.Less(t, n, 200, "the script has no end")
			u := newScript(modes()[1+n%3], fmt.Sprintf("%s/%d", victim, n))
			at := b.run(t, n, true, func(c *s3.Client) error {
				if err := u.upload(t, c); err != nil {
					return err
				}
				return u.abort(t, c)
			})
			ended = at == ""
			t.Run(fmt.Sprint(n, " ", at), func(t *testing.T) {
				if n%2 == 0 {
					require.Error(t, u.finish(t, b.client))
					require.False(t, u.exists(t, b.client))
				}
				if err := u.abort(t, b.client); err != nil {
					require.Equal(t, "NoSuchUpload", code(err))
				}
				require.Equal(t, "NoSuchUpload", code(u.abort(t, b.client)))
				require.False(t, u.exists(t, b.client))
				b.requireClean(t)
			})
		}
	})
}

// TestUploadKilledBeforeItsObject sets up the files that a gateway with SideCarDir leaves if it
// is killed right before it publishes the object: the upload's directory has the engine's
// name, and the key has the attributes of the object. The upload can be completed.
func TestUploadKilledBeforeItsObject(t *testing.T) {
	for name, moved := range map[string]bool{"engine killed": false, "next gateway killed, too": true} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t)
			s.SideCar = true
			_, c := s.startWithBucket(t)
			u := begin(t, c, modes()[1], "k")
			whole := text(100_000)
			u.part(t, c, 1, whole)

			id := fmt.Sprintf(bucket+"/.sgwtmp/multipart/%x/%s", sha256.Sum256([]byte("k")), *u.id)
			move := func(dir string) {
				require.NoError(t, os.Rename(s.path(dir+"/"+id), s.path(dir+"/"+id+".0123-1.inprogress")))
			}
			move("data")
			if !moved {
				move("sidecar")
			}
			require.NoError(t, os.MkdirAll(s.path("sidecar/"+bucket+"/k/meta"), 0o700))
			mp, err := backend.MarshalMpUploadMetadata(backend.MpUploadMetadata{UploadID: *u.id, Parts: []int64{100_000}}, false)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(s.path("sidecar/"+bucket+"/k/meta/mp-metadata"), mp, 0o600))

			list, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket)})
			require.NoError(t, err)
			require.Len(t, list.Uploads, 1)
			_, err = u.complete(t, c, u.done...)
			require.NoError(t, err)
			requireObject(t, c, modes()[1], "k", whole)
		})
	}
}
