package s3gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/s3proxy"
)

// DefaultMetaBucket is the bucket in which the engine keeps ACLs, policies and CORS
// rules of the buckets of another S3 server.
const DefaultMetaBucket = "blobseal-gateway-meta"

// OpenS3 opens another S3 server as inner store. client has its address and credentials.
// Most servers other than AWS need UsePathStyle. OpenS3 creates the bucket metaBucket if it
// is missing; empty means [DefaultMetaBucket]. ctx bounds only that.
//
// OpenS3 turns the client's retries and checksums off: a body cannot be sent twice, and the
// clients of the gateway retry.
func OpenS3(ctx context.Context, client *s3.Client, metaBucket string) (backend.Backend, error) {
	metaBucket = cmp.Or(metaBucket, DefaultMetaBucket)
	o := client.Options()
	o.Retryer = aws.NopRetryer{}
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.HTTPClient = detachedClient{o.HTTPClient}
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

// detachedClient sends requests whose contexts do not refer to the engine's. The engine
// reuses a context for the next request, while the transport of this one may still read
// values from it.
type detachedClient struct{ s3.HTTPClient }

func (c detachedClient) Do(r *http.Request) (*http.Response, error) {
	return doInTime(c.HTTPClient, r.WithContext(detach(r.Context())), waitOf(r))
}

// waitOf returns how long a request waits. It waits longer for copies and for the completion
// of an upload, since the store may then move bytes.
func waitOf(r *http.Request) time.Duration {
	if r.Header.Get("x-amz-copy-source") != "" || r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
		return copyWait
	}
	return storeWait
}

const (
	// storeWait is how long a request waits for the inner store to read or write anything.
	// The engine's own contexts end only with the server.
	storeWait = time.Minute

	// copyWait is the same for requests for which the store moves bytes itself.
	copyWait = time.Hour
)

// detach returns a context that ends when ctx does and does not refer to it.
func detach(ctx context.Context) context.Context {
	deadline, ok := ctx.Deadline()
	return detached{ctx.Done(), deadline, ok}
}

// detached is a context that ends when another one does.
type detached struct {
	done        <-chan struct{}
	deadline    time.Time
	hasDeadline bool
}

func (d detached) Deadline() (time.Time, bool) { return d.deadline, d.hasDeadline }
func (d detached) Done() <-chan struct{}       { return d.done }
func (d detached) Value(any) any               { return nil }

func (d detached) Err() error {
	select {
	case <-d.done:
	default:
		return nil
	}
	if d.hasDeadline && !time.Now().Before(d.deadline) {
		return context.DeadlineExceeded
	}
	return context.Canceled
}
