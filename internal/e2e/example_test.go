package e2e_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/kms/localkms"
)

// A service keeps its ring, and its key service, in the SQLite database that it has
// anyway. Here two replicas open them. The example is long because it is one session,
// to be read from top to bottom.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "service")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	key := make([]byte, 32) // a real service reads it from where it keeps secrets
	rand.Read(key)

	// replica opens both. An operator creates them once, before the first start.
	replica := func(create bool) (*keyring.Ring, *localkms.Client) {
		openRing, openService := keyring.Open, localkms.Open
		if create {
			openRing, openService = keyring.Create, localkms.Create
		}
		db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "service.db")+"?_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
		if err != nil {
			log.Fatal(err)
		}
		root, err := keyring.NewKeyRoot(key)
		if err != nil {
			log.Fatal(err)
		}
		forRing, err := sqlstore.Open(ctx, db, sqlstore.SQLite, "ring", nil)
		if err != nil {
			log.Fatal(err)
		}
		ring, err := openRing(ctx, forRing, root, nil)
		if err != nil {
			log.Fatal(err)
		}
		forKMS, err := sqlstore.Open(ctx, db, sqlstore.SQLite, "kms", nil)
		if err != nil {
			log.Fatal(err)
		}
		service, err := openService(ctx, forKMS, root, nil)
		if err != nil {
			log.Fatal(err)
		}
		client, err := service.Client("", "")
		if err != nil {
			log.Fatal(err)
		}
		return ring, client
	}
	ring, client := replica(true)
	otherRing, otherClient := replica(false)
	fmt.Println("one ring:", ring.ID() == otherRing.ID())

	info, err := ring.Rotate(ctx)
	if err != nil {
		log.Fatal(err)
	}
	version, err := otherRing.Key(ctx, info.ID) // not known here yet: it loads
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("one version:", version.ID() == info.ID)

	made, err := client.CreateKey(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	dk, err := otherClient.GenerateDataKey(ctx, made.ID, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("one key service:", dk.KeyID == made.ARN)
	// Output:
	// one ring: true
	// one version: true
	// one key service: true
}
