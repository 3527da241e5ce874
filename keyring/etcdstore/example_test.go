package etcdstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/etcdstore"
)

// Each replica of a service opens the same ring.
func ExampleNew() {
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"etcd-1:2379", "etcd-2:2379", "etcd-3:2379"}, DialTimeout: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	store, err := etcdstore.New(client, "/blobs/ring")
	if err != nil {
		log.Fatal(err)
	}
	key := make([]byte, 32) // a real service reads it from its secrets
	rand.Read(key)
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Create(ctx, store, root, nil)
	if err != nil {
		log.Fatal(err)
	}
	go ring.Run(ctx)
	fmt.Println(len(ring.Versions()), "version")
}
