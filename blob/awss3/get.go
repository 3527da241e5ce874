package awss3

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// GetObject returns an object, or a range or a part of it, decrypted. The caller closes the
// body. PartNumber selects a stored part of an upload, of which GetObject returns the whole
// chunks. All parts, in the order of their numbers, make up the plaintext.
func (c *Client) GetObject(ctx context.Context, in *s3.GetObjectInput, optFns ...func(*s3.Options)) (*s3.GetObjectOutput, error) {
	get := *in
	c, err := c.withCustomerKey(&get.SSECustomerAlgorithm, &get.SSECustomerKey, &get.SSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	if _, err := c.identity(get.Bucket, get.Key); err != nil {
		return nil, err
	}
	open := c.getWhole
	switch {
	case get.Range != nil && get.PartNumber != nil:
		return nil, errRangeAndPart
	case get.Range != nil:
		span, err := parseSpan(*get.Range)
		if err != nil {
			return nil, err
		}
		open = func(ctx context.Context, in s3.GetObjectInput, optFns []func(*s3.Options)) (*s3.GetObjectOutput, error) {
			return c.getSpan(ctx, in, span, optFns)
		}
	case get.PartNumber != nil:
		open = c.getPart
	}
	out, err := retryChanged(func() (*s3.GetObjectOutput, error) { return open(ctx, get, optFns) })
	if err != nil {
		return nil, err
	}
	out.SSECustomerAlgorithm, out.SSECustomerKeyMD5 = in.SSECustomerAlgorithm, in.SSECustomerKeyMD5
	return out, nil
}

// retryChanged calls fn again if another writer replaced the object meanwhile.
func retryChanged[T any](fn func() (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		out, err := fn()
		if !errors.Is(err, stored.ErrChanged) || attempt == stored.MaxTries {
			return out, err
		}
	}
}

// getWhole reads the whole object.
func (c *Client) getWhole(ctx context.Context, in s3.GetObjectInput, optFns []func(*s3.Options)) (*s3.GetObjectOutput, error) {
	out, err := c.api.GetObject(ctx, &in, optFns...)
	if err != nil {
		return nil, err
	}
	err = c.decryptWhole(ctx, in, out)
	if err == nil {
		describeGet(out)
		return out, nil
	}
	out.Body.Close()
	if errors.Is(err, sse.ErrComposite) {
		return c.getSpan(ctx, in, span{n: -1}, optFns)
	}
	return nil, err
}

// decryptWhole turns a response with a stored object into one with its plaintext.
func (c *Client) decryptWhole(ctx context.Context, in s3.GetObjectInput, out *s3.GetObjectOutput) error {
	env, content, err := stored.ReadEnvelope(out.Body, c.opts.EnvelopeSize)
	if errors.Is(err, stored.ErrPlain) {
		_, _, _, hinted := openMetadata(out.Metadata, nil)
		out.Body = plaintext{content, out.Body}
		return c.admitPlain(hinted)
	}
	if err != nil {
		return err
	}
	if out.ContentLength != nil {
		size, err := stored.PlaintextSize(*out.ContentLength, env.Size())
		if err != nil {
			return err
		}
		out.ContentLength = &size
	}
	d, err := c.decrypt(ctx, in.Bucket, in.Key, env)
	if err != nil {
		return err
	}
	out.Body = plaintext{d.Reader(content), out.Body}
	return nil
}

// describeGet makes a response's fields those of the plaintext.
func describeGet(out *s3.GetObjectOutput) {
	out.Metadata, out.ContentEncoding, _, _ = openMetadata(out.Metadata, out.ContentEncoding)
	clearChecksums(out)
}

// getSpan reads a range of an object. Without a spec, it is the whole one.
func (c *Client) getSpan(ctx context.Context, in s3.GetObjectInput, s span, optFns []func(*s3.Options)) (*s3.GetObjectOutput, error) {
	var ahead int64
	if s.n > 0 && !s.suffix && s.n <= drainSize-s.off {
		if ahead = s.off + s.n; s.off >= sse.ChunkSize {
			ahead = 0
		}
	}
	o, err := c.openObject(ctx, in, ahead, optFns)
	if err != nil {
		return nil, err
	}
	off, n := s.clip(o.size)
	if s.spec != "" && n == 0 {
		if err := o.prove(ctx, off, n); err != nil {
			return nil, err
		}
		return nil, invalidRange(s.spec, o.size)
	}
	return o.response(ctx, off, n, s.spec != "")
}

// response returns a response with n bytes from off. It proves the object's size.
func (o *object) response(ctx context.Context, off, n int64, partial bool) (*s3.GetObjectOutput, error) {
	if err := o.prove(ctx, off, n); err != nil {
		return nil, err
	}
	body, err := o.read(ctx, off, n)
	if err != nil {
		return nil, err
	}
	out := *o.out
	describeGet(&out)
	out.Body, out.ContentLength, out.ContentRange = body, &n, nil
	if partial {
		out.ContentRange = contentRange(off, n, o.size)
	}
	return &out, nil
}

// getPart reads the plaintext in one stored part of an upload.
func (c *Client) getPart(ctx context.Context, in s3.GetObjectInput, optFns []func(*s3.Options)) (*s3.GetObjectOutput, error) {
	var head s3.HeadObjectInput
	if err := convert(&head, &in); err != nil {
		return nil, err
	}
	head.ChecksumMode = ""
	part, err := c.api.HeadObject(ctx, &head, optFns...)
	if err != nil {
		return nil, err
	}
	in.IfMatch = part.ETag
	o, err := c.openObject(ctx, in, 0, optFns)
	if err != nil {
		return nil, changedIfGone(err)
	}
	off, n := o.partRange(aws.ToInt32(in.PartNumber), part)
	out, err := o.response(ctx, off, n, n > 0)
	if err != nil {
		return nil, err
	}
	out.PartsCount = part.PartsCount
	return out, nil
}

// partRange returns the range of the plaintext in the stored part that head describes.
func (o *object) partRange(number int32, head *s3.HeadObjectOutput) (off, n int64) {
	storedOff, storedLen, _, ok := parseContentRange(aws.ToString(head.ContentRange))
	if !ok { // an object that was not uploaded in parts
		return 0, o.size
	}
	from, to := o.plaintextOf(storedOff), o.plaintextOf(storedOff+storedLen)
	if composite, ok := o.body.(*sse.Composite); ok {
		from, to = compositePart(composite, number)
	}
	return from, to - from
}

// compositePart returns where a part of a composite object begins and ends. The last stored
// part holds the trailer and no plaintext.
func compositePart(c *sse.Composite, number int32) (from, to int64) {
	var i int32
	for _, size := range c.Parts() {
		if i++; i == number {
			return from, from + size
		}
		from += size
	}
	return from, from
}

// plaintextOf returns the plaintext offset of the first chunk that begins at a stored
// offset or behind it.
func (o *object) plaintextOf(storedOff int64) int64 {
	if o.plain {
		return storedOff
	}
	const sealed = sse.ChunkSize + 16
	at := max(0, storedOff-int64(o.env.Size()))
	return min((at+sealed-1)/sealed*sse.ChunkSize, o.size)
}
