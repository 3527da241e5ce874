//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/freeport"
)

// postgres is a PostgreSQL server of a test's own.
type postgres struct {
	t    testing.TB
	bin  string // directory of initdb and postgres
	data string
	port int
	conf []string

	mu  sync.Mutex
	cmd *exec.Cmd
	log *bytes.Buffer
}

// startPostgres starts a server with these settings ("name=value"), which ends
// with the test.
func startPostgres(t testing.TB, conf ...string) *postgres {
	t.Helper()
	bin := postgresBin()
	if bin == "" {
		t.Skip("no PostgreSQL: apt-get install postgresql")
	}
	dir, err := os.MkdirTemp("", "blobseal-postgres-") // t.TempDir's parent is closed to other users
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postgres{t: t, bin: bin, data: filepath.Join(dir, "data"), port: freeport.Get(t), conf: conf}
	if attr := p.attr(); attr.Credential != nil {
		require.NoError(t, os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)))
	}
	initdb := p.command("initdb", "-D", p.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	out, err := initdb.CombinedOutput()
	require.NoError(t, err, "%s", out)
	p.start()
	t.Cleanup(func() { p.stop(syscall.SIGQUIT) })
	return p
}

// postgresBin returns the directory of the server's programs, or "".
func postgresBin() string {
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.Sort(candidates)
	slices.Reverse(candidates)
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			candidates = append([]string{path}, candidates...)
		}
	}
	for _, path := range candidates {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "initdb")); err == nil {
			return filepath.Dir(path)
		}
	}
	return ""
}

// attr has a program run as the user postgres if we are root, which the server
// refuses, and end if we do.
func (p *postgres) attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		require.NoError(p.t, err, "the package makes this user")
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		require.NoError(p.t, err)
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		require.NoError(p.t, err)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

func (p *postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.SysProcAttr = p.attr()
	cmd.Dir = filepath.Dir(p.data)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// start starts the server, and waits until it answers.
func (p *postgres) start() {
	p.t.Helper()
	args := []string{"-D", p.data, "-p", fmt.Sprint(p.port), "-h", "127.0.0.1", "-k", "", "-c", "max_connections=200", "-c", "shared_buffers=16MB"}
	for _, setting := range p.conf {
		args = append(args, "-c", setting)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = new(bytes.Buffer)
	p.cmd = p.command("postgres", args...)
	p.cmd.Stderr = p.log
	require.NoError(p.t, p.cmd.Start())
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		conn, err := pgx.Connect(ctx, p.url())
		if err == nil {
			conn.Close(ctx)
			cancel()
			return
		}
		cancel()
		if time.Now().After(deadline) {
			p.cmd.Process.Kill()
			p.cmd.Wait()
			require.NoError(p.t, err, "server does not answer: %s", p.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop stops the server, by SIGINT in order, by SIGQUIT as a crash would.
func (p *postgres) stop(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Signal(sig)
	watchdog := time.AfterFunc(patience, func() {
		p.t.Errorf("waited %v for the server to end after %v", patience, sig)
		p.cmd.Process.Kill()
	})
	p.cmd.Wait()
	watchdog.Stop()
	p.cmd = nil
}

func (p *postgres) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.port)
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

// terminate ends the connections of all others, and returns how many those were.
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

// listen listens on a channel of the server at url: it is what the documentation
// of sqlstore.Options says.
func listen(url string) func(ctx context.Context, channel string, heard func(string)) error {
	return func(ctx context.Context, channel string, heard func(string)) error {
		conn, err := pgx.Connect(ctx, url)
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
}
