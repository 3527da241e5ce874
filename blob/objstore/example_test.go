package objstore_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"strings"

	thanos "github.com/thanos-io/objstore"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/objstore"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// A service that keeps blocks in Thanos' objstore need not know that they are encrypted.
func ExampleNewBucket() {
	ctx := context.Background()
	cipher, err := sse.NewKMS(kmstest.NewFake("metrics"), "metrics", nil) // a real service has awskms, localkms, ...
	if err != nil {
		log.Fatal(err)
	}
	inner := thanos.NewInMemBucket() // or any other, from github.com/thanos-io/objstore/client
	var bucket thanos.Bucket
	bucket, err = objstore.NewBucket(inner, "metrics", cipher, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()

	if err := bucket.Upload(ctx, "01JZ/index", strings.NewReader("the index of a block")); err != nil {
		log.Fatal(err)
	}
	r, err := bucket.GetRange(ctx, "01JZ/index", 4, 5)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	part, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	attrs, err := bucket.Attributes(ctx, "01JZ/index")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q of %d bytes\n", part, attrs.Size)
	fmt.Println("stored in the clear:", strings.Contains(string(inner.Objects()["01JZ/index"]), "index"))
	// Output:
	// "index" of 20 bytes
	// stored in the clear: false
}

// Each tenant has a key in the key service. Deleting the key shreds the tenant's
// blocks.
func Example_tenants() {
	ctx := context.Background()
	service := kmstest.NewFake("red", "blue") // a real service has awskms, localkms, ...
	byTenant := make(map[string]sse.Cipher)
	for _, tenant := range []string{"red", "blue"} {
		cipher, err := sse.NewKMS(service, tenant, nil)
		if err != nil {
			log.Fatal(err)
		}
		byTenant[tenant+"/"] = cipher
	}
	cipher, err := blob.ByPrefix(byTenant)
	if err != nil {
		log.Fatal(err)
	}
	bucket, err := objstore.NewBucket(thanos.NewInMemBucket(), "metrics", cipher, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"red/01JZ/index", "blue/01JZ/index"} {
		if err := bucket.Upload(ctx, name, strings.NewReader("index of "+name)); err != nil {
			log.Fatal(err)
		}
	}

	service.RemoveKey("red")
	for finding, err := range jobs.Check(ctx, bucket.Encrypted(), nil) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(finding.Key, finding.Err == nil)
	}
	r, err := bucket.Get(ctx, "blue/01JZ/index")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	p, err := io.ReadAll(r)
	fmt.Printf("%s %v\n", p, err)
	// Output:
	// blue/01JZ/index true
	// red/01JZ/index false
	// index of blue/01JZ/index <nil>
}
