package s3gateway_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/s3gateway"
)

// countingFiles records in the file "counts" how many bytes pass between a gateway and its
// files.
type countingFiles struct {
	*s3gateway.Files
	mu     sync.Mutex
	counts *os.File
}

func newCountingFiles(files *s3gateway.Files, s setup) (*countingFiles, error) {
	counts, err := os.OpenFile(s.path("counts"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &countingFiles{Files: files, counts: counts}, err
}

func (c *countingFiles) count(direction string, n *int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n != nil {
		fmt.Fprintln(c.counts, direction, *n)
	}
}

func (c *countingFiles) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	c.count("sent", in.ContentLength)
	return c.Files.PutObject(ctx, in)
}

func (c *countingFiles) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	c.count("sent", in.ContentLength)
	return c.Files.UploadPart(ctx, in)
}

func (c *countingFiles) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	out, err := c.Files.GetObject(ctx, in)
	if err == nil {
		c.count("received", out.ContentLength)
	}
	return out, err
}

// fileCounts returns the counts of a gateway with Count.
func (s setup) fileCounts(t *testing.T) (sent, received int64) {
	text, err := os.ReadFile(s.path("counts"))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var direction string
		var n int64
		_, err := fmt.Sscan(line, &direction, &n)
		require.NoError(t, err)
		if direction == "sent" {
			sent += n
		} else {
			received += n
		}
	}
	return sent, received
}

// TestCompleteMovesOnlyTheTrailer counts the bytes that pass between gateway and inner
// store while an upload is completed. They do not depend on the object's size.
func TestCompleteMovesOnlyTheTrailer(t *testing.T) {
	_, between, over := overS3(t)
	counting := newSetup(t)
	counting.Count = true
	for name, x := range map[string]struct {
		gateway *server
		counts  func() (sent, received int64)
	}{
		"files": {counting.start(t), func() (int64, int64) { return counting.fileCounts(t) }},
		"S3":    {over, between.counts},
	} {
		t.Run(name, func(t *testing.T) {
			c := x.gateway.client(t)
			newBucket(t, c)
			var sent, received [2]int64
			for i, size := range []int{1 << 20, 10 << 20} {
				u := begin(t, c, modes()[1], "k")
				u.part(t, c, 1, text(size))
				sentBefore, receivedBefore := x.counts()
				_, err := u.complete(t, c, u.done...)
				require.NoError(t, err)
				sent[i], received[i] = x.counts()
				sent[i] -= sentBefore
				received[i] -= receivedBefore
				t.Logf("%d bytes: sent %d, received %d", size, sent[i], received[i])
				require.Less(t, sent[i], int64(410_000))
				require.Less(t, received[i], int64(410_000))
			}
			// Envelopes are padded up to the length of a chunk (SPEC COMP-13), and
			// records and lists write sizes in decimal digits.
			require.InDelta(t, sent[0], sent[1], 16400+50)
			require.InDelta(t, received[0], received[1], 50)
		})
	}
}

// TestCompleteOfAbortedUpload repeats the completion of an upload that has become the
// object, and completes an aborted upload of the same content.
func TestCompleteOfAbortedUpload(t *testing.T) {
	_, c := newSetup(t).startWithBucket(t)
	first, second := begin(t, c, modes()[1], "k"), begin(t, c, modes()[1], "k")
	for _, u := range []*uploading{first, second} {
		u.part(t, c, 1, text(partSize))
		u.part(t, c, 2, text(100))
	}
	out, err := first.complete(t, c, first.done...)
	require.NoError(t, err)
	_, err = c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: ptr(bucket), Key: ptr("k"), UploadId: second.id})
	require.NoError(t, err)
	_, err = second.complete(t, c, second.done...)
	require.Equal(t, "NoSuchUpload", code(err))
	again, err := first.complete(t, c, first.done...)
	require.NoError(t, err)
	require.Equal(t, *out.ETag, *again.ETag)
}
