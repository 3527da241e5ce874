package keys

import (
	"context"
	"errors"
	"os"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// Copy is another copy of a ring or of a key service's document, such as a backup.
type Copy struct {
	Name string
	Data []byte
}

// ReadCopies reads copies from files. toWords puts an error of a file into words.
func ReadCopies(ctx context.Context, names []string, toWords func(name string, err error) error) ([]Copy, error) {
	var copies []Copy
	for _, name := range names {
		store, err := keyring.NewFileStore(name)
		var data []byte
		if err == nil {
			data, _, err = store.Load(ctx)
		}
		if err != nil {
			return nil, toWords(name, err)
		}
		copies = append(copies, Copy{name, data})
	}
	return copies, nil
}

// Opens reports whether the document in a store opens under its root.
type Opens func(ctx context.Context, store keyring.Store) error

// DamagedSuffix is added to the name of a file that Rescue put a copy in place of.
const DamagedSuffix = ".damaged"

// Rescue puts a copy that opens in place of a document that is missing, or that is
// damaged, which it keeps under another name. Whatever else is in the file stays. kept is
// that name, if there was something to keep. The error of the copy is badCopy.
func Rescue(ctx context.Context, path string, one Copy, opens Opens) (kept string, badCopy, err error) {
	store, err := keyring.NewFileStore(path)
	if err != nil {
		return "", nil, err
	}
	data, version, err := store.Load(ctx)
	switch {
	case errors.Is(err, keyring.ErrNotExist):
	case err != nil:
		return "", nil, err
	case !errors.Is(opens(ctx, store), keyring.ErrDamaged):
		return "", nil, nil // opening it again says what is wrong with it, if anything is
	}
	proof := keyring.NewMemStore()
	_, badCopy = proof.Swap(ctx, "", one.Data)
	if badCopy == nil {
		badCopy = opens(ctx, proof)
	}
	if badCopy != nil {
		return "", badCopy, nil
	}
	if version != "" {
		kept = path + DamagedSuffix
		if err := writeNew(kept, data); err != nil {
			return "", nil, message.About(kept, err)
		}
	}
	_, err = store.Swap(ctx, version, one.Data)
	return kept, nil, err
}

// writeNew writes a file that must not exist.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
