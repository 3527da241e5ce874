//go:build !noclouds

package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

type s3Client = s3.Client

// silenceSDK keeps the AWS SDK from logging to standard error. It would tell of each
// object without a checksum that it knows, which is nearly each one: the checksum of
// an encrypted object is its authentication. A bucket's URL has no parameter for
// that, so the client that Go CDK made is replaced by one with the same options.
//
// It returns the client, or nil if the bucket is not on S3.
func silenceSDK(inner *gcblob.Bucket) *s3.Client {
	var client *s3.Client
	if !inner.As(&client) {
		return nil
	}
	*client = *s3.New(client.Options(), func(o *s3.Options) { o.Logger = logging.Nop{} })
	return client
}

// copyParts lets S3 copy the parts of objects whose envelopes are replaced.
func copyParts(opts *blob.Options, client *s3Client) {
	if client != nil {
		opts.ReplaceEnd = awss3.ReplaceEnd(client)
	}
}

// checkExclusive refuses a job on a store that cannot replace an object only if it is
// unchanged, unless the operator says that nobody else writes. S3 can, by If-Match, but
// some servers with its API ignore that: so a probe asks to replace an object that does
// not exist. In a directory, writers take turns by a lock.
func (b *bucket) checkExclusive(ctx context.Context, exclusive bool) error {
	if b.s3 == nil || exclusive {
		return nil
	}
	probe := aws.String(b.s3Prefix + ".blobseal-probe-" + rand.Text())
	_, err := b.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.s3Name, Key: probe, Body: strings.NewReader(""), IfMatch: aws.String(`"0123456789abcdef0123456789abcdef"`),
	})
	switch {
	case errors.As(err, new(smithy.APIError)): // it refuses, as it should
		return nil
	case err != nil:
		return b.about(err)
	}
	if _, err := b.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.s3Name, Key: probe}); err != nil {
		return b.about(err)
	}
	return message.Problemf(message.ErrRefused, b.shown, "the server ignores If-Match, so the command could undo a write of a service "+
		"(stop all writers and give --exclusive)")
}
