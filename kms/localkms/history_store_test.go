package localkms_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring/keyringtest"
)

// historyStore is a store with faults, of which at most one is set.
type historyStore struct {
	keyringtest.Store
	down     bool   // every call fails
	failLoad bool   // the next Load fails
	failSwap bool   // the next Swap fails
	loseSwap bool   // the next Swap happens, and fails
	before   func() // runs before the next Swap
	past     [][]byte
}

// goBack makes the store lose its last writes, as a failover can.
func (s *historyStore) goBack(t *testing.T, writes int) {
	_, version, err := s.Store.Load(t.Context())
	require.NoError(t, err)
	_, err = s.Store.Swap(t.Context(), version, s.past[max(0, len(s.past)-1-writes)])
	require.NoError(t, err)
}

func (s *historyStore) Load(ctx context.Context) ([]byte, string, error) {
	if s.down || s.failLoad {
		s.failLoad = false
		return nil, "", errDown
	}
	return s.Store.Load(ctx)
}

func (s *historyStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if f := s.before; f != nil {
		s.before = nil
		f()
	}
	if s.down || s.failSwap {
		s.failSwap = false
		return "", errDown
	}
	stored, err := s.Store.Swap(ctx, version, data)
	if err == nil {
		s.past = append(s.past, slices.Clone(data))
	}
	if s.loseSwap {
		s.loseSwap = false
		return "", errDown
	}
	return stored, err
}

func (s *historyStore) heal() {
	s.down, s.failLoad, s.failSwap, s.loseSwap, s.before = false, false, false, false, nil
}
