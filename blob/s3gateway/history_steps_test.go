package s3gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/blobseal/blobseal/sse"
)

// What clients do in [TestHistory].

// historyMode returns a mode at random.
func (h *history) historyMode(rng *rand.Rand) mode {
	m := modes()[rng.IntN(4)]
	if m.name == "SSE-KMS" {
		m.put = func(in *s3.PutObjectInput) {
			in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryptionAwsKms, &h.kmsID
		}
	}
	return m
}

func (h *history) size(rng *rand.Rand) int {
	return []int{0, sse.ChunkSize - 1, sse.ChunkSize, sse.ChunkSize + 1, 100_000, 3 * sse.ChunkSize}[rng.IntN(6)]
}

// step does something at random: it reads from, or writes to.
func (h *history) step(rng *rand.Rand, from, to string) {
	switch n := rng.IntN(100); {
	case n < 25:
		h.put(rng, to)
	case n < 50:
		h.read(rng, from)
	case n < 60:
		h.readRange(rng, from)
	case n < 70:
		h.remove(rng, to)
	case n < 85:
		h.copy(rng, from, to)
	case n < 93:
		h.list(rng)
	default:
		h.upload(rng, to)
	}
}

func (h *history) put(rng *rand.Rand, key string) {
	c, m := h.newContent(h.size(rng)), h.historyMode(rng)
	in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(c.bytes())}
	m.put(in)
	h.change(rng, key, c, "put "+m.name, func(client *s3.Client) error {
		out, err := client.PutObject(h.Context(), in)
		if err == nil {
			h.version(key, out.VersionId, c)
		}
		return err
	})
}

// version notes which content a version has.
func (h *history) version(key string, id *string, c *content) {
	if h.versions != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.versions[key+"?"+*id] = c
	}
}

// get reads a key, with the customer's key if it wants one. out is nil if there is no
// such object, or if nobody can tell.
func (h *history) get(client *s3.Client, key string, byteRange *string) (out *s3.GetObjectOutput, p []byte, err error) {
	for try := range 20 { // an object may change its mode meanwhile
		in := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key, Range: byteRange}
		modes()[3*(try%2)].get(in)
		out, err = client.GetObject(h.Context(), in)
		if code(err) == "InvalidRequest" {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		defer out.Body.Close()
		p, err = io.ReadAll(out.Body)
		return out, p, err
	}
	return nil, nil, err
}

// read reads a key. It returns what it found with the ETag, and nil if it does not know.
func (h *history) read(rng *rand.Rand, key string) (c *content, etag *string) {
	start := h.now()
	known, err := h.try(rng, "get "+key, func(client *s3.Client) error {
		out, p, err := h.get(client, key, nil)
		if err == nil {
			etag, c = out.ETag, h.find(h.T, "get", key, start, p, 0, len(p))
		}
		return err
	})
	if known && err != nil {
		h.checkReadError("get", key, start, err)
	}
	return c, etag
}

// checkReadError checks an error of a read.
func (h *history) checkReadError(what, key string, start time.Duration, err error) {
	switch code(err) {
	case "NoSuchKey", "NotFound":
		h.checkAbsence(h.T, what, key, start)
	case "KMS.DisabledException":
	default:
		h.Errorf("%s %s: %v", what, key, err)
	}
}

func (h *history) readRange(rng *rand.Rand, key string) {
	start, offset := h.now(), rng.IntN(10_000)
	byteRange := fmt.Sprintf("bytes=%d-%d", offset, offset+16+rng.IntN(20_000))
	known, err := h.try(rng, "get "+byteRange+" of "+key, func(client *s3.Client) error {
		out, p, err := h.get(client, key, &byteRange)
		if err != nil {
			return err
		}
		var first, last, size int
		if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &first, &last, &size); err != nil || first != offset {
			h.Errorf("get %s: Content-Range: %s", byteRange, *out.ContentRange)
			return nil
		}
		h.find(h.T, "get "+byteRange, key, start, p, offset, size)
		return nil
	})
	if known && err != nil && code(err) != "InvalidRange" {
		h.checkReadError("get "+byteRange, key, start, err)
	}
}

func (h *history) remove(rng *rand.Rand, key string) {
	h.change(rng, key, nil, "delete", func(client *s3.Client) error {
		_, err := client.DeleteObject(h.Context(), &s3.DeleteObjectInput{Bucket: ptr(bucket), Key: &key})
		return err
	})
}

// copy copies what it has read before, if it is still there. From a key to itself, this
// is a rewrap.
func (h *history) copy(rng *rand.Rand, from, to string) {
	c, etag := h.read(rng, from)
	if c == nil || h.Failed() {
		return
	}
	m := h.historyMode(rng)
	if from == to && m.name == "default" {
		m = modes()[1]
	}
	var put s3.PutObjectInput
	m.put(&put)
	in := &s3.CopyObjectInput{
		Bucket: ptr(bucket), Key: &to, CopySource: ptr(bucket + "/" + from), CopySourceIfMatch: etag,
		ServerSideEncryption: put.ServerSideEncryption, SSEKMSKeyId: put.SSEKMSKeyId,
		SSECustomerAlgorithm: put.SSECustomerAlgorithm, SSECustomerKey: put.SSECustomerKey, SSECustomerKeyMD5: put.SSECustomerKeyMD5,
	}
	what := fmt.Sprintf("copy of %s in %s to", from, m.name)
	h.change(rng, to, c, what, func(client *s3.Client) error {
		var err error
		for try := range 2 { // without the customer's key, and with it
			var get s3.GetObjectInput
			modes()[3*try].get(&get)
			in.CopySourceSSECustomerAlgorithm, in.CopySourceSSECustomerKey, in.CopySourceSSECustomerKeyMD5 =
				get.SSECustomerAlgorithm, get.SSECustomerKey, get.SSECustomerKeyMD5
			var out *s3.CopyObjectOutput
			if out, err = client.CopyObject(h.Context(), in); err == nil {
				h.version(to, out.VersionId, c)
			}
			if code(err) != "InvalidRequest" {
				break
			}
		}
		return err
	}, "PreconditionFailed", "NoSuchKey", "InvalidRequest", "OperationAborted")
}

// list compares the keys and sizes of a list with the model.
func (h *history) list(rng *rand.Rand) {
	start := h.now()
	var sizes map[string]int64
	known, err := h.try(rng, "list", func(client *s3.Client) error {
		out, err := client.ListObjectsV2(h.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket)})
		if err == nil {
			sizes = map[string]int64{}
			for _, o := range out.Contents {
				sizes[*o.Key] = *o.Size
			}
		}
		return err
	})
	if known && err != nil {
		h.Errorf("list: %v", err)
	}
	if err != nil {
		return
	}
	for _, key := range h.keys {
		size, listed := sizes[key]
		if !listed {
			h.checkAbsence(h.T, "list", key, start)
			continue
		}
		possible := false
		for _, c := range h.possibleContents(key, start) {
			possible = possible || c != nil && int64(c.size) == size
		}
		if !possible {
			h.Errorf("list: %s has %d bytes, and it may have %v. %s", key, size, h.possibleContents(key, start), h.model.history(key))
		}
	}
}

// upload uploads one or two parts, through any gateways, and completes or aborts.
func (h *history) upload(rng *rand.Rand, key string) {
	c, m := h.newContent(1000+rng.IntN(2)*partSize), h.historyMode(rng)
	var put s3.PutObjectInput
	m.put(&put)
	var id *string
	if _, err := h.try(rng, "create upload of "+key, func(client *s3.Client) error {
		out, err := client.CreateMultipartUpload(h.Context(), &s3.CreateMultipartUploadInput{
			Bucket: ptr(bucket), Key: &key, ServerSideEncryption: put.ServerSideEncryption, SSEKMSKeyId: put.SSEKMSKeyId,
			SSECustomerAlgorithm: put.SSECustomerAlgorithm, SSECustomerKey: put.SSECustomerKey, SSECustomerKeyMD5: put.SSECustomerKeyMD5,
		})
		if err == nil {
			id = out.UploadId
		}
		return err
	}); err != nil {
		return
	}
	h.mu.Lock()
	h.uploads = append(h.uploads, &s3.AbortMultipartUploadInput{Bucket: ptr(bucket), Key: &key, UploadId: id})
	h.mu.Unlock()
	var parts []types.CompletedPart
	for rest := c.bytes(); len(rest) > 0; {
		p := rest[:min(partSize, len(rest))]
		rest = rest[len(p):]
		number := int32(len(parts) + 1)
		_, err := h.try(rng, fmt.Sprintf("part %d of %s", number, key), func(client *s3.Client) error {
			out, err := client.UploadPart(h.Context(), &s3.UploadPartInput{
				Bucket: ptr(bucket), Key: &key, UploadId: id, PartNumber: &number, Body: bytes.NewReader(p),
				SSECustomerAlgorithm: put.SSECustomerAlgorithm, SSECustomerKey: put.SSECustomerKey, SSECustomerKeyMD5: put.SSECustomerKeyMD5,
			})
			if err == nil {
				parts = append(parts, types.CompletedPart{PartNumber: &number, ETag: out.ETag})
			}
			return err
		})
		if err != nil {
			return
		}
	}
	h.change(rng, key, c, "complete "+m.name, func(client *s3.Client) error {
		out, err := client.CompleteMultipartUpload(h.Context(), &s3.CompleteMultipartUploadInput{
			Bucket: ptr(bucket), Key: &key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		if err == nil {
			h.version(key, out.VersionId, c)
		}
		return err
	})
}
