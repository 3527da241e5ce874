//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// member is a replica of a fleet that seals and encrypts all the time.
type member struct {
	ring    *keyring.Ring
	service *localkms.Service
	client  *localkms.Client
	log     *captured.Buffer
	stop    func()

	mu      sync.Mutex
	objects []object
}

// object is an object that a member has written.
type object struct {
	KeyID string // a version of the ring, or a key of the service
	InKMS bool
	Bytes []byte
}

func admin(ctx context.Context) context.Context {
	return kms.WithPrincipal(ctx, kms.Principal{ID: "admin"})
}

func guest(ctx context.Context) context.Context {
	return kms.WithPrincipal(ctx, kms.Principal{ID: "guest"})
}

// join opens the ring and the key service of that name at an address, or creates them, as a
// process of its own.
func join(t *testing.T, address, name string) *member {
	t.Helper()
	db := openPostgres(t, urlAt(address, 5*time.Second))
	m := &member{log: new(captured.Buffer), stop: func() {}}
	log := slog.New(slog.NewTextHandler(m.log, nil))
	rings, services := openStore(t, db, sqlstore.PostgreSQL, name+"/ring", nil), openStore(t, db, sqlstore.PostgreSQL, name+"/kms", nil)
	ringOptions, kmsOptions := &keyring.Options{RefreshInterval: time.Second, Logger: log}, &localkms.Options{Logger: log}
	var err error
	m.ring, err = openOrCreateRing(t.Context(), rings, ringOptions)
	require.NoError(t, err)
	m.service, err = openOrCreateService(t.Context(), services, kmsOptions)
	require.NoError(t, err)
	m.client, err = m.service.Client("", "")
	require.NoError(t, err)
	return m
}

// work makes the member refresh, and write objects under the ring's primary and under keys.
func (m *member) work(t *testing.T, keys []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() { m.ring.Run(ctx) })
	working.Go(func() { m.service.Run(ctx) })
	working.Go(func() {
		for ctx.Err() == nil {
			m.write(ctx, keys[rand.N(len(keys))])
			time.Sleep(2 * time.Millisecond)
		}
	})
	m.stop = sync.OnceFunc(func() { cancel(); working.Wait() })
	t.Cleanup(m.stop)
}

// write writes one object with the ring and one with the service. If one of them refuses, the
// member does not count its object.
func (m *member) write(ctx context.Context, keyID string) {
	var made []object
	if key, err := m.ring.Primary(ctx); err == nil {
		if b, err := key.Seal([]byte("data key"), nil); err == nil {
			made = append(made, object{KeyID: key.ID(), Bytes: b})
		}
	}
	if b, err := m.client.Encrypt(guest(ctx), keyID, []byte("data key"), nil); err == nil {
		made = append(made, object{KeyID: keyID, InKMS: true, Bytes: b})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects = append(m.objects, made...)
}

// written returns the objects so far.
func (m *member) written() []object {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]object(nil), m.objects...)
}

// reader is a new process that opens objects.
type reader struct{ URL, Name string }

// readAll opens the objects in its input, and writes a line for each one that it cannot open.
func readAll(ctx context.Context, r reader) error {
	db, err := sql.Open("pgx", r.URL)
	if err != nil {
		return err
	}
	defer db.Close()
	rings, err := sqlstore.Open(ctx, db, sqlstore.PostgreSQL, r.Name+"/ring", nil)
	if err != nil {
		return err
	}
	ring, err := keyring.Open(ctx, rings, fleetRoot(), nil)
	if err != nil {
		return err
	}
	services, err := sqlstore.Open(ctx, db, sqlstore.PostgreSQL, r.Name+"/kms", nil)
	if err != nil {
		return err
	}
	service, err := localkms.Open(ctx, services, fleetRoot(), nil)
	if err != nil {
		return err
	}
	client, err := service.Client("", "")
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), bufio.NewWriter(os.Stdout)
	for {
		var o object
		if err := in.Decode(&o); err == io.EOF {
			return out.Flush()
		} else if err != nil {
			return err
		}
		if err := o.open(ctx, ring, client); err != nil {
			fmt.Fprintf(out, "%s: %v\n", o.KeyID, err)
		}
	}
}

func (o object) open(ctx context.Context, ring *keyring.Ring, client *localkms.Client) error {
	if o.InKMS {
		_, err := client.Decrypt(guest(ctx), o.KeyID, o.Bytes, nil)
		return err
	}
	key, err := ring.Key(ctx, o.KeyID)
	if err != nil {
		return err
	}
	_, err = key.Open(o.Bytes, nil)
	return err
}

// openInNewProcess returns a line for each object that a new process cannot open.
func openInNewProcess(t *testing.T, r reader, objects []object) (failures []string) {
	t.Helper()
	cmd := childCommand("reader", r)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	sent := make(chan error, 1)
	go func() {
		buffered := bufio.NewWriter(in)
		encoder := json.NewEncoder(buffered)
		var err error
		for _, o := range objects {
			err = errors.Join(err, encoder.Encode(o))
		}
		sent <- errors.Join(err, buffered.Flush(), in.Close())
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		failures = append(failures, lines.Text())
	}
	require.NoError(t, <-sent)
	require.NoError(t, cmd.Wait())
	return failures
}
