package s3gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
)

// TestMemory holds many reads and uploads open at once and looks at how much memory
// the gateway has used. BLOBSEAL_STRESS=1m runs 1,200 reads of 300 MB and 200 uploads.
func TestMemory(t *testing.T) {
	readers, uploads, size := 60, 20, 10<<20
	if os.Getenv("BLOBSEAL_STRESS") != "" {
		readers, uploads, size = 1200, 200, 300_000_000
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(status), "VmHWM") {
		t.Skip("no /proc/PID/status here, which says how much memory a process has used")
	}
	g, c := newSetup(t).startWithBucket(t)
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: ptr(bucket), Key: ptr("big"), Body: io.LimitReader(repeated{}, int64(size)), ContentLength: ptr(int64(size)),
	}, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
	require.NoError(t, err)

	var open, done sync.WaitGroup
	everything := make(chan struct{})
	failures := make(chan error, readers+uploads)
	for range readers {
		open.Add(1)
		done.Go(func() { failures <- slowRead(t, c, size, sync.OnceFunc(open.Done), everything) })
	}
	for i := range uploads {
		u := begin(t, c, modes()[1+i%3], fmt.Sprintf("up/%d", i))
		open.Add(1)
		done.Go(func() { failures <- slowPart(t, c, u, sync.OnceFunc(open.Done), everything) })
	}
	await.Value(t, waitFor(&open), "all requests to be under way")
	close(everything)
	await.Value(t, waitFor(&done), "all requests to end")
	for range readers + uploads {
		require.NoError(t, <-failures)
	}
	used := g.mostMemory(t)
	t.Logf("%d reads of %d bytes and %d uploads at once: %d MiB at most", readers, size, uploads, used>>20)
	require.Less(t, used, int64(512<<20))
}

// slowRead reads the first byte of the big object, and the rest when all requests have begun.
func slowRead(t *testing.T, c *s3.Client, size int, open func(), everything <-chan struct{}) error {
	defer open()
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("big")})
	if err != nil {
		return err
	}
	defer out.Body.Close()
	if _, err := io.ReadFull(out.Body, make([]byte, 1)); err != nil {
		return err
	}
	open()
	<-everything
	want := min(int64(size)-1, 2<<20) // 1,200 whole objects take too long
	_, err = io.CopyN(io.Discard, out.Body, want)
	return err
}

// slowPart uploads a part, most of it only when all requests have begun.
func slowPart(t *testing.T, c *s3.Client, u *uploading, open func(), everything <-chan struct{}) error {
	defer open()
	var get s3.GetObjectInput
	u.m.get(&get)
	body := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), &gate{open: open, everything: everything}, bytes.NewReader(make([]byte, 4<<20)))
	_, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, PartNumber: ptr(int32(1)), Body: body, ContentLength: ptr(int64(5 << 20)),
		SSECustomerAlgorithm: get.SSECustomerAlgorithm, SSECustomerKey: get.SSECustomerKey, SSECustomerKeyMD5: get.SSECustomerKeyMD5,
	}, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
	return err
}

// gate is an empty reader that ends when all requests have begun.
type gate struct {
	open       func()
	everything <-chan struct{}
}

func (g *gate) Read([]byte) (int, error) {
	g.open()
	<-g.everything
	return 0, io.EOF
}

// repeated is an endless reader.
type repeated struct{}

func (repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

func waitFor(g *sync.WaitGroup) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		g.Wait()
		close(c)
	}()
	return c
}

// mostMemory returns the most resident memory that the gateway has had, in bytes.
func (g *server) mostMemory(t *testing.T) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			require.NoError(t, err)
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
