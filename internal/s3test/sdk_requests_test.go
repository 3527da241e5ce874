package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/blob/stored"
)

// TestSDKRequests: each operation sends the requests that the package's doc describes.
func TestSDKRequests(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		c := newSDK(t, s, w, nil, nil)
		data := content(5*chunk + 100)
		require.NoError(t, c.put(ctx, "o", data))
		chunks := func(from, to int) string {
			return fmt.Sprintf("GetObject %d-%d", envelope+from*sealedChunk, envelope+to*sealedChunk-1)
		}
		head := fmt.Sprintf("GetObject 0-%d", envelope-1)
		tail := fmt.Sprintf("GetObject %d-%d", envelope+5*sealedChunk, envelope+5*sealedChunk+100+16-1)
		middle := fmt.Sprintf("GetObject %d-%d", envelope+sealedChunk, envelope+2*sealedChunk-1)
		read := func(rng string) func(*testing.T) {
			return func(t *testing.T) {
				_, err := c.get(ctx, "o", rng)
				require.NoError(t, err)
			}
		}
		for _, step := range []struct {
			name string
			do   func(t *testing.T)
			want []string
		}{
			{"write 1 KiB", func(t *testing.T) { require.NoError(t, c.put(ctx, "small", content(1024))) }, []string{"PutObject"}},
			{"write from a pipe", func(t *testing.T) {
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: aws.String("piped"), Body: io.LimitReader(zeros{}, 5000)})
				require.NoError(t, err)
			}, []string{"PutObject"}},
			{"upload of unknown length", func(t *testing.T) {
				_, err := c.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &c.bucket, Key: aws.String("up"), Body: io.LimitReader(zeros{}, 5000)})
				require.NoError(t, err)
			}, []string{"PutObject"}},
			{"read", read(""), []string{"GetObject"}},
			{"read in the middle", read(fmt.Sprintf("bytes=%d-%d", chunk+1, chunk+10)), []string{head, middle, tail}},
			{"read across chunks", read(fmt.Sprintf("bytes=%d-%d", 2*chunk-1, 2*chunk)), []string{head, chunks(1, 3), tail}},
			{"read at the beginning", read("bytes=5-14"), []string{fmt.Sprintf("GetObject 0-%d", envelope+sealedChunk-1), tail}},
			{"read to the end", read(fmt.Sprintf("bytes=%d-", 4*chunk)), []string{head, fmt.Sprintf("GetObject %d-%d", envelope+4*sealedChunk, envelope+5*sealedChunk+115)}},
			{"read the last bytes", read("bytes=-20"), []string{head, tail}},
			{"head", func(t *testing.T) {
				_, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
				require.NoError(t, err)
			}, []string{"HeadObject"}},
			{"list", func(t *testing.T) {
				_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &c.bucket})
				require.NoError(t, err)
			}, []string{"ListObjectsV2"}},
			{"copy", func(t *testing.T) {
				_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &c.bucket, Key: aws.String("copy"), CopySource: aws.String(c.bucket + "/o")})
				require.NoError(t, err)
			}, []string{"GetObject", "PutObject"}},
			{"delete", func(t *testing.T) {
				_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &c.bucket, Key: aws.String("copy")})
				require.NoError(t, err)
			}, []string{"DeleteObject"}},
		} {
			t.Run(step.name, func(t *testing.T) {
				w.take()
				step.do(t)
				requests := w.take()
				require.Equal(t, step.want, ops(requests))
				for _, r := range requests {
					switch r.op + " " + r.rng {
					case head:
						require.Equal(t, int64(envelope), r.received.Load())
					case tail:
						require.LessOrEqual(t, r.received.Load(), int64(sealedChunk))
					}
				}
			})
		}
	})
}

// TestSDKReader: sequential reads of any size take few requests. Reads in any order return
// the right bytes.
func TestSDKReader(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		c := newSDK(t, s, w, nil, nil)
		data := content(4<<20 + 5)
		require.NoError(t, c.put(ctx, "o", data))
		open := func(t *testing.T) *awss3.Reader {
			r, err := c.Open(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
			require.NoError(t, err)
			require.Equal(t, int64(len(data)), r.Size())
			return r
		}
		w.take()
		for name, read := range map[string]func(r *awss3.Reader) ([]byte, error){
			"Read":   func(r *awss3.Reader) ([]byte, error) { return io.ReadAll(struct{ io.Reader }{r}) },
			"ReadAt": func(r *awss3.Reader) ([]byte, error) { return io.ReadAll(io.NewSectionReader(r, 0, r.Size())) },
			"tiny":   func(r *awss3.Reader) ([]byte, error) { return io.ReadAll(&small{r}) },
			"one big": func(r *awss3.Reader) ([]byte, error) {
				p := make([]byte, r.Size())
				_, err := r.ReadAt(p, 0)
				return p, err
			},
		} {
			t.Run(name, func(t *testing.T) {
				r := open(t)
				require.Len(t, w.take(), 2)
				got, err := read(r)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, got))
				requests := w.take()
				require.LessOrEqual(t, len(requests), 5)
				var moved int64
				for _, request := range requests {
					moved += request.received.Load()
				}
				require.Less(t, moved, int64(len(data)+len(data)/100))
			})
		}
		r := open(t)
		for _, off := range []int64{0, chunk - 1, 1 << 20, 4<<20 - 3, 70_000, r.Size() - 1} {
			p := make([]byte, 100)
			n, err := r.ReadAt(p, off)
			if off+100 > r.Size() {
				require.ErrorIs(t, err, io.EOF)
			} else {
				require.NoError(t, err)
				require.Equal(t, 100, n)
			}
			require.True(t, bytes.Equal(data[off:off+int64(n)], p[:n]))
		}
		_, err := r.ReadAt(make([]byte, 1), r.Size())
		require.ErrorIs(t, err, io.EOF)

		require.NoError(t, c.put(ctx, "o", text(len(data))))
		_, err = io.Copy(io.Discard, r)
		require.ErrorIs(t, err, stored.ErrChanged)
	})
}

// small reads at most 100 bytes at a time.
type small struct{ r io.Reader }

func (s *small) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 100)]) }
