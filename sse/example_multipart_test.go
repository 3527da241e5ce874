package sse_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"

	"github.com/blobseal/blobseal/sse"
)

// Encrypt an object in parts, in any order and in several processes, which share
// the upload's state and the receipts.
func ExampleStartMultipart() {
	ctx := context.Background()
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "videos", Key: "cats.mp4"}

	upload, err := sse.StartMultipart(ctx, cipher, obj)
	if err != nil {
		log.Fatal(err)
	}
	state, err := upload.State(ctx, nil) // store it with the upload
	if err != nil {
		log.Fatal(err)
	}

	plaintexts := []string{"cats climb, ", "cats jump, ", "cats sleep"}
	stored, receipts := make([]bytes.Buffer, 3), make([][]byte, 3)
	var wg sync.WaitGroup
	for i, plaintext := range plaintexts {
		wg.Go(func() { // perhaps in another process
			upload, err := sse.OpenMultipart(ctx, cipher, obj, state)
			if err != nil {
				log.Fatal(err)
			}
			part, err := upload.Part(i + 1)
			if err != nil {
				log.Fatal(err)
			}
			if _, err := io.Copy(&stored[i], part.Reader(strings.NewReader(plaintext))); err != nil {
				log.Fatal(err)
			}
			if receipts[i], err = part.Receipt(); err != nil {
				log.Fatal(err)
			}
		})
	}
	wg.Wait()

	trailer, err := upload.Trailer(receipts, nil)
	if err != nil {
		log.Fatal(err)
	}
	object := bytes.Join([][]byte{stored[0].Bytes(), stored[1].Bytes(), stored[2].Bytes(), trailer}, nil)

	r, err := sse.NewReaderAt(ctx, bytes.NewReader(object), int64(len(object)), cipher, obj)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, r); err != nil {
		log.Fatal(err)
	}
	// Output: cats climb, cats jump, cats sleep
}

// A service completes an upload whose parts came with a customer's key. The request
// to complete brings no key, so the service keeps one that decrypts nothing.
func ExampleOpenCompleter() {
	ctx := context.Background()
	service := sse.NewManaged(exampleRing())
	key := make([]byte, 32)
	rand.Read(key)
	customer, err := sse.NewCustomer(key)
	if err != nil {
		log.Fatal(err)
	}
	obj := sse.Object{Bucket: "videos", Key: "cats.mp4"}

	upload, err := sse.StartMultipart(ctx, customer, obj)
	if err != nil {
		log.Fatal(err)
	}
	state, err := upload.State(ctx, service)
	if err != nil {
		log.Fatal(err)
	}
	part, err := upload.Part(1)
	if err != nil {
		log.Fatal(err)
	}
	var object bytes.Buffer
	if _, err := io.Copy(&object, part.Reader(strings.NewReader("a cat"))); err != nil {
		log.Fatal(err)
	}
	receipt, err := part.Receipt()
	if err != nil {
		log.Fatal(err)
	}

	completer, err := sse.OpenCompleter(ctx, service, obj, state)
	if err != nil {
		log.Fatal(err)
	}
	trailer, err := completer.Trailer([][]byte{receipt}, nil)
	if err != nil {
		log.Fatal(err)
	}
	object.Write(trailer)

	stored := bytes.NewReader(object.Bytes())
	r, err := sse.NewReaderAt(ctx, stored, stored.Size(), customer, obj)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Size(), "bytes")
	_, err = sse.NewReaderAt(ctx, stored, stored.Size(), service, obj)
	fmt.Println(err)
	// Output:
	// 5 bytes
	// sse: wrong mode: SSE-S3 cipher on SSE-C object (use ByMode)
}

// Read a range of a composite object, and give the object a new key without moving
// its parts.
func ExampleReadTrailer() {
	ctx := context.Background()
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "logs", Key: "2026-11-29"}
	object := exampleComposite(cipher, obj, strings.Repeat("0123456789", 5000), "the end")

	trailer, err := sse.ReadTrailer(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		log.Fatal(err)
	}
	d, err := cipher.Decrypt(ctx, obj, trailer.Envelope())
	if err != nil {
		log.Fatal(err)
	}
	composite, err := trailer.Open(d)
	if err != nil {
		log.Fatal(err)
	}
	for number, size := range composite.Parts() {
		fmt.Printf("part %d: %d bytes\n", number, size)
	}
	off, n, err := composite.StoredRange(49_995, 10)
	if err != nil {
		log.Fatal(err)
	}
	response := bytes.NewReader(object[off : off+n]) // one request to the store
	text, err := io.ReadAll(composite.RangeReader(response, 49_995, 10))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", text)

	env, err := cipher.Rewrap(ctx, obj, d)
	if err != nil {
		log.Fatal(err)
	}
	tail, at, err := trailer.Replace(env)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("same size:", at+int64(len(tail)) == int64(len(object)))
	// Output:
	// part 1: 50000 bytes
	// part 2: 7 bytes
	// 56789the e
	// same size: true
}

// exampleComposite returns a stored composite object.
func exampleComposite(enc sse.Encrypter, obj sse.Object, parts ...string) []byte {
	upload, err := sse.StartMultipart(context.Background(), enc, obj)
	if err != nil {
		log.Fatal(err)
	}
	var object bytes.Buffer
	var receipts [][]byte
	for i, plaintext := range parts {
		part, err := upload.Part(i + 1)
		if err != nil {
			log.Fatal(err)
		}
		w := part.Writer(&object)
		if _, err := io.WriteString(w, plaintext); err != nil {
			log.Fatal(err)
		}
		if err := w.Close(); err != nil {
			log.Fatal(err)
		}
		receipt, err := part.Receipt()
		if err != nil {
			log.Fatal(err)
		}
		receipts = append(receipts, receipt)
	}
	trailer, err := upload.Trailer(receipts, nil)
	if err != nil {
		log.Fatal(err)
	}
	return append(object.Bytes(), trailer...)
}
