package s3gateway

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/s3response"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// maxLooks bounds how many objects a list looks at in parallel.
const maxLooks = 16

// listed is an entry of a list. Its size is that of the stored object until fix.
type listed struct {
	key, version string
	size         *int64
	etag         **string
}

// ListObjects implements [backend.Backend].
func (g *Gateway) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.ListObjectsResult{}, err
	}
	out, err := g.Backend.ListObjects(ctx, in)
	if err == nil {
		out.Contents, err = g.fixObjects(ctx, *in.Bucket, out.Contents)
	}
	return out, g.fail("ListObjects", in.Bucket, nil, err)
}

// ListObjectsV2 implements [backend.Backend].
func (g *Gateway) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.ListObjectsV2Result{}, err
	}
	out, err := g.Backend.ListObjectsV2(ctx, in)
	if err == nil {
		all := len(out.Contents)
		out.Contents, err = g.fixObjects(ctx, *in.Bucket, out.Contents)
		if out.KeyCount != nil {
			*out.KeyCount -= int32(all - len(out.Contents))
		}
	}
	return out, g.fail("ListObjectsV2", in.Bucket, nil, err)
}

// fixObjects returns the entries with the sizes and ETags that clients see. It drops the
// entries of objects that were deleted meanwhile.
func (g *Gateway) fixObjects(ctx context.Context, bucket string, contents []s3response.Object) ([]s3response.Object, error) {
	entries := make([]listed, 0, len(contents))
	for i := range contents {
		if c := &contents[i]; c.Size != nil {
			entries = append(entries, listed{key: deref(c.Key), size: c.Size, etag: &c.ETag})
		}
	}
	err := g.fix(ctx, bucket, entries)
	return slices.DeleteFunc(contents, func(c s3response.Object) bool { return c.Size != nil && *c.Size == gone }), err
}

// ListObjectVersions implements [backend.Backend].
func (g *Gateway) ListObjectVersions(ctx context.Context, in *s3.ListObjectVersionsInput) (s3response.ListVersionsResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.ListVersionsResult{}, err
	}
	out, err := g.Backend.ListObjectVersions(ctx, in)
	if err != nil {
		return out, err
	}
	entries := make([]listed, 0, len(out.Versions))
	for i := range out.Versions {
		if v := &out.Versions[i]; v.Size != nil {
			entries = append(entries, listed{deref(v.Key), deref(v.VersionId), v.Size, &v.ETag})
		}
	}
	err = g.fix(ctx, *in.Bucket, entries)
	out.Versions = slices.DeleteFunc(out.Versions, func(v s3response.ObjectVersion) bool { return v.Size != nil && *v.Size == gone })
	return out, g.fail("ListObjectVersions", in.Bucket, nil, err)
}

// gone is the size of an entry whose object was deleted after the store had listed it.
const gone = -1

// fix replaces the sizes and ETags of entries by those that clients see. It computes the
// sizes of most objects, and reads those of objects that were uploaded in parts from their
// ends. It fails if the store does: clients would take an object with the wrong size for a
// changed one.
func (g *Gateway) fix(ctx context.Context, bucket string, entries []listed) error {
	var looks errgroup.Group
	looks.SetLimit(maxLooks)
	for _, e := range entries {
		*e.etag = g.clientETag(*e.etag)
		if g.fixBySize(e) {
			continue
		}
		looks.Go(func() error { return g.fixByLook(ctx, bucket, e) })
	}
	return looks.Wait()
}

// fixBySize replaces the size of an entry if it follows from the stored size.
func (g *Gateway) fixBySize(e listed) bool {
	if isDirectory(&e.key, *e.size) {
		return true
	}
	n, err := stored.PlaintextSize(*e.size, stored.DefaultEnvelopeSize)
	if err != nil || g.opts.AllowPlain {
		return false
	}
	*e.size = n
	return true
}

// fixByLook replaces the size of an entry by the size in the object. If the object was
// replaced meanwhile, fixByLook looks again. A damaged object keeps its stored size.
func (g *Gateway) fixByLook(ctx context.Context, bucket string, e listed) error {
	var lookErr error
	for range stored.MaxTries {
		var n int64
		if n, lookErr = g.look(ctx, bucket, e); lookErr == nil {
			*e.size = n
			return nil
		}
		in := &s3.HeadObjectInput{Bucket: &bucket, Key: &e.key}
		if e.version != "" {
			in.VersionId = &e.version
		}
		head, err := g.Backend.HeadObject(ctx, in)
		if isNotFound(err) {
			*e.size = gone
			return nil
		}
		if err != nil || head.ContentLength == nil {
			return err
		}
		*e.size, *e.etag = *head.ContentLength, g.clientETag(head.ETag)
		if g.fixBySize(e) {
			return nil
		}
	}
	if isDamage(lookErr) || isNotFound(lookErr) || errors.Is(lookErr, stored.ErrChanged) {
		return nil
	}
	return lookErr
}

// isDamage reports whether err is about the content of an object.
func isDamage(err error) bool {
	for _, kind := range []error{sse.ErrFormat, sse.ErrVersion, sse.ErrCorrupt, sse.ErrTruncated, stored.ErrDamaged, stored.ErrPlain} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// look returns the plaintext size that an object states. A plain object has its stored
// size.
func (g *Gateway) look(ctx context.Context, bucket string, e listed) (int64, error) {
	v := &version{g: g, ctx: ctx, bucket: bucket, key: e.key, id: e.version, size: *e.size}
	if strings.EqualFold(v.id, "null") {
		v.id = ""
	}
	head := make([]byte, min(v.size, stored.DefaultEnvelopeSize))
	if _, err := v.ReadAt(head, 0); err != nil && err != io.EOF {
		return 0, err
	}
	v.head = head
	env, err := v.envelope()
	switch {
	case errors.Is(err, sse.ErrComposite):
		t, err := sse.ReadTrailer(v, v.size)
		if err != nil {
			return 0, err
		}
		return t.Size(), nil
	case errors.Is(err, stored.ErrPlain):
		return v.size, nil
	case err != nil:
		return 0, err
	}
	return stored.PlaintextSize(v.size, env.Size())
}

// DeleteObject implements [backend.Backend].
func (g *Gateway) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return nil, err
	}
	in.IfMatch = g.innerETag(in.IfMatch)
	in.IfMatchSize = g.storedSize(ctx, *in.Bucket, in.Key, in.VersionId, in.IfMatchSize)
	return g.Backend.DeleteObject(ctx, in)
}

// DeleteObjects implements [backend.Backend].
func (g *Gateway) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.DeleteResult{}, err
	}
	if in.Delete != nil {
		for i := range in.Delete.Objects {
			o := &in.Delete.Objects[i]
			o.ETag = g.innerETag(o.ETag)
			o.Size = g.storedSize(ctx, *in.Bucket, o.Key, o.VersionId, o.Size)
		}
	}
	return g.Backend.DeleteObjects(ctx, in)
}

// storedSize turns a condition on the plaintext's size into one on the stored size: that of
// the object if its plaintext has the wanted size.
func (g *Gateway) storedSize(ctx context.Context, bucket string, key, id *string, want *int64) *int64 {
	if want == nil {
		return nil
	}
	head, err := g.Backend.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: key, VersionId: id})
	if err != nil || isDirectory(key, deref(head.ContentLength)) {
		return want
	}
	size := deref(head.ContentLength)
	etag := head.ETag
	entry := listed{deref(key), deref(id), &size, &etag}
	g.fix(ctx, bucket, []listed{entry})
	if size == *want {
		return head.ContentLength
	}
	return ptr(int64(-1))
}
