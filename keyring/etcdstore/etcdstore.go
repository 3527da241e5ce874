// Package etcdstore keeps a ring, or the document of package localkms, under a
// key of etcd. It takes the official client, as your service configures it.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: tls})
//	...
//	store, err := etcdstore.New(client, "/blobs/ring")
//	...
//	ring, err := keyring.Open(ctx, store, root, nil)
//
// The value of the key is the document. A write is a transaction on the key's
// revision, and reads are linearizable: both need a majority of the cluster. The
// store is a [keyring.Watcher], so a ring's Run hears of other replicas' changes at
// once.
//
// Give the client the addresses of all members, and set its DialKeepAliveTime to ten
// seconds. Without the latter, the client keeps sending requests to a member that hangs,
// and they last until their ctx ends. A member that lost its peers refuses at once, and the
// client asks another.
//
// etcd accepts requests of up to 1.5 MiB by default. Any ring fits, and so does the
// document of package localkms, which stays below [keyring.MaxDocumentSize] here:
// about 6,000 keys.
//
// A snapshot of the cluster is a backup of the ring. After a restore, a running process
// that knows more writes that back. Otherwise the versions that were added after the
// snapshot are lost, with everything that they sealed. So keep a separate copy of the
// document after each rotation. Restore with --bump-revision and --mark-compacted, or
// watches hear nothing until the cluster reaches its old revision again.
//
// With authentication, run etcd 3.7.3 or later. With Debian's 3.4.23, the client never
// recovers after the server has restarted or the client's token has expired: every request
// fails until the process restarts.
//
// etcd has no clock for clients, so a Store is no [keyring.Clock], and the clocks of the
// processes date changes. Keep those synchronized.
//
// Anyone who can write to the key can delete the ring or put an old document back,
// but cannot read or forge its keys.
package etcdstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/blobseal/blobseal/keyring"
)

const (
	electionWait  = 5 * time.Second        // for the cluster to have a leader
	electionPause = 100 * time.Millisecond // between attempts
)

// Store is the document under one key. It is safe for concurrent use. It holds no
// resources besides the client.
type Store struct {
	client *clientv3.Client
	key    string
}

var _ interface {
	keyring.Store
	keyring.Watcher
} = (*Store)(nil)

// New returns the store under key. It does not ask the cluster. The caller closes the
// client when the store is no longer used.
func New(client *clientv3.Client, key string) (*Store, error) {
	if client == nil || key == "" {
		return nil, errors.New("etcdstore: client is nil or key is empty")
	}
	return &Store{client: client, key: key}, nil
}

// Load implements [keyring.Store].
func (s *Store) Load(ctx context.Context) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	response, err := s.client.Get(clientv3.WithRequireLeader(ctx), s.key)
	if err != nil {
		return nil, "", s.wrap(ctx, "load", err)
	}
	if len(response.Kvs) == 0 {
		return nil, "", keyring.ErrNotExist
	}
	kv := response.Kvs[0]
	return kv.Value, version(kv.ModRevision, kv.Value), nil
}

// Swap implements [keyring.Store], in one transaction. First it checks that old names the
// stored document, and not only its revision.
func (s *Store) Swap(ctx context.Context, old string, data []byte) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(data) == 0 {
		return "", errors.New("etcdstore: empty document")
	}
	var revision int64 // of a key that does not exist
	if old != "" {
		var ok bool
		if revision, ok = parseVersion(old); !ok {
			return "", keyring.ErrConflict
		}
		_, current, err := s.Load(ctx)
		if err != nil && !errors.Is(err, keyring.ErrNotExist) {
			return "", err
		}
		if current != old {
			return "", keyring.ErrConflict
		}
	}
	response, err := s.put(ctx, revision, data)
	switch {
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return "", fmt.Errorf("%w: %w", keyring.ErrFull, s.wrap(ctx, "swap", err))
	case err != nil:
		return "", s.wrap(ctx, "swap", err)
	case !response.Succeeded:
		return "", keyring.ErrConflict
	}
	return version(response.Header.Revision, data), nil
}

// put writes the document if the key has this revision. A member without a leader refuses
// and changes nothing; put then tries the next member, or the same one after an election.
func (s *Store) put(ctx context.Context, revision int64, data []byte) (*clientv3.TxnResponse, error) {
	for begin := time.Now(); ; {
		response, err := s.client.Txn(clientv3.WithRequireLeader(ctx)).
			If(clientv3.Compare(clientv3.ModRevision(s.key), "=", revision)).
			Then(clientv3.OpPut(s.key, string(data))).
			Commit()
		if !errors.Is(err, rpctypes.ErrNoLeader) || time.Since(begin) > electionWait {
			return response, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(electionPause):
		}
	}
}

// Watch implements [keyring.Watcher]. If a member goes away, the client itself continues
// the watch, on another member or later. Watch fails when the cluster ends it.
func (s *Store) Watch(ctx context.Context, changed func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// When this ctx ends, the client closes the channel and frees the watch.
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for response := range s.client.Watch(watching, s.key, clientv3.WithCreatedNotify()) {
		if err := response.Err(); err != nil {
			return s.wrap(ctx, "watch", err)
		}
		if response.Created || len(response.Events) > 0 {
			changed()
		}
	}
	return s.wrap(ctx, "watch", errors.New("the client closed it"))
}

// wrap returns the error of an operation. If ctx has ended, the result also is ctx's error.
func (s *Store) wrap(ctx context.Context, op string, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return fmt.Errorf("etcdstore: %s %q: %w", op, s.key, err)
}

// version names a document by the revision that wrote it, and by a hash, because a cluster
// that was restored from a backup counts some revisions again.
func version(revision int64, data []byte) string {
	sum := sha256.Sum256(data)
	return strconv.FormatInt(revision, 10) + "-" + hex.EncodeToString(sum[:sumSize])
}

const sumSize = 16

// parseVersion returns the revision in a version. It accepts no other spelling.
func parseVersion(v string) (revision int64, ok bool) {
	split := len(v) - 2*sumSize - 1
	if split < 1 || v[split] != '-' {
		return 0, false
	}
	revision, err := strconv.ParseInt(v[:split], 10, 64)
	if err != nil || revision <= 0 || strconv.FormatInt(revision, 10) != v[:split] {
		return 0, false
	}
	sum, err := hex.DecodeString(v[split+1:])
	return revision, err == nil && hex.EncodeToString(sum) == v[split+1:]
}
