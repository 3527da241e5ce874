package keyring_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// A service opens its ring when it starts, and has Run keep it up to date. The ring was
// made once, by Create or by the command blobseal ring create.
func ExampleOpen() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	store, root := provision(ctx)

	ring, err := keyring.Open(ctx, store, root, nil)
	if err != nil {
		log.Fatal(err)
	}
	go ring.Run(ctx)

	fmt.Println(len(ring.Versions()), "version, rotated every", ring.Period())
	// Output: 1 version, rotated every 2160h0m0s
}

// Whoever sets a service up makes its ring, once: a store that has one is refused.
func ExampleCreate() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "ring")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// A real service reads its root key from where it keeps secrets.
	text := []byte("2f0a4a6c1d1f2e3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80912233\n")
	key, err := keyring.ParseKey(text)
	if err != nil {
		log.Fatal(err)
	}
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		log.Fatal(err)
	}
	store, err := keyring.NewFileStore(filepath.Join(dir, "ring"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := keyring.Create(ctx, store, root, nil); err != nil {
		log.Fatal(err)
	}
	_, err = keyring.Create(ctx, store, root, nil)
	fmt.Println(errors.Is(err, keyring.ErrExist))
	// Output: true
}

// Primary seals a data key, and Key finds the version that opens it.
func ExampleRing_Primary() {
	ctx := context.Background()
	ring := exampleRing(ctx)

	key, err := ring.Primary(ctx)
	if err != nil {
		log.Fatal(err)
	}
	dek := make([]byte, 32)
	rand.Read(dek)
	sealed, err := key.Seal(dek, []byte("what it is for"))
	if err != nil {
		log.Fatal(err)
	}
	id := key.ID() // is stored beside sealed

	key, err = ring.Key(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	opened, err := key.Open(sealed, []byte("what it is for"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(sealed), string(opened) == string(dek))
	// Output: 104 true
}

func ExampleRing_Rotate() {
	ctx := context.Background()
	ring := exampleRing(ctx)
	old, err := ring.Primary(ctx)
	if err != nil {
		log.Fatal(err)
	}
	info, err := ring.Rotate(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the new version is the primary:", info.Primary)
	if _, err := ring.Key(ctx, old.ID()); err == nil {
		fmt.Println("the old one still opens what it sealed")
	}
	// Output:
	// the new version is the primary: true
	// the old one still opens what it sealed
}

// A version that may have leaked is disabled, and destroyed once nothing is
// sealed under it any more.
func ExampleRing_SetState() {
	ctx := context.Background()
	ring := exampleRing(ctx)
	leaked := ring.Versions()[0].ID
	if _, err := ring.Rotate(ctx); err != nil { // the primary cannot be disabled
		log.Fatal(err)
	}
	info, err := ring.SetState(ctx, leaked, keyring.Disabled)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the old version is", info.State)
	_, err = ring.Key(ctx, leaked)
	fmt.Println(errors.Is(err, keyring.ErrDisabled))
	// Output:
	// the old version is disabled
	// true
}

// A service has its ring run from its start until the last request is served.
func ExampleRing_Run() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ring := exampleRing(ctx)

	background, end := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		_ = ring.Run(background) // the end of its ctx; what fails it logs
	})
	server := &http.Server{Addr: "localhost:0"} // whose handlers seal and open with ring
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()

	stop() // as an interrupt does
	select {
	case err := <-failed:
		log.Fatal(err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	err := server.Shutdown(patience)
	end()
	running.Wait()
	fmt.Println("shut down:", err)
	// Output: shut down: <nil>
}

// cutOff is a store that cannot be reached while down is set.
type cutOff struct {
	keyring.Store
	down atomic.Bool
}

func (s *cutOff) Load(ctx context.Context) ([]byte, string, error) {
	if s.down.Load() {
		return nil, "", errors.New("no route to the store")
	}
	return s.Store.Load(ctx)
}

func (s *cutOff) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if s.down.Load() {
		return "", errors.New("no route to the store")
	}
	return s.Store.Swap(ctx, version, data)
}

// How a service tests what becomes of a replica that is cut off from the store: it
// goes on with the versions that it has, and tells one that it has not heard of
// from one that is not there.
func ExampleNewMemStore() {
	ctx := context.Background()
	key := make([]byte, 32)
	rand.Read(key)
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		log.Fatal(err)
	}
	shared := keyring.NewMemStore()
	ring, err := keyring.Create(ctx, shared, root, nil)
	if err != nil {
		log.Fatal(err)
	}
	store := &cutOff{Store: shared}
	replica, err := keyring.Open(ctx, store, root, nil)
	if err != nil {
		log.Fatal(err)
	}

	store.down.Store(true)
	newer, err := ring.Rotate(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_, err = replica.Primary(ctx)
	fmt.Println("what it knows:", err)
	_, err = replica.Key(ctx, newer.ID)
	fmt.Println("what it does not:", errors.Is(err, keyring.ErrUnknownKey), errors.Is(err, keyring.ErrStore))

	store.down.Store(false)
	if err := replica.Refresh(ctx); err != nil { // or Run, or the next look-up after a second
		log.Fatal(err)
	}
	_, err = replica.Key(ctx, newer.ID)
	fmt.Println("and then:", err)
	// Output:
	// what it knows: <nil>
	// what it does not: true true
	// and then: <nil>
}

// A ring moves from a passphrase to a key.
func ExampleRing_ChangeRoot() {
	ctx := context.Background()
	passphrase, err := keyring.NewPassphraseRoot([]byte("correct horse battery staple"), nil)
	if err != nil {
		log.Fatal(err)
	}
	store := keyring.NewMemStore()
	ring, err := keyring.Create(ctx, store, passphrase, nil)
	if err != nil {
		log.Fatal(err)
	}

	key := make([]byte, 32)
	rand.Read(key)
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		log.Fatal(err)
	}
	if err := ring.ChangeRoot(ctx, root); err != nil {
		log.Fatal(err)
	}
	_, err = keyring.Open(ctx, store, passphrase, nil)
	fmt.Println(errors.Is(err, keyring.ErrRoot))
	// Output: true
}

func ExampleNewPassphraseRoot() {
	ctx := context.Background()
	root, err := keyring.NewPassphraseRoot([]byte("correct horse battery staple"), nil)
	if err != nil {
		log.Fatal(err)
	}
	store := keyring.NewMemStore()
	if _, err := keyring.Create(ctx, store, root, nil); err != nil {
		log.Fatal(err)
	}

	typo, err := keyring.NewPassphraseRoot([]byte("correct horse battery stapel"), nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = keyring.Open(ctx, store, typo, nil)
	fmt.Println(errors.Is(err, keyring.ErrRoot))
	// Output: true
}

// A ring's root is a key of a key service: here the fake one, else that of AWS,
// Google, Azure or Vault, or the embedded one.
func ExampleNewKMSRoot() {
	ctx := context.Background()
	client := kmstest.NewFake("arn:example:kms:key/1", "arn:example:kms:key/2")
	root, err := keyring.NewKMSRoot(client, "arn:example:kms:key/1", &keyring.KMSRootOptions{
		Context:   kms.Context{"service": "blobs"},
		Principal: kms.Principal{ID: "blob service", Type: "Service"},
	})
	if err != nil {
		log.Fatal(err)
	}
	store := keyring.NewMemStore()
	ring, err := keyring.Create(ctx, store, root, nil)
	if err != nil {
		log.Fatal(err)
	}

	// The ring moves to another key, and then the old one may go.
	next, err := keyring.NewKMSRoot(client, "arn:example:kms:key/2", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := ring.ChangeRoot(ctx, next); err != nil {
		log.Fatal(err)
	}
	client.Disable("arn:example:kms:key/1")
	_, err = ring.Rotate(ctx)
	fmt.Println("rotated:", err == nil)

	// A service that is down is no wrong root, and the ring goes on without it.
	client.Fail(kms.ErrUnavailable, 1)
	_, err = keyring.Open(ctx, store, next, nil)
	fmt.Println(errors.Is(err, keyring.ErrRoot), errors.Is(err, keyring.ErrRootUnavailable))
	_, err = ring.Primary(ctx)
	fmt.Println("primary:", err == nil)
	// Output:
	// rotated: true
	// false true
	// primary: true
}

func ExampleOptions() {
	ctx := context.Background()
	root, err := keyring.NewKeyRoot(make([]byte, 31))
	fmt.Println(root, err)

	root, err = keyring.NewKeyRoot(append(make([]byte, 31), 1))
	if err != nil {
		log.Fatal(err)
	}
	store := keyring.NewMemStore()
	_, err = keyring.Open(ctx, store, root, nil)
	fmt.Println(err)
	ring, err := keyring.Create(ctx, store, root, &keyring.Options{Period: 30 * 24 * time.Hour})
	fmt.Println(ring.Period(), err)
	// Output:
	// <nil> keyring: root key has 31 bytes, want 32
	// keyring: ring does not exist
	// 720h0m0s <nil>
}

func exampleRing(ctx context.Context) *keyring.Ring {
	store, root := provision(ctx)
	ring, err := keyring.Open(ctx, store, root, nil)
	if err != nil {
		log.Fatal(err)
	}
	return ring
}

// provision makes a ring in memory, for the examples.
func provision(ctx context.Context) (keyring.Store, keyring.Root) {
	key := make([]byte, 32)
	rand.Read(key)
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		log.Fatal(err)
	}
	store := keyring.NewMemStore()
	if _, err := keyring.Create(ctx, store, root, nil); err != nil {
		log.Fatal(err)
	}
	return store, root
}
