package s3gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// An upload becomes a composite object: each part of the client is a part in the inner
// store, and the last inner part is the trailer. The state of the upload and a receipt for
// each part are records. Any gateway can therefore continue the upload.

// upload is the record of an upload.
type upload struct {
	Key       string
	State     []byte // see sse.Multipart.State
	Envelope  []byte // that the object will have, up to padding
	Algorithm checksumAlgorithm
	Type      types.ChecksumType // empty if the client names no checksum
}

// receipt is the record of one attempt at a part. The inner store's list of parts
// says which attempt counts.
type receipt struct {
	ETag     string // that the client got
	Size     int64  // of the plaintext
	Filler   int64  // behind the part
	Receipt  []byte // see sse.Part.Receipt
	Checksum checksum
	CRC64    string // if the client names no checksum for the upload
}

func uploadPrefix(bucket, id string) string { return uploadsPrefix + bucket + "/" + id + "/" }
func stateRecord(bucket, id string) string  { return uploadPrefix(bucket, id) + "state" }

func partRecord(bucket, id string, number int32, innerETag string) string {
	return fmt.Sprintf("%spart-%05d-%s", uploadPrefix(bucket, id), number, strings.Trim(innerETag, `"`))
}

// getUpload returns the record of an upload.
func (g *Gateway) getUpload(ctx context.Context, bucket, key, id string) (*upload, error) {
	u, err := g.loadUpload(ctx, bucket, key, id)
	if errors.Is(err, errNoRecord) {
		err = s3err.GetNoSuchUploadErr(id)
	}
	if err == nil && g.files != nil {
		if d, err := findUpload(bucket, key, id); err == nil {
			g.reclaim(d, u)
		}
	}
	return u, err
}

// loadUpload returns the record of an upload, or errNoRecord.
func (g *Gateway) loadUpload(ctx context.Context, bucket, key, id string) (*upload, error) {
	if strings.ContainsAny(id, "/\\") || id == "" {
		return nil, s3err.GetNoSuchUploadErr(id)
	}
	u := &upload{}
	err := g.getRecord(ctx, stateRecord(bucket, id), u)
	if err == nil && u.Key != key {
		err = s3err.GetNoSuchUploadErr(id)
	}
	return u, err
}

// envelope returns the envelope that the object will have, up to padding.
func (u *upload) envelope() (*sse.Envelope, error) {
	env := &sse.Envelope{}
	return env, env.UnmarshalBinary(u.Envelope)
}

// CreateMultipartUpload implements [backend.Backend].
func (g *Gateway) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.InitiateMultipartUploadResult{}, err
	}
	out, err := g.createUpload(g.request(ctx), in)
	return out, g.fail("CreateMultipartUpload", in.Bucket, in.Key, err)
}

func (g *Gateway) createUpload(r *request, in s3response.CreateMultipartUploadInput) (out s3response.InitiateMultipartUploadResult, err error) {
	if err := stored.CheckMetadata(in.Metadata); err != nil {
		return out, err
	}
	cipher, err := g.cipherFor(r, *in.Bucket)
	if err != nil {
		return out, err
	}
	u := &upload{Key: *in.Key, Algorithm: in.ChecksumAlgorithm, Type: in.ChecksumType}
	if err := g.startUpload(r, cipher, sse.Object{Bucket: *in.Bucket, Key: *in.Key}, u); err != nil {
		return out, err
	}
	env, err := u.envelope()
	if err != nil {
		return out, err
	}
	in.Metadata, in.ContentEncoding = storedMetadata(env, in.Metadata, in.ContentEncoding)
	in.ChecksumAlgorithm, in.ChecksumType = "", ""
	if out, err = g.Backend.CreateMultipartUpload(r.ctx, in); err != nil {
		return out, err
	}
	if err := g.putRecord(r.ctx, stateRecord(*in.Bucket, out.UploadId), u); err != nil {
		abort := &s3.AbortMultipartUploadInput{Bucket: in.Bucket, Key: in.Key, UploadId: &out.UploadId}
		return s3response.InitiateMultipartUploadResult{}, errors.Join(err, g.Backend.AbortMultipartUpload(r.ctx, abort))
	}
	cipher.SetHeaders(r.setHeader)
	return out, nil
}

// startUpload begins an upload. Many clients do not send the customer's key with the
// request that completes it, so the service can complete the upload without that key.
func (g *Gateway) startUpload(r *request, cipher sse.Encrypter, obj sse.Object, u *upload) error {
	ctx, cancel := g.keyContext(r)
	defer cancel()
	m, err := sse.StartMultipart(ctx, cipher, obj)
	if err != nil {
		return err
	}
	if u.Envelope, err = m.State(ctx, nil); err != nil {
		return err
	}
	u.State = u.Envelope
	if cipher.Mode() == sse.ModeCustomer {
		u.State, err = m.State(ctx, g.service)
	}
	return err
}

// AbortMultipartUpload implements [backend.Backend].
func (g *Gateway) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	if err := g.guard(in.Bucket); err != nil {
		return err
	}
	return g.fail("AbortMultipartUpload", in.Bucket, in.Key, g.abortUpload(ctx, in))
}

// abortUpload deletes the parts first and the records last, so that an interrupted abort
// can be repeated.
func (g *Gateway) abortUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	bucket, key, id := *in.Bucket, *in.Key, *in.UploadId
	u, err := g.loadUpload(ctx, bucket, key, id)
	if err != nil && !errors.Is(err, errNoRecord) {
		return err
	}
	if err == nil && g.files != nil {
		unlock, err := g.files.lockUpload(ctx, bucket, key, id, u)
		if err == nil {
			defer unlock()
		} else if !hasCode(err, "NoSuchUpload") {
			return err
		}
	}
	abortErr := g.Backend.AbortMultipartUpload(ctx, in)
	if abortErr != nil && !hasCode(abortErr, "NoSuchUpload") {
		return abortErr
	}
	if err := g.deleteRecords(ctx, uploadPrefix(bucket, id)); err != nil {
		return err
	}
	return abortErr
}

// ListMultipartUploads implements [backend.Backend].
func (g *Gateway) ListMultipartUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (s3response.ListMultipartUploadsResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.ListMultipartUploadsResult{}, err
	}
	if g.files != nil {
		g.reclaimAll(ctx, *in.Bucket)
	}
	out, err := g.Backend.ListMultipartUploads(ctx, in)
	var reads errgroup.Group
	reads.SetLimit(maxLooks)
	for i := range out.Uploads {
		reads.Go(func() error {
			listed := &out.Uploads[i]
			if u, err := g.getUpload(ctx, *in.Bucket, listed.Key, listed.UploadID); err == nil {
				listed.ChecksumAlgorithm, listed.ChecksumType = u.Algorithm, u.Type
			}
			return nil
		})
	}
	reads.Wait()
	return out, err
}

// ListParts implements [backend.Backend]. It lists neither parts without a receipt, which
// were never acknowledged, nor a trailer.
func (g *Gateway) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.ListPartsResult{}, err
	}
	out, err := g.Backend.ListParts(ctx, in)
	if err != nil {
		return out, err
	}
	u, err := g.getUpload(ctx, *in.Bucket, *in.Key, *in.UploadId)
	if err != nil {
		return s3response.ListPartsResult{}, g.fail("ListParts", in.Bucket, in.Key, err)
	}
	kept := out.Parts[:0]
	for _, p := range out.Parts {
		var got receipt
		err := g.getRecord(ctx, partRecord(*in.Bucket, *in.UploadId, int32(p.PartNumber), p.ETag), &got)
		if errors.Is(err, errNoRecord) {
			continue
		}
		if err != nil {
			return s3response.ListPartsResult{}, g.fail("ListParts", in.Bucket, in.Key, err)
		}
		p.ETag, p.Size = quote(got.ETag), got.Size
		checksum{}.set(&p)
		if u.Type != "" {
			got.Checksum.set(&p)
		}
		kept = append(kept, p)
	}
	out.Parts = kept
	if u.Type != "" {
		out.ChecksumAlgorithm, out.ChecksumType = u.Algorithm, u.Type
	}
	return out, nil
}
