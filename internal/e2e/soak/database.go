package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// database is a process's way to the database, which can be cut.
type database struct {
	*sql.DB
	dialect sqlstore.Dialect
	opts    sqlstore.Options

	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

// openDatabase opens a SQLite database ("file:PATH") or PostgreSQL.
func openDatabase(dsn, table string) (*database, error) {
	d := &database{opts: sqlstore.Options{Table: table}}
	if strings.HasPrefix(dsn, "file:") {
		if !strings.Contains(dsn, "?") {
			dsn += "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
		}
		db, err := sql.Open("sqlite", dsn)
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(2)
		d.DB, d.dialect = db, sqlstore.SQLite
		return d, nil
	}
	conf, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	conf.DialFunc = d.dial
	d.DB, d.dialect = stdlib.OpenDB(*conf), sqlstore.PostgreSQL
	d.SetMaxOpenConns(2)
	d.opts.Listen = func(ctx context.Context, channel string, heard func(string)) error {
		conn, err := pgx.ConnectConfig(ctx, conf)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
			return err
		}
		heard("")
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			heard(n.Payload)
		}
	}
	return d, nil
}

// store returns the store of a document.
func (d *database) store(ctx context.Context, name string) (keyring.Store, error) {
	s, err := sqlstore.Open(ctx, d.DB, d.dialect, name, &d.opts)
	if err != nil {
		return nil, err
	}
	if d.dialect == sqlstore.SQLite {
		return cuttable{s, d}, nil
	}
	return s, nil
}

func (d *database) close() { d.DB.Close() }

var errCut = errors.New("cut off from the database")

func (d *database) check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isCut {
		return errCut
	}
	return nil
}

// cut cuts the network to the database, or mends it.
func (d *database) cut(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.isCut = yes
	if yes {
		for _, c := range d.conns {
			c.Close()
		}
		d.conns = nil
	}
}

func (d *database) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isCut {
		conn.Close()
		return nil, errCut
	}
	d.conns = append(d.conns, conn)
	return conn, nil
}

// cuttable is the same for SQLite, to which there is no network.
type cuttable struct {
	keyring.Store
	d *database
}

func (c cuttable) Load(ctx context.Context) ([]byte, string, error) {
	if err := c.d.check(); err != nil {
		return nil, "", err
	}
	return c.Store.Load(ctx)
}

func (c cuttable) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := c.d.check(); err != nil {
		return "", err
	}
	return c.Store.Swap(ctx, version, data)
}

// postgresPrograms returns the directory of PostgreSQL's programs, or "".
func postgresPrograms() string {
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.Sort(paths)
	if path, err := exec.LookPath("initdb"); err == nil {
		paths = append(paths, path)
	}
	if len(paths) == 0 {
		return ""
	}
	return filepath.Dir(paths[len(paths)-1])
}

// freePort returns a port for a server that takes it later: one of those that the
// system does not give, meanwhile, to who asks for any.
func freePort() (int, error) {
	for attempt := 0; ; attempt++ {
		port := 10_000 + rand.N(20_000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, listener.Close()
		}
		if attempt == 100 {
			return 0, err
		}
	}
}

// startDatabase starts a PostgreSQL server of our own, which ends with this
// process, or makes a SQLite database where there is no PostgreSQL.
func startDatabase(ctx context.Context, dir string) (dsn string, stop func(), err error) {
	programs := postgresPrograms()
	if programs == "" {
		return "file:" + filepath.Join(dir, "fleet.db"), func() {}, nil
	}
	home, err := os.MkdirTemp("", "blobseal-postgres-") // dir is closed to other users
	if err != nil {
		return "", nil, err
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	// The server has no reason to end when we are killed, but for the end of its
	// shell's input.
	script := fmt.Sprintf(`set -e
cd %[1]q
%[2]q/initdb -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >log
%[2]q/postgres -D data -p %[3]d -h 127.0.0.1 -k "" -c max_connections=300 >>log 2>&1 &
read end || true
kill -INT $!
wait
rm -rf data log
`, home, programs, port)
	cmd := exec.Command("sh", "-c", script)
	if os.Geteuid() == 0 { // as whom PostgreSQL refuses to run
		cmd = exec.Command("su", "postgres", "-s", "/bin/sh", "-c", script)
		if out, err := exec.Command("chown", "postgres", home).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("chown: %w: %s", err, out)
		}
	}
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		input.Close()
		cmd.Wait()
		os.RemoveAll(home)
	}
	dsn = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			return dsn, stop, conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(home, "log"))
			stop()
			return "", nil, fmt.Errorf("PostgreSQL does not start: %w: %s", err, log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
