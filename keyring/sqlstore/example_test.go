package sqlstore_test

import (
	"context"
	"database/sql"
	"log"
	"os"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// Each replica of a service opens the same ring. The driver is whichever the
// service has, here pgx's.
func ExampleOpen() {
	ctx := context.Background()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := sqlstore.Open(ctx, db, sqlstore.PostgreSQL, "blobs/ring", nil)
	if err != nil {
		log.Fatal(err)
	}

	key, err := keyring.ParseKey([]byte(os.Getenv("ROOT_KEY")))
	if err != nil {
		log.Fatal(err)
	}
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Open(ctx, store, root, nil)
	if err != nil {
		log.Fatal(err)
	}
	go ring.Run(ctx)
}
