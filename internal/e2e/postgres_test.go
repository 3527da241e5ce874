//go:build linux

package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/pgserver"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// postgres is a PostgreSQL server for one test.
type postgres struct {
	*pgserver.Server
	t testing.TB
}

// emptyPostgres is a server that never runs. Tests start copies of it, and TestMain
// removes it.
var (
	emptyPostgres     *pgserver.Server
	makeEmptyPostgres = sync.OnceValue(func() (err error) {
		emptyPostgres, err = pgserver.New()
		return err
	})
)

// startPostgres starts a server with these settings ("name=value"), which ends
// with the test.
func startPostgres(t testing.TB, conf ...string) *postgres {
	t.Helper()
	if pgserver.Programs() == "" {
		t.Skip("no PostgreSQL: apt-get install postgresql")
	}
	require.NoError(t, makeEmptyPostgres())
	s, err := emptyPostgres.Copy(conf...)
	require.NoError(t, err)
	t.Cleanup(func() { s.Remove() })
	p := &postgres{s, t}
	p.start()
	t.Cleanup(func() { p.stop(syscall.SIGQUIT) })
	return p
}

// standby starts a standby of the server.
func (p *postgres) standby() *postgres {
	p.t.Helper()
	s, err := p.Standby()
	require.NoError(p.t, err)
	standby := &postgres{s, p.t}
	standby.start()
	p.t.Cleanup(func() { standby.stop(syscall.SIGQUIT) })
	return standby
}

// makeSynchronous makes the server's standby synchronous, and waits until it is.
func (p *postgres) makeSynchronous() {
	p.t.Helper()
	p.exec(p.t, `ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`)
	db := p.open(p.t)
	require.Eventually(p.t, func() bool {
		var state string
		return db.QueryRow(`SELECT sync_state FROM pg_stat_replication`).Scan(&state) == nil && state == "sync"
	}, patience, 20*time.Millisecond, "the standby is synchronous")
}

// start starts the server, and waits until it answers.
func (p *postgres) start() {
	p.t.Helper()
	require.NoError(p.t, p.Start(context.Background()))
}

// stop stops the server. SIGINT shuts it down; SIGQUIT is like a crash.
func (p *postgres) stop(sig syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.Stop(sig))
}

func (p *postgres) address() string { return fmt.Sprintf("127.0.0.1:%d", p.Port) }

func (p *postgres) url() string { return p.URL() }

// urlAt returns the URL of a database at an address. limit bounds how long clients take to
// connect.
func urlAt(address string, limit time.Duration) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&connect_timeout=%d", address, limit/time.Second)
}

// open returns a pool of connections, as one process has.
func (p *postgres) open(t testing.TB) *sql.DB { return openPostgres(t, p.url()) }

func openPostgres(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// exec runs statements on the server.
func (p *postgres) exec(t testing.TB, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.url())
	require.NoError(t, err)
	defer conn.Close(context.Background())
	for _, s := range statements {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// terminate ends the connections of all other clients that match where, and returns how many
// it ended.
func (p *postgres) terminate(ctx context.Context, where string) (int, error) {
	conn, err := pgx.Connect(ctx, p.url())
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var n int
	err = conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND `+where).Scan(&n)
	return n, err
}

// listen listens at the server of url.
func listen(url string) func(ctx context.Context, channel string, heard func(string)) error {
	return sqlstore.Listen(
		func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
		func(n *pgconn.Notification) string { return n.Payload },
	)
}
