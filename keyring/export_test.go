package keyring

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/document"
)

// Internals for tests in the external package.
const (
	KEKLabel        = kekLabel
	LoadTimeout     = document.LoadTimeout
	RotationTimeout = rotationTimeout
	RotationPause   = rotationPause
	RotationWait    = rotationWait
	LostGrace       = document.LostGrace
	MissBurst       = missBurst
)

// SetClock replaces the wall clock that ages are measured by.
func (r *Ring) SetClock(now func() time.Time) { r.opts.Now = now }

// KEK returns the bytes of the key-encryption key.
func (k *Key) KEK() []byte { return k.kek.Bytes() }

// MasterKeys returns the bytes of every master key in a document, by key id.
func MasterKeys(ctx context.Context, root tink.AEADWithContext, data []byte) (map[string][]byte, error) {
	o, err := format{}.Open(ctx, root, data, nil)
	if err != nil {
		return nil, err
	}
	handle, err := o.handle()
	if err != nil {
		return nil, err
	}
	keys := make(map[string][]byte)
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, err
		}
		key := entry.Key().(*hkdfprf.Key)
		keys[keyID(o.ring, entry.KeyID())] = key.KeyBytes().Data(insecuresecretdataaccess.Token{})
	}
	return keys, nil
}

// Rechecksum returns data with a checksum that matches.
func Rechecksum(data []byte) []byte {
	end := len(data) - sha256.Size
	sum := sha256.Sum256(data[:end])
	return append(append([]byte(nil), data[:end]...), sum[:]...)
}

// DerivedKeys returns how many keys a passphrase root has derived and keeps.
func DerivedKeys(root tink.AEADWithContext) int { return len(root.(*passphraseRoot).derived) }
