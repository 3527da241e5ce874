package s3gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/sse"
)

// Records are small objects in the state bucket, encrypted with the service's
// cipher. Each is written whole. Names:
//
//	config/BUCKET                           the bucket's encryption configuration
//	uploads/BUCKET/UPLOAD/state             an upload: see upload
//	uploads/BUCKET/UPLOAD/part-NUMBER-ETAG  one attempt at a part: see receipt
const (
	configPrefix  = "config/"
	uploadsPrefix = "uploads/"
)

// errNoRecord means that a record does not exist.
var errNoRecord = errors.New("s3gateway: no such record")

// maxRecord bounds a record, in bytes.
const maxRecord = 1 << 20

func (g *Gateway) createStateBucket(ctx context.Context) error {
	acl, err := json.Marshal(auth.ACL{})
	if err != nil {
		return err
	}
	err = g.Backend.CreateBucket(valueless{ctx}, &s3.CreateBucketInput{
		Bucket: &g.opts.StateBucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{},
	}, acl)
	// In a store of files, a bucket can exist without an access list: another process is
	// about to write the list, or was killed. The gateway does not read it.
	if hasCode(err, "BucketAlreadyExists", "BucketAlreadyOwnedByYou") || errors.Is(err, meta.ErrNoSuchKey) {
		return nil
	}
	return err
}

// hasCode reports whether err is the inner store's with one of these codes.
func hasCode(err error, codes ...string) bool {
	known, ok := errors.AsType[s3err.S3Error](err)
	return ok && slices.Contains(codes, known.BaseError().Code)
}

func (g *Gateway) recordObject(name string) sse.Object {
	return sse.Object{Bucket: g.opts.StateBucket, Key: name}
}

// putRecord stores v under a name, in place of what is there.
func (g *Gateway) putRecord(ctx context.Context, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return g.storeRecord(ctx, name, text, nil)
}

// storeRecord stores the text of a record, in place of the one with the ETag ifMatch
// unless that is nil.
func (g *Gateway) storeRecord(ctx context.Context, name string, text []byte, ifMatch *string) error {
	var sealed bytes.Buffer
	w, err := sse.NewWriter(ctx, &sealed, g.service, g.recordObject(name), nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err = g.Backend.PutObject(valueless{ctx}, s3response.PutObjectInput{
		Bucket: &g.opts.StateBucket, Key: &name, Body: bytes.NewReader(sealed.Bytes()),
		ContentLength: ptr(int64(sealed.Len())), IfMatch: ifMatch,
	})
	return err
}

// getRecord reads the record of a name into v. It returns errNoRecord if there is
// none.
func (g *Gateway) getRecord(ctx context.Context, name string, v any) error {
	text, _, err := g.loadRecord(ctx, name)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// loadRecord returns the text of a record, and its ETag without quotes.
func (g *Gateway) loadRecord(ctx context.Context, name string) (text []byte, etag *string, err error) {
	out, err := g.Backend.GetObject(valueless{ctx}, &s3.GetObjectInput{Bucket: &g.opts.StateBucket, Key: &name})
	if isNotFound(err) {
		return nil, nil, errNoRecord
	}
	if err != nil {
		return nil, nil, err
	}
	defer out.Body.Close()
	r, err := sse.NewReader(ctx, io.LimitReader(out.Body, maxRecord), g.service, g.recordObject(name))
	if err != nil {
		return nil, nil, err
	}
	text, err = io.ReadAll(r)
	return text, ptr(unquote(out.ETag)), err
}

// isNotFound reports whether the inner store says that an object does not exist. A missing
// bucket does not count.
func isNotFound(err error) bool {
	known, ok := errors.AsType[s3err.S3Error](err)
	return ok && known.StatusCode() == http.StatusNotFound && known.BaseError().Code != "NoSuchBucket"
}

// deleteRecords deletes the records whose names begin with prefix.
func (g *Gateway) deleteRecords(ctx context.Context, prefix string) error {
	return g.eachRecord(ctx, prefix, func(name string) error { return g.deleteRecord(ctx, name) })
}

// eachRecord calls do with the name of each record that begins with prefix, until do
// returns an error.
func (g *Gateway) eachRecord(ctx context.Context, prefix string, do func(name string) error) error {
	after := ""
	for {
		list, err := g.Backend.ListObjectsV2(valueless{ctx}, &s3.ListObjectsV2Input{
			Bucket: &g.opts.StateBucket, Prefix: &prefix, Delimiter: ptr(""), MaxKeys: ptr(int32(1000)),
			ContinuationToken: ptr(""), StartAfter: &after, FetchOwner: ptr(false),
		})
		if err != nil {
			return err
		}
		for _, record := range list.Contents {
			if err := do(*record.Key); err != nil {
				return err
			}
			after = *record.Key
		}
		if !deref(list.IsTruncated) || len(list.Contents) == 0 {
			break
		}
	}
	if g.files != nil { // a gateway that was killed has left an empty directory
		os.Remove(filepath.Join(g.opts.StateBucket, prefix))
	}
	return nil
}

func (g *Gateway) deleteRecord(ctx context.Context, name string) error {
	_, err := g.Backend.DeleteObject(valueless{ctx}, &s3.DeleteObjectInput{Bucket: &g.opts.StateBucket, Key: &name})
	if isNotFound(err) {
		return nil
	}
	return err
}

// forgetBucket deletes the records of a bucket.
func (g *Gateway) forgetBucket(ctx context.Context, bucket string) error {
	return errors.Join(g.deleteRecord(ctx, configPrefix+bucket), g.deleteRecords(ctx, uploadsPrefix+bucket+"/"))
}

// maxRecordAttempts bounds how often a rewrap retries a record that changes meanwhile.
const maxRecordAttempts = 3

// RewrapConfigurations seals the encryption configurations of all buckets under the
// service's newest key. Call it after a rotation, before you disable an older key. It does
// not rewrap the state of uploads: before you disable a key, wait until all uploads that
// began under it have ended.
func (g *Gateway) RewrapConfigurations(ctx context.Context) error {
	err := g.eachRecord(ctx, configPrefix, func(name string) error {
		for attempt := 1; ; attempt++ {
			text, etag, err := g.loadRecord(ctx, name)
			if err == nil {
				err = g.storeRecord(ctx, name, text, etag)
			}
			switch {
			case errors.Is(err, errNoRecord) || isNotFound(err): // deleted meanwhile
				return nil
			case attempt < maxRecordAttempts && hasCode(err, "PreconditionFailed", "ConditionalRequestConflict"):
				continue // another gateway has changed it
			case err != nil:
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
	})
	if err != nil {
		return fmt.Errorf("s3gateway: rewrap configurations: %w", err)
	}
	return nil
}
