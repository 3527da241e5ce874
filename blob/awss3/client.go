package awss3

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// DefaultEnvelopeSize is the size of envelopes if [Options] do not say. It is that of
// package blob.
const DefaultEnvelopeSize = stored.DefaultEnvelopeSize

// API is the part of S3's API that a [Client] uses. *s3.Client implements it.
type API interface {
	transfermanager.S3APIClient
	DeleteObject(context.Context, *s3.DeleteObjectInput, ...func(*s3.Options)) (*s3.DeleteObjectOutput, error)
	DeleteObjects(context.Context, *s3.DeleteObjectsInput, ...func(*s3.Options)) (*s3.DeleteObjectsOutput, error)
	GetObjectTagging(context.Context, *s3.GetObjectTaggingInput, ...func(*s3.Options)) (*s3.GetObjectTaggingOutput, error)
	ListParts(context.Context, *s3.ListPartsInput, ...func(*s3.Options)) (*s3.ListPartsOutput, error)
	UploadPartCopy(context.Context, *s3.UploadPartCopyInput, ...func(*s3.Options)) (*s3.UploadPartCopyOutput, error)
}

// Options are for [New]. Most services leave them nil.
type Options struct {
	// Names maps S3 buckets to the names that their objects are bound to. Objects of
	// other buckets are bound to the bucket's own name. Never change a name: objects
	// bound to the old one would not open.
	Names map[string]string

	// EnvelopeSize is the size, in bytes, to which every object's envelope is
	// padded; 0 means [DefaultEnvelopeSize]. Give it the value of package blob's
	// option of that name. With any size but the default, lists show no sizes.
	EnvelopeSize int

	// Decrypters open objects of other modes than the cipher's, such as those from
	// before a change of mode. The cipher opens the modes that are not here.
	Decrypters sse.ByMode

	// AllowCustomerKeys allows writes in SSE-C.
	AllowCustomerKeys bool

	// AllowPlain lets reads return objects that are not encrypted, for buckets that
	// were in use before. An attacker with write access to the store can then replace
	// an object with a plain one. Lists show no sizes.
	AllowPlain bool

	// Upload configures the SDK's transfer manager, which writes objects of more
	// than 8 MiB. Nil means its defaults.
	Upload func(*transfermanager.Options)
}

// Client encrypts the objects that it writes to S3 and decrypts those that it reads.
// It is safe for concurrent use.
type Client struct {
	api    API
	cipher sse.Cipher
	opts   Options // with its defaults
	req    Request
}

// New returns a client over api. cipher encrypts new objects and opens objects of its mode.
// New returns [sse.ErrInvalid] for options that no write could honor, and [ErrCustomerKey]
// for a cipher of SSE-C unless Options.AllowCustomerKeys is set.
func New(api API, cipher sse.Cipher, opts *Options) (*Client, error) {
	if isNil(api) || isNil(cipher) {
		return nil, fmt.Errorf("%w: awss3.New needs a client of S3 and a cipher", sse.ErrInvalid)
	}
	c := &Client{api: api, cipher: cipher}
	if opts != nil {
		c.opts = *opts
		c.opts.Names, c.opts.Decrypters = maps.Clone(opts.Names), maps.Clone(opts.Decrypters)
	}
	if c.opts.EnvelopeSize == 0 {
		c.opts.EnvelopeSize = DefaultEnvelopeSize
	}
	if err := stored.CheckEnvelopeSize(c.opts.EnvelopeSize, nil); err != nil {
		return nil, fmt.Errorf("%w: EnvelopeSize %d: %w", sse.ErrInvalid, c.opts.EnvelopeSize, err)
	}
	return c, c.admit(cipher.Mode())
}

// isNil reports whether v is nil, or holds a nil pointer.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return !r.IsValid() || r.Kind() == reflect.Pointer && r.IsNil()
}

// admit refuses writes in SSE-C, unless the options allow them.
func (c *Client) admit(mode sse.Mode) error {
	if mode == sse.ModeCustomer && !c.opts.AllowCustomerKeys {
		return ErrCustomerKey
	}
	return nil
}

// Request has the key and the context of one request, or of one tenant. See [Client.With].
type Request struct {
	// Cipher, if set, is the request's key. It encrypts what the request writes,
	// and it alone opens what the request reads.
	Cipher sse.Cipher

	// Context is the encryption context, such as the tenant that the request runs for.
	// Objects that the request writes are bound to it. Objects that the request reads
	// must have been written with the same context. A nil Context reads only objects
	// without a context.
	Context kms.Context
}

// With returns a client for one request. It is cheap. If r has no Cipher, that of c stays; the
// context is always that of r. If r has a cipher or a context, a plain object is
// [sse.ErrMode].
func (c *Client) With(r Request) *Client {
	view := *c
	view.req = Request{Cipher: r.Cipher, Context: maps.Clone(r.Context)}
	if r.Cipher == nil {
		view.req.Cipher = c.req.Cipher
	} else {
		view.cipher = r.Cipher
	}
	return &view
}

// withCustomerKey returns a client with the customer's key of an input. It removes the key
// from the input: S3 must not get it.
func (c *Client) withCustomerKey(algorithm, key, keyMD5 **string) (*Client, error) {
	if *algorithm == nil && *key == nil && *keyMD5 == nil {
		return c, nil
	}
	customer, err := sse.ParseCustomerKey(aws.ToString(*algorithm), aws.ToString(*key), aws.ToString(*keyMD5))
	if err != nil {
		return nil, err
	}
	*algorithm, *key, *keyMD5 = nil, nil, nil
	return c.With(Request{Cipher: customer, Context: c.req.Context}), nil
}

// identity returns the bucket, key and context that an object is bound to.
func (c *Client) identity(bucket, key *string) (sse.Object, error) {
	obj := sse.Object{Bucket: aws.ToString(bucket), Key: aws.ToString(key), Context: c.req.Context}
	if name, ok := c.opts.Names[obj.Bucket]; ok {
		obj.Bucket = name
	}
	switch {
	case obj.Bucket == "" || obj.Key == "":
		return obj, fmt.Errorf("%w: the input lacks Bucket or Key", sse.ErrInvalid)
	case strings.Contains(obj.Key, "../") || strings.Contains(obj.Key, "__0x") ||
		strings.ContainsFunc(obj.Key, func(r rune) bool { return r < ' ' }):
		return obj, fmt.Errorf("%w: key %q has a control character, \"../\" or \"__0x\" (choose another key)", sse.ErrInvalid, obj.Key)
	}
	return obj, nil
}

// encrypt starts the encryption of a new object.
func (c *Client) encrypt(ctx context.Context, bucket, key *string) (*sse.Encryption, *sse.Envelope, error) {
	obj, err := c.identity(bucket, key)
	if err == nil {
		err = c.admit(c.cipher.Mode())
	}
	if err != nil {
		return nil, nil, err
	}
	enc, err := c.cipher.Encrypt(ctx, obj)
	if err != nil {
		return nil, nil, keyError(err)
	}
	env, err := enc.Envelope().WithSize(c.opts.EnvelopeSize)
	return enc, env, err
}

// decrypt opens the envelope of an object.
func (c *Client) decrypt(ctx context.Context, bucket, key *string, env *sse.Envelope) (*sse.Decryption, error) {
	obj, err := c.identity(bucket, key)
	if err != nil {
		return nil, err
	}
	var dec sse.Decrypter = c.cipher
	if other, ok := c.opts.Decrypters[env.Mode()]; ok && c.req.Cipher == nil {
		dec = other
	}
	d, err := dec.Decrypt(ctx, obj, env)
	if errors.Is(err, sse.ErrKey) {
		err = fmt.Errorf("%w (opened as an object of %q: see Options.Names)", err, obj.Bucket)
	}
	return d, keyError(err)
}

// admitPlain returns nil if the client and the request accept plain objects.
func (c *Client) admitPlain(hinted bool) error {
	switch {
	case !c.opts.AllowPlain:
		return stored.ErrPlain
	case c.req.Cipher != nil || len(c.req.Context) > 0:
		return errNotEncrypted
	case hinted:
		return stored.ErrDamaged
	}
	return nil
}

// DeleteObject deletes an object, as the SDK's client does.
func (c *Client) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput, optFns ...func(*s3.Options)) (*s3.DeleteObjectOutput, error) {
	return c.api.DeleteObject(ctx, in, optFns...)
}

// DeleteObjects deletes objects, as the SDK's client does.
func (c *Client) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput, optFns ...func(*s3.Options)) (*s3.DeleteObjectsOutput, error) {
	return c.api.DeleteObjects(ctx, in, optFns...)
}

// ListObjectsV2 lists objects with the sizes of their plaintexts, which it computes. An
// object whose size is not that of a simple encrypted object, such as a composite object,
// keeps its stored size. Sizes are nil if [Options] allow objects whose sizes cannot be
// computed.
func (c *Client) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input, optFns ...func(*s3.Options)) (*s3.ListObjectsV2Output, error) {
	out, err := c.api.ListObjectsV2(ctx, in, optFns...)
	if err != nil {
		return nil, err
	}
	out.Contents = slices.Clone(out.Contents)
	for i := range out.Contents {
		o := &out.Contents[i]
		if c.opts.AllowPlain || c.opts.EnvelopeSize != DefaultEnvelopeSize {
			o.Size = nil
		} else if size, err := stored.PlaintextSize(aws.ToInt64(o.Size), c.opts.EnvelopeSize); err == nil {
			o.Size = &size
		}
	}
	return out, nil
}
