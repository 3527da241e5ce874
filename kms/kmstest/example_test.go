package kmstest_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"time"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// notes is the service under test. It encrypts each note under its own data key.
type notes struct {
	client kms.Client
	stored map[string]note
}

type note struct {
	keyID           string
	wrapped, sealed []byte
}

func (n *notes) put(ctx context.Context, user, name, text string) error {
	ctx = kms.WithPrincipal(ctx, kms.Principal{ID: user, Type: "User"})
	key, err := n.client.GenerateDataKey(ctx, "alias/notes", kms.Context{"note": name})
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer key.Clear()
	aead, err := newAEAD(key.Plaintext())
	if err != nil {
		return err
	}
	n.stored[name] = note{key.KeyID, key.Ciphertext, aead.Seal(nil, nil, []byte(text), nil)}
	return nil
}

func (n *notes) get(ctx context.Context, user, name string) (string, error) {
	ctx = kms.WithPrincipal(ctx, kms.Principal{ID: user, Type: "User"})
	stored := n.stored[name]
	key, err := n.client.Decrypt(ctx, stored.keyID, stored.wrapped, kms.Context{"note": name})
	if err != nil {
		return "", fmt.Errorf("get %s: %w", name, err)
	}
	defer clear(key)
	aead, err := newAEAD(key)
	if err != nil {
		return "", err
	}
	text, err := aead.Open(nil, nil, stored.sealed, nil)
	return string(text), err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// A service tests what it asks of a key service, and what it does when the key
// service refuses or is down.
func ExampleFake() {
	ctx := context.Background()
	fake := kmstest.NewFake("key-1")
	fake.SetAlias("alias/notes", "key-1")
	service := &notes{client: fake, stored: make(map[string]note)}
	check := func(what string, ok bool) {
		if !ok {
			fmt.Println("FAIL:", what) // t.Errorf in a test
			return
		}
		fmt.Println("ok:", what)
	}

	err := service.put(ctx, "alice", "diary", "dear diary")
	text, readErr := service.get(ctx, "alice", "diary")
	check("a note can be read", err == nil && readErr == nil && text == "dear diary")

	asked := fake.Calls()
	check("each call names the note and the user",
		len(asked) == 2 && asked[0].Context["note"] == "diary" && asked[1].Principal.ID == "alice")

	fake.Deny(kms.Principal{ID: "bob", Type: "User"}, kms.OpDecrypt)
	_, err = service.get(ctx, "bob", "diary")
	check("a denied user cannot read", errors.Is(err, kms.ErrDenied))

	fake.Fail(kms.ErrUnavailable, 1, kms.OpGenerateDataKey)
	err = service.put(ctx, "alice", "lost", "?")
	_, stored := service.stored["lost"]
	check("nothing is stored while the key service is down", errors.Is(err, kms.ErrUnavailable) && !stored)

	fake.SetLatency(time.Hour)
	hurried, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err = service.get(hurried, "alice", "diary")
	check("a slow key service does not delay the user", errors.Is(err, context.DeadlineExceeded))
	fake.Recover()

	fake.AnswerPlaintext(func([]byte) []byte { return []byte("garbage") })
	_, err = service.get(ctx, "alice", "diary")
	check("garbage is an error", err != nil)
	// Output:
	// ok: a note can be read
	// ok: each call names the note and the user
	// ok: a denied user cannot read
	// ok: nothing is stored while the key service is down
	// ok: a slow key service does not delay the user
	// ok: garbage is an error
}

// A service whose every use of a key must be on record has no key while it cannot
// write its audit trail.
func ExampleSink() {
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "alice", Type: "User"})
	sink := new(kmstest.Sink)
	client := audit.NewClient(kmstest.NewFake("notes"), sink)

	_, err := client.GenerateDataKey(ctx, "notes", kms.Context{"note": "diary"})
	fmt.Println("key:", err == nil)
	for _, r := range sink.Records() {
		fmt.Println("record:", r.Principal.ID, r.Operation, r.Context["note"], r.Outcome)
	}

	errFull := errors.New("disk full")
	sink.Fail(errFull, -1)
	_, err = client.GenerateDataKey(ctx, "notes", kms.Context{"note": "diary"})
	fmt.Println("key:", err == nil, errors.Is(err, errFull))
	// Output:
	// key: true
	// record: alice GenerateDataKey diary success
	// key: false true
}
