package bloburl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/sse"
)

// Prefix begins the schemes of this package. The scheme of the store's driver follows.
const Prefix = "blobseal+"

func init() {
	for _, scheme := range []string{"file", "mem", "s3", "gs", "azblob"} {
		gcblob.DefaultURLMux().RegisterBucket(Prefix+scheme, new(URLOpener))
	}
}

// URLOpener opens URLs whose scheme begins with [Prefix]. The zero URLOpener is the one
// that this package registers.
type URLOpener struct {
	// Options are those of each bucket. Decrypters and Policy.AllowCustomerKeys get
	// what the URL says in addition.
	Options blob.Options

	// Cipher, if set, encrypts and opens objects. The URL must name no keys then.
	Cipher sse.Cipher

	// Mux opens the stores. Nil means [gcblob.DefaultURLMux].
	Mux *gcblob.URLMux
}

var _ gcblob.BucketURLOpener = (*URLOpener)(nil)

// OpenBucketURL implements [gcblob.BucketURLOpener].
func (o *URLOpener) OpenBucketURL(ctx context.Context, u *url.URL) (*gcblob.Bucket, error) {
	bucket, err := o.open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("bloburl: %s://%s%s: %w", u.Scheme, u.Host, u.Path, err) // without parameters
	}
	return bucket, nil
}

func (o *URLOpener) open(ctx context.Context, u *url.URL) (*gcblob.Bucket, error) {
	scheme, ok := strings.CutPrefix(u.Scheme, Prefix)
	if !ok {
		return nil, fmt.Errorf("%w: scheme %q does not begin with %s", sse.ErrInvalid, u.Scheme, Prefix)
	}
	p, theirs, err := parseParams(u)
	if err != nil {
		return nil, err
	}
	name := p["name"]
	if name == "" {
		name = defaultName(scheme, u)
	}
	if name == "" {
		return nil, fmt.Errorf("%w: the URL has no bucket name (add name=NAME)", sse.ErrInvalid)
	}
	opts, err := o.options(p)
	if err != nil {
		return nil, err
	}
	keys, err := o.openKeys(ctx, p)
	if err != nil {
		return nil, err
	}
	bucket, err := o.openStore(ctx, scheme, u, theirs)
	if err != nil {
		keys.close()
		return nil, err
	}
	encrypted, err := blob.NewBucket(bucket, name, keys.cipher, keys.addTo(opts))
	if err != nil {
		keys.close()
		return nil, errors.Join(err, bucket.Close())
	}
	var inside *store.Store
	encrypted.As(&inside)
	inside.OnClose = func() error {
		keys.close()
		return bucket.Close()
	}
	return encrypted.Bucket, nil
}

// openStore opens the store of a URL, with the parameters that are not ours.
func (o *URLOpener) openStore(ctx context.Context, scheme string, u *url.URL, params url.Values) (*gcblob.Bucket, error) {
	mux := o.Mux
	if mux == nil {
		mux = gcblob.DefaultURLMux()
	}
	if !mux.ValidBucketScheme(scheme) {
		return nil, fmt.Errorf("%w: no driver for %s:// (import _ %q)", sse.ErrInvalid, scheme, drivers[scheme])
	}
	inner := *u
	inner.Scheme, inner.RawQuery = scheme, params.Encode()
	bucket, err := mux.OpenBucketURL(ctx, &inner)
	if err != nil && len(params) > 0 {
		err = fmt.Errorf("%w (known parameters: %s; %s:// knows the others)", err, strings.Join(known, ", "), scheme)
	}
	return bucket, err
}

var drivers = map[string]string{
	"file": "gocloud.dev/blob/fileblob", "mem": "gocloud.dev/blob/memblob", "s3": "gocloud.dev/blob/s3blob",
	"gs": "gocloud.dev/blob/gcsblob", "azblob": "gocloud.dev/blob/azureblob",
}

// defaultName returns the name of the bucket that a URL has, or "".
func defaultName(scheme string, u *url.URL) string {
	switch scheme {
	case "mem":
		return "mem"
	case "file":
		if last := path.Base(u.Path); last != "/" && last != "." && last != ".." {
			return last
		}
		return ""
	}
	return u.Host
}

// options returns the options of a bucket.
func (o *URLOpener) options(p params) (*blob.Options, error) {
	opts := o.Options
	if text := p["envelope_size"]; text != "" {
		size, err := strconv.Atoi(text)
		if err != nil || size <= 0 {
			return nil, fmt.Errorf("%w: envelope_size %q is not a number of bytes", sse.ErrInvalid, text)
		}
		opts.EnvelopeSize = size
	}
	if text := p["allow_plain"]; text != "" {
		allow, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%w: allow_plain %q is neither true nor false", sse.ErrInvalid, text)
		}
		opts.AllowPlain = allow
	}
	return &opts, nil
}
