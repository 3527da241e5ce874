// Bucket is a photo service over an encrypted bucket, which is a directory here. Its
// photos are under a key ring, those of a team under a key service, and those of a
// customer under the customer's own key, which comes with each request. It shares
// a photo by a link, rotates its master key, carries all photos along, and retires
// the old key. It needs nothing but Go, and fails if anything is not as it says:
//
//	go run ./examples/bucket
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// main is long because it is one session, to be read from top to bottom.
func main() {
	log.SetFlags(0)
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "blobseal-bucket-")
	check(err)
	defer os.RemoveAll(dir)

	// The service has a ring, and a key service with a key for the team. In production,
	// roots come from a secret store, and all replicas share the stores.
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), newRoot(), nil)
	check(err)
	keys, err := localkms.Create(ctx, keyring.NewMemStore(), newRoot(), nil)
	check(err)
	client, err := keys.Client("", "")
	check(err)
	team, err := sse.NewKMS(client, localkms.DefaultAlias, nil)
	check(err)

	// The bucket encrypts a directory. The service itself serves links to photos, since
	// the directory holds ciphertext.
	store, err := fileblob.OpenBucket(filepath.Join(dir, "photos"), &fileblob.Options{CreateDir: true})
	check(err)
	defer store.Close()
	server := httptest.NewUnstartedServer(nil)
	defer server.Close()
	base := url.URL{Scheme: "http", Host: server.Listener.Addr().String(), Path: "/photos"}
	signer, err := signedurl.NewSigner(&base, randomKey(), nil)
	check(err)
	bucket, err := blob.NewBucket(store, "photos", sse.NewManaged(ring), &blob.Options{
		Decrypters: sse.ByMode{sse.ModeKMS: team},
		Policy:     blob.Policy{AllowCustomerKeys: true},
		Signer:     signer,
	})
	check(err)
	defer bucket.Close()
	server.Config.Handler = signedurl.NewHandler(bucket.Bucket, signer, &signedurl.HandlerOptions{Logger: slog.New(slog.DiscardHandler)})
	server.Start()

	// Three photos, in three modes. The service is written against *blob.Bucket of
	// gocloud; what a request has of its own comes through gocloud's hooks.
	customer, err := sse.NewCustomer(randomKey())
	check(err)
	photos := &service{bucket}
	photos.put(ctx, "holiday.jpg", "a beach", nil)
	photos.put(ctx, "team/roadmap.jpg", "a whiteboard", team)
	photos.put(ctx, "customers/7/passport.jpg", "a passport", customer)
	show(ctx, bucket)
	for name, picture := range map[string]string{"holiday.jpg": "a beach", "team/roadmap.jpg": "a whiteboard"} {
		ensure(photos.get(ctx, name, nil) == picture, "%s differs", name)
		stored, err := os.ReadFile(filepath.Join(dir, "photos", name))
		check(err)
		ensure(!bytes.Contains(stored, []byte(picture)), "%s is in the directory in the clear", name)
	}
	ensure(photos.get(ctx, "customers/7/passport.jpg", customer) == "a passport", "the passport differs")
	_, err = bucket.ReadAll(ctx, "customers/7/passport.jpg")
	ensure(errors.Is(err, sse.ErrMode), "read without the customer's key: %v", err)
	fmt.Printf("without the customer's key: %v\n\n", err)

	// Whoever has a link can read one photo, until the link expires.
	link, err := bucket.SignedURL(ctx, "holiday.jpg", &gcblob.SignedURLOptions{Expiry: 10 * time.Minute})
	check(err)
	status, body := fetch(link)
	ensure(status == http.StatusOK && body == "a beach", "the link gives %d: %s", status, body)
	fmt.Printf("shared link: %d, %q\n", status, body)
	status, _ = fetch(strings.ReplaceAll(link, "holiday", "team%2Froadmap"))
	ensure(status == http.StatusForbidden, "a forged link gives %d", status)
	fmt.Printf("forged link: %d\n\n", status)

	// The ring rotates. Photos need the old version until they are rewrapped, which seals
	// their data keys again and copies the bodies without decrypting them.
	old, err := ring.Primary(ctx)
	check(err)
	_, err = ring.Rotate(ctx)
	check(err)
	_, err = jobs.Retire(ctx, ring, old.ID(), nil, bucket)
	var used *jobs.InUseError
	ensure(errors.As(err, &used) && used.Objects == 1, "the old version was retired while it was needed: %v", err)
	fmt.Printf("retire: refused, %v needs the version\n", used.Names[0])
	report, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{Filter: jobs.Filter{Modes: []sse.Mode{sse.ModeManaged}}})
	check(err)
	ensure(report.Done == 1 && report.Unmatched == 2, "unexpected rewrap: %v", report)
	fmt.Printf("rewrap: %v\n", report)
	info, err := jobs.Retire(ctx, ring, old.ID(), &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, bucket)
	check(err)
	ensure(info.State == keyring.Destroyed, "the old version is %v", info.State)
	fmt.Printf("retire: the old version is %v\n\n", info.State)

	// All photos and the link still work, and no photo needs the old version.
	show(ctx, bucket)
	for finding, err := range jobs.Check(ctx, bucket, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
		check(err)
		want := jobs.VerdictGood
		if finding.Seal.Mode == sse.ModeCustomer {
			want = jobs.VerdictNoKey // the service does not have the customer's key
		}
		ensure(finding.Verdict == want, "%s is %v: %v", finding.Key, finding.Verdict, finding.Err)
	}
	ensure(photos.get(ctx, "customers/7/passport.jpg", customer) == "a passport", "the passport differs")
	status, body = fetch(link)
	ensure(status == http.StatusOK && body == "a beach", "the link gives %d: %s", status, body)
	fmt.Println("all photos open, and so does the link")
}

// service stores photos. All it knows of encryption is the key of a request.
type service struct{ bucket *blob.Bucket }

// put stores a photo, under the request's key or, if that is nil, as the bucket does.
func (s *service) put(ctx context.Context, name, picture string, key sse.Cipher) {
	bucket, err := s.bucket.With(blob.Request{Cipher: key})
	check(err)
	check(bucket.WriteAll(ctx, name, []byte(picture), &gcblob.WriterOptions{ContentType: "image/jpeg"}))
}

// get returns a photo, which the request's key opens, if there is one.
func (s *service) get(ctx context.Context, name string, key sse.Cipher) string {
	var picture bytes.Buffer
	bucket, err := s.bucket.With(blob.Request{Cipher: key})
	check(err)
	check(bucket.Download(ctx, name, &picture, nil))
	return picture.String()
}

// show lists what is in the bucket, under which key.
func show(ctx context.Context, bucket *blob.Bucket) {
	for entry, err := range jobs.Inventory(ctx, bucket, nil) {
		check(err)
		fmt.Printf("%-25s %2d bytes, %v\n", entry.Key, entry.Size, entry.Seal)
	}
}

// fetch is a client of the link.
func fetch(link string) (int, string) {
	res, err := http.Get(link)
	check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	check(err)
	return res.StatusCode, string(body)
}
