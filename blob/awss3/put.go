package awss3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// singlePut is the size up to which ciphertext is sent with one request.
const singlePut = 8 << 20

// failTimeout bounds the request that aborts a failed upload. It is sent even if ctx has
// ended, so that the parts do not stay in the store.
const failTimeout = 30 * time.Second

// PutObject encrypts an object. It reads the body once, in order: the body need not be able
// to seek, and ContentLength need not be set. Up to 8 MiB of ciphertext take one request.
// The SDK's transfer manager uploads a larger object in parallel parts, under the same
// conditions.
func (c *Client) PutObject(ctx context.Context, in *s3.PutObjectInput, optFns ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	put := *in
	if put.WriteOffsetBytes != nil {
		return nil, fmt.Errorf("%w: WriteOffsetBytes: an encrypted object cannot be appended to", sse.ErrInvalid)
	}
	view, err := c.withCustomerKey(&put.SSECustomerAlgorithm, &put.SSECustomerKey, &put.SSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	sums, err := takeChecksums(&put)
	if err != nil {
		return nil, err
	}
	o := plainObject{put.Bucket, put.Key, &put.Body, &put.Metadata, &put.ContentEncoding}
	_, total, err := view.seal(ctx, o, put.ContentLength, sums)
	if err != nil {
		return nil, err
	}
	out, err := c.put(ctx, &put, put.Body, total, optFns)
	if err != nil {
		return nil, err
	}
	out.SSECustomerAlgorithm, out.SSECustomerKeyMD5 = in.SSECustomerAlgorithm, in.SSECustomerKeyMD5
	return out, nil
}

// plainObject points to the fields of an input that seal replaces.
type plainObject struct {
	bucket, key *string
	body        *io.Reader
	metadata    *map[string]string
	encoding    **string
}

// seal encrypts an object of an input: body, metadata and encoding become those of the stored
// object. It returns the source of the plaintext, and the size of the stored object, which is
// below zero if length is nil and the body does not tell its length.
func (c *Client) seal(ctx context.Context, o plainObject, length *int64, sums []*checksum) (*source, int64, error) {
	enc, env, err := c.encrypt(ctx, o.bucket, o.key)
	if err != nil {
		return nil, 0, err
	}
	plain, err := newSource(*o.body, length, sums)
	if err != nil {
		return nil, 0, err
	}
	if *o.metadata, err = sealMetadata(stored.HintOf(env), *o.metadata, *o.encoding); err != nil {
		return nil, 0, err
	}
	*o.encoding = nil
	head, err := env.MarshalBinary()
	if err != nil {
		return nil, 0, err
	}
	*o.body = io.MultiReader(bytes.NewReader(head), enc.Reader(plain))
	if plain.length < 0 {
		return plain, -1, nil
	}
	size, err := sse.CiphertextSize(plain.length)
	return plain, int64(len(head)) + size, err
}

// put stores the object that sealed reads. total is its size, or below zero if unknown. put
// has the metadata of the stored object.
func (c *Client) put(ctx context.Context, put *s3.PutObjectInput, sealed io.Reader, total int64, optFns []func(*s3.Options)) (*s3.PutObjectOutput, error) {
	var start bytes.Buffer
	if total >= 0 && total <= singlePut {
		start.Grow(int(total) + bytes.MinRead)
	}
	n, err := start.ReadFrom(io.LimitReader(sealed, singlePut+1))
	if err != nil {
		return nil, err
	}
	if n <= singlePut {
		put.Body, put.ContentLength = bytes.NewReader(start.Bytes()), nil
		out, err := c.api.PutObject(ctx, put, optFns...)
		if err != nil {
			return nil, err
		}
		clearChecksums(out)
		return out, nil
	}
	var upload transfermanager.UploadObjectInput
	put.Body, put.ContentLength = io.MultiReader(&start, sealed), nil
	if err := convert(&upload, put); err != nil {
		return nil, err
	}
	out, err := c.upload(ctx, &upload, total, func(o *transfermanager.Options) { o.S3 = tuned{c.api, optFns} })
	if err != nil {
		return nil, err
	}
	var answer s3.PutObjectOutput
	if err := convert(&answer, out, "*"); err != nil {
		return nil, err
	}
	answer.Size = nil
	return &answer, nil
}

// UploadObject encrypts an object of any length and uploads it in parallel parts, with
// the SDK's transfer manager. An object below the manager's threshold, 16 MiB, takes
// one request.
//
// Set ContentLength for an object of more than 10,000 parts of PartSizeBytes, 78 GiB by
// default: the manager then chooses larger parts.
func (c *Client) UploadObject(ctx context.Context, in *transfermanager.UploadObjectInput, opts ...func(*transfermanager.Options)) (*transfermanager.UploadObjectOutput, error) {
	up := *in
	view, err := c.withCustomerKey(&up.SSECustomerAlgorithm, &up.SSECustomerKey, &up.SSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	sums, err := takeChecksums(&up)
	if err != nil {
		return nil, err
	}
	up.MpuObjectSize = nil // of the plaintext; source checks it
	length := in.ContentLength
	if length == nil {
		length = in.MpuObjectSize
	}
	o := plainObject{up.Bucket, up.Key, &up.Body, &up.Metadata, &up.ContentEncoding}
	source, total, err := view.seal(ctx, o, length, sums)
	if err != nil {
		return nil, err
	}
	out, err := c.upload(ctx, &up, total, opts...)
	if err != nil {
		return nil, err
	}
	out.ContentLength = &source.read
	return out, nil
}

// upload hands a stored object to the transfer manager.
func (c *Client) upload(ctx context.Context, up *transfermanager.UploadObjectInput, total int64, opts ...func(*transfermanager.Options)) (*transfermanager.UploadObjectOutput, error) {
	up.ContentLength = nil
	if total >= 0 {
		up.ContentLength = &total
	}
	configure := func(o *transfermanager.Options) {
		o.FailTimeout = failTimeout
		if c.opts.Upload != nil {
			c.opts.Upload(o)
		}
	}
	out, err := transfermanager.New(c.api, configure).UploadObject(ctx, up, opts...)
	if err != nil {
		return nil, err
	}
	clearChecksums(out)
	return out, nil
}

// tuned adds the options of one call to each request of an upload.
type tuned struct {
	API
	optFns []func(*s3.Options)
}

func (t tuned) with(more []func(*s3.Options)) []func(*s3.Options) {
	return append(append([]func(*s3.Options){}, t.optFns...), more...)
}

func (t tuned) UploadPart(ctx context.Context, in *s3.UploadPartInput, more ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	return t.API.UploadPart(ctx, in, t.with(more)...)
}

func (t tuned) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, more ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	return t.API.CreateMultipartUpload(ctx, in, t.with(more)...)
}

func (t tuned) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, more ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	return t.API.CompleteMultipartUpload(ctx, in, t.with(more)...)
}

func (t tuned) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput, more ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	return t.API.AbortMultipartUpload(ctx, in, t.with(more)...)
}

func (t tuned) PutObject(ctx context.Context, in *s3.PutObjectInput, more ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	return t.API.PutObject(ctx, in, t.with(more)...)
}

// source reads a plaintext and checks its length and checksums. It returns io.EOF only if
// they are those that the caller states.
type source struct {
	r      io.Reader
	length int64 // below zero if unknown
	read   int64
	sums   []*checksum
	err    error
}

// newSource returns a source for the body of an input. If the caller states no length and the
// body can seek, newSource finds the length.
func newSource(body io.Reader, length *int64, sums []*checksum) (*source, error) {
	s := &source{r: body, length: -1, sums: sums}
	if body == nil {
		s.r = bytes.NewReader(nil)
	}
	if length != nil {
		s.length = aws.ToInt64(length)
		return s, nil
	}
	if seeker, ok := s.r.(io.Seeker); ok {
		now, err := seeker.Seek(0, io.SeekCurrent)
		if err != nil {
			return s, nil // a pipe, such as os.Stdin
		}
		end, err := seeker.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = seeker.Seek(now, io.SeekStart)
		}
		if err != nil {
			return nil, fmt.Errorf("awss3: length of the body: %w", err)
		}
		s.length = max(0, end-now)
	}
	return s, nil
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	for _, sum := range s.sums {
		sum.hash.Write(p[:n])
	}
	s.read += int64(n)
	switch {
	case s.length >= 0 && s.read > s.length:
		err = fmt.Errorf("%w: the body is longer than its length, %d bytes", sse.ErrInvalid, s.length)
	case err == io.EOF: // and not an error that wraps it, which is a failure
		err = s.check()
	}
	s.err = err
	return n, err
}

// check returns io.EOF if the plaintext has the length and checksums that the caller states.
func (s *source) check() error {
	if s.length >= 0 && s.read != s.length {
		return fmt.Errorf("%w: the body has %d bytes, not %d", sse.ErrInvalid, s.read, s.length)
	}
	for _, sum := range s.sums {
		if !sum.matches() {
			return fmt.Errorf("%w: the body does not match its %s (nothing was stored)", sse.ErrInvalid, sum.name)
		}
	}
	return io.EOF
}
