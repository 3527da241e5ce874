// Kms is a small service that stores documents under a key of a key service. One
// of its callers may write and not read, the other read and not write. It shows
// who is refused, that a disabled key is refused at once, and the audit trail of
// it all. It needs nothing but Go, and fails if anything is not as it says:
//
//	go run ./examples/kms
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// policy is the policy of the key. It denies what no statement permits.
const policy = `
permit (principal == Principal::"role/admin",  action,                              resource);
permit (principal == Principal::"role/writer", action == Action::"GenerateDataKey", resource);
permit (principal == Principal::"role/reader", action == Action::"Decrypt",         resource);
`

// main is long because it is one session, to be read from top to bottom.
func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "blobseal-kms-")
	check(err)
	defer os.RemoveAll(dir)

	// The key service stores its keys in one file, encrypted under a root. It records
	// every request, granted or refused, in an audit trail with a hash chain.
	trail := filepath.Join(dir, "audit.jsonl")
	sink, err := audit.OpenFileSink(trail, nil)
	check(err)
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	check(err)
	store, err := keyring.NewFileStore(filepath.Join(dir, "keys"))
	check(err)
	service, err := localkms.Create(context.Background(), store, root, &localkms.Options{Audit: sink})
	check(err)
	client, err := service.Client("", "")
	check(err)

	admin := as("role/admin")
	key, err := client.CreateKey(admin, &localkms.CreateKeyInput{Description: "documents", Policy: policy})
	check(err)
	check(client.CreateAlias(admin, "alias/documents", key.ID))
	fmt.Printf("key service: alias/documents is %s\n", key.ID)

	// With a bucket key, the cache asks the key service once for each principal instead
	// of once for each document. The trail is in front of the cache, so it has every use.
	cached := cache.New(client, nil)
	defer cached.Invalidate()
	cipher, err := sse.NewKMS(audit.NewClient(cached, sink), "alias/documents", &sse.KMSOptions{BucketKey: true})
	check(err)
	docs := &documents{cipher: cipher, stored: map[string][]byte{}}

	// The writer may write, but not read.
	writer, reader := as("role/writer"), as("role/reader")
	for _, name := range []string{"january", "february", "march"} {
		check(docs.put(writer, name, "the figures of "+name))
	}
	_, err = docs.get(writer, "march")
	fmt.Printf("writer reads:  %v\n", refused(err, kms.ErrDenied))

	// The reader may read, but not write: a document that it writes is not stored.
	text, err := docs.get(reader, "march")
	check(err)
	ensure(text == "the figures of march", "the document differs: %q", text)
	fmt.Printf("reader reads:  %q\n", text)
	err = docs.put(reader, "april", "forged")
	fmt.Printf("reader writes: %v\n", refused(err, kms.ErrDenied))
	ensure(docs.stored["april"] == nil, "a refused document was stored")

	// A disabled key stops at once, although the cache has its data keys.
	check(client.DisableKey(admin, key.ID))
	fmt.Printf("disabled:      %v\n", refused(docs.put(writer, "may", "late"), kms.ErrDisabled))
	_, err = docs.get(reader, "march")
	refused(err, kms.ErrDisabled)
	check(client.EnableKey(admin, key.ID))
	_, err = docs.get(reader, "march")
	check(err)

	// Show the trail, and verify that it is as it was written.
	check(sink.Close())
	fmt.Println()
	hits := show(trail)
	ensure(hits == 2, "%d uses were answered by the cache, want the writer's second and third", hits)
	verified, err := audit.Verify(trail, nil)
	check(err)
	fmt.Printf("\nverified: %d records, the last with hash %.16s…\n", verified.Records, verified.Last.Hash)

	// Somebody edits a copy, to blame the writer for the reader's attempt.
	lines, err := os.ReadFile(trail)
	check(err)
	const forger, scapegoat = `"role/reader","type":"Role"},"eventName":"GenerateDataKey"`, `"role/writer","type":"Role"},"eventName":"GenerateDataKey"`
	forged := bytes.Replace(lines, []byte(forger), []byte(scapegoat), 1)
	ensure(!bytes.Equal(lines, forged), "there was nothing to edit")
	check(os.WriteFile(trail+".forged", forged, 0o600))
	_, err = audit.Verify(trail+".forged", nil)
	var broken *audit.ChainError
	ensure(errors.As(err, &broken) && broken.Kind == audit.ChainEdited, "the edited line was not found: %v", err)
	fmt.Printf("edited copy: found: line %d is %s: %s\n", broken.Line, broken.Kind, broken.Detail)
}

// documents is a service that stores encrypted documents.
type documents struct {
	cipher sse.Cipher
	stored map[string][]byte
}

// put stores a document for the principal in ctx, as a whole or not at all.
func (d *documents) put(ctx context.Context, name, text string) error {
	var sealed bytes.Buffer
	w, err := sse.NewWriter(ctx, &sealed, d.cipher, object(name), nil)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	d.stored[name] = sealed.Bytes()
	return nil
}

// get returns a document to the principal in ctx.
func (d *documents) get(ctx context.Context, name string) (string, error) {
	r, err := sse.NewReader(ctx, bytes.NewReader(d.stored[name]), d.cipher, object(name))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), err
}

func object(name string) sse.Object { return sse.Object{Bucket: "documents", Key: name} }

// as returns a ctx in which a principal asks. A service takes the principal from
// its own authentication.
func as(role string) context.Context {
	return kms.WithPrincipal(context.Background(), kms.Principal{ID: role, Type: "Role"})
}

// show prints a trail as a table, and returns how many uses a cache answered.
func show(trail string) (hits int) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LINE\tTIME\tPRINCIPAL\tOPERATION\tRESOURCE\tOUTCOME")
	for entry, err := range audit.Read(trail, nil) { // which verifies it, too
		check(err)
		r := entry.Record
		outcome := r.Outcome
		if r.ErrorCode != "" {
			outcome += ": " + r.ErrorCode
		}
		if r.Cached {
			outcome += ", cached"
		}
		if r.Cached && r.ErrorCode == "" {
			hits++
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", entry.Line, r.Time.Format("15:04:05.000"), r.Principal.ID, r.Operation, r.Resource, outcome)
	}
	check(w.Flush())
	return hits
}

// refused returns err, which must be of that kind.
func refused(err, kind error) error {
	ensure(errors.Is(err, kind), "not refused as %q: %v", kind, err)
	return err
}

func ensure(ok bool, format string, args ...any) {
	if !ok {
		log.Fatalf(format, args...)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
