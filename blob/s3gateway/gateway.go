package s3gateway

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// DefaultStateBucket is the bucket of the inner store in which gateways keep what
// they share, if Options do not say.
const DefaultStateBucket = "blobseal-gateway-state"

// MaxParts is how many parts an upload can have: the inner store's last part is
// the gateway's. Start the engine with it, as embedgw.Config.MultipartMaxParts.
const MaxParts = 9999

// maxCopy is the largest object that S3 copies in one request.
const maxCopy = 5 << 30

// Options are for [New]. Most services leave them nil.
type Options struct {
	// StateBucket is the bucket of the inner store in which gateways keep bucket
	// configurations and the state of uploads. Clients cannot reach it. Empty means
	// [DefaultStateBucket].
	StateBucket string

	// BehindTLS means that clients connect to a proxy that terminates TLS. Their requests
	// may then contain customer keys. Otherwise such requests need TLS at this server.
	BehindTLS bool

	// AllowPlain serves objects that are not encrypted, for a store that was in use
	// before the gateway. An attacker who can write to the store can then replace an
	// object with a plain one. Lists look at every object.
	AllowPlain bool

	// KeyTimeout bounds each call of the key service. Zero means 15 seconds.
	KeyTimeout time.Duration

	// Log gets the causes of errors for which a client only sees InternalError. Nil
	// means [slog.Default].
	Log *slog.Logger
}

// Gateway is a backend of the engine. It encrypts objects and keeps them in another
// backend, the inner store. It is safe for concurrent use. Gateways over one store act
// as one service.
type Gateway struct {
	backend.Backend // the inner store; methods that are not overridden touch no content

	keys    *s3wire.Keys
	service sse.Cipher
	files   *Files // the inner store, or nil if it is of another kind
	opts    Options

	completions stored.Locks // by upload
}

// New returns a gateway over an inner store, such as the result of [OpenFiles] or
// [OpenS3], or a backend that embeds one of them.
//
// keys encrypts and opens objects. service seals what gateways share; it is usually
// the Managed cipher of keys. New creates the state bucket if it is missing. ctx
// bounds that.
func New(ctx context.Context, inner backend.Backend, keys *s3wire.Keys, service sse.Cipher, opts *Options) (*Gateway, error) {
	if inner == nil || keys == nil || service == nil {
		return nil, fmt.Errorf("%w: s3gateway: the inner store, keys or the service's cipher is nil", sse.ErrInvalid)
	}
	g := &Gateway{Backend: inner, keys: keys, service: service}
	if files, ok := inner.(interface{ plainFiles() *Files }); ok {
		g.files = files.plainFiles()
	}
	if opts != nil {
		g.opts = *opts
	}
	g.opts.StateBucket = cmp.Or(g.opts.StateBucket, DefaultStateBucket)
	g.opts.KeyTimeout = cmp.Or(g.opts.KeyTimeout, defaultKeyTimeout)
	g.opts.Log = cmp.Or(g.opts.Log, slog.Default())
	if err := g.createStateBucket(ctx); err != nil {
		return nil, fmt.Errorf("s3gateway: create bucket %s: %w", g.opts.StateBucket, err)
	}
	return g, nil
}

// String implements [backend.Backend].
func (g *Gateway) String() string { return "blobseal over " + g.Backend.String() }

// guard returns NoSuchBucket for the state bucket.
func (g *Gateway) guard(bucket *string) error {
	if bucket != nil && *bucket == g.opts.StateBucket {
		return s3err.GetBucketErr(s3err.ErrNoSuchBucket, *bucket)
	}
	return nil
}

// fail returns err as a method of a backend does. Errors of the inner store stay as they
// are. Errors of keys and ciphers get S3's codes.
func (g *Gateway) fail(op string, bucket, key *string, err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[s3err.S3Error](err); ok {
		return known
	}
	if errors.Is(err, stored.ErrPlain) {
		return s3err.APIError{Code: "AccessDenied", HTTPStatusCode: 403, Description: "The object is not encrypted, and this gateway serves encrypted objects only."}
	}
	if errors.Is(err, stored.ErrReserved) {
		return s3err.APIError{Code: "InvalidArgument", HTTPStatusCode: 400, Description: "Metadata names that begin with " + stored.ReservedPrefix + " are reserved."}
	}
	e := s3wire.FromError(err)
	if e.Err != nil {
		level := slog.LevelInfo
		if e.Status() >= 500 {
			level = slog.LevelError
		}
		g.opts.Log.Log(context.Background(), level, "s3gateway: request failed", "operation", op,
			"bucket", deref(bucket), "key", deref(key), "code", e.Code, "error", e.Err)
	}
	return s3err.APIError{Code: e.Code, Description: e.ClientMessage(), HTTPStatusCode: e.Status()}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func ptr[T any](v T) *T { return &v }

// isDirectory reports whether an object is a directory, which has no content. The gateway
// does not encrypt it.
func isDirectory(key *string, size int64) bool {
	return size == 0 && strings.HasSuffix(deref(key), "/")
}

// md5ETag matches the ETag of an object that was uploaded at once.
var md5ETag = regexp.MustCompile(`^"?[0-9a-f]{32}"?$`)

// clientETag returns the ETag that clients see for an ETag of the inner store. The MD5 of
// ciphertext gets a suffix: clients would take it for the MD5 of the plaintext.
func (g *Gateway) clientETag(etag *string) *string {
	if g.files != nil || etag == nil || !md5ETag.MatchString(*etag) {
		return etag
	}
	return ptr(quote(unquote(etag) + etagSuffix))
}

// innerETag is the inverse of clientETag, for conditions.
func (g *Gateway) innerETag(etag *string) *string {
	if g.files != nil || etag == nil {
		return etag
	}
	if inner := strings.TrimSuffix(unquote(etag), etagSuffix); md5ETag.MatchString(inner) {
		return ptr(quote(inner))
	}
	return etag
}

const etagSuffix = "-1"

// SelectObjectContent implements [backend.Backend]. It is not implemented: the inner
// store would search ciphertext.
func (g *Gateway) SelectObjectContent(ctx context.Context, in *s3.SelectObjectContentInput) func(w *bufio.Writer) {
	return backend.BackendUnsupported{}.SelectObjectContent(ctx, in)
}

// ListBuckets implements [backend.Backend].
func (g *Gateway) ListBuckets(ctx context.Context, in s3response.ListBucketsInput) (s3response.ListAllMyBucketsResult, error) {
	out, err := g.Backend.ListBuckets(ctx, in)
	listed := len(out.Buckets.Bucket)
	out.Buckets.Bucket = slices.DeleteFunc(out.Buckets.Bucket, func(b s3response.ListAllMyBucketsEntry) bool { return b.Name == g.opts.StateBucket })
	missing := listed - len(out.Buckets.Bucket)
	if err != nil || missing == 0 || out.ContinuationToken == "" {
		return out, err
	}
	in.ContinuationToken, in.MaxBuckets = out.ContinuationToken, int32(missing)
	more, err := g.Backend.ListBuckets(ctx, in)
	out.Buckets.Bucket, out.ContinuationToken = append(out.Buckets.Bucket, more.Buckets.Bucket...), more.ContinuationToken
	return out, err
}

// ListBucketsAndOwners implements [backend.Backend].
func (g *Gateway) ListBucketsAndOwners(ctx context.Context) ([]s3response.Bucket, error) {
	all, err := g.Backend.ListBucketsAndOwners(ctx)
	return slices.DeleteFunc(all, func(b s3response.Bucket) bool { return b.Name == g.opts.StateBucket }), err
}

// HeadBucket implements [backend.Backend].
func (g *Gateway) HeadBucket(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return nil, err
	}
	return g.Backend.HeadBucket(ctx, in)
}

// GetBucketAcl implements [backend.Backend]. The engine calls it before most
// operations on a bucket, so that clients do not reach the state bucket.
func (g *Gateway) GetBucketAcl(ctx context.Context, in *s3.GetBucketAclInput) ([]byte, error) {
	if err := g.guard(in.Bucket); err != nil {
		return nil, err
	}
	return g.Backend.GetBucketAcl(ctx, in)
}

// CreateBucket implements [backend.Backend].
func (g *Gateway) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, acl []byte) error {
	if err := g.guard(in.Bucket); err != nil {
		return s3err.GetBucketErr(s3err.ErrBucketAlreadyExists, *in.Bucket)
	}
	return g.Backend.CreateBucket(ctx, in, acl)
}

// DeleteBucket implements [backend.Backend]. It also deletes the records of the bucket.
func (g *Gateway) DeleteBucket(ctx context.Context, bucket string) error {
	if err := g.guard(&bucket); err != nil {
		return err
	}
	if err := g.Backend.DeleteBucket(ctx, bucket); err != nil {
		return err
	}
	return g.fail("DeleteBucket", &bucket, nil, g.forgetBucket(ctx, bucket))
}
