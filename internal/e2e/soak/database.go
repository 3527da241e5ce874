package main

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/blobseal/blobseal/internal/testbed/pgserver"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// database is a process's connection to the database. It can be cut.
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
	d.opts.Listen = sqlstore.Listen(
		func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, conf) },
		func(n *pgconn.Notification) string { return n.Payload },
	)
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

// cuttable is a store in SQLite, which has no network to cut.
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

// startDatabase starts a PostgreSQL server of our own, which ends with this
// process, or makes a SQLite database where there is no PostgreSQL.
func startDatabase(ctx context.Context, dir string) (dsn string, stop func(), err error) {
	if pgserver.Programs() == "" {
		return "file:" + filepath.Join(dir, "fleet.db"), func() {}, nil
	}
	server, err := pgserver.New()
	if err != nil {
		return "", nil, err
	}
	stop = func() {
		server.Stop(os.Interrupt)
		server.Remove()
	}
	if err := server.Start(ctx); err != nil {
		stop()
		return "", nil, err
	}
	return server.URL(), stop, nil
}
