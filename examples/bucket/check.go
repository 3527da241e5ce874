package main

import (
	"crypto/rand"
	"log"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
)

func randomKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

func newRoot() tink.AEADWithContext {
	root, err := keyring.NewKeyRoot(randomKey())
	check(err)
	return root
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
