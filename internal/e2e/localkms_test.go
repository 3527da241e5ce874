//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// kmsProcess is a process that opens a key service in a database, and uses its keys on
// request.
type kmsProcess struct {
	Driver, URL string
	Dialect     sqlstore.Dialect
}

// kmsRequest and kmsReply are lines of its input and output.
type (
	kmsRequest struct {
		KeyID      string
		Ciphertext []byte // to decrypt, or else a data key is made
	}
	kmsReply struct {
		KeyID                 string
		Plaintext, Ciphertext []byte
		Err                   string
	}
)

var kmsContext = kms.Context{"bucket": "photos"}

func openKMS(ctx context.Context, db *sql.DB, d sqlstore.Dialect, create bool) (*localkms.Client, error) {
	s, err := sqlstore.Open(ctx, db, d, "kms", nil)
	if err != nil {
		return nil, err
	}
	open := localkms.Open
	if create {
		open = localkms.Create
	}
	service, err := open(ctx, s, fleetRoot(), &localkms.Options{RefreshInterval: 100 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	return service.Client("", "")
}

// openOrCreateRing opens the ring in a store, or creates it.
func openOrCreateRing(ctx context.Context, s keyring.Store, opts *keyring.Options) (*keyring.Ring, error) {
	ring, err := keyring.Open(ctx, s, fleetRoot(), opts)
	if errors.Is(err, keyring.ErrNotExist) {
		return keyring.Create(ctx, s, fleetRoot(), opts)
	}
	return ring, err
}

// openOrCreateService opens the key service in a store, or creates it.
func openOrCreateService(ctx context.Context, s keyring.Store, opts *localkms.Options) (*localkms.Service, error) {
	service, err := localkms.Open(ctx, s, fleetRoot(), opts)
	if errors.Is(err, keyring.ErrNotExist) {
		return localkms.Create(ctx, s, fleetRoot(), opts)
	}
	return service, err
}

// serveKMS answers requests until its input ends.
func serveKMS(ctx context.Context, p kmsProcess) error {
	db, err := sql.Open(p.Driver, p.URL)
	if err != nil {
		return err
	}
	defer db.Close()
	client, err := openKMS(ctx, db, p.Dialect, false)
	if err != nil {
		return err
	}
	requests, replies := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var request kmsRequest
		if err := requests.Decode(&request); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var reply kmsReply
		if request.Ciphertext == nil {
			var dk *kms.DataKey
			if dk, err = client.GenerateDataKey(ctx, request.KeyID, kmsContext); err == nil {
				reply = kmsReply{KeyID: dk.KeyID, Plaintext: dk.Plaintext(), Ciphertext: dk.Ciphertext}
			}
		} else {
			reply.Plaintext, err = client.Decrypt(ctx, request.KeyID, request.Ciphertext, kmsContext)
		}
		if err != nil {
			reply.Err = err.Error()
		}
		if err := replies.Encode(reply); err != nil {
			return err
		}
	}
}

// remote controls such a process.
type remote struct {
	t   *testing.T
	in  *json.Encoder
	out *json.Decoder
}

func startKMS(t *testing.T, p kmsProcess) *remote {
	t.Helper()
	cmd := childCommand("localkms", p)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { closeKMS(t, cmd, in) })
	return &remote{t: t, in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out))}
}

func closeKMS(t *testing.T, cmd *exec.Cmd, in io.Closer) {
	in.Close()
	require.NoError(t, cmd.Wait())
}

func (r *remote) ask(request kmsRequest) kmsReply {
	r.t.Helper()
	require.NoError(r.t, r.in.Encode(request))
	var reply kmsReply
	require.NoError(r.t, r.out.Decode(&reply))
	return reply
}

// Two processes share a key service in one database. Keys, aliases, rotations and states that
// one sets hold for the other. It is long because it is one history of one service.
func TestLocalKMSInADatabase(t *testing.T) {
	t.Parallel()
	databases := map[string]func(t *testing.T) kmsProcess{
		"PostgreSQL": func(t *testing.T) kmsProcess {
			return kmsProcess{Driver: "pgx", URL: startPostgres(t).url(), Dialect: sqlstore.PostgreSQL}
		},
		"SQLite": func(t *testing.T) kmsProcess {
			return kmsProcess{Driver: "sqlite", URL: sqliteURL(filepath.Join(t.TempDir(), "db"), 1000), Dialect: sqlstore.SQLite}
		},
	}
	for name, start := range databases {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			p := start(t)
			db, err := sql.Open(p.Driver, p.URL)
			require.NoError(t, err)
			defer db.Close()
			client, err := openKMS(ctx, db, p.Dialect, true)
			require.NoError(t, err)
			other := startKMS(t, p)

			key, err := client.CreateKey(ctx, &localkms.CreateKeyInput{Description: "photos"})
			require.NoError(t, err)
			require.NoError(t, client.CreateAlias(ctx, "alias/photos", key.ID))
			made := other.ask(kmsRequest{KeyID: "alias/photos"}) // not known there yet: it looks
			require.Empty(t, made.Err)
			require.Equal(t, key.ARN, made.KeyID)
			plaintext, err := client.Decrypt(ctx, made.KeyID, made.Ciphertext, kmsContext)
			require.NoError(t, err)
			require.True(t, bytes.Equal(made.Plaintext, plaintext))

			_, err = client.RotateKey(ctx, key.ID)
			require.NoError(t, err)
			dk, err := client.GenerateDataKey(ctx, key.ID, kmsContext)
			require.NoError(t, err)
			opened := other.ask(kmsRequest{KeyID: dk.KeyID, Ciphertext: dk.Ciphertext}) // by a version that it has yet to load
			require.Empty(t, opened.Err)
			require.True(t, bytes.Equal(dk.Plaintext(), opened.Plaintext))

			require.NoError(t, client.DisableKey(ctx, key.ID))
			require.Eventually(t, func() bool {
				return other.ask(kmsRequest{KeyID: key.ID}).Err != ""
			}, patience, 20*time.Millisecond, "the other process hears that the key is disabled")
			require.Contains(t, other.ask(kmsRequest{KeyID: key.ID}).Err, ": key is disabled: ")

			// Changes by both at once are all there.
			require.NoError(t, client.EnableKey(ctx, key.ID))
			second, err := openKMS(ctx, db, p.Dialect, false)
			require.NoError(t, err)
			var wg sync.WaitGroup
			errs := make([]error, 2)
			for i, c := range []*localkms.Client{client, second} {
				wg.Go(func() {
					for n := range 10 {
						if err := c.CreateAlias(ctx, fmt.Sprintf("alias/%d-%d", i, n), key.ID); err != nil {
							errs[i] = err
						}
					}
				})
			}
			wg.Wait()
			require.NoError(t, errs[0])
			require.NoError(t, errs[1])
			third, err := openKMS(ctx, db, p.Dialect, false)
			require.NoError(t, err)
			aliases := 0
			for _, err := range third.ListAliases(ctx, key.ID) {
				require.NoError(t, err)
				aliases++
			}
			require.Equal(t, 21, aliases)
		})
	}
}

// A process learns of changes from the database's notifications, long before its own refresh.
// If its listening connection is cut, it learns of what it missed as soon as it listens again.
// It is long because it is one history of one fleet.
func TestLocalKMSHearsOfChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := startPostgres(t)
	admin, err := openKMS(ctx, p.open(t), sqlstore.PostgreSQL, true)
	require.NoError(t, err)
	key, err := admin.CreateKey(ctx, nil)
	require.NoError(t, err)

	const replicas = 4
	var clients []*localkms.Client
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range replicas {
		s := openStore(t, p.open(t), sqlstore.PostgreSQL, "kms", &sqlstore.Options{
			Listen: listen(p.url() + "&application_name=listener"),
		})
		service, err := localkms.Open(ctx, s, fleetRoot(), &localkms.Options{
			RefreshInterval: time.Hour, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		client, err := service.Client("", "")
		require.NoError(t, err)
		clients = append(clients, client)
		wg.Go(func() { service.Run(running) })
	}
	everywhere := func(want error) {
		t.Helper()
		for _, c := range clients {
			require.Eventually(t, func() bool {
				_, err := c.GenerateDataKey(ctx, key.ID, kmsContext)
				return want == nil && err == nil || want != nil && errors.Is(err, want)
			}, time.Minute, 5*time.Millisecond, "%v", want)
		}
	}
	db := p.open(t)
	listeners := func(want int) { // that many connections listen
		t.Helper()
		require.Eventually(t, func() bool {
			var all, listening int
			err := db.QueryRow(`SELECT count(*), count(*) FILTER (WHERE query LIKE 'LISTEN%')
				FROM pg_stat_activity WHERE application_name = 'listener'`).Scan(&all, &listening)
			return err == nil && all == want && listening == want
		}, time.Minute, 20*time.Millisecond)
	}
	listeners(replicas)

	var slowest time.Duration
	for range 5 {
		for _, step := range []struct {
			change func() error
			want   error
		}{
			{func() error { return admin.DisableKey(ctx, key.ID) }, kms.ErrDisabled},
			{func() error { return admin.EnableKey(ctx, key.ID) }, nil},
			{func() error {
				return admin.PutKeyPolicy(ctx, key.ID, `permit (principal, action in [Action::"View", Action::"Administer"], resource);`, nil)
			}, kms.ErrDenied},
			{func() error { return admin.DeleteKeyPolicy(ctx, key.ID) }, nil},
		} {
			require.NoError(t, step.change())
			began := time.Now()
			everywhere(step.want)
			slowest = max(slowest, time.Since(began))
		}
	}
	t.Logf("20 changes reached %d replicas, the slowest in %v", replicas, slowest)

	n, err := p.terminate(ctx, "application_name = 'listener'")
	require.NoError(t, err)
	require.Equal(t, replicas, n)
	require.NoError(t, admin.DisableKey(ctx, key.ID))
	everywhere(kms.ErrDisabled)
	listeners(replicas)
	require.NoError(t, admin.EnableKey(ctx, key.ID))
	everywhere(nil)

	stop()
	wg.Wait()
	listeners(0)
}

// The root of a ring is a key of a key service in the same database. Rotating the key changes
// nothing. If the key is disabled, replicas keep what they have. The ring moves to another
// key.
func TestRingUnderLocalKMS(t *testing.T) {
	ctx := t.Context()
	db := openSQLite(t, sqliteURL(filepath.Join(t.TempDir(), "db"), 1000))
	client, err := openKMS(ctx, db, sqlstore.SQLite, true)
	require.NoError(t, err)
	root := func() (tink.AEADWithContext, string) {
		key, err := client.CreateKey(ctx, nil)
		require.NoError(t, err)
		root, err := keyring.NewKMSRoot(client, key.ARN, &keyring.KMSRootOptions{Principal: kms.Principal{ID: "blob service"}})
		require.NoError(t, err)
		return root, key.ID
	}
	old, oldKey := root()
	s := openStore(t, db, sqlstore.SQLite, "ring", nil)
	ring, err := keyring.Create(ctx, s, old, nil)
	require.NoError(t, err)
	_, err = client.RotateKey(ctx, oldKey)
	require.NoError(t, err)
	_, err = keyring.Open(ctx, s, old, nil)
	require.NoError(t, err, "by the key's older version")

	require.NoError(t, client.DisableKey(ctx, oldKey))
	_, err = keyring.Open(ctx, s, old, nil)
	require.ErrorIs(t, err, keyring.ErrRootUnavailable)
	require.ErrorIs(t, err, kms.ErrDisabled)
	_, err = ring.Rotate(ctx)
	require.ErrorIs(t, err, kms.ErrDisabled)
	_, err = ring.Primary(ctx)
	require.NoError(t, err)

	require.NoError(t, client.EnableKey(ctx, oldKey))
	next, _ := root()
	_, err = keyring.Open(ctx, s, next, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	require.NoError(t, ring.ChangeRoot(ctx, next))
	_, err = client.ScheduleKeyDeletion(ctx, oldKey, 7)
	require.NoError(t, err)
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	_, err = keyring.Open(ctx, s, next, nil)
	require.NoError(t, err)
	_, err = keyring.Open(ctx, s, old, nil)
	require.ErrorIs(t, err, kms.ErrPendingDeletion)
}
