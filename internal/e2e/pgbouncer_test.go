//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
	"github.com/blobseal/blobseal/internal/testbed/pgserver"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// startPgBouncer starts a pooler in front of p, in transaction mode, and returns
// the URL of p's database through it. It stops when the test ends.
func startPgBouncer(t *testing.T, p *postgres) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("no PgBouncer: apt-get install pgbouncer")
	}
	dir := p.Dir() // PgBouncer refuses to run as root, as PostgreSQL does
	port := freeport.Get(t)
	config := filepath.Join(dir, "pgbouncer.ini")
	users := filepath.Join(dir, "users.txt")
	require.NoError(t, os.WriteFile(users, []byte(`"postgres" ""`), 0o644))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
postgres = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 8
max_client_conn = 500
`, p.Port, port, users), 0o644))
	cmd := exec.Command(program, config)
	cmd.SysProcAttr, err = pgserver.Attributes()
	require.NoError(t, err)
	cmd.Dir = dir
	address := fmt.Sprintf("127.0.0.1:%d", port)
	freeport.Run(t, cmd, "tcp", address)
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", address)
}

// TestPgBouncer runs the suite of ring stores through a pooler in transaction mode,
// as the package documentation says to connect: statements through the pooler,
// without a statement cache, and notifications from the server.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	testPostgreSQL(t, p, startPgBouncer(t, p)+"&default_query_exec_mode=exec")
}

// TestPgBouncerNeedsExecMode: pgx's default, a cache of prepared statements, fails
// behind a pooler, as the package documentation says.
func TestPgBouncerNeedsExecMode(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	url := startPgBouncer(t, p)
	s := openStore(t, openPostgres(t, url+"&default_query_exec_mode=exec"), sqlstore.PostgreSQL, "ring", nil)
	_, err := s.Swap(t.Context(), "", []byte("document"))
	require.NoError(t, err)
	cached, err := sqlstore.Open(t.Context(), openPostgres(t, url), sqlstore.PostgreSQL, "ring", nil)
	for range 100 { // until two connections of the pool have prepared statements of one name
		if err != nil {
			break
		}
		var loads sync.WaitGroup
		failures := make(chan error, 16)
		for range cap(failures) {
			loads.Go(func() {
				if _, _, err := cached.Load(t.Context()); err != nil {
					failures <- err
				}
			})
		}
		loads.Wait()
		select {
		case err = <-failures:
		default:
		}
	}
	var state interface{ SQLState() string }
	require.ErrorAs(t, err, &state)
	require.Contains(t, []string{"42P05", "26000"}, state.SQLState(), "%v", err)
}

// TestListenThroughPgBouncer: the pooler accepts LISTEN and delivers nothing. The watch ends
// with an error that says so, instead of waiting for ever.
func TestListenThroughPgBouncer(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	pooled := startPgBouncer(t, p) + "&default_query_exec_mode=exec"
	s := openStore(t, openPostgres(t, pooled), sqlstore.PostgreSQL, "ring", &sqlstore.Options{Listen: listen(pooled)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := s.Watch(ctx, func() {})
	require.ErrorContains(t, err, "not to a pooler")
}
