package keyring_test

import "github.com/blobseal/blobseal/keyring"

// cheap are the weakest costs that are allowed.
var cheap = &keyring.PassphraseParams{Time: 2, Memory: 19 << 10, Threads: 1}
