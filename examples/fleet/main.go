// Fleet is a service of three processes that share one key ring in a database.
// Each process reads what the others write, also after one of them has rotated the
// ring, and after one was killed and started again. It needs nothing but Go:
//
//	go run ./examples/fleet
//
// The processes share a SQLite database and a directory of objects. A fleet on
// several machines uses PostgreSQL or etcd, and an object store. If
// BLOBSEAL_FLEET_METRICS names a directory, each process serves metrics for
// Prometheus and writes its address there.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob/fileblob"
	_ "modernc.org/sqlite"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/sse"
)

func main() {
	log.SetFlags(0)
	if dir := os.Getenv(replicaEnv); dir != "" {
		check(replicate(context.Background(), dir, os.Stdin, os.Stdout))
		return
	}
	check(operate(context.Background()))
}

// service is what each process has open.
type service struct {
	ring   *keyring.Ring
	bucket *blob.Bucket
}

// openService opens the ring and the bucket. An operator creates the ring once,
// before the fleet starts.
func openService(ctx context.Context, dir string, create bool) (*service, error) {
	key, err := os.ReadFile(filepath.Join(dir, "root.key")) // in production: a secret, or a key service's key
	if err != nil {
		return nil, err
	}
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "fleet.db")+"?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	store, err := sqlstore.Open(ctx, db, sqlstore.SQLite, "ring", nil)
	if err != nil {
		return nil, err
	}
	open := keyring.Open
	if create {
		open = keyring.Create
	}
	ring, err := open(ctx, store, root, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	files, err := fileblob.OpenBucket(filepath.Join(dir, "objects"), &fileblob.Options{CreateDir: true, NoTempDir: true})
	if err != nil {
		return nil, err
	}
	telemetry, err := newTelemetry()
	if err != nil {
		return nil, err
	}
	telemetry.ObserveRing("fleet", ring)
	bucket, err := blob.NewBucket(files, "fleet", telemetry.Cipher(sse.NewManaged(ring)), nil)
	if err != nil {
		return nil, err
	}
	return &service{ring, bucket}, nil
}

// replicate is a process of the fleet. It serves one request a line: "put NAME TEXT",
// "get NAME" or "rotate". The ring rotates by itself, too, every 90 days.
func replicate(ctx context.Context, dir string, requests io.Reader, replies io.Writer) error {
	s, err := openService(ctx, dir, false)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	go s.ring.Run(running)
	for lines := bufio.NewScanner(requests); lines.Scan(); {
		reply, err := s.serve(ctx, lines.Text())
		if err != nil {
			reply = "error: " + err.Error()
		}
		fmt.Fprintln(replies, reply)
	}
	return nil
}

func (s *service) serve(ctx context.Context, request string) (string, error) {
	verb, rest, _ := strings.Cut(request, " ")
	name, text, _ := strings.Cut(rest, " ")
	switch verb {
	case "put":
		return "stored " + name, s.bucket.WriteAll(ctx, name, []byte(text), nil)
	case "get":
		data, err := s.bucket.ReadAll(ctx, name)
		return string(data), err
	case "rotate":
		info, err := s.ring.Rotate(ctx)
		return info.ID, err
	}
	return "", errors.New("unknown request")
}

// operate is the operator's part: it makes the ring, runs the fleet, and moves all
// objects to the newest version of the ring.
func operate(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "blobseal-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key := make([]byte, 32)
	rand.Read(key)
	check(os.WriteFile(filepath.Join(dir, "root.key"), key, 0o600))
	s, err := openService(ctx, dir, true)
	if err != nil {
		return err
	}

	ann, bob, cid := start(dir), start(dir), start(dir)
	ann.ask("put a written before the rotation")
	fmt.Println("bob reads a:", bob.ask("get a"))
	fmt.Println("bob rotates to version", bob.ask("rotate"))
	bob.ask("put b written under the new version")
	fmt.Println("cid reads b:", cid.ask("get b")) // cid meets an unknown version, and asks the store

	ann.kill()
	ann = start(dir)
	fmt.Println("ann, after a restart, reads a and b:", ann.ask("get a"), "and", ann.ask("get b"))

	// After a rewrap no object needs the old version.
	check(s.ring.Refresh(ctx))
	report, err := jobs.Rewrap(ctx, s.bucket, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%d object was rewrapped to %s\n", report.Done, report.Target.KeyID)
	for _, replica := range []*replica{ann, bob, cid} {
		replica.ask("get a")
		replica.kill()
	}
	fmt.Println("all as it should be")
	return nil
}

const replicaEnv = "BLOBSEAL_FLEET_REPLICA"

// replica is a process of the fleet, as the operator sees it.
type replica struct {
	cmd      *exec.Cmd
	requests io.Writer
	replies  *bufio.Scanner
}

func start(dir string) *replica {
	program, err := os.Executable()
	check(err)
	r := &replica{cmd: exec.Command(program)}
	r.cmd.Env = append(os.Environ(), replicaEnv+"="+dir)
	r.cmd.Stderr = os.Stderr
	r.requests, err = r.cmd.StdinPipe()
	check(err)
	replies, err := r.cmd.StdoutPipe()
	check(err)
	r.replies = bufio.NewScanner(replies)
	check(r.cmd.Start())
	return r
}

// ask sends a request and returns the reply, which must come within a minute.
func (r *replica) ask(request string) string {
	timeout := time.AfterFunc(time.Minute, r.kill)
	defer timeout.Stop()
	fmt.Fprintln(r.requests, request)
	if !r.replies.Scan() || strings.HasPrefix(r.replies.Text(), "error: ") {
		log.Fatalf("%s: no success: %s", request, r.replies.Text())
	}
	return r.replies.Text()
}

func (r *replica) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
