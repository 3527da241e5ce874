package s3gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3response"
)

// Files is an inner store that keeps objects in the files of a directory. Their ETags and
// checksums are those of the plaintext: S3's clients take an ETag of 32 hexadecimal digits
// for the MD5 of what they sent.
type Files struct {
	*posix.Posix
	attributes *attributes
	sidecar    string // see OpenFiles; or empty
}

// plainFiles tells a store of files from other backends, also if a backend embeds it.
func (f *Files) plainFiles() *Files { return f }

// OpenFiles opens a directory, which must exist. Only one store can be open in a
// process, since the engine changes the process's working directory.
//
// Attributes are kept in the files' extended attributes, or below opts.SideCarDir
// if the file system has none. opts may be nil. Its DataIntegrityEtag is set.
func OpenFiles(dir string, opts *posix.PosixOpts) (*Files, error) {
	o := posix.PosixOpts{}
	if opts != nil {
		o = *opts
	}
	// The engine then computes no MD5 of the ciphertext, and builds ETags from the
	// checksum that a body claims.
	o.DataIntegrityEtag = true
	o.CopyObjectThreshold = cmp.Or(o.CopyObjectThreshold, maxCopy)
	o.IOBufferSize = cmp.Or(o.IOBufferSize, 128<<10) // each upload has one; the engine's own default is 1 MiB
	var inner meta.MetadataStorer = meta.XattrMeta{}
	if o.SideCarDir != "" {
		sidecar, err := meta.NewSideCar(o.SideCarDir)
		if err != nil {
			return nil, err
		}
		inner = sidecar
	} else if err := (meta.XattrMeta{}).Test(dir); err != nil {
		return nil, fmt.Errorf("s3gateway: %s: no extended attributes (set SideCarDir): %w", dir, err)
	}
	a := &attributes{MetadataStorer: inner, uploads: map[string]*completion{}}
	p, err := posix.New(dir, a, o)
	if err != nil {
		return nil, err
	}
	return &Files{p, a, o.SideCarDir}, nil
}

// Attributes of the engine, by its names.
const (
	attrETag      = "etag"
	attrChecksums = "checksums"
	attrPartCRC   = "part-crc64nvme"
	attrMultipart = "mp-metadata"
	attrLegalHold = "object-legal-hold"
	attrRetention = "object-retention"
)

// A claim is what the body of an upload gives the engine as its checksum: the checksum of
// the plaintext, a separator that no checksum contains, and the ETag. The engine stores it
// in attributes.
const claimSeparator = "|"

func claim(sum, etag string) string { return sum + claimSeparator + etag }

// parseClaim returns the ETag of a claim.
func parseClaim(value string) (etag string, ok bool) {
	_, etag, ok = strings.Cut(strings.Trim(value, `"`), claimSeparator)
	return etag, ok
}

var claimETag = regexp.MustCompile(`\` + claimSeparator + `[0-9a-f-]*`)

// attributes stores the engine's attributes of objects. The engine computes ETags, checksums
// and sizes of ciphertext. They are replaced by those of the plaintext.
type attributes struct {
	meta.MetadataStorer

	mu      sync.Mutex
	uploads map[string]*completion
}

// completion holds the attributes of a completed upload, or of a resealed object. They
// replace those that the engine computes.
type completion struct {
	etag     string
	checksum s3response.Checksum
	id       string  // of the upload, if the object was uploaded here
	ends     []int64 // where each part ends in the plaintext; nil if there are no parts

	// check, if not nil, is called before the first attribute is stored, while the engine
	// keeps other writers of the object away. If it fails, nothing is published.
	check func() error
}

// StoreAttribute implements [meta.MetadataStorer].
func (a *attributes) StoreAttribute(f *os.File, bucket, object, name string, value []byte) error {
	switch name {
	case attrETag:
		if etag, ok := parseClaim(string(value)); ok {
			if c := a.completion(etag); c != nil {
				return a.replace(f, bucket, object, c)
			}
			value = []byte(quote(etag))
		} else if f == nil && strings.HasSuffix(object, "/") {
			value = []byte(quote(emptyMD5))
		}
	case attrChecksums: // the first attribute of an object
		if etag, ok := parseClaim(string(claimETag.Find(value))); ok {
			if c := a.completion(etag); c != nil { // replace stores its checksums
				return c.runCheck()
			}
		}
		value = claimETag.ReplaceAll(value, nil)
	case attrPartCRC:
		// The engine adds up the CRCs of the parts, and a completion replaces the sum.
		if bytes.Contains(value, []byte(claimSeparator)) {
			value = []byte(zeroCRC64)
		}
	case attrMultipart:
		if f != nil && object != "" { // not an older version, which keeps its attributes
			return a.complete(f, bucket, object, value)
		}
	}
	return a.MetadataStorer.StoreAttribute(f, bucket, object, name, value)
}

const (
	emptyMD5  = "d41d8cd98f00b204e9800998ecf8427e"
	zeroCRC64 = "AAAAAAAAAAA="
)

// complete stores the last attribute of an object that was uploaded in parts, and
// replaces the earlier ones.
func (a *attributes) complete(f *os.File, bucket, object string, value []byte) error {
	mp, err := backend.UnmarshalMpUploadMetadata(value, false)
	if err != nil {
		return err
	}
	c := a.completion(mp.UploadID)
	if c == nil {
		return fmt.Errorf("s3gateway: upload %s of %s/%s is completed without its parts' sizes", mp.UploadID, bucket, object)
	}
	return a.replace(f, bucket, object, c)
}

// completion returns the completion that keepCompletion keeps for an id, or nil.
func (a *attributes) completion(id string) *completion {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uploads[id]
}

func (c *completion) runCheck() error {
	if c.check == nil {
		return nil
	}
	return c.check()
}

// replace stores the attributes of a completion.
func (a *attributes) replace(f *os.File, bucket, object string, c *completion) error {
	sums, err := json.Marshal(c.checksum)
	if err != nil {
		return err
	}
	values := map[string][]byte{attrETag: []byte(quote(c.etag)), attrChecksums: sums}
	if c.ends != nil {
		values[attrMultipart], err = backend.MarshalMpUploadMetadata(backend.MpUploadMetadata{UploadID: c.id, Parts: c.ends}, false)
		if err != nil {
			return err
		}
	}
	for name, value := range values {
		if err := a.MetadataStorer.StoreAttribute(f, bucket, object, name, value); err != nil {
			return err
		}
	}
	return nil
}

// quote returns an ETag with quotes.
func quote(etag string) string { return `"` + strings.Trim(etag, `"`) + `"` }

func unquote(etag *string) string {
	if etag == nil {
		return ""
	}
	return strings.Trim(*etag, `"`)
}

// keepCompletion keeps a completion until the engine stores the object's attributes. id is
// that of the upload, or the ETag that the body of the object claims. The caller calls done
// afterwards.
func (a *attributes) keepCompletion(id string, c *completion) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uploads[id] = c
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.uploads, id)
	}
}
