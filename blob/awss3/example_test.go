package awss3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// memory keeps objects in memory. A service has an *s3.Client in its place.
type memory struct {
	awss3.API
	mu      sync.Mutex
	objects map[string][]byte
	asked   int
}

func (m *memory) PutObject(_ context.Context, in *s3.PutObjectInput, _ ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	data, err := io.ReadAll(in.Body)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects == nil {
		m.objects = map[string][]byte{}
	}
	m.objects[*in.Bucket+"/"+*in.Key] = data
	m.asked++
	return &s3.PutObjectOutput{}, err
}

func (m *memory) GetObject(_ context.Context, in *s3.GetObjectInput, _ ...func(*s3.Options)) (*s3.GetObjectOutput, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	data, ok := m.objects[*in.Bucket+"/"+*in.Key]
	if !ok {
		return nil, &types.NoSuchKey{}
	}
	out := &s3.GetObjectOutput{}
	if in.Range != nil {
		var first, last int
		if _, err := fmt.Sscanf(*in.Range, "bytes=%d-%d", &first, &last); err != nil {
			return nil, err
		}
		last = min(last, len(data)-1)
		out.ContentRange = aws.String(fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		data = data[first : last+1]
	}
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(data)), aws.Int64(int64(len(data)))
	return out, nil
}

func newCipher() sse.Cipher {
	cipher, err := sse.NewCustomer(bytes.Repeat([]byte{1}, 32)) // a service has sse.NewManaged(ring)
	if err != nil {
		log.Fatal(err)
	}
	return cipher
}

func ExampleClient() {
	ctx := context.Background()
	client, err := awss3.New(new(memory), newCipher(), &awss3.Options{AllowCustomerKeys: true})
	if err != nil {
		log.Fatal(err)
	}
	bucket, key := aws.String("photos"), aws.String("cat.txt")
	if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("a picture of a cat")}); err != nil {
		log.Fatal(err)
	}
	out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, Range: aws.String("bytes=2-8")})
	if err != nil {
		log.Fatal(err)
	}
	defer out.Body.Close()
	part, err := io.ReadAll(out.Body)
	if err != nil {
		log.Fatal(err) // discard what was read
	}
	fmt.Printf("%s, %s\n", part, *out.ContentRange)
	// Output: picture, bytes 2-8/18
}

func ExampleClient_With() {
	ctx := context.Background()
	client, err := awss3.New(new(memory), newCipher(), &awss3.Options{AllowCustomerKeys: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, tenant := range []string{"ours", "theirs"} {
		// A service also gives each tenant a Cipher: sse.NewKMS with the tenant's key.
		client := client.With(awss3.Request{Context: kms.Context{"tenant": tenant}})
		key := aws.String(tenant + "/note")
		if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("notes"), Key: key, Body: strings.NewReader("hello")}); err != nil {
			log.Fatal(err)
		}
	}
	ours := client.With(awss3.Request{Context: kms.Context{"tenant": "ours"}})
	_, err = ours.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("notes"), Key: aws.String("theirs/note")})
	fmt.Println(err != nil)
	// Output: true
}

func ExampleClient_Open() {
	ctx := context.Background()
	store := new(memory)
	client, err := awss3.New(store, newCipher(), &awss3.Options{AllowCustomerKeys: true})
	if err != nil {
		log.Fatal(err)
	}
	in := &s3.GetObjectInput{Bucket: aws.String("films"), Key: aws.String("film")}
	if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: in.Bucket, Key: in.Key, Body: strings.NewReader(strings.Repeat("film", 1<<20))}); err != nil {
		log.Fatal(err)
	}
	store.asked = 0
	film, err := client.Open(ctx, in)
	if err != nil {
		log.Fatal(err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{film}, make([]byte, 32<<10)) // as http.ServeContent reads
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes in %d requests\n", n, store.asked)
	// Output: 4194304 bytes in 7 requests
}
