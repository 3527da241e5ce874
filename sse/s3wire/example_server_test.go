package s3wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// server speaks S3: PUT, GET and HEAD of objects in all three modes, and the
// encryption configuration of its bucket at /BUCKET?encryption.
type server struct {
	keys          *s3wire.Keys
	objects       sync.Map // from path to envelope and body
	configuration atomic.Pointer[s3wire.Configuration]
	logf          func(format string, args ...any)
}

var errNoObject = &s3wire.Error{Code: "NoSuchKey", Message: "The specified key does not exist."}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The key service decides by the principal: take yours from authentication.
	ctx := kms.WithPrincipal(r.Context(), kms.Principal{ID: "alice"})
	if err := s.serve(w, r.WithContext(ctx)); err != nil {
		s.logf("%s %s: %v", r.Method, r.URL.Path, err) // has the cause, which the client must not see
		answer := s3wire.FromError(err)
		status := answer.Status()
		if errors.Is(err, errNoObject) {
			status = http.StatusNotFound
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		w.Write(answer.XML(r.URL.Path, ""))
	}
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) error {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	obj := sse.Object{Bucket: bucket, Key: key}
	switch {
	case r.URL.Query().Has("encryption"):
		return s.serveConfiguration(w, r)
	case r.Method == http.MethodPut:
		return s.put(w, r, obj)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return s.get(w, r, obj)
	}
	return &s3wire.Error{Code: "NotImplemented"}
}

func (s *server) put(w http.ResponseWriter, r *http.Request, obj sse.Object) error {
	write, err := s3wire.ParseWrite(r.Header.Values, r.TLS != nil)
	if err != nil {
		return err
	}
	cipher, err := s.keys.ForWrite(write, s.configuration.Load())
	if err != nil {
		return err
	}
	var stored bytes.Buffer // a real server streams to its store, and commits below
	body, err := sse.NewWriter(r.Context(), &stored, cipher, obj, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(body, r.Body); err != nil {
		return err
	}
	if err := body.Close(); err != nil {
		return err
	}
	s.objects.Store(r.URL.Path, stored.Bytes())
	cipher.SetHeaders(w.Header().Set)
	return nil
}

func (s *server) get(w http.ResponseWriter, r *http.Request, obj sse.Object) error {
	read, err := s3wire.ParseRead(r.Header.Values, r.TLS != nil)
	if err != nil {
		return err
	}
	stored, ok := s.objects.Load(r.URL.Path)
	if !ok {
		return errNoObject
	}
	src := bytes.NewReader(stored.([]byte))
	opener := s.keys.ForRead(read)
	plain, err := sse.NewReaderAt(r.Context(), src, src.Size(), opener, obj)
	if err != nil {
		return err
	}
	opener.SetHeaders(w.Header().Set)
	http.ServeContent(w, r, "", time.Time{}, plain) // also serves ranges
	return nil
}

func (s *server) serveConfiguration(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodPut:
		configuration, err := s3wire.ParseConfiguration(r.Body)
		if err == nil {
			s.configuration.Store(configuration)
		}
		return err
	case http.MethodDelete:
		s.configuration.Store(nil)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	body, err := s.configuration.Load().XML()
	if err == nil {
		w.Write(body)
	}
	return err
}

func Example_server() {
	keys, err := newKeys() // see NewKeys
	if err != nil {
		log.Fatal(err)
	}
	s := httptest.NewTLSServer(&server{keys: keys, logf: log.Printf})
	defer s.Close()
	for _, mode := range []s3wire.Algorithm{s3wire.AES256, s3wire.AWSKMS} {
		r, _ := http.NewRequest(http.MethodPut, s.URL+"/photos/cat.jpg", strings.NewReader("meow"))
		r.Header.Set(s3wire.HeaderEncryption, string(mode))
		stored, err := s.Client().Do(r)
		read, err2 := s.Client().Get(s.URL + "/photos/cat.jpg")
		if errors.Join(err, err2) != nil {
			log.Fatal(err, err2)
		}
		stored.Body.Close()
		body, err := io.ReadAll(read.Body)
		fmt.Printf("%s: %q %v\n", read.Header.Get(s3wire.HeaderEncryption), body, err)
	}
	// Output:
	// AES256: "meow" <nil>
	// aws:kms: "meow" <nil>
}
