package s3gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// CompleteMultipartUpload implements [backend.Backend]. It sends only the trailer to the
// inner store.
func (g *Gateway) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	r := g.request(ctx)
	var out s3response.CompleteMultipartUploadResult
	var version string
	// Requests in this process take turns: a client may repeat a request before the
	// answer arrives. The engine's context does not end with the request.
	turn, cancel := context.WithTimeout(detach(ctx), turnTime)
	defer cancel()
	began := false
	err := g.completions.Commit(turn, deref(in.UploadId), func() error {
		began = true
		var err error
		if out, version, err = g.completeUpload(r, in); !hasCode(err, "NoSuchUpload") {
			return err
		}
		earlier, earlierVersion, earlierErr := g.findCompleted(r, in)
		if earlier == nil && earlierErr == nil {
			return err // NoSuchUpload
		}
		out, version = deref(earlier), earlierVersion
		return earlierErr
	})
	if !began && errors.Is(err, context.DeadlineExceeded) {
		err = s3err.APIError{Code: "OperationAborted", HTTPStatusCode: 409, Description: "Another request completes this upload. Try again."}
	}
	return out, version, g.fail("CompleteMultipartUpload", in.Bucket, in.Key, err)
}

// turnTime bounds how long a request waits while another request in this process completes
// the same upload.
const turnTime = time.Minute

// assembly is an upload whose parts were checked.
type assembly struct {
	upload   *upload
	inner    []types.CompletedPart // with the inner store's ETags
	last     int32                 // highest number of a part, listed or not
	receipts []*receipt
	etag     string
	size     int64
	checksum checksum
}

func (g *Gateway) completeUpload(r *request, in *s3.CompleteMultipartUploadInput) (out s3response.CompleteMultipartUploadResult, version string, err error) {
	if in.UploadId == nil || in.MultipartUpload == nil {
		return out, "", s3err.GetAPIError(s3err.ErrInvalidRequest)
	}
	w, err := s3wire.ParseWrite(r.values, r.tls)
	if err != nil {
		return out, "", err
	}
	if _, err := g.Backend.HeadBucket(r.ctx, &s3.HeadBucketInput{Bucket: in.Bucket}); err != nil {
		return out, "", err
	}
	u, err := g.getUpload(r.ctx, *in.Bucket, *in.Key, *in.UploadId)
	if err != nil {
		return out, "", err
	}
	if err := u.checkMode(w); err != nil {
		return out, "", err
	}
	if g.files != nil {
		unlock, err := g.files.lockUpload(r.ctx, *in.Bucket, *in.Key, *in.UploadId, u)
		if err != nil {
			return out, "", err
		}
		defer unlock()
	}
	a, err := g.assemble(r, in, u)
	if err != nil {
		return out, "", err
	}
	q := &s3wire.Read{Customer: w.Customer}
	opener := g.keys.ForRead(q)
	trailer, err := g.trailer(r, in, a, q, opener)
	if err != nil {
		return out, "", err
	}
	t := &target{*in.Bucket, *in.Key, *in.UploadId, a.last + 1}
	etag, err := g.storePart(r, t, newAttempt(), bytes.NewReader(trailer), int64(len(trailer)))
	if err != nil {
		return out, "", err
	}
	a.inner = append(a.inner, types.CompletedPart{PartNumber: &t.number, ETag: ptr(quote(etag))})
	if out, version, err = g.publish(r, in, a); err != nil {
		return out, "", err
	}
	opener.SetHeaders(r.setHeader)
	g.forgetUpload(r, in)
	return out, version, nil
}

// checkMode checks the mode in a request to complete the upload. AWS allows no mode there.
// minio-go repeats the upload's mode, unless the server is AWS's. It also repeats the key,
// which may be an alias that has moved since: the upload's own key counts.
func (u *upload) checkMode(w *s3wire.Write) error {
	if w.Algorithm == "" {
		return nil
	}
	env, err := u.envelope()
	if err != nil {
		return err
	}
	if w.Algorithm == s3wire.AES256 && env.Mode() == sse.ModeManaged || w.Algorithm == s3wire.AWSKMS && env.Mode() == sse.ModeKMS {
		return nil
	}
	return s3err.APIError{Code: "InvalidRequest", HTTPStatusCode: 400, Description: "The upload was begun with other encryption parameters."}
}

// forgetUpload deletes the records of a completed upload.
func (g *Gateway) forgetUpload(r *request, in *s3.CompleteMultipartUploadInput) {
	if err := g.deleteRecords(r.ctx, uploadPrefix(*in.Bucket, *in.UploadId)); err != nil {
		g.opts.Log.Warn("s3gateway: records of a completed upload stay", "bucket", *in.Bucket, "upload", *in.UploadId, "error", err)
	}
}

// publish makes the object from its inner parts.
func (g *Gateway) publish(r *request, in *s3.CompleteMultipartUploadInput, a *assembly) (s3response.CompleteMultipartUploadResult, string, error) {
	kind := cmp.Or(a.upload.Type, types.ChecksumTypeFullObject)
	if g.files != nil {
		ends := partEnds(func(yield func(int, int64) bool) {
			for i, p := range a.receipts {
				if !yield(i, p.Size) {
					return
				}
			}
		})
		kept := &completion{id: *in.UploadId, etag: a.etag, checksum: a.checksum.forEngine(kind), ends: ends}
		defer g.files.attributes.keepCompletion(*in.UploadId, kept)()
	}
	out, version, err := g.Backend.CompleteMultipartUpload(r.ctx, &s3.CompleteMultipartUploadInput{
		Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId,
		IfMatch: g.innerETag(in.IfMatch), IfNoneMatch: g.innerETag(in.IfNoneMatch),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: a.inner},
	})
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	checksum{}.set(&out)
	out.ChecksumType = nil
	if g.files != nil {
		out.ETag = ptr(quote(a.etag))
		a.checksum.set(&out)
		out.ChecksumType = &kind
	}
	return out, version, nil
}

// trailer returns the trailer, which follows the parts. If a request to complete an upload
// of SSE-C lacks the customer's key, the service's key completes it.
func (g *Gateway) trailer(r *request, in *s3.CompleteMultipartUploadInput, a *assembly, q *s3wire.Read, opener *s3wire.Opener) ([]byte, error) {
	env, err := a.upload.envelope()
	if err != nil {
		return nil, err
	}
	ctx, cancel := g.keyContext(r)
	defer cancel()
	obj := sse.Object{Bucket: *in.Bucket, Key: *in.Key}
	var completer *sse.Completer
	if env.Mode() == sse.ModeCustomer && q.Customer == nil {
		completer, err = sse.OpenCompleter(ctx, g.service, obj, a.upload.State)
	} else {
		var m *sse.Multipart
		if m, err = sse.OpenMultipart(ctx, opener, obj, a.upload.State); err == nil {
			completer = &m.Completer
		}
	}
	if err != nil {
		return nil, err
	}
	receipts := make([][]byte, 0, len(a.receipts))
	for _, p := range a.receipts {
		receipts = append(receipts, p.Receipt)
	}
	last := a.receipts[len(a.receipts)-1]
	return completer.Trailer(receipts, &sse.TrailerOptions{Filler: last.Filler, EnvelopeSize: stored.DefaultEnvelopeSize})
}

// assemble checks the client's list of parts and finds the stored parts for it.
func (g *Gateway) assemble(r *request, in *s3.CompleteMultipartUploadInput, u *upload) (*assembly, error) {
	if in.ChecksumType != "" && in.ChecksumType != u.Type {
		return nil, s3err.GetChecksumTypeMismatchOnMpErr(cmp.Or(u.Type, "null"))
	}
	parts := in.MultipartUpload.Parts
	var before int32
	for _, p := range parts {
		switch {
		case p.PartNumber == nil:
			return nil, s3err.GetAPIError(s3err.ErrMalformedXML)
		case *p.PartNumber < 1:
			return nil, s3err.GetInvalidArgumentErr(s3err.InvalidArgCompleteMpPartNumber, fmt.Sprint(*p.PartNumber))
		case *p.PartNumber <= before:
			return nil, s3err.GetAPIError(s3err.ErrInvalidPartOrder)
		case p.ETag == nil:
			return nil, s3err.GetAPIError(s3err.ErrMalformedXML)
		}
		before = *p.PartNumber
	}
	a := &assembly{upload: u}
	if err := g.collect(r, in, a); err != nil {
		return nil, err
	}
	for i, p := range a.receipts {
		if i < len(parts)-1 && p.Size < backend.MinPartSize {
			return nil, s3err.GetEntityTooSmallErr(p.Size, backend.MinPartSize)
		}
		if unquote(parts[i].ETag) != p.ETag {
			return nil, s3err.GetInvalidPartErr(*in.UploadId, *parts[i].PartNumber, quote(p.ETag))
		}
		if err := u.checkPart(*in.UploadId, parts[i], p.Checksum); err != nil {
			return nil, err
		}
		a.size += p.Size
	}
	if in.MpuObjectSize != nil && *in.MpuObjectSize != a.size {
		return nil, s3err.GetIncorrectMpObjectSizeErr(a.size, *in.MpuObjectSize)
	}
	a.etag = compositeETag(parts)
	return a, a.computeChecksum(in)
}

// collect finds the receipts of the parts that the client lists. The inner store
// says which attempt at each part it has.
func (g *Gateway) collect(r *request, in *s3.CompleteMultipartUploadInput, a *assembly) error {
	attempts, err := g.attempts(r, in)
	if err != nil {
		return err
	}
	parts := in.MultipartUpload.Parts
	for _, p := range parts {
		etag, ok := attempts[*p.PartNumber]
		if !ok {
			return s3err.GetInvalidPartErr(*in.UploadId, *p.PartNumber, deref(p.ETag))
		}
		a.inner = append(a.inner, types.CompletedPart{PartNumber: p.PartNumber, ETag: ptr(quote(etag))})
	}
	a.receipts = make([]*receipt, len(parts))
	var reads errgroup.Group
	reads.SetLimit(maxLooks)
	for i, p := range parts {
		reads.Go(func() error {
			a.receipts[i] = &receipt{}
			err := g.getRecord(r.ctx, partRecord(*in.Bucket, *in.UploadId, *p.PartNumber, attempts[*p.PartNumber]), a.receipts[i])
			if errors.Is(err, errNoRecord) {
				return s3err.GetInvalidPartErr(*in.UploadId, *p.PartNumber, deref(p.ETag))
			}
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return err
	}
	a.last, err = g.lastPart(r, in, attempts)
	return err
}

// lastPart returns the highest number of a part that has a receipt. The client need not list
// that part now: if this completion fails, the next one may list it. The trailer of an
// earlier completion may have a higher number. It has no receipt.
func (g *Gateway) lastPart(r *request, in *s3.CompleteMultipartUploadInput, attempts map[int32]string) (int32, error) {
	listed := *in.MultipartUpload.Parts[len(in.MultipartUpload.Parts)-1].PartNumber
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(attempts))) {
		if n == listed {
			break
		}
		err := g.getRecord(r.ctx, partRecord(*in.Bucket, *in.UploadId, n, attempts[n]), &receipt{})
		if !errors.Is(err, errNoRecord) {
			return n, err
		}
	}
	return listed, nil
}

// attempts returns the inner ETags of an upload's parts, by their numbers.
func (g *Gateway) attempts(r *request, in *s3.CompleteMultipartUploadInput) (map[int32]string, error) {
	found := make(map[int32]string)
	marker := ""
	for {
		list, err := g.Backend.ListParts(r.ctx, &s3.ListPartsInput{
			Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, MaxParts: ptr(int32(1000)), PartNumberMarker: &marker,
		})
		if err != nil {
			return nil, err
		}
		for _, p := range list.Parts {
			found[int32(p.PartNumber)] = strings.Trim(p.ETag, `"`)
		}
		if !list.IsTruncated || len(list.Parts) == 0 {
			return found, nil
		}
		marker = fmt.Sprint(list.NextPartNumberMarker)
	}
}

// checkPart checks the checksum that the client states for a part.
func (u *upload) checkPart(id string, p types.CompletedPart, got checksum) error {
	var stated []checksum
	for algorithm := range checksumFields {
		if value := checksumField(&p, algorithm); value != nil && *value != "" {
			stated = append(stated, checksum{algorithm, *value})
		}
	}
	switch {
	case len(stated) > 1:
		var text strings.Builder
		for _, algorithm := range []checksumAlgorithm{"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"} {
			if value := checksumField(&p, algorithm); value != nil && *value != "" {
				fmt.Fprintf(&text, "%s:%s;", algorithm, *value)
			}
		}
		return s3err.GetInvalidArgumentErr(s3err.InvalidArgChecksumPart, text.String())
	case u.Type == "" && len(stated) == 1:
		return s3err.GetInvalidPartErr(id, *p.PartNumber, *p.ETag)
	case u.Type == "":
		return nil
	case len(stated) == 0:
		return s3err.APIError{Code: "InvalidRequest", HTTPStatusCode: 400, Description: fmt.Sprintf(
			"The upload was created using a %v checksum. The complete request must include the checksum for each part. It was missing for part %v in the request.",
			strings.ToLower(string(u.Algorithm)), *p.PartNumber)}
	case !utils.IsValidChecksum(stated[0].Value, stated[0].Algorithm):
		return s3err.GetInvalidArgumentErr(s3err.InvalidArgChecksumPart, stated[0].Value)
	case stated[0] == got:
		return nil
	case stated[0].Algorithm == u.Algorithm:
		return s3err.GetInvalidPartErr(id, *p.PartNumber, *p.ETag)
	}
	return s3err.APIError{Code: "BadDigest", HTTPStatusCode: 400, Description: fmt.Sprintf(
		"The %v you specified for part %v did not match what we received.", strings.ToLower(string(stated[0].Algorithm)), *p.PartNumber)}
}

// computeChecksum computes the checksum of the whole object from those of its parts, and
// compares it with the client's.
func (a *assembly) computeChecksum(in *s3.CompleteMultipartUploadInput) error {
	u := a.upload
	a.checksum.Algorithm = u.Algorithm
	if u.Type == "" {
		a.checksum.Algorithm = types.ChecksumAlgorithmCrc64nvme
	}
	if u.Type == types.ChecksumTypeComposite {
		h, err := utils.NewCompositeChecksumReader(utils.HashType(strings.ToLower(string(u.Algorithm))))
		if err != nil {
			return err
		}
		for _, p := range a.receipts {
			if err := h.Process(p.Checksum.Value); err != nil {
				return err
			}
		}
		a.checksum.Value = fmt.Sprintf("%s-%d", h.Sum(), len(a.receipts))
	} else {
		for i, p := range a.receipts {
			value := p.Checksum.Value
			if u.Type == "" {
				value = p.CRC64
			}
			if i > 0 {
				var err error
				if value, err = utils.AddCRCChecksum(a.checksum.Algorithm, a.checksum.Value, value, p.Size); err != nil {
					return err
				}
			}
			a.checksum.Value = value
		}
	}
	stated := checksumField(in, a.checksum.Algorithm)
	if u.Type == "" || stated == nil {
		return nil
	}
	want := *stated
	if u.Type == types.ChecksumTypeComposite && !strings.Contains(want, "-") {
		want = fmt.Sprintf("%s-%d", want, len(a.receipts))
	}
	if want != a.checksum.Value {
		return s3err.GetChecksumBadDigestErr(a.checksum.Algorithm)
	}
	return nil
}

// compositeETag returns the ETag of an object from those of its parts, as S3 does.
func compositeETag(parts []types.CompletedPart) string {
	h := md5.New()
	for _, p := range parts {
		digits, _, _ := strings.Cut(unquote(p.ETag), "-")
		sum, err := hex.DecodeString(digits)
		if err != nil {
			sum = []byte(digits)
		}
		h.Write(sum)
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(parts))
}
