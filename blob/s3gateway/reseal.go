package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// kept is what a resealed object keeps of its source besides the body. Over another S3
// server, which computes its own ETags, it is empty.
type kept struct {
	etag     string // without quotes
	checksum checksum
	kind     types.ChecksumType
	modified time.Time // zero means now
	same     bool      // the object itself is updated, and keeps its ETag in every mode
}

// resealed is a new stored object with the body of another one. It consists of head, the
// source's stored bytes between from and to, and tail. Either head or tail holds the new
// envelope; the other is empty.
type resealed struct {
	*Gateway
	r        *request
	src      *object
	keep     kept
	head     []byte
	from, to int64
	tail     []byte
	put      s3response.PutObjectInput // has no body
}

// reseal stores the object that put describes with the body of src. cipher seals the data
// key of src, which was opened; no byte of the body is decrypted. A store of files copies
// the body. Another S3 server that copies parts does so from minAssembled on: all of an
// object that was uploaded in parts, and all but 5 MiB of any other. Otherwise the
// ciphertext passes through the gateway.
//
// The stored object is published as a whole, and only if put's conditions hold. If another
// writer replaces the source meanwhile, reseal either stores the version in src, or stores
// nothing and returns [stored.ErrChanged]. Over files, a copy to another key stores the
// version in src, since an open file does not change. A copy of an object onto itself needs
// a condition in put, or it may replace a newer version.
func (g *Gateway) reseal(r *request, src *object, keep kept, put s3response.PutObjectInput, cipher sse.Cipher) (s3response.PutObjectOutput, error) {
	c, err := g.newResealed(r, src, keep, put, cipher)
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	if g.files != nil {
		return c.putFile()
	}
	if c.to-c.from < minAssembled {
		return c.putStream()
	}
	out, err := c.assemble()
	if hasCode(err, "NotImplemented") { // by a server that does not copy parts
		return c.putStream()
	}
	return out, err
}

// newResealed seals the data key of src and returns the object to be made.
func (g *Gateway) newResealed(r *request, src *object, keep kept, put s3response.PutObjectInput, cipher sse.Cipher) (*resealed, error) {
	if err := stored.CheckMetadata(put.Metadata); err != nil {
		return nil, err
	}
	ctx, cancel := g.keyContext(r)
	defer cancel()
	env, err := cipher.Rewrap(ctx, sse.Object{Bucket: *put.Bucket, Key: *put.Key}, src.d)
	if err != nil {
		return nil, err
	}
	c := &resealed{Gateway: g, r: r, src: src, keep: keep, put: put, to: src.size}
	if src.composite != nil {
		c.tail, c.to, err = src.trailer.Replace(env)
	} else if env, err = padEnvelope(env, src.plaintext); err == nil {
		c.head, err = env.MarshalBinary()
		c.from = int64(src.env.Size())
	}
	if err != nil {
		return nil, err
	}
	if !keep.same && env.Mode() != sse.ModeManaged { // the source's may be the plaintext's MD5, also after an update to SSE-KMS
		c.keep.etag = opaqueETag(env, src.composite)
	}
	c.put.Metadata, c.put.ContentEncoding = storedMetadata(env, put.Metadata, put.ContentEncoding)
	c.put.ChecksumAlgorithm = ""
	checksum{}.set(&c.put)
	c.put.IfMatch, c.put.IfNoneMatch = g.innerETag(put.IfMatch), g.innerETag(put.IfNoneMatch)
	return c, nil
}

// opaqueETag returns an ETag that tells nothing of the plaintext.
func opaqueETag(env *sse.Envelope, composite *sse.Composite) string {
	if composite == nil {
		return bodyETag(env)
	}
	return fmt.Sprintf("%s-%d", env.BodyID()[:32], len(partEnds(composite.Parts())))
}

// size returns how many bytes the stored object will have.
func (c *resealed) size() int64 { return int64(len(c.head)) + c.to - c.from + int64(len(c.tail)) }

// answer completes the inner store's answer to a write.
func (c *resealed) answer(out s3response.PutObjectOutput, err error) (s3response.PutObjectOutput, error) {
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	out.ETag = *c.clientETag(&out.ETag)
	c.keep.checksum.set(&out)
	out.ChecksumType = c.keep.kind
	if c.files != nil {
		out.ETag = quote(c.keep.etag)
	}
	return out, nil
}

// putStream stores the object with ciphertext that passes through the gateway.
func (c *resealed) putStream() (s3response.PutObjectOutput, error) {
	body, err := c.src.get(c.from, c.to-c.from)
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	defer body.Close()
	whole, done, err := c.addClaim(io.MultiReader(bytes.NewReader(c.head), body, bytes.NewReader(c.tail)))
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	defer done()
	if err := c.confirmTags(); err != nil {
		return s3response.PutObjectOutput{}, err
	}
	c.put.Body, c.put.ContentLength = whole, ptr(c.size())
	return c.answer(c.Backend.PutObject(c.r.ctx, c.put))
}

// addClaim returns body with a claim, for which a store of files gives the object what it
// keeps of its source. Other stores need none. The caller calls done afterwards.
func (c *resealed) addClaim(body io.Reader) (claiming io.Reader, done func(), err error) {
	if c.files == nil {
		return body, func() {}, nil
	}
	kept := &completion{etag: c.keep.etag, checksum: c.keep.checksum.forEngine(c.keep.kind)}
	if c.src.composite != nil {
		kept.ends = partEnds(c.src.composite.Parts())
	}
	if err := c.guardState(kept); err != nil {
		return nil, nil, err
	}
	token := newAttempt()
	done = c.files.attributes.keepCompletion(token, kept)
	return &claimedBody{body, types.ChecksumAlgorithmCrc64nvme, func() string { return claim(zeroCRC64, token) }}, done, nil
}

// guardState makes a store of files publish an object that replaces its source only if the
// source is still as it was read. If-Match does not notice new tags, a legal hold, or the
// same content with new metadata. A bucket with versions keeps the source.
func (c *resealed) guardState(kept *completion) error {
	seen := c.src.seen
	if seen == nil || c.src.id != "" {
		return nil
	}
	versioning, err := c.Backend.GetBucketVersioning(c.r.ctx, c.src.bucket)
	if err != nil || deref(versioning.Status) == types.BucketVersioningStatusEnabled {
		return err
	}
	if err := seen.checkHold(); err != nil {
		return err
	}
	if c.keep.same {
		if err := seen.checkRetention(); err != nil {
			return err
		}
		kept.id = seen.uploadID()
	}
	kept.check = func() error { return c.files.checkState(c.src.bucket, c.src.key, seen) }
	return nil
}

// confirmTags returns [stored.ErrChanged] if an object is updated in another S3 server and no
// longer has the tags that were read. In a store of files, guardState checks the tags.
func (c *resealed) confirmTags() error {
	if c.files != nil || !c.keep.same {
		return nil
	}
	tags, err := c.Backend.GetObjectTagging(c.r.ctx, c.src.bucket, c.src.key, c.src.id)
	if err != nil && !hasCode(err, "NoSuchTagSet") {
		return err
	}
	if tagQuery(tags) != deref(c.put.Tagging) {
		return stored.ErrChanged
	}
	return nil
}

// tagQuery encodes tags for a request to store an object.
func tagQuery(tags map[string]string) string {
	query := make(url.Values, len(tags))
	for name, value := range tags {
		query.Set(name, value)
	}
	return query.Encode()
}

// partEnds returns where each part ends in the plaintext.
func partEnds(parts iter.Seq2[int, int64]) (ends []int64) {
	var end int64
	for _, size := range parts {
		end += size
		ends = append(ends, end)
	}
	return ends
}

// putFile stores the object in a new file, into which the kernel copies the body. File
// systems that can share blocks between files do.
func (c *resealed) putFile() (s3response.PutObjectOutput, error) {
	src, err := c.openFile()
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	if src == nil {
		return c.putStream()
	}
	defer src.Close()
	body, done, err := c.addClaim(strings.NewReader(""))
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	defer done()
	c.put.Body, c.put.ContentLength = body, ptr(int64(0))
	// The engine calls fill before it publishes the file.
	return c.answer(c.files.PutObjectWithPostFunc(c.r.ctx, c.put, func(dst *os.File) error { return c.fill(dst, src) }))
}

// openFile opens the source's file, which stays the same if another writer replaces the
// object. It returns nil if the engine does not read the object from a file.
func (c *resealed) openFile() (*os.File, error) {
	in := &s3.GetObjectInput{Bucket: &c.src.bucket, Key: &c.src.key, VersionId: &c.src.id, Range: ptr("")}
	if c.src.etag != "" {
		in.IfMatch = &c.src.etag
	}
	out, err := c.Backend.GetObject(c.r.ctx, in)
	if err != nil {
		return nil, changedIfUnmatched(err)
	}
	file, ok := out.Body.(*os.File)
	if !ok {
		return nil, out.Body.Close()
	}
	if err := c.checkFile(file); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// checkFile returns [stored.ErrChanged] unless a file is the version that was opened.
func (c *resealed) checkFile(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != c.src.size {
		return stored.ErrChanged
	}
	var env *sse.Envelope
	if c.src.composite != nil {
		t, err := sse.ReadTrailer(file, info.Size())
		if err != nil {
			return stored.ErrChanged
		}
		env = t.Envelope()
	} else if env, _, err = stored.ReadEnvelope(io.NewSectionReader(file, 0, info.Size()), stored.DefaultEnvelopeSize); err != nil {
		return stored.ErrChanged
	}
	if !env.Equal(c.src.env) {
		return stored.ErrChanged
	}
	return nil
}

// fill writes the object into an empty file.
func (c *resealed) fill(dst, src *os.File) error {
	from, head := c.from, c.head
	if int64(len(head)) == from { // copied with what it replaces, the body stays aligned
		from, head = 0, nil
	}
	if _, err := dst.Write(head); err != nil {
		return diskError(err)
	}
	if _, err := src.Seek(from, io.SeekStart); err != nil {
		return err
	}
	n, err := dst.ReadFrom(io.LimitReader(src, c.to-from))
	if err != nil {
		return diskError(err)
	}
	if n != c.to-from {
		return stored.ErrChanged
	}
	if _, err := dst.Write(c.tail); err != nil {
		return diskError(err)
	}
	if _, err := dst.WriteAt(c.head, 0); err != nil {
		return diskError(err)
	}
	if !c.keep.modified.IsZero() {
		return os.Chtimes(dst.Name(), time.Time{}, c.keep.modified)
	}
	return nil
}

// diskError returns the engine's error for a full disk.
func diskError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return s3err.GetAPIError(s3err.ErrNoSpaceLeftOnDevice)
	case errors.Is(err, syscall.EDQUOT):
		return s3err.GetAPIError(s3err.ErrQuotaExceeded)
	}
	return err
}

// cleanupTime bounds the cleanup after a failed request.
const cleanupTime = 15 * time.Second

// cleanupContext returns a context for the cleanup. It does not end with the request.
func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
}
