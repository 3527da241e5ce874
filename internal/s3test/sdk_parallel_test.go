package s3test

import (
	"context"
	"io"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/stretchr/testify/require"
)

// TestSDKUploadIsParallel: a part is sent while another one still waits for its answer.
func TestSDKUploadIsParallel(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := new(wire)
	c := newSDK(t, startFake(t), w, nil, nil)
	var under sync.WaitGroup
	under.Add(3)
	together := make(chan struct{})
	go func() {
		under.Wait()
		close(together)
	}()
	w.on(func(r *request) {
		if r.op != "UploadPart" {
			return
		}
		under.Done()
		select {
		case <-together:
		case <-ctx.Done():
			t.Error("three parts were not sent at once within a minute")
		}
	})
	_, err := c.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: &c.bucket, Key: aws.String("o"), Body: io.LimitReader(zeros{}, 20<<20),
	})
	require.NoError(t, err)
}

// BenchmarkSDKUpload compares uploads of an object with those of the bare transfer
// manager. BLOBSEAL_UPLOAD_SIZE is its size in bytes. For a gigabyte in one run:
//
//	BLOBSEAL_UPLOAD_SIZE=1073741824 go test -run '^$' -bench SDKUpload -benchtime 1x -count 5
func BenchmarkSDKUpload(b *testing.B) {
	size := int64(32 << 20)
	if text := os.Getenv("BLOBSEAL_UPLOAD_SIZE"); text != "" {
		var err error
		size, err = strconv.ParseInt(text, 10, 64)
		require.NoError(b, err)
	}
	ctx := context.Background()
	for _, server := range servers {
		s := server.start(b)
		c := newSDK(b, s, nil, nil, nil)
		bare := transfermanager.New(c.bare)
		for name, upload := range map[string]func(context.Context, *transfermanager.UploadObjectInput, ...func(*transfermanager.Options)) (*transfermanager.UploadObjectOutput, error){
			"bare": bare.UploadObject, "encrypted": c.UploadObject,
		} {
			b.Run(server.name+"/"+name, func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					_, err := upload(ctx, &transfermanager.UploadObjectInput{
						Bucket: &c.bucket, Key: aws.String("o"), Body: io.LimitReader(zeros{}, size),
					})
					require.NoError(b, err)
				}
			})
		}
	}
}
