//go:build linux

package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/doccommands"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// operations is the document whose commands these tests run.
const operations = "../../keyring/OPERATIONS.md"

// needs skips the test unless the command exists.
func needs(t *testing.T, command, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("no %s: apt-get install %s", command, pkg)
	}
}

// startBlobs starts a server with the database that the document names. It returns a
// function that opens the database, and the environment of PostgreSQL's programs.
func startBlobs(t *testing.T) (open func() *sql.DB, env []string) {
	t.Helper()
	needs(t, "psql", "postgresql-client")
	p := startPostgres(t)
	p.exec(t, `CREATE DATABASE blobs`)
	open = func() *sql.DB { return openPostgres(t, strings.Replace(p.url(), "/postgres?", "/blobs?", 1)) }
	return open, []string{"PGHOST=127.0.0.1", fmt.Sprint("PGPORT=", p.Port), "PGUSER=postgres", "PGDATABASE=blobs", "PGSSLMODE=disable"}
}

func quietOptions() *keyring.Options {
	return &keyring.Options{RefreshInterval: time.Second, Logger: slog.New(slog.DiscardHandler)}
}

// testRestore runs the commands that copy and restore a store. The restore loses a rotation
// that followed the copy, and a process that knows the rotation restores it.
func testRestore(t *testing.T, dir string, env []string, commands string, open func() keyring.Store) {
	copying, restoring, found := strings.Cut(commands, "\n")
	require.True(t, found, "%s: two commands", commands)
	ring, err := keyring.Create(t.Context(), open(), fleetRoot(), quietOptions())
	require.NoError(t, err)
	copied, err := ring.Rotate(t.Context())
	require.NoError(t, err)
	doccommands.Run(t, dir, env, copying)
	lost, err := ring.Rotate(t.Context())
	require.NoError(t, err)
	doccommands.Run(t, dir, env, restoring)

	fresh := func() *keyring.Ring {
		r, err := keyring.Open(t.Context(), open(), fleetRoot(), quietOptions())
		require.NoError(t, err)
		return r
	}
	restored := fresh()
	require.Len(t, restored.Versions(), 2)
	_, err = restored.Key(t.Context(), copied.ID)
	require.NoError(t, err, "the copy has what was acknowledged before it")
	_, err = restored.Key(t.Context(), lost.ID)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ring.Run(ctx) }()
	require.Eventually(t, func() bool { return len(fresh().Versions()) == 3 }, patience, 100*time.Millisecond,
		"a running process puts back what the copy lacks")
	_, err = fresh().Key(t.Context(), lost.ID)
	require.NoError(t, err)
	stop()
	require.ErrorIs(t, await.Value(t, ended, "Run to end"), context.Canceled)
}

func TestRestorePostgreSQL(t *testing.T) {
	t.Parallel()
	open, env := startBlobs(t)
	testRestore(t, t.TempDir(), env, doccommands.Commands(t, operations, "`e2e.TestRestorePostgreSQL`"), func() keyring.Store {
		return openStore(t, open(), sqlstore.PostgreSQL, "blobs/ring", nil)
	})
}

func TestRestoreSQLite(t *testing.T) {
	t.Parallel()
	needs(t, "sqlite3", "sqlite3")
	dir := t.TempDir()
	url := "file:" + filepath.Join(dir, "service.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	testRestore(t, dir, nil, doccommands.Commands(t, operations, "`e2e.TestRestoreSQLite`"), func() keyring.Store {
		return openStore(t, openSQLite(t, url), sqlstore.SQLite, "blobs/ring", nil)
	})
}

// A ring goes from PostgreSQL to a file, where it is rotated, and back.
func TestMoveRingToFile(t *testing.T) {
	t.Parallel()
	open, env := startBlobs(t)
	dir := t.TempDir()
	commands := doccommands.Commands(t, operations, "`e2e.TestMoveRingToFile`")
	export, restore, found := strings.Cut(commands, "\n")
	require.True(t, found)
	inDatabase := func() keyring.Store { return openStore(t, open(), sqlstore.PostgreSQL, "blobs/ring", nil) }
	ring, err := keyring.Create(t.Context(), inDatabase(), fleetRoot(), quietOptions())
	require.NoError(t, err)

	doccommands.Run(t, dir, env, export)
	file, err := keyring.NewFileStore(filepath.Join(dir, "my.ring"))
	require.NoError(t, err)
	moved, err := keyring.Open(t.Context(), file, fleetRoot(), quietOptions())
	require.NoError(t, err)
	require.Equal(t, ring.Versions(), moved.Versions())
	_, err = moved.Rotate(t.Context())
	require.NoError(t, err)

	doccommands.Run(t, dir, env, restore)
	back, err := keyring.Open(t.Context(), inDatabase(), fleetRoot(), quietOptions())
	require.NoError(t, err)
	require.Equal(t, moved.Versions(), back.Versions())
	require.NoError(t, ring.Refresh(t.Context()))
	require.Equal(t, moved.Versions(), ring.Versions(), "a process that ran all the time follows")
}
