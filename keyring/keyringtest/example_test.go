package keyringtest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
)

// A service that is running keeps its keys while the ring's store is down.
func ExampleStore() {
	ctx := context.Background()
	store := keyringtest.NewStore()
	ring, err := keyring.Create(ctx, store, keyringtest.NewRoot(), &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}

	errDown := errors.New("connection refused")
	store.FailLoads(errDown, -1)
	store.FailSwaps(errDown, -1)
	_, err = ring.Primary(ctx)
	fmt.Println("seals:", err == nil)
	_, err = ring.Rotate(ctx)
	fmt.Println("rotates:", !errors.Is(err, errDown))

	store.FailLoads(nil, 0)
	store.FailSwaps(nil, 0)
	store.LoseAnswers(errDown, 1)
	_, err = ring.Rotate(ctx)
	fmt.Println("knows that it rotated:", err == nil)
	if err := ring.Refresh(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("versions:", len(ring.Versions()))
	// Output:
	// seals: true
	// rotates: false
	// knows that it rotated: false
	// versions: 2
}

// A ring rotates when its period has passed by the clock.
func ExampleClock() {
	ctx := context.Background()
	clock := keyringtest.NewClock()
	ring, err := keyring.Create(ctx, keyringtest.NewStore(), keyringtest.NewRoot(), &keyring.Options{
		Period: 30 * 24 * time.Hour,
		Now:    clock.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		clock.Advance(16 * 24 * time.Hour)
		rotated, err := ring.RotateIfDue(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(clock.Now().Format(time.DateOnly), rotated)
	}
	// Output:
	// 2026-01-17 false
	// 2026-02-02 true
}
