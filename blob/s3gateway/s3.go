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

// OpenS3 opens another S3 server as inner store. client says where it is, and with
// whose rights; most stores other than AWS need UsePathStyle. OpenS3 creates the
// bucket metaBucket if it is missing; empty means [DefaultMetaBucket]. ctx bounds
// that.
//
// The client's retries and checksums are turned off: a body that was sent cannot be
// sent again, and the engine's clients retry.
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

// detachedClient sends requests whose contexts do not lead back to the engine's. The
// engine uses a context again for the next request, while the transport of this one
// may still ask it for values.
type detachedClient struct{ s3.HTTPClient }

func (c detachedClient) Do(r *http.Request) (*http.Response, error) {
	return doInTime(c.HTTPClient, r.WithContext(detach(r.Context())), waitOf(r))
}

// waitOf returns how long a request waits: longer if the store moves bytes of its own,
// as it may for copies and for the completion of an upload.
func waitOf(r *http.Request) time.Duration {
	if r.Header.Get("x-amz-copy-source") != "" || r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
		return copyWait
	}
	return storeWait
}

const (
	// storeWait is how long a request waits for the inner store to take or to send
	// anything. The engine's own contexts only end with the server.
	storeWait = time.Minute

	// copyWait is the same for requests on which the store moves bytes of its own.
	copyWait = time.Hour
)

// detach returns a context that ends when ctx does, and that does not lead back to it.
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
