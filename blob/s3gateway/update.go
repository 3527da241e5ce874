package s3gateway

import (
	"context"
	"encoding/xml"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api/controllers"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// actionUpdate is the name of the operation in logs.
const actionUpdate = "s3_UpdateObjectEncryption"

// UpdateObjectEncryption seals the data key of an object of SSE-S3 or SSE-KMS under a key
// of the key service. It decrypts no byte of the body, and the inner store copies the
// body if it can. Metadata, tags and checksums stay. A store of files keeps ETag and
// modification time, too; another S3 server makes new ones.
//
// If the object, its metadata or its tags change meanwhile, the operation starts over. A
// change can be lost in two cases. Over files, that is a change of tags or locks while the
// engine publishes the new file. Another S3 server has no conditions on tags: there, it is a
// change of tags between the last time they are read and the last request, which sends the
// body if the body passes through the gateway.
//
// In a bucket with versioning, the operation is NotImplemented, since the engine's stores
// replace no version in place. Copy the object onto itself to make a new version under the
// new key.
func (g *Gateway) UpdateObjectEncryption(ctx context.Context, in *s3.UpdateObjectEncryptionInput) error {
	if err := g.guard(in.Bucket); err != nil {
		return err
	}
	r := g.request(ctx)
	err := retryChanged(func() error { return g.updateEncryption(r, in) })
	return g.fail("UpdateObjectEncryption", in.Bucket, in.Key, err)
}

func (g *Gateway) updateEncryption(r *request, in *s3.UpdateObjectEncryptionInput) error {
	to, ok := in.ObjectEncryption.(*types.ObjectEncryptionMemberSSEKMS)
	if !ok || deref(to.Value.KMSKeyArn) == "" {
		return invalidUpdate("The new encryption must be SSE-KMS with the ARN of a key.")
	}
	cipher, err := g.keys.ForWrite(&s3wire.Write{
		Algorithm: s3wire.AWSKMS, KeyID: *to.Value.KMSKeyArn, BucketKey: ptr(deref(to.Value.BucketKeyEnabled)),
	}, nil)
	if err != nil {
		return err
	}
	versioning, err := g.Backend.GetBucketVersioning(r.ctx, *in.Bucket)
	if err != nil {
		return err
	}
	r.replaces = true
	src := &source{bucket: *in.Bucket, key: *in.Key, id: deref(in.VersionId), read: &s3wire.Read{}}
	head, o, err := g.openHead(r, &s3.GetObjectInput{Bucket: in.Bucket, Key: in.Key, VersionId: &src.id}, g.keys.ForRead(src.read))
	if _, plain := errors.AsType[*plainError](err); plain || err == nil && o == nil {
		return invalidUpdate("The object is not encrypted. Only objects of SSE-S3 or SSE-KMS can be updated.")
	}
	if err != nil {
		return err
	}
	if o.id != "" || deref(versioning.Status) == types.BucketVersioningStatusEnabled {
		return s3err.APIError{Code: "NotImplemented", HTTPStatusCode: 501,
			Description: "A version cannot be updated in place. Copy the object onto itself: the copy is a new version under the new key."}
	}
	put, err := g.copyInput(r, s3response.CopyObjectInput{Bucket: in.Bucket, Key: in.Key}, src, head)
	if err != nil {
		return err
	}
	keep, err := g.keptOf(r, o)
	if err != nil {
		return err
	}
	keep.same, keep.modified = true, deref(head.LastModified)
	put.WebsiteRedirectLocation, put.IfMatch, put.IfNoneMatch = head.WebsiteRedirectLocation, &o.etag, nil
	_, err = g.reseal(r, o, keep, put, cipher)
	if hasCode(err, "PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey") {
		err = stored.ErrChanged
	}
	return err
}

func invalidUpdate(why string) error {
	return s3err.APIError{Code: "InvalidRequest", HTTPStatusCode: 400, Description: why}
}

// putObjectEncryption answers PUT of ?encryption of an object.
func (g *Gateway) putObjectEncryption(iam auth.IAMService) func(fiber.Ctx, string, string) (*controllers.Response, error) {
	return func(ctx fiber.Ctx, bucket, key string) (*controllers.Response, error) {
		var body struct {
			XMLName xml.Name                `xml:"ObjectEncryption"`
			KMS     *types.SSEKMSEncryption `xml:"SSE-KMS"`
		}
		if err := xml.Unmarshal(ctx.BodyRaw(), &body); err != nil {
			return nil, s3err.GetAPIError(s3err.ErrMalformedXML)
		}
		in := &s3.UpdateObjectEncryptionInput{Bucket: &bucket, Key: &key}
		if id := ctx.Query("versionId"); id != "" {
			in.VersionId = ptr(strings.Clone(id))
		}
		if body.KMS != nil {
			in.ObjectEncryption = &types.ObjectEncryptionMemberSSEKMS{Value: *body.KMS}
		}
		account := utils.ContextKeyAccount.Get(ctx).(auth.Account)
		locked := []types.ObjectIdentifier{{Key: &key, VersionId: in.VersionId}}
		if err := auth.CheckObjectAccess(ctx, bucket, account, locked, auth.BypassNone, utils.ContextKeyPublicBucket.IsSet(ctx), g, iam, false); err != nil {
			return nil, err
		}
		return nil, g.UpdateObjectEncryption(ctx.RequestCtx(), in)
	}
}
