package s3gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/s3proxy"
)

// DefaultMetaBucket is the bucket in which the engine keeps ACLs, policies and CORS
// rules of the buckets of another S3 server.
const DefaultMetaBucket = "blobseal-gateway-meta"

// OpenS3 opens another S3 server as inner store. client says where it is, and with
// whose rights; most stores other than AWS need UsePathStyle. OpenS3 creates the
// bucket metaBucket if it is missing; empty means [DefaultMetaBucket]. ctx bounds
// that.
//
// The client's retries and checksums are turned off: a body that was sent cannot be
// sent again, and the engine's clients retry.
func OpenS3(ctx context.Context, client *s3.Client, metaBucket string) (backend.Backend, error) {
	if metaBucket == "" {
		metaBucket = DefaultMetaBucket
	}
	o := client.Options()
	o.Retryer = aws.NopRetryer{}
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	client = s3.New(o)
	_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &metaBucket})
	var refused smithy.APIError
	if errors.As(err, &refused) && (refused.ErrorCode() == "BucketAlreadyOwnedByYou" || refused.ErrorCode() == "BucketAlreadyExists") {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("s3gateway: create bucket %s: %w", metaBucket, err)
	}
	return s3proxy.NewWithClient(ctx, client, metaBucket)
}
