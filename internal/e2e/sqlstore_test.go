//go:build linux

package e2e_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// store is a sqlstore with its database, for the suite's capabilities.
type store struct {
	*sqlstore.Store
	db         *sql.DB
	name, path string // path: of a SQLite file
	listener   string // application name of the connection that listens
}

var stores atomic.Int64 // numbers the documents of this process

func openStore(t testing.TB, db *sql.DB, d sqlstore.Dialect, name string, opts *sqlstore.Options) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), db, d, name, opts)
	require.NoError(t, err)
	return s
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	for name, params := range map[string]string{
		"default":         "",
		"serializable":    "&default_transaction_isolation=serializable",
		"repeatable read": "&default_transaction_isolation=repeatable%20read",
		"no statements":   "&default_query_exec_mode=simple_protocol",
	} {
		t.Run(name, func(t *testing.T) { testPostgreSQL(t, p, p.url()+params) })
	}
}

// testPostgreSQL runs the suite of ring stores on p. Statements go to url;
// notifications come from p itself.
func testPostgreSQL(t *testing.T, p *postgres, url string) {
	open := func(t *testing.T, document string) keyring.Store {
		s := store{db: openPostgres(t, url), name: document, listener: fmt.Sprint("listener-", stores.Add(1))}
		s.Store = openStore(t, s.db, sqlstore.PostgreSQL, document, &sqlstore.Options{
			Listen: listen(p.url() + "&application_name=" + s.listener),
		})
		return s
	}
	keyringtest.Run(t, func(t *testing.T) keyring.Store {
		return open(t, fmt.Sprint("ring-", stores.Add(1)))
	}, keyringtest.Capabilities{
		Another: func(t *testing.T, s keyring.Store) keyring.Store { return open(t, s.(store).name) },
		Reopen: func(t *testing.T, s keyring.Store) keyring.Store {
			require.NoError(t, s.(store).db.Close())
			return open(t, s.(store).name)
		},
		Break:   func(t *testing.T, s keyring.Store) { require.NoError(t, s.(store).db.Close()) },
		Watches: true,
		BreakWatch: func(t *testing.T, s keyring.Store) {
			n, err := p.terminate(t.Context(), "application_name = '"+s.(store).listener+"'")
			require.NoError(t, err)
			require.Equal(t, 1, n)
		},
	})
}

// sqliteURL returns the URL with which a service opens a file. busy is how long the driver
// waits for other processes, in milliseconds.
func sqliteURL(path string, busy int, pragmas ...string) string {
	v := url.Values{"_pragma": append(pragmas, fmt.Sprintf("busy_timeout(%d)", busy))}
	return "file:" + path + "?" + v.Encode()
}

func openSQLite(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", url)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dsn    func(path string) string
		damage func(t *testing.T, s store)
	}{
		"rollback journal": {
			func(path string) string { return sqliteURL(path, 1000) },
			func(t *testing.T, s store) { require.NoError(t, s.db.Close()) },
		},
		"WAL": {
			func(path string) string { return sqliteURL(path, 1000, "journal_mode(WAL)", "synchronous(FULL)") },
			func(t *testing.T, s store) {
				s.db.SetMaxIdleConns(0) // no page is remembered
				require.NoError(t, os.WriteFile(s.path, []byte(strings.Repeat("no database", 1000)), 0o600))
			},
		},
		"impatient": { // the driver does not wait for others: the store does
			func(path string) string { return sqliteURL(path, 0) },
			func(t *testing.T, s store) { execute(t, s.db, "DROP TABLE blobseal_documents") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			open := func(t *testing.T, path string) keyring.Store {
				db := openSQLite(t, c.dsn(path))
				return store{Store: openStore(t, db, sqlstore.SQLite, "ring", nil), db: db, path: path}
			}
			keyringtest.Run(t, func(t *testing.T) keyring.Store {
				return open(t, filepath.Join(t.TempDir(), "service.db"))
			}, keyringtest.Capabilities{
				Another: func(t *testing.T, s keyring.Store) keyring.Store { return open(t, s.(store).path) },
				Reopen: func(t *testing.T, s keyring.Store) keyring.Store {
					require.NoError(t, s.(store).db.Close())
					return open(t, s.(store).path)
				},
				Break: func(t *testing.T, s keyring.Store) { c.damage(t, s.(store)) },
			})
		})
	}
}

func execute(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := db.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// TestDatabases runs tests on both kinds of databases, each in an empty one.
func TestDatabases(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, db *sql.DB, d sqlstore.Dialect){
		"documents share a table":            documentsShareATable,
		"versions after a restore":           versionsAfterARestore,
		"schema":                             schema,
		"open at once":                       openAtOnce,
		"foreign rows":                       foreignRows,
		"ctx while others hold the document": ctxWhileOthersHoldTheDocument,
	}
	t.Run("PostgreSQL", func(t *testing.T) {
		p := startPostgres(t)
		databases := 0
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				databases++
				p.exec(t, fmt.Sprintf("CREATE DATABASE test_%d", databases))
				test(t, openPostgres(t, fmt.Sprintf("%s&dbname=test_%d", p.url(), databases)), sqlstore.PostgreSQL)
			})
		}
	})
	t.Run("SQLite", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				test(t, openSQLite(t, sqliteURL(filepath.Join(t.TempDir(), "db"), 1000)), sqlstore.SQLite)
			})
		}
	})
}

// Documents in one table know nothing of each other.
func documentsShareATable(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	ctx := t.Context()
	names := []string{"a", "A", "a/b", "a.b", "a-b", "a_b", "-", ".."}
	for _, name := range names {
		_, err := openStore(t, db, d, name, nil).Swap(ctx, "", []byte(name))
		require.NoError(t, err)
	}
	other := openStore(t, db, d, "a", &sqlstore.Options{Table: "other_documents"})
	_, _, err := other.Load(ctx)
	require.ErrorIs(t, err, keyring.ErrNotExist)
	reserved := openStore(t, db, d, "a", &sqlstore.Options{Table: "select"})
	_, err = reserved.Swap(ctx, "", []byte("in a table with a reserved word's name"))
	require.NoError(t, err)
	for _, name := range names {
		data, _, err := openStore(t, db, d, name, nil).Load(ctx)
		require.NoError(t, err)
		require.Equal(t, name, string(data))
	}
}

// If a document comes back, from a backup or after its row was deleted, its version does not.
func versionsAfterARestore(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	ctx := t.Context()
	s := openStore(t, db, d, "ring", nil)
	v1, err := s.Swap(ctx, "", []byte("one"))
	require.NoError(t, err)
	execute(t, db, "DELETE FROM blobseal_documents")
	again, err := s.Swap(ctx, "", []byte("another one"))
	require.NoError(t, err)
	require.NotEqual(t, v1, again)
	_, err = s.Swap(ctx, v1, []byte("two"))
	require.ErrorIs(t, err, keyring.ErrConflict)
}

func schema(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	blob := map[sqlstore.Dialect]string{sqlstore.PostgreSQL: "bytea", sqlstore.SQLite: "BLOB"}[d]
	for name, c := range map[string]struct {
		columns string
		ok      bool
	}{
		"ours":           {"name text NOT NULL PRIMARY KEY, version text NOT NULL, data " + blob + " NOT NULL", true},
		"and more":       {"seen int, name text NOT NULL PRIMARY KEY, version text NOT NULL, data " + blob + " NOT NULL, note text DEFAULT 'x'", true},
		"other columns":  {"id text NOT NULL PRIMARY KEY", false},
		"no data":        {"name text NOT NULL PRIMARY KEY, version text NOT NULL", false},
		"data is text":   {"name text NOT NULL PRIMARY KEY, version text NOT NULL, data text NOT NULL", false},
		"version counts": {"name text NOT NULL PRIMARY KEY, version int NOT NULL, data " + blob + " NOT NULL", false},
		"no key":         {"name text NOT NULL, version text NOT NULL, data " + blob + " NOT NULL", false},
		"two keys":       {"name text NOT NULL, version text NOT NULL, data " + blob + " NOT NULL, PRIMARY KEY (name, version)", false},
		"nullable data":  {"name text NOT NULL PRIMARY KEY, version text NOT NULL, data " + blob, false},
		"nullable":       {"name text NOT NULL PRIMARY KEY, version text, data " + blob + " NOT NULL", false},
	} {
		t.Run(name, func(t *testing.T) {
			execute(t, db, "DROP TABLE IF EXISTS t", "CREATE TABLE t ("+c.columns+")")
			s, err := sqlstore.Open(t.Context(), db, d, "ring", &sqlstore.Options{Table: "t"})
			if !c.ok {
				require.ErrorIs(t, err, sqlstore.ErrSchema)
				require.NotErrorIs(t, err, keyring.ErrStore)
				return
			}
			require.NoError(t, err)
			_, err = s.Swap(t.Context(), "", []byte("one"))
			require.NoError(t, err)
		})
	}
	execute(t, db, "DROP TABLE t", "CREATE VIEW t AS SELECT 'a' AS name, 'b' AS version, 'c' AS data")
	_, err := sqlstore.Open(t.Context(), db, d, "ring", &sqlstore.Options{Table: "t"})
	require.ErrorIs(t, err, sqlstore.ErrSchema)
}

// The table is made once, by however many at once.
func openAtOnce(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	for round := range 5 {
		table := fmt.Sprintf("documents_%d", round)
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = sqlstore.Open(t.Context(), db, d, fmt.Sprint(i), &sqlstore.Options{Table: table})
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
	}
}

// A document too large, or one that something else wrote, is damage.
func foreignRows(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	s := openStore(t, db, d, "ring", nil)
	huge := map[sqlstore.Dialect]string{sqlstore.PostgreSQL: "convert_to(repeat('x', %d), 'UTF8')", sqlstore.SQLite: "zeroblob(%d)"}[d]
	execute(t, db, "INSERT INTO blobseal_documents (name, version, data) VALUES ('ring', 'v', "+fmt.Sprintf(huge, sqlstore.MaxSize+1)+")")
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, keyring.ErrDamaged)
	execute(t, db, "UPDATE blobseal_documents SET version = '', data = "+fmt.Sprintf(huge, 1))
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, keyring.ErrDamaged)

	for _, n := range []int{0, sqlstore.MaxSize + 1} {
		_, err := s.Swap(t.Context(), "", make([]byte, n))
		require.Error(t, err)
		require.NotErrorIs(t, err, keyring.ErrConflict)
	}
}

// A service may not create tables, or has its own schema.
func TestPostgreSQLPrivileges(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	p.exec(t, "CREATE ROLE service LOGIN", "CREATE ROLE reader LOGIN", "CREATE SCHEMA blobs",
		"REVOKE CREATE ON SCHEMA public FROM PUBLIC", "GRANT USAGE ON SCHEMA blobs TO service")
	as := func(role string) *sql.DB {
		return openPostgres(t, fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", role, p.Port))
	}
	opts := &sqlstore.Options{Table: "blobs.documents"}
	_, err := sqlstore.Open(t.Context(), as("service"), sqlstore.PostgreSQL, "ring", opts)
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorContains(t, err, "permission denied")

	openStore(t, p.open(t), sqlstore.PostgreSQL, "ring", opts)
	p.exec(t, "GRANT SELECT, INSERT, UPDATE ON blobs.documents TO service", "GRANT USAGE ON SCHEMA blobs TO reader", "GRANT SELECT ON blobs.documents TO reader")
	s := openStore(t, as("service"), sqlstore.PostgreSQL, "ring", opts)
	v1, err := s.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	_, err = s.Swap(t.Context(), v1, []byte("two"))
	require.NoError(t, err)

	reader := openStore(t, as("reader"), sqlstore.PostgreSQL, "ring", opts)
	data, version, err := reader.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "two", string(data))
	_, err = reader.Swap(t.Context(), version, []byte("three"))
	require.ErrorContains(t, err, "permission denied")
	require.NotErrorIs(t, err, keyring.ErrConflict)

	p.exec(t, "REVOKE SELECT ON blobs.documents FROM service")
	_, _, err = s.Load(t.Context())
	require.ErrorContains(t, err, "permission denied")
	require.NotErrorIs(t, err, keyring.ErrNotExist)
	p.exec(t, "DROP TABLE blobs.documents")
	_, _, err = s.Load(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, keyring.ErrNotExist)
}

// Acknowledged changes survive a crash of the server, although the database does not
// otherwise wait for its disk.
func TestPostgreSQLDurability(t *testing.T) {
	// A crash of the server loses what was not flushed, except for whole pages that it
	// happened to write before. The server flushes when it has started, and ten seconds
	// later.
	p := startPostgres(t, "synchronous_commit=off", "wal_writer_delay=10s", "wal_writer_flush_after=1GB", "bgwriter_delay=10s")
	openStore(t, p.open(t), sqlstore.PostgreSQL, "ring", nil)
	p.exec(t, "CREATE TABLE others (n int)", "CHECKPOINT")
	version, lost := "", 0
	for n := range 3 {
		p.stop(syscall.SIGINT)
		p.start()
		db := p.open(t)
		s := openStore(t, db, sqlstore.PostgreSQL, "ring", nil)
		document := fmt.Sprint("document ", n)
		var err error
		version, err = s.Swap(t.Context(), version, []byte(document))
		require.NoError(t, err)
		execute(t, db, fmt.Sprintf("INSERT INTO others VALUES (%d)", n))
		p.stop(syscall.SIGQUIT)
		p.start()
		db = p.open(t)
		data, loaded, err := openStore(t, db, sqlstore.PostgreSQL, "ring", nil).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, document, string(data))
		require.Equal(t, version, loaded)
		var kept int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM others WHERE n = $1", n).Scan(&kept))
		lost += 1 - kept
	}
	require.Positive(t, lost, "the server loses nothing that it acknowledged to others, so this proves nothing")
}

func TestSQLiteDurability(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	for pragma, ok := range map[string]bool{"OFF": false, "NORMAL": false, "FULL": true, "EXTRA": true} {
		_, err := sqlstore.Open(t.Context(), openSQLite(t, sqliteURL(path, 1000, "synchronous("+pragma+")")), sqlstore.SQLite, "ring", nil)
		if ok {
			require.NoError(t, err, pragma)
		} else {
			require.ErrorIs(t, err, sqlstore.ErrDurability, pragma)
		}
	}
}

// ctx bounds an operation that waits for another transaction. PostgreSQL may still execute a
// statement before it learns that the caller gave up. The document is then the new one, whole.
// Rings expect that.
func ctxWhileOthersHoldTheDocument(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
	s := openStore(t, db, d, "ring", nil)
	v1, err := s.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "UPDATE blobseal_documents SET data = data")
	require.NoError(t, err)
	for _, end := range []error{context.DeadlineExceeded, context.Canceled} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if end == context.Canceled {
			var stop context.CancelFunc
			ctx, stop = context.WithCancel(t.Context())
			time.AfterFunc(200*time.Millisecond, stop)
		}
		_, err = s.Swap(ctx, v1, []byte("two"))
		require.ErrorIs(t, err, end) // while the other's transaction goes on
	}
	require.NoError(t, tx.Rollback())
	data, version, err := s.Load(t.Context())
	require.NoError(t, err)
	if string(data) == "two" && d == sqlstore.PostgreSQL {
		require.NotEqual(t, v1, version)
		return
	}
	require.Equal(t, "one", string(data))
	require.Equal(t, v1, version)
}

// After Run, a ring leaves no connection, and nothing that would open one.
func TestListenersLeaveNothing(t *testing.T) {
	p := startPostgres(t)
	db := p.open(t)
	s := openStore(t, db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Listen: listen(p.url() + "&application_name=listener")})
	listeners := func() int {
		var n int
		require.NoError(t, db.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'listener'").Scan(&n))
		return n
	}
	before := runtime.NumGoroutine()
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		begun := make(chan struct{})
		ended := make(chan error, 1)
		go func() { ended <- s.Watch(ctx, sync.OnceFunc(func() { close(begun) })) }()
		await.Value(t, begun, "Watch to begin")
		require.Equal(t, 1, listeners())
		cancel()
		require.ErrorIs(t, await.Value(t, ended, "Watch to end"), context.Canceled)
		require.Eventually(t, func() bool { return listeners() == 0 }, patience, 10*time.Millisecond, "the listener disconnects")
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, patience, 10*time.Millisecond, "goroutines end")
}
