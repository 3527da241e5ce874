package s3gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// maxPart is the largest part that stores take, in stored bytes.
const maxPart = 5 << 30

// UploadPart implements [backend.Backend].
func (g *Gateway) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return nil, err
	}
	r := g.request(ctx)
	t := &target{*in.Bucket, *in.Key, *in.UploadId, *in.PartNumber}
	p, err := g.openPart(r, t)
	if err != nil {
		return nil, g.fail("UploadPart", in.Bucket, in.Key, err)
	}
	want := checksumWanted(in, "")
	if trailing := trailingAlgorithm(in.Body); trailing != "" {
		want.Algorithm = trailing
	}
	got, err := g.uploadPart(r, t, p, in.Body, deref(in.ContentLength), want)
	if err != nil {
		return nil, g.fail("UploadPart", in.Bucket, in.Key, err)
	}
	out := &s3.UploadPartOutput{ETag: ptr(quote(got.ETag))}
	if p.upload.Type != "" || want.Algorithm != "" {
		got.Checksum.set(out)
	}
	p.opener.SetHeaders(r.setHeader)
	return out, nil
}

// target identifies a part of an upload.
type target struct {
	bucket, key, id string
	number          int32
}

// openedPart is a part that can be encrypted.
type openedPart struct {
	upload *upload
	mode   sse.Mode
	part   *sse.Part
	opener *s3wire.Opener
}

// openPart opens the upload that a part belongs to, with the keys of the request.
func (g *Gateway) openPart(r *request, t *target) (*openedPart, error) {
	if t.number < 1 || t.number > MaxParts {
		return nil, s3err.GetInvalidArgumentErr(s3err.InvalidArgPartNumber, "")
	}
	q, err := s3wire.ParsePart(r.values, r.tls)
	if err != nil {
		return nil, err
	}
	if _, err := g.Backend.HeadBucket(r.ctx, &s3.HeadBucketInput{Bucket: &t.bucket}); err != nil {
		return nil, err
	}
	u, err := g.getUpload(r.ctx, t.bucket, t.key, t.id)
	if err != nil {
		return nil, err
	}
	env, err := u.envelope()
	if err != nil {
		return nil, err
	}
	p := &openedPart{upload: u, mode: env.Mode(), opener: g.keys.ForRead(q)}
	ctx, cancel := g.keyContext(r)
	defer cancel()
	m, err := sse.OpenMultipart(ctx, p.opener, sse.Object{Bucket: t.bucket, Key: t.key}, u.State)
	if err != nil {
		return nil, err
	}
	p.part, err = m.Part(int(t.number))
	return p, err
}

// trailingAlgorithm returns the algorithm of a body's trailing checksum, or "".
func trailingAlgorithm(body io.Reader) checksumAlgorithm {
	if c, ok := body.(interface{ Algorithm() string }); ok {
		return checksumAlgorithm(strings.ToUpper(c.Algorithm()))
	}
	return ""
}

// checkAlgorithm returns the checksum to compute for a part, or an error if the upload has
// another algorithm.
func (u *upload) checkAlgorithm(want checksum) (checksum, error) {
	if u.Type == "" {
		return want, nil
	}
	if want.Algorithm == "" {
		if u.Type == types.ChecksumTypeComposite {
			return want, s3err.GetChecksumTypeMismatchErr(u.Algorithm, "null")
		}
		want.Algorithm = u.Algorithm
	}
	if want.Algorithm != u.Algorithm {
		return want, s3err.GetChecksumTypeMismatchErr(u.Algorithm, want.Algorithm)
	}
	return want, nil
}

// uploadPart encrypts and stores body, of size bytes, as a part. Then it stores the receipt:
// a part without a receipt was never acknowledged.
func (g *Gateway) uploadPart(r *request, t *target, p *openedPart, body io.Reader, size int64, want checksum) (*receipt, error) {
	want, err := p.upload.checkAlgorithm(want)
	if err != nil {
		return nil, err
	}
	content, err := newPlaintext(body, want, size, p.mode)
	if err != nil {
		return nil, err
	}
	crc := func() string { return content.hashed.sum() }
	if p.upload.Type == "" && content.hashed.algorithm != types.ChecksumAlgorithmCrc64nvme {
		h, err := utils.NewHashReader(content.hashed.Reader, "", utils.HashTypeCRC64NVME)
		if err != nil {
			return nil, err
		}
		content.hashed.Reader, crc = h, h.Sum
	}
	stored, err := sse.CiphertextSize(size)
	if err != nil {
		return nil, err
	}
	stored += sse.PartOverhead
	if stored > maxPart {
		return nil, s3err.GetEntityTooLargeErr(size, maxPart)
	}
	filler := max(0, backend.MinPartSize-stored)
	attempt := newAttempt()
	content.etag = attempt + etagSuffix
	etag, err := g.storePart(r, t, attempt, io.MultiReader(p.part.Reader(content), io.LimitReader(zeros{}, filler)), stored+filler)
	if err != nil {
		return nil, err
	}
	got := &receipt{ETag: content.ETag(), Size: content.read, Filler: filler, Checksum: content.hashed.checksum()}
	if p.upload.Type == "" {
		got.CRC64 = crc()
	}
	if got.Receipt, err = p.part.Receipt(); err != nil {
		return nil, err
	}
	return got, g.putRecord(r.ctx, partRecord(t.bucket, t.id, t.number, etag), got)
}

// newAttempt returns a new name for an attempt at a part.
func newAttempt() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// storePart stores an inner part and returns its inner ETag, without quotes. No other
// attempt has that ETag.
func (g *Gateway) storePart(r *request, t *target, attempt string, body io.Reader, size int64) (string, error) {
	if g.files != nil {
		body = &claimedBody{body, types.ChecksumAlgorithmCrc64nvme, func() string { return claim(zeroCRC64, attempt) }}
	}
	out, err := g.Backend.UploadPart(r.ctx, &s3.UploadPartInput{
		Bucket: &t.bucket, Key: &t.key, UploadId: &t.id, PartNumber: &t.number, Body: body, ContentLength: &size,
	})
	if err != nil {
		return "", err
	}
	if g.files != nil {
		return attempt, nil
	}
	return unquote(out.ETag), nil
}

// zeros is an endless reader of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// UploadPartCopy implements [backend.Backend].
func (g *Gateway) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.CopyPartResult{}, err
	}
	out, err := g.copyPart(g.request(ctx), in)
	return out, g.fail("UploadPartCopy", in.Bucket, in.Key, err)
}

func (g *Gateway) copyPart(r *request, in *s3.UploadPartCopyInput) (out s3response.CopyPartResult, err error) {
	t := &target{*in.Bucket, *in.Key, *in.UploadId, *in.PartNumber}
	p, err := g.openPart(r, t)
	if err != nil {
		return out, err
	}
	src, err := g.parseSource(r, deref(in.CopySource), in.ExpectedSourceBucketOwner)
	if err != nil {
		return out, err
	}
	var body io.ReadCloser
	var n int64
	err = retryChanged(func() error {
		body, n, err = g.openCopied(r, in, src)
		return err
	})
	if err != nil {
		return out, err
	}
	defer body.Close()
	got, err := g.uploadPart(r, t, p, body, n, checksum{Algorithm: p.upload.Algorithm})
	if err != nil {
		return out, err
	}
	out = s3response.CopyPartResult{ETag: ptr(quote(got.ETag)), LastModified: time.Now(), CopySourceVersionId: src.id}
	if p.upload.Type != "" {
		got.Checksum.set(&out)
	}
	p.opener.SetHeaders(r.setHeader)
	return out, nil
}

// openCopied opens the bytes that a part is copied from, and returns how many there are.
func (g *Gateway) openCopied(r *request, in *s3.UploadPartCopyInput, src *source) (body io.ReadCloser, n int64, err error) {
	_, o, err := g.openSource(r, src, in.CopySourceIfMatch, in.CopySourceIfNoneMatch, &s3.GetObjectInput{
		IfModifiedSince: in.CopySourceIfModifiedSince, IfUnmodifiedSince: in.CopySourceIfUnmodifiedSince,
	})
	if err != nil {
		return nil, 0, err
	}
	var size int64
	if o != nil {
		size = o.plaintext
	}
	off, n, err := backend.ParseCopySourceRange(size, deref(in.CopySourceRange))
	if err != nil {
		return nil, 0, err
	}
	n = min(n, size-off)
	if n > maxCopy {
		return nil, 0, s3err.GetCopySourceObjectTooLargeErr(maxCopy)
	}
	if n == 0 {
		return io.NopCloser(strings.NewReader("")), 0, nil
	}
	body, err = o.readRange(off, n)
	return body, n, err
}
