package kms

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// newStore is a store that must hold no document yet.
type newStore struct {
	keyring.Store
	name   string
	exists error
}

func (s newStore) Load(ctx context.Context) ([]byte, string, error) {
	data, version, err := s.Store.Load(ctx)
	if err == nil {
		return nil, "", message.Problemf(s.exists, s.name, "%s", s.exists)
	}
	return data, version, err
}
