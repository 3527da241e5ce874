package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// config is the configuration of all replicas.
type config struct {
	Dir, DSN, Table string
}

// The keys of the key service, as replicas name them.
const (
	objectsKey = "alias/objects" // of objects in SSE-KMS
	rootKey    = "alias/ring"    // the root of the ring
)

// service holds what a replica opens. All of it is in the database, except for the objects
// and for the root of the key service, which is the fleet's only secret.
type service struct {
	db     *database
	kms    *localkms.Client
	ring   *keyring.Ring
	bucket *blob.Bucket
	byKMS  *sse.KMS
	run    func(context.Context)
}

// open opens the service, or makes it if create is set.
func (c config) open(ctx context.Context, log *slog.Logger, create bool) (*service, error) {
	db, err := openDatabase(c.DSN, c.Table)
	if err != nil {
		return nil, err
	}
	keys, err := c.openKeys(ctx, db, log, create)
	if err != nil {
		return nil, err
	}
	client, err := keys.Client("", "")
	if err != nil {
		return nil, err
	}
	if create {
		if err := createKeys(ctx, client); err != nil {
			return nil, err
		}
	}
	ring, err := db.openRing(ctx, client, log, create)
	if err != nil {
		return nil, err
	}

	// The bucket: SSE-S3 by the ring, and SSE-KMS on request.
	files, err := fileblob.OpenBucket(filepath.Join(c.Dir, "objects"), &fileblob.Options{CreateDir: true, Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		return nil, err
	}
	byKMS, err := sse.NewKMS(client, objectsKey, nil)
	if err != nil {
		return nil, err
	}
	bucket, err := blob.NewBucket(files, "fleet", sse.NewManaged(ring), &blob.Options{Decrypters: sse.ByMode{sse.ModeKMS: byKMS}})
	if err != nil {
		return nil, err
	}
	return &service{db: db, kms: client, ring: ring, bucket: bucket, byKMS: byKMS, run: func(ctx context.Context) {
		var wg sync.WaitGroup
		wg.Go(func() { keys.Run(ctx) })
		wg.Go(func() { ring.Run(ctx) })
		wg.Wait()
	}}, nil
}

// openKeys opens or makes the key service.
func (c config) openKeys(ctx context.Context, db *database, log *slog.Logger, create bool) (*localkms.Service, error) {
	text, err := os.ReadFile(filepath.Join(c.Dir, "root.key"))
	if err != nil {
		return nil, err
	}
	key, err := keyring.ParseKey(text)
	if err != nil {
		return nil, err
	}
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		return nil, err
	}
	store, err := db.store(ctx, "kms")
	if err != nil {
		return nil, err
	}
	open := localkms.Open
	if create {
		open = localkms.Create
	}
	return open(ctx, store, root, &localkms.Options{Logger: log})
}

// createKeys makes the keys that replicas name.
func createKeys(ctx context.Context, client *localkms.Client) error {
	for _, alias := range []string{objectsKey, rootKey} {
		key, err := client.CreateKey(ctx, nil)
		if err != nil {
			return err
		}
		if err := client.CreateAlias(ctx, alias, key.ID); err != nil {
			return err
		}
	}
	return nil
}

// openRing opens or makes the ring, whose root is a key of the key service.
func (d *database) openRing(ctx context.Context, client *localkms.Client, log *slog.Logger, create bool) (*keyring.Ring, error) {
	root, err := keyring.NewKMSRoot(client, rootKey, nil)
	if err != nil {
		return nil, err
	}
	store, err := d.store(ctx, "ring")
	if err != nil {
		return nil, err
	}
	open := keyring.Open
	if create {
		open = keyring.Create
	}
	return open(ctx, store, root, &keyring.Options{RefreshInterval: time.Second, Logger: log})
}

// A replica reads requests from its input and writes a reply to each to its output.
type (
	request struct {
		Do     string // put, get, rotate, rotate key, cut, mend, status
		Object string `json:",omitempty"`
		Data   []byte `json:",omitempty"`
		KMS    bool   `json:",omitempty"` // put: SSE-KMS
	}
	reply struct {
		Data    []byte               `json:",omitempty"`
		Version string               `json:",omitempty"` // of the ring: rotate
		Learned map[string]time.Time `json:",omitempty"` // status: when each version became known here
		Kind    string               `json:",omitempty"` // of error
		Err     string               `json:",omitempty"`
	}
)

// The kinds of errors that a client must be ready for.
const (
	unknownKey  = "unknown key"             // made elsewhere, and the store cannot be asked
	unavailable = "key service unavailable" // the same, in the key service
	otherError  = "other"
)

// replicate is a replica's main. It ends with its input.
func replicate(c config) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := c.open(ctx, slog.New(slog.DiscardHandler), false)
	if err != nil {
		return err
	}
	defer s.db.close()
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { s.run(ctx) })
	var known seen
	known.look(s.ring)
	background.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
			known.look(s.ring)
		}
	})

	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var req request
		if err := in.Decode(&req); err != nil {
			return nil // our parent has ended, or wants us to
		}
		bounded, cancel := context.WithTimeout(ctx, patience)
		rep, err := s.serve(bounded, req)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, keyring.ErrUnknownKey) && errors.Is(err, keyring.ErrStore):
			rep.Kind, rep.Err = unknownKey, err.Error()
		case errors.Is(err, kms.ErrUnavailable):
			rep.Kind, rep.Err = unavailable, err.Error()
		default:
			rep.Kind, rep.Err = otherError, err.Error()
		}
		if req.Do == "status" {
			rep.Learned = known.copy()
		}
		if err := out.Encode(rep); err != nil {
			return err
		}
	}
}

func (s *service) serve(ctx context.Context, req request) (rep reply, err error) {
	switch req.Do {
	case "put":
		bucket := s.bucket
		if req.KMS {
			if bucket, err = s.bucket.With(blob.Request{Cipher: s.byKMS}); err != nil {
				return rep, err
			}
		}
		err = bucket.WriteAll(ctx, req.Object, req.Data, nil)
	case "get":
		rep.Data, err = s.bucket.ReadAll(ctx, req.Object)
	case "rotate":
		var info keyring.Version
		info, err = s.ring.Rotate(ctx)
		rep.Version = info.ID
	case "rotate key":
		_, err = s.kms.RotateKey(ctx, objectsKey)
	case "cut", "mend":
		s.db.cut(req.Do == "cut")
	}
	return rep, err
}

// seen records when a replica learned of each version of the ring.
type seen struct {
	mu         sync.Mutex
	generation uint64
	at         map[string]time.Time
}

func (s *seen) look(ring *keyring.Ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, generation := time.Now(), ring.Stats().Generation
	if generation == s.generation {
		return
	}
	s.generation = generation
	if s.at == nil {
		s.at = make(map[string]time.Time)
	}
	for _, info := range ring.Versions() {
		if _, ok := s.at[info.ID]; !ok {
			s.at[info.ID] = now
		}
	}
}

func (s *seen) copy() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(map[string]time.Time, len(s.at))
	for id, at := range s.at {
		c[id] = at
	}
	return c
}

// content is the plaintext of the object of that name: 32 bytes to 40 KB.
func content(object string) []byte {
	sum := sha256.Sum256([]byte(object))
	return bytes.Repeat(sum[:], 1+int(sum[0])*5)
}
