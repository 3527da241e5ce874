// Package bucket has the commands on encrypted buckets.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"syscall"

	gcblob "gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/memblob"  // mem://

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

// Commands are the commands on encrypted buckets.
type Commands struct {
	Put             putCmd       `cmd:"" help:"Encrypt IN to an object of a bucket."`
	Get             getCmd       `cmd:"" help:"Decrypt an object of a bucket, or a range of it, to OUT."`
	Cat             catCmd       `cmd:"" help:"Write objects of a bucket to standard output."`
	Ls              lsCmd        `cmd:"" help:"List the objects of a bucket. Needs no key."`
	Rm              rmCmd        `cmd:"" help:"Delete objects of a bucket. Needs no key."`
	Inventory       inventoryCmd `cmd:"" help:"Count a bucket's objects by key. Needs no key."`
	Check           checkCmd     `cmd:"" help:"Find objects that cannot be read, and say why."`
	Rewrap          rewrapCmd    `cmd:"" help:"Move a bucket's objects to the newest version of a ring, or to another key or mode."`
	EncryptExisting encryptCmd   `cmd:"" help:"Encrypt the objects of a bucket that are not encrypted."`
	Retire          retireCmd    `cmd:"" help:"Disable or destroy a version of a ring that no object needs."`
	Shred           shredCmd     `cmd:"" help:"Make objects, or all that a key sealed, unreadable for ever."`
	Sign            signCmd      `cmd:"" help:"Make a URL that lets its holder read, write or delete one object."`
	Serve           serveCmd     `cmd:"" help:"Serve the URLs that sign makes."`
}

// bucketFlags name a bucket.
type bucketFlags struct {
	Bucket string `required:"" group:"bucket" placeholder:"URL" help:"Bucket: file:///DIR, s3://NAME?region=REGION, gs://NAME, azblob://NAME or mem:// (see bucket)."`
	Name   string `group:"bucket" placeholder:"NAME" help:"Name that objects are bound to; by default the last name in the URL."`
}

// bucket is an open bucket, for one command.
type bucket struct {
	*blob.Bucket
	shown    string // its URL, without parameters
	dir      string // path of a directory; empty for other stores
	place    string // distinguishes buckets of one name
	pageSize int    // for listings
	keys     map[sse.Mode]*keys.Keys
	s3       *s3Client // nil for other stores
	s3Name   string
	s3Prefix string
}

// open opens the bucket with its keys, of which the first seals and all open. Without
// keys, only operations that need none work. The caller closes the bucket.
func (f bucketFlags) open(ctx context.Context, opts blob.Options, with ...*keys.Keys) (*bucket, error) {
	b, store, name, err := f.parse()
	if err != nil {
		return nil, err
	}
	inner, err := gcblob.OpenBucket(ctx, store.String())
	if err != nil {
		return nil, b.aboutOpening(err)
	}
	if b.s3 = silenceSDK(inner); b.s3 != nil {
		b.s3Name, b.s3Prefix = store.Host, store.Query().Get("prefix")
	}
	opts.IfUnchanged = conditions[store.Scheme]
	copyParts(&opts, b.s3)
	var cipher sse.Cipher = noKey{}
	opts.Policy.AllowCustomerKeys = true // the operator's own
	opts.Decrypters = sse.ByMode{}
	for i, k := range with {
		if i == 0 {
			cipher = k
		}
		if first := opts.Decrypters[k.Mode()]; first != nil {
			opts.Decrypters[k.Mode()] = eitherDecrypter{first, k}
			continue
		}
		opts.Decrypters[k.Mode()] = k
		b.keys[k.Mode()] = k
	}
	sealed, err := blob.NewBucket(inner, name, cipher, &opts)
	if err == nil {
		b.Bucket, err = sealed.With(blob.Request{AnyContext: true}) // of all tenants
	}
	if err != nil {
		inner.Close()
		return nil, message.About(b.shown, err)
	}
	return b, nil
}

// with opens the keys of a source and the bucket, and calls use as the principal.
func (f bucketFlags) with(ctx context.Context, c *console.Console, source keys.Source, opts blob.Options,
	use func(context.Context, *bucket, *keys.Keys) error) error {
	ctx = keys.AsPrincipal(ctx, source.Principal)
	k, err := source.Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	b, err := f.open(ctx, opts, k)
	if err != nil {
		return err
	}
	defer b.Close()
	return use(ctx, b, k)
}

// eitherDecrypter opens objects under the keys that a bucket moves from and to.
type eitherDecrypter struct{ from, to sse.Decrypter }

func (e eitherDecrypter) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	d, err := e.from.Decrypt(ctx, obj, env)
	if err == nil {
		return d, nil
	}
	if d, err := e.to.Decrypt(ctx, obj, env); err == nil {
		return d, nil
	}
	return nil, err
}

// movingCipher seals under another key than those that it opens.
type movingCipher struct {
	sse.Cipher
	from sse.Decrypter
}

func (m movingCipher) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	return m.from.Decrypt(ctx, obj, env)
}

// parse returns the bucket of the flags, not open yet, the URL to open it by, and the
// name that objects are bound to.
func (f bucketFlags) parse() (b *bucket, store *url.URL, name string, err error) {
	u, err := url.Parse(f.Bucket)
	if err != nil || u.Scheme == "" {
		return nil, nil, "", message.Usagef("--bucket %q: want a URL: %s", f.Bucket, wantStores)
	}
	b = &bucket{shown: message.Printable(u.Scheme + "://" + u.Host + u.Path), pageSize: 1000, keys: map[sse.Mode]*keys.Keys{}}
	store = u
	switch u.Scheme {
	case "file":
		store, name, err = b.parseDirectory(u)
		if err != nil {
			return nil, nil, "", err
		}
	case "s3", "gs", "azblob":
		if len(conditions) == 0 {
			return nil, nil, "", message.Usagef("--bucket: %s:// is not in this build, which has no clouds (install blobseal without the tag noclouds)", u.Scheme)
		}
		name = u.Host
	case "mem":
		name = "mem"
	default:
		return nil, nil, "", message.Usagef("--bucket: %s:// is unknown; want %s", u.Scheme, wantStores)
	}
	if f.Name != "" {
		name = f.Name
	}
	if name == "" {
		return nil, nil, "", message.Usagef("--bucket %q has no name in it: give --name", f.Bucket)
	}
	query := u.Query()
	b.place = fmt.Sprintf("%s://%s%s?%s", u.Scheme, store.Host, store.Path, url.Values{"endpoint": query["endpoint"], "prefix": query["prefix"]}.Encode())
	return b, store, name, nil
}

// parseDirectory does the part of parse that is about directories.
func (b *bucket) parseDirectory(u *url.URL) (store *url.URL, name string, err error) {
	if u.Host != "" && u.Host != "." && u.Host != "localhost" {
		return nil, "", message.Usagef("--bucket %q: the directory begins with a third slash, file:///DIR, or with a dot, file://./DIR", u)
	}
	b.pageSize = 100_000 // each page walks the directory
	dir := filepath.FromSlash(u.Path)
	if u.Host == "." {
		dir = "." + dir
	}
	if b.dir, err = filepath.Abs(dir); err != nil {
		return nil, "", message.About(b.shown, err)
	}
	if real, err := filepath.EvalSymlinks(b.dir); err == nil { // package fileblob lists nothing behind a link
		b.dir = real
	}
	copied := *u
	copied.Host, copied.Path, copied.RawPath = "", path.Join("/", filepath.ToSlash(b.dir)), ""
	if last := path.Base(u.Path); last != "/" && last != "." && last != ".." {
		name = last
	}
	return &copied, name, nil
}

// ErrUnlisted means that a directory holds something that no listing of the bucket names.
var ErrUnlisted = errors.New("a listing would omit it")

// openWhole opens the bucket for a command on all objects. It fails with [ErrUnlisted] if
// a listing would omit some: package fileblob skips directories that it may not read or that are links.
// It also fails for files that are not regular, such as pipes, which would block.
func (f bucketFlags) openWhole(ctx context.Context, opts blob.Options, with ...*keys.Keys) (*bucket, error) {
	b, err := f.open(ctx, opts, with...)
	if err != nil || b.dir == "" {
		return b, err
	}
	err = filepath.WalkDir(b.dir, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if path == filepath.Join(b.dir, "lost+found") && entry.IsDir() { // belongs to the file system
				return fs.SkipDir
			}
			err = listable(path, entry.Type())
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		rel, _ := filepath.Rel(b.dir, path)
		return message.Problemf(fmt.Errorf("%w: %w", ErrUnlisted, err), b.shown, "%s: %s (%v)", rel, message.Plain(err), ErrUnlisted)
	})
	if err != nil {
		b.Close()
		return nil, message.About(b.shown, err)
	}
	return b, nil
}

// listable returns an error for a directory entry that a listing would omit.
func listable(path string, mode fs.FileMode) error {
	if mode&fs.ModeSymlink != 0 {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return errors.New("is a link to a directory")
		}
		mode = info.Mode()
	}
	if !mode.IsDir() && !mode.IsRegular() {
		return errors.New("is not a regular file")
	}
	return nil
}

// contains reports whether a file is in the bucket, as far as its path tells.
func (b *bucket) contains(file string) bool {
	path, err := filepath.Abs(file)
	if b.dir == "" || file == "" || err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil { // the file does not exist yet
		path = filepath.Join(dir, filepath.Base(path))
	}
	rel, err := filepath.Rel(b.dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// Close closes the bucket and its store.
func (b *bucket) Close() {
	b.Bucket.Close()
	b.Inner().Close()
}

// noKey is the cipher of a bucket that was opened without keys.
type noKey struct{}

var errNoKey = fmt.Errorf("%w: no key was given", sse.ErrMode)

func (noKey) Mode() sse.Mode                                               { return 0 }
func (noKey) Encrypt(context.Context, sse.Object) (*sse.Encryption, error) { return nil, errNoKey }
func (noKey) Decrypt(context.Context, sse.Object, *sse.Envelope) (*sse.Decryption, error) {
	return nil, errNoKey
}
func (noKey) Rewrap(context.Context, sse.Object, *sse.Decryption) (*sse.Envelope, error) {
	return nil, errNoKey
}

// filterFlags select objects by key.
type filterFlags struct {
	Prefix string   `placeholder:"PREFIX" help:"Only objects whose keys begin with PREFIX."`
	Mode   []string `placeholder:"MODE" enum:"SSE-S3,SSE-KMS,SSE-C" help:"Only objects of this mode: SSE-S3, SSE-KMS or SSE-C. May be repeated."`
	KeyID  []string `name:"key-id" placeholder:"ID" sep:"none" help:"Only objects under this key, as inventory shows it. May be repeated."`
}

// filter returns the filter of the flags. --kms-key of k selects objects, too; k may be
// nil.
func (f filterFlags) filter(k *keys.Keys) (jobs.Filter, error) {
	filter := jobs.Filter{Prefix: f.Prefix, KeyIDs: f.KeyID}
	for _, text := range f.Mode {
		var mode sse.Mode
		if err := mode.UnmarshalText([]byte(text)); err != nil {
			return filter, message.Usagef("--mode %q: want SSE-S3, SSE-KMS or SSE-C", text)
		}
		filter.Modes = append(filter.Modes, mode)
	}
	if k == nil || len(k.Accepted) == 0 {
		return filter, nil
	}
	if len(f.KeyID) > 0 {
		return filter, message.Usagef("--kms-key and --key-id: give one of them only")
	}
	filter.KeyIDs = k.Accepted
	return filter, nil
}

// aboutOpening returns an error of opening the bucket as a [message.Problem].
func (b *bucket) aboutOpening(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return message.Problemf(err, b.shown, "no such directory (?create_dir=true creates it)")
	}
	if inner := errors.Unwrap(err); inner != nil { // Go CDK shows the URL with its parameters
		err = inner
	}
	return message.Bucket(b.shown, err)
}

// about returns an error of the whole bucket as a [message.Problem].
func (b *bucket) about(err error) error { return message.Bucket(b.shown, err) }

// aboutObject returns an error of one object as a [message.Problem]. Its seal may be
// unknown.
func (b *bucket) aboutObject(key string, seal jobs.KeyRef, err error) error {
	return b.attempt(seal).About(key, err)
}

// explain returns the words for an error of one object.
func (b *bucket) explain(seal jobs.KeyRef, err error) string {
	return b.attempt(seal).Words(err).String()
}

func (b *bucket) attempt(seal jobs.KeyRef) message.Attempt {
	a := b.keys[seal.Mode].Attempt(seal.Mode, seal.KeyID)
	a.Bucket = b.Name()
	return a
}

// sealShape is the key of an object in JSON.
type sealShape struct {
	Mode  string `json:"mode"`   // empty if unknown
	KeyID string `json:"key_id"` // empty for SSE-C
}

func shapeOf(k jobs.KeyRef) sealShape {
	if k.Mode == 0 {
		return sealShape{}
	}
	return sealShape{k.Mode.String(), k.KeyID}
}

// keyName returns a key's name for people.
func keyName(mode, id string) string {
	if mode == sse.ModeManaged.String() {
		return fmt.Sprintf("%s version %s", mode, message.Printable(id))
	}
	return fmt.Sprintf("%s key %s", mode, message.Printable(id))
}

// sealName returns the name of an object's key for people.
func sealName(k jobs.KeyRef) string {
	switch {
	case k.Mode == 0:
		return "an unknown key"
	case k.KeyID == "":
		return fmt.Sprintf("%v, a customer key", k.Mode)
	}
	return keyName(k.Mode.String(), k.KeyID)
}
