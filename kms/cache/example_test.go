package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// A cache makes one call for many objects of a bucket. Disabling the key still takes
// effect at once.
func ExampleNew() {
	service := kmstest.NewFake("photos-key") // stands in for a real key service
	cached := cache.New(kmstest.Authorizing{Fake: service}, &cache.Options{
		MaxAge:     time.Minute,
		StaleReads: time.Hour, // reads continue while the key service is down
	})
	defer cached.Invalidate()

	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "uploader", Type: "Service"})
	bucket := kms.Context{"blobseal:object": "photos"}
	for range 1000 {
		if _, err := cached.GenerateDataKey(ctx, "photos-key", bucket); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("calls:", service.Count())

	service.Disable("photos-key")
	_, err := cached.GenerateDataKey(ctx, "photos-key", bucket)
	fmt.Println(errors.Is(err, kms.ErrDisabled))
	// Output:
	// calls: 1
	// true
}
