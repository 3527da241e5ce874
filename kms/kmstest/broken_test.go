package kmstest_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// keepsKeys answers Decrypt from a cache without asking.
func keepsKeys(f *kmstest.Fake) kms.Client {
	var mu sync.Mutex
	kept := make(map[string][]byte)
	return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		name := fmt.Sprintf("%s %x %q", keyID, c, ec)
		if p, ok := kept[name]; ok {
			return slices.Clone(p), ctx.Err()
		}
		p, err := f.Decrypt(ctx, keyID, c, ec)
		if err == nil {
			kept[name] = slices.Clone(p)
		}
		return p, err
	}}
}

// sharesPlaintext returns a slice that it keeps.
func sharesPlaintext(f *kmstest.Fake) kms.Client {
	var mu sync.Mutex
	kept := make(map[string][]byte)
	return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		name := fmt.Sprintf("%s %x %q", keyID, c, ec)
		p, err := f.Decrypt(ctx, keyID, c, ec)
		if err != nil {
			return nil, err
		}
		if kept[name] == nil {
			kept[name] = p
		}
		return kept[name], nil
	}}
}

func changesContext(f *kmstest.Fake) kms.Client {
	return &client{Fake: f, generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
		k, err := f.GenerateDataKey(ctx, keyID, ec)
		if len(ec) == 1 {
			ec["changed"] = "yes"
		}
		return k, err
	}}
}

func clearsCiphertext(f *kmstest.Fake) kms.Client {
	return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
		p, err := f.Decrypt(ctx, keyID, c, ec)
		clear(c)
		return p, err
	}}
}

// confused returns the answer of a concurrent call.
func confused(f *kmstest.Fake) kms.Client {
	var mu sync.Mutex
	busy := 0
	return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
		mu.Lock()
		busy++
		others := busy > 1
		mu.Unlock()
		time.Sleep(time.Millisecond)
		p, err := f.Decrypt(ctx, keyID, c, ec)
		if others && p != nil {
			clear(p)
		}
		mu.Lock()
		busy--
		mu.Unlock()
		return p, err
	}}
}
