//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/sse"
)

// fleet is what all replicas of one service have in common.
type fleet struct {
	URL     string        // of the database
	Dir     string        // objects, each replica's record of events, and what all are told
	Every   time.Duration // how often each one rotates, on average
	Refresh time.Duration // RefreshInterval
	Faulty  bool          // the database may fail
}

func (f *fleet) objects() string { return filepath.Join(f.Dir, "objects") }

// The files that tell replicas what to do.
const (
	isOver = "over" // write, read and rotate no more
	isLast = "last" // the generation of the ring, once all have heard that
)

func (f *fleet) tell(what, text string) error {
	temp := filepath.Join(f.Dir, "."+what)
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(f.Dir, what))
}

func (f *fleet) readNote(what string) (text string, ok bool) {
	b, err := os.ReadFile(filepath.Join(f.Dir, what))
	return string(b), err == nil
}

func (f *fleet) hasEnded() bool {
	_, ok := f.readNote(isOver)
	return ok
}

// event is a line in a replica's record.
type event struct {
	At   time.Time
	Kind string
	ID   string `json:",omitempty"` // the version that a rotation returned, or the object
	From string `json:",omitempty"` // versions of the document, of a swap
	To   string `json:",omitempty"`
	Gen  uint64 `json:",omitempty"`
	Err  string `json:",omitempty"`
}

// The kinds of events.
const (
	swapped     = "swapped"      // From, To
	swapUnsure  = "swap unsure"  // From, Err: it may have happened
	rotated     = "rotated"      // ID
	notRotated  = "not rotated"  // Err
	sawDocument = "saw document" // Gen
	wrote       = "wrote"        // ID
	read        = "read"         // ID
	notYetRead  = "not yet read" // ID, Err: the version is not known here, and the store cannot be asked
	idle        = "idle"         // it writes, reads and rotates no more
	finished    = "finished"     // Gen
	bug         = "bug"          // Err
)

// record is where a replica writes what happens to it.
type record struct {
	mu sync.Mutex
	f  *os.File
}

func (r *record) add(e event) {
	e.At = time.Now()
	line, _ := json.Marshal(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f.Write(append(line, '\n'))
}

// recordingStore records the outcome of swaps.
type recordingStore struct {
	*sqlstore.Store
	record *record
}

func (s recordingStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	next, err := s.Store.Swap(ctx, version, data)
	switch {
	case err == nil:
		s.record.add(event{Kind: swapped, From: version, To: next})
	case !errors.Is(err, keyring.ErrConflict):
		s.record.add(event{Kind: swapUnsure, From: version, Err: err.Error()})
	}
	return next, err
}

// fleetRoot is the root of all rings here.
func fleetRoot() tink.AEADWithContext {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	return root
}

// content is the plaintext of the object of that name.
func content(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return bytes.Repeat(sum[:], 1+int(sum[0])*5) // up to some chunks
}

func objectOf(name string) sse.Object { return sse.Object{Bucket: "fleet", Key: name} }

func writeObject(ctx context.Context, dir, name string, enc sse.Encrypter) error {
	var b bytes.Buffer
	w, err := sse.NewWriter(ctx, &b, enc, objectOf(name), nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(content(name)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(temp, b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, name))
}

func readObject(ctx context.Context, dir, name string, dec sse.Decrypter) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	r, err := sse.NewReader(ctx, bytes.NewReader(b), dec, objectOf(name))
	if err != nil {
		return err
	}
	plaintext, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(plaintext, content(name)) {
		err = errors.New("object holds something else than was written")
	}
	return err
}

// listObjects returns the names of the objects that were written whole.
func listObjects(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// runReplica is one replica of the service: until the fleet ends it writes objects,
// reads those of others, and rotates at random. What must not happen is recorded as a
// bug. It is long because each kind of step is a case of one switch.
func runReplica(f *fleet, name string) {
	file, err := os.OpenFile(filepath.Join(f.Dir, name+".events"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	rec := &record{f: file}
	failed := func(doing string, err error) { rec.add(event{Kind: bug, Err: doing + ": " + err.Error()}) }

	db, err := sql.Open("pgx", f.URL)
	if err != nil {
		failed("open database", err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(2)
	var ring *keyring.Ring
	for ring == nil {
		bounded, cancel := context.WithTimeout(context.Background(), patience)
		ring, err = openRing(bounded, f, rec, db)
		cancel()
		switch {
		case err == nil:
		case !f.Faulty || !errors.Is(err, keyring.ErrStore):
			failed("open ring", err)
			return
		case f.hasEnded():
			return
		default:
			time.Sleep(50 * time.Millisecond)
		}
	}
	run, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { ring.Run(run) })
	defer running.Wait()
	defer stop()

	mode := sse.NewManaged(ring)
	generation := uint64(0)
	saw := func() {
		if g := ring.Stats().Generation; g != generation {
			generation = g
			rec.add(event{Kind: sawDocument, Gen: g})
		}
	}
	nextRotation := time.Now().Add(time.Duration(rand.ExpFloat64() * float64(f.Every)))
	var known []string
	for n := 0; !f.hasEnded(); n++ {
		saw()
		switch {
		case time.Now().After(nextRotation):
			nextRotation = time.Now().Add(time.Duration(rand.ExpFloat64() * float64(f.Every)))
			bounded, cancel := context.WithTimeout(context.Background(), patience)
			info, err := ring.Rotate(bounded)
			cancel()
			switch {
			case err == nil:
				rec.add(event{Kind: rotated, ID: info.ID})
			case f.Faulty && (errors.Is(err, keyring.ErrStore) || errors.Is(err, keyring.ErrConflict)):
				rec.add(event{Kind: notRotated, Err: err.Error()})
			default:
				failed("rotate", err)
			}
		case n%8 == 0: // whatever the store does
			object := fmt.Sprintf("%s-%d", name, n)
			if err := writeObject(context.Background(), f.objects(), object, mode); err != nil {
				failed("write "+object, err)
				break
			}
			rec.add(event{Kind: wrote, ID: object})
		default:
			if n%40 == 1 || len(known) == 0 {
				if known, err = listObjects(f.objects()); err != nil {
					failed("list", err)
				}
			}
			if len(known) == 0 {
				break
			}
			object := known[rand.N(len(known))]
			bounded, cancel := context.WithTimeout(context.Background(), patience)
			err := readObject(bounded, f.objects(), object, mode)
			cancel()
			switch {
			case err == nil:
				rec.add(event{Kind: read, ID: object})
			case f.Faulty && errors.Is(err, keyring.ErrUnknownKey) && errors.Is(err, keyring.ErrStore):
				rec.add(event{Kind: notYetRead, ID: object, Err: err.Error()})
			default:
				failed("read "+object, err)
			}
		}
		time.Sleep(rand.N(20 * time.Millisecond))
	}

	// The replica learns of the last changes of others without any request.
	rec.add(event{Kind: idle})
	for end := time.Now().Add(patience); !f.Faulty && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		saw()
		if last, ok := f.readNote(isLast); ok && last == fmt.Sprint(generation) {
			break
		}
	}
	rec.add(event{Kind: finished, Gen: ring.Stats().Generation})
}

func openRing(ctx context.Context, f *fleet, rec *record, db *sql.DB) (*keyring.Ring, error) {
	s, err := sqlstore.Open(ctx, db, sqlstore.PostgreSQL, "fleet/ring", &sqlstore.Options{Listen: listen(f.URL)})
	if err != nil {
		return nil, err
	}
	opts := &keyring.Options{RefreshInterval: f.Refresh, Logger: slog.New(slog.DiscardHandler)}
	ring, err := keyring.Create(ctx, recordingStore{s, rec}, fleetRoot(), opts)
	if errors.Is(err, keyring.ErrExist) { // another replica was first
		return keyring.Open(ctx, recordingStore{s, rec}, fleetRoot(), opts)
	}
	return ring, err
}
