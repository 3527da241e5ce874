package sse_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// exampleRing is a ring in memory, under a random root key. A service keeps the
// root key and the document: see package keyring.
func exampleRing() *keyring.Ring {
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Create(context.Background(), keyring.NewMemStore(), root, nil)
	if err != nil {
		log.Fatal(err)
	}
	return ring
}

// Encrypt a stream, and decrypt it. The envelope comes before the body.
func Example() {
	ctx := context.Background()
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}

	var stored bytes.Buffer
	w, err := sse.NewWriter(ctx, &stored, cipher, obj, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(w, strings.NewReader("a picture of a cat")); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil { // without Close, the object is incomplete
		log.Fatal(err)
	}

	r, err := sse.NewReader(ctx, &stored, cipher, obj)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, r); err != nil {
		log.Fatal(err)
	}
	// Output: a picture of a cat
}

// A server streams an object. Bytes that it has sent before an error are authentic but
// incomplete, so it aborts the response: the client must not take them for the object.
func ExampleNewReader() {
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "logs", Key: "2026-11-24"}
	var stored bytes.Buffer
	w, _ := sse.NewWriter(context.Background(), &stored, cipher, obj, nil)
	io.WriteString(w, strings.Repeat("0123456789", 10_000))
	w.Close()
	stored.Truncate(50_000) // an accident

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, err := sse.NewReader(req.Context(), &stored, cipher, obj)
		if err != nil {
			http.Error(w, "cannot read the object", http.StatusInternalServerError)
			return
		}
		if _, err := io.Copy(w, r); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()

	answer, err := http.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	fmt.Println("the client knows:", err)
	// Output: the client knows: unexpected EOF
}

// NewReaderAt gives random access, and authenticates the object's length.
func ExampleNewReaderAt() {
	ctx := context.Background()
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "logs", Key: "2026-11-24"}
	var stored bytes.Buffer
	w, _ := sse.NewWriter(ctx, &stored, cipher, obj, nil)
	io.WriteString(w, strings.Repeat("0123456789", 10_000))
	w.Close()

	r, err := sse.NewReaderAt(ctx, bytes.NewReader(stored.Bytes()), int64(stored.Len()), cipher, obj)
	if err != nil {
		log.Fatal(err)
	}
	part := make([]byte, 12)
	if _, err := r.ReadAt(part, 50_005); err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Size(), string(part))
	// Output: 100000 567890123456
}

// A service reads a range of an object with one range request to its store.
func ExampleDecryption_RangeReader() {
	ctx := context.Background()
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "logs", Key: "2026-11-24"}
	e, _ := cipher.Encrypt(ctx, obj)
	body, _ := io.ReadAll(e.Reader(strings.NewReader(strings.Repeat("0123456789", 10_000))))

	off, n, err := sse.CiphertextRange(50_005, 12)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("GET bytes=%d-%d of %d\n", off, off+n-1, len(body))
	d, err := cipher.Decrypt(ctx, obj, e.Envelope())
	if err != nil {
		log.Fatal(err)
	}
	part, err := io.ReadAll(d.RangeReader(bytes.NewReader(body[off:off+n]), 50_005, 12))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(part))
	// Output:
	// GET bytes=49200-65599 of 100112
	// 567890123456
}

// The caller sends the key with each request, and the service keeps none.
func ExampleCustomer() {
	ctx := context.Background()
	key := make([]byte, 32)
	rand.Read(key)
	cipher, err := sse.NewCustomer(key)
	if err != nil {
		log.Fatal(err)
	}
	obj := sse.Object{Bucket: "vault", Key: "letter"}
	e, err := cipher.Encrypt(ctx, obj)
	if err != nil {
		log.Fatal(err)
	}

	rand.Read(key)
	wrong, err := sse.NewCustomer(key)
	if err != nil {
		log.Fatal(err)
	}
	_, err = wrong.Decrypt(ctx, obj, e.Envelope())
	fmt.Println(errors.Is(err, sse.ErrKey))
	// Output: true
}

// customerFrom returns the customer's key in S3's headers, or nil if the request
// brings none. Errors are the caller's fault and show no key.
func customerFrom(h http.Header) (*sse.Customer, error) {
	const prefix = "X-Amz-Server-Side-Encryption-Customer-"
	algorithm, key, sum := h.Get(prefix+"Algorithm"), h.Get(prefix+"Key"), h.Get(prefix+"Key-Md5")
	if algorithm == "" && key == "" && sum == "" {
		return nil, nil
	}
	return sse.ParseCustomerKey(algorithm, key, sum)
}

// A service takes customers' keys as S3 does. Its responses repeat the algorithm
// and the MD5 of the key.
func ExampleParseCustomerKey() {
	h := http.Header{}
	h.Set("x-amz-server-side-encryption-customer-algorithm", "AES256")
	h.Set("x-amz-server-side-encryption-customer-key", "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs=")
	h.Set("x-amz-server-side-encryption-customer-key-MD5", "DWygnHRtgiJ77HCm+1rvHw==")
	customer, err := customerFrom(h)
	fmt.Println(customer.KeyMD5(), err)

	h.Set("x-amz-server-side-encryption-customer-key", "qO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs=")
	_, err = customerFrom(h)
	fmt.Println(err)
	// Output:
	// DWygnHRtgiJ77HCm+1rvHw== <nil>
	// sse: invalid argument: customer key does not match its MD5 (send the key's MD5 in base64)
}

// statusOf returns the HTTP status that S3 has for an error. An error can be of
// several kinds, so the order matters. byCustomer says whether the request brought a
// key.
func statusOf(err error, byCustomer bool) int {
	is := func(kinds ...error) bool {
		return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
	}
	switch {
	case err == nil:
		return http.StatusOK
	case is(kms.ErrUnavailable, audit.ErrNotRecorded, keyring.ErrStore, keyring.ErrRootUnavailable, context.DeadlineExceeded):
		return http.StatusServiceUnavailable // retry
	case is(kms.ErrDenied):
		return http.StatusForbidden
	case is(kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion):
		return http.StatusBadRequest // the caller named the key, or owns it
	case is(sse.ErrKey) && byCustomer:
		return http.StatusForbidden
	case is(sse.ErrKey, sse.ErrCorrupt, sse.ErrFormat):
		return http.StatusInternalServerError // not the caller's fault: alert somebody
	case is(sse.ErrMode, sse.ErrInvalid, sse.ErrTooLarge, kms.ErrInvalid):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// A service answers with the HTTP status that fits an error.
func Example_errors() {
	ctx := context.Background()
	fake := kmstest.NewFake("photos") // a key service for tests
	byKMS, err := sse.NewKMS(fake, "photos", nil)
	if err != nil {
		log.Fatal(err)
	}
	customer, _ := sse.NewCustomer(bytes.Repeat([]byte{1}, 32))
	wrong, _ := sse.NewCustomer(bytes.Repeat([]byte{2}, 32))
	managed := sse.NewManaged(exampleRing())
	own := sse.ByMode{sse.ModeManaged: managed, sse.ModeKMS: byKMS}

	cat := sse.Object{Bucket: "photos", Key: "cat.jpg"}
	stored := make(map[sse.Mode]*sse.Envelope)
	for _, cipher := range []sse.Cipher{managed, byKMS, customer} {
		e, err := cipher.Encrypt(ctx, cat)
		if err != nil {
			log.Fatal(err)
		}
		stored[e.Envelope().Mode()] = e.Envelope()
	}

	_, err = own.Decrypt(ctx, cat, stored[sse.ModeCustomer])
	fmt.Println("without the customer's key:", statusOf(err, false))
	_, err = wrong.Decrypt(ctx, cat, stored[sse.ModeCustomer])
	fmt.Println("with a wrong key:", statusOf(err, true))
	_, err = own.Decrypt(ctx, sse.Object{Bucket: "photos", Key: "dog.jpg"}, stored[sse.ModeManaged])
	fmt.Println("under a different name:", statusOf(err, false))
	fake.Fail(kms.ErrUnavailable, 1)
	_, err = own.Decrypt(ctx, cat, stored[sse.ModeKMS])
	fmt.Println("key service down:", statusOf(err, false))
	fake.RemoveKey("photos")
	_, err = own.Decrypt(ctx, cat, stored[sse.ModeKMS])
	fmt.Println("key deleted:", statusOf(err, false))
	_, err = sse.NewManaged(exampleRing()).Decrypt(ctx, cat, stored[sse.ModeManaged])
	fmt.Println("different ring:", statusOf(err, false), errors.Is(err, keyring.ErrUnknownKey))
	// Output:
	// without the customer's key: 400
	// with a wrong key: 403
	// under a different name: 500
	// key service down: 503
	// key deleted: 400
	// different ring: 500 true
}

// A service serves ranges of an object, and conditional requests. It keeps the
// envelope in a table and the body in a file.
func ExampleDecryption_ReaderAt() {
	ctx := context.Background()
	cipher := sse.NewManaged(exampleRing())
	obj := sse.Object{Bucket: "logs", Key: "2026-11-24"}
	e, err := cipher.Encrypt(ctx, obj)
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(e.Reader(strings.NewReader(strings.Repeat("0123456789", 10_000))))
	if err != nil {
		log.Fatal(err)
	}
	column, err := e.Envelope().MarshalBinary()
	if err != nil {
		log.Fatal(err)
	}

	open := func(ctx context.Context) (*io.SectionReader, error) {
		var env sse.Envelope
		if err := env.UnmarshalBinary(column); err != nil {
			return nil, err
		}
		d, err := cipher.Decrypt(ctx, obj, &env)
		if err != nil {
			return nil, err
		}
		return d.ReaderAt(bytes.NewReader(body), int64(len(body)))
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, err := open(req.Context())
		if err != nil {
			http.Error(w, "cannot read the object", http.StatusInternalServerError)
			return
		}
		http.ServeContent(w, req, "log.txt", time.Time{}, r)
	})

	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Range", "bytes=50005-50016")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	fmt.Println(w.Code, w.Header().Get("Content-Range"), w.Body)
	// Output: 206 bytes 50005-50016/100000 567890123456
}

// A service reads objects of two modes.
func ExampleByMode() {
	ctx := context.Background()
	managed := sse.NewManaged(exampleRing())
	customer, _ := sse.NewCustomer(bytes.Repeat([]byte{7}, 32))
	dec := sse.ByMode{sse.ModeManaged: managed, sse.ModeCustomer: customer}

	for _, enc := range []sse.Encrypter{managed, customer} {
		var stored bytes.Buffer
		w, _ := sse.NewWriter(ctx, &stored, enc, sse.Object{Key: "k"}, nil)
		io.WriteString(w, "hello")
		w.Close()

		env, _ := sse.ReadEnvelope(bytes.NewReader(stored.Bytes()))
		r, err := sse.NewReader(ctx, &stored, dec, sse.Object{Key: "k"})
		if err != nil {
			log.Fatal(err)
		}
		plaintext, _ := io.ReadAll(r)
		fmt.Println(env.Mode(), string(plaintext))
	}
	// Output:
	// SSE-S3 hello
	// SSE-C hello
}

// A key service holds the keys and decides about each use. This one is embedded.
// Packages awskms, gcpkms, azurekms, vaultkms and tinkkms are clients of other services.
func ExampleNewKMS() {
	ctx := context.Background()
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	if err != nil {
		log.Fatal(err)
	}
	service, err := localkms.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := service.Client("", "") // the default account and region
	if err != nil {
		log.Fatal(err)
	}
	cipher, err := sse.NewKMS(client, localkms.DefaultAlias, nil)
	if err != nil {
		log.Fatal(err)
	}
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg"}

	alice := kms.WithPrincipal(ctx, kms.Principal{ID: "user:alice"}) // for its policies and records
	var stored bytes.Buffer
	w, err := sse.NewWriter(alice, &stored, cipher, obj, nil)
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(w, "a picture of a cat")
	w.Close()
	env, _ := sse.ReadEnvelope(bytes.NewReader(stored.Bytes()))
	fmt.Println(env.Mode())

	if err := client.DisableKey(alice, env.KeyID()); err != nil {
		log.Fatal(err)
	}
	_, err = sse.NewReader(alice, &stored, cipher, obj)
	fmt.Println(errors.Is(err, kms.ErrDisabled))
	// Output:
	// SSE-KMS
	// true
}

// An envelope shows, without a key, which key opens it.
func ExampleReadEnvelope() {
	customer, _ := sse.NewCustomer(bytes.Repeat([]byte{1}, 32))
	obj := sse.Object{Key: "k", Context: kms.Context{"team": "blue"}}
	var stored bytes.Buffer
	w, _ := sse.NewWriter(context.Background(), &stored, customer, obj, &sse.WriterOptions{EnvelopeSize: 1024})
	io.WriteString(w, "hello")
	w.Close()

	env, err := sse.ReadEnvelope(&stored) // stored now holds the body
	if err != nil {
		log.Fatal(err)
	}
	plain, err := sse.PlaintextSize(int64(stored.Len()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(env.Mode(), env.Context(), env.Size(), plain)
	// Output: SSE-C map[team:blue] 1024 5
}
