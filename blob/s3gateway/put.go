package s3gateway

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"

	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// PutObject implements [backend.Backend], for PutObject and POST Object.
func (g *Gateway) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.PutObjectOutput{}, err
	}
	r := g.request(ctx)
	out, err := g.putObject(r, in)
	return out, g.fail("PutObject", in.Bucket, in.Key, err)
}

func (g *Gateway) putObject(r *request, in s3response.PutObjectInput) (out s3response.PutObjectOutput, err error) {
	cipher, err := g.cipherFor(r, *in.Bucket)
	if err != nil {
		return out, err
	}
	size := int64(-1)
	if r.form == nil { // a form says how long it is, and not how long its file is
		size = deref(in.ContentLength)
	}
	return g.put(r, in, cipher, size)
}

// cipherFor returns the cipher for an object that a request stores in a bucket.
func (g *Gateway) cipherFor(r *request, bucket string) (*s3wire.Cipher, error) {
	w, err := s3wire.ParseWrite(r.values, r.tls)
	if err != nil {
		return nil, err
	}
	return g.cipherOf(r, w, bucket)
}

func (g *Gateway) cipherOf(r *request, w *s3wire.Write, bucket string) (*s3wire.Cipher, error) {
	c, err := g.configuration(r.ctx, bucket)
	if err != nil {
		return nil, err
	}
	return g.keys.ForWrite(w, c)
}

// put encrypts in.Body, of size bytes or of any size if size is below zero, and
// stores it. The response gets the headers of the new envelope.
func (g *Gateway) put(r *request, in s3response.PutObjectInput, cipher *s3wire.Cipher, size int64) (out s3response.PutObjectOutput, err error) {
	if err := stored.CheckMetadata(in.Metadata); err != nil {
		return out, err
	}
	if isDirectory(in.Key, size) {
		if out, err = g.Backend.PutObject(r.ctx, in); err == nil && g.files != nil {
			out.ETag = quote(emptyMD5)
		}
		return out, err
	}
	if size < 0 && g.files == nil { // other stores must know the length
		return out, s3err.GetAPIError(s3err.ErrNotImplemented)
	}
	e, err := g.encrypt(r, cipher, sse.Object{Bucket: *in.Bucket, Key: *in.Key})
	if err != nil {
		return out, err
	}
	env, err := padEnvelope(e.Envelope(), size)
	if err != nil {
		return out, err
	}
	plaintext, err := newPlaintext(in.Body, checksumWanted(&in, in.ChecksumAlgorithm), size, cipher.Mode())
	if err != nil {
		return out, err
	}
	head, err := env.MarshalBinary()
	if err != nil {
		return out, err
	}
	plaintext.etag = bodyETag(env)
	in.Metadata, in.ContentEncoding = storedMetadata(env, in.Metadata, in.ContentEncoding)
	in.ChecksumAlgorithm = ""
	checksum{}.set(&in)
	in.Body = g.addClaim(io.MultiReader(bytes.NewReader(head), e.Reader(plaintext)), plaintext)
	in.ContentLength = storedLength(env.Size(), size, in.ContentLength)
	in.IfMatch, in.IfNoneMatch = g.innerETag(in.IfMatch), g.innerETag(in.IfNoneMatch)
	if out, err = g.Backend.PutObject(r.ctx, in); err != nil {
		return s3response.PutObjectOutput{}, err
	}
	out.ETag = *g.clientETag(&out.ETag)
	if g.files != nil {
		out.ETag = quote(plaintext.ETag())
	}
	plaintext.hashed.checksum().set(&out)
	out.ChecksumType = "FULL_OBJECT"
	out.Size = &plaintext.read
	cipher.SetHeaders(r.setHeader)
	return out, nil
}

// encrypt starts the encryption of an object.
func (g *Gateway) encrypt(r *request, cipher sse.Encrypter, obj sse.Object) (*sse.Encryption, error) {
	ctx, cancel := g.keyContext(r)
	defer cancel()
	return cipher.Encrypt(ctx, obj)
}

// padEnvelope pads an envelope to the usual size. It pads a longer envelope until the
// stored object, of size plaintext bytes, has a size that no object with a usual envelope
// has. Lists then know that they must look at the object.
func padEnvelope(env *sse.Envelope, size int64) (*sse.Envelope, error) {
	padded, err := env.WithSize(stored.DefaultEnvelopeSize)
	if err == nil || size < 0 || !errors.Is(err, sse.ErrTooLarge) {
		return padded, err
	}
	body, err := sse.CiphertextSize(size)
	if err != nil {
		return nil, err
	}
	// The stored sizes of usual objects exceed DefaultEnvelopeSize by whole chunks and a
	// last one of at least 16 bytes.
	const chunk = sse.ChunkSize + 16
	n := int64(stored.DefaultEnvelopeSize) - body%chunk
	for n < int64(env.Size()) {
		n += chunk
	}
	return env.WithSize(int(n))
}

// storedLength returns the length of the stored object. Without the plaintext's
// size, it is the most that an upload of length bytes can need.
func storedLength(envelope int, size int64, length *int64) *int64 {
	if size < 0 {
		size = deref(length)
	}
	body, err := sse.CiphertextSize(size)
	if err != nil {
		return nil // refused when it is read
	}
	return ptr(int64(envelope) + body)
}

// storedMetadata returns the metadata of a stored object: the caller's, the hint, and the
// Content-Encoding, which the store itself must not get.
func storedMetadata(env *sse.Envelope, md map[string]string, encoding *string) (map[string]string, *string) {
	md = stored.HintOf(env).Metadata(md)
	if deref(encoding) != "" {
		md[stored.ContentEncoding] = *encoding
	}
	return md, nil
}

// callerMetadata is the inverse of storedMetadata.
func callerMetadata(md map[string]string, encoding *string) (map[string]string, *string) {
	if _, hinted := stored.ParseHint(md); !hinted {
		return md, encoding
	}
	if value, ok := md[stored.ContentEncoding]; ok {
		encoding = &value
	}
	return stored.CallerMetadata(md), encoding
}

// bodyETag returns an ETag that tells nothing of the plaintext. It does not look like an
// MD5.
func bodyETag(env *sse.Envelope) string { return env.BodyID()[:32] + etagSuffix }

// plaintext reads what a client uploads. It computes the checksum and, for SSE-S3, the
// MD5. It fails unless the plaintext has the size that the client states.
type plaintext struct {
	hashed *hashed
	md5    hash.Hash // nil if the ETag is not the MD5
	etag   string    // otherwise
	size   int64     // or below zero
	read   int64
}

func newPlaintext(body io.Reader, want checksum, size int64, mode sse.Mode) (*plaintext, error) {
	if body == nil {
		body = bytes.NewReader(nil)
	}
	h, err := newHashed(body, want)
	if err != nil {
		return nil, err
	}
	p := &plaintext{hashed: h, size: size}
	if mode == sse.ModeManaged {
		p.md5 = md5.New()
	}
	return p, nil
}

func (p *plaintext) Read(b []byte) (int, error) {
	n, err := p.hashed.Read(b)
	p.read += int64(n)
	if p.md5 != nil {
		p.md5.Write(b[:n])
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), err == io.EOF && p.size > p.read:
		err = s3err.GetAPIError(s3err.ErrIncompleteBody)
	case p.size >= 0 && p.read > p.size:
		err = s3err.GetAPIError(s3err.ErrInvalidRequest)
	}
	return n, err
}

// ETag returns the ETag of what was read so far, without quotes.
func (p *plaintext) ETag() string {
	if p.md5 == nil {
		return p.etag
	}
	return hex.EncodeToString(p.md5.Sum(nil))
}

// addClaim returns body with a claim, which tells a store of files the checksum and the
// ETag. Other stores need none.
func (g *Gateway) addClaim(body io.Reader, p *plaintext) io.Reader {
	if g.files == nil {
		return body
	}
	return &claimedBody{body, p.hashed.algorithm, func() string { return claim(p.hashed.sum(), p.ETag()) }}
}

// claimedBody implements the engine's ChecksumReader.
type claimedBody struct {
	io.Reader
	algorithm checksumAlgorithm
	claim     func() string
}

func (b *claimedBody) Algorithm() string { return strings.ToLower(string(b.algorithm)) }
func (b *claimedBody) Checksum() string  { return b.claim() }

// checksumWanted returns the checksum, or at least the algorithm, that an input states.
func checksumWanted(in any, algorithm checksumAlgorithm) checksum {
	if sum := checksumOf(in); sum.Value != "" {
		return sum
	}
	return checksum{Algorithm: algorithm}
}
