// Package sqlstore keeps rings, and the documents of package localkms, in a table of a
// PostgreSQL or SQLite database. It uses database/sql, so you bring the driver.
//
//	db, err := sql.Open("pgx", "postgres://service@db.internal/blobs")
//	...
//	store, err := sqlstore.Open(ctx, db, sqlstore.PostgreSQL, "blobs/ring", nil)
//	...
//	ring, err := keyring.Open(ctx, store, root, nil)
//
// # Table
//
// [Open] creates the table if there is none, and otherwise checks it:
//
//	CREATE TABLE blobseal_documents (
//		name    text  NOT NULL PRIMARY KEY,
//		version text  NOT NULL,
//		data    bytea NOT NULL -- BLOB in SQLite
//	)
//
// Each document is a row. Each write gives it a random version, so a version never names
// two documents, not even after the database was restored from a backup. If your service
// may not create tables, run the statement yourself and grant SELECT, INSERT and UPDATE.
// Anyone who can write to the table can delete a ring or put an old document back, but
// cannot read or forge its keys.
//
// A backup of the database is a backup of its rings. A ring heals after a restore if a
// running process knows what the backup lacks. Otherwise the versions that were added after
// the backup are lost, with everything that they sealed. So keep a separate copy of the
// document after each rotation.
//
// # PostgreSQL
//
// Version 9.6 or later. All replicas connect to the primary server, directly or through a
// pooler; a standby is [ErrStandby]. Behind a pooler in transaction mode,
// pgx's default statement cache fails with SQLSTATE 42P05: add
// default_query_exec_mode=exec to the URL.
//
// A write is on the server's disk before it is acknowledged, even if synchronous_commit is
// off. A failover to an asynchronous standby can still lose the last writes; rings then
// heal. With synchronous replication no write is lost: the store never cancels a write that
// waits for the standby, because PostgreSQL would make it visible without replicating it.
// For the same reason, fence a crashed primary server before you restart it.
//
// Each write notifies [Channel]. With [Options.Listen] the store is a
// [keyring.Watcher], and a ring's Run hears of other replicas' changes at once. With
// pgx, [Listen] returns the function for it.
//
// # SQLite
//
// Version 3.24 or later, for the processes of one machine, on a local disk. Writers wait
// for each other until ctx ends. All connections must have synchronous=FULL, which is the
// default, or EXTRA; Open checks one of them. An in-memory database belongs to one
// connection, so limit its pool to one connection. Copy the database with VACUUM INTO: cp
// silently leaves out what is still in the write-ahead log.
package sqlstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/keyring"
)

// DefaultTable is the table's name if [Options] name none.
const DefaultTable = "blobseal_documents"

// Channel is the PostgreSQL channel that each write notifies, with the document's
// name as payload.
const Channel = "blobseal_documents"

// ListenTimeout is how long a store that began to listen waits for a notification from
// itself.
const ListenTimeout = 10 * time.Second

// MaxSize is the largest document in bytes.
const MaxSize = 64 << 20

var (
	// ErrSchema: the table exists, but is not a table of this package.
	ErrSchema = errors.New("sqlstore: table was not made by this package")

	// ErrDurability: the database may lose writes that it has acknowledged.
	ErrDurability = errors.New("sqlstore: database may lose writes that it acknowledges")

	// ErrStandby: the server is a standby, whose data may be old. Connect to the
	// primary server; with several hosts in the URL, use target_session_attrs=read-write.
	ErrStandby = errors.New("sqlstore: server is a standby")
)

// Options change what [Open] does. The zero Options, and nil, are right for most
// services.
type Options struct {
	// Table is the name of the table: a lower-case letter or underscore, and up to
	// 62 more of these and digits. In PostgreSQL the name of a schema and a dot may
	// precede it; otherwise the search path says where it is. Empty means
	// DefaultTable.
	Table string

	// Listen makes the store a keyring.Watcher. database/sql has no notifications,
	// so Listen needs your driver, and a connection of its own outside of the pool.
	// With pgx, set it to the result of the function [Listen]. For another driver,
	// write a function that listens on channel, calls heard once with "", and then
	// with the payload of each notification. When ctx ends or the connection breaks,
	// it closes the connection and returns the reason.
	//
	// The connection must reach the server itself. A pooler in transaction mode,
	// such as PgBouncer's, accepts LISTEN and delivers nothing. To detect that, the
	// store sends a notification to itself. If it does not arrive within
	// [ListenTimeout], Watch fails, and Run logs that. Open refuses Listen for
	// SQLite, which has no notifications.
	Listen func(ctx context.Context, channel string, heard func(document string)) error
}

// Store is one document in the table. It is safe for concurrent use. It holds no
// resources besides db.
type Store struct {
	db     *sql.DB
	name   string
	sql    statements
	detach chan struct{} // held by the one statement that may outlive its Swap; nil if none may
	listen func(ctx context.Context, channel string, heard func(document string)) error
}

var _ interface {
	keyring.Store
	keyring.Watcher
	keyring.Clock
} = (*Store)(nil)

var (
	validName  = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,200}$`)
	validTable = regexp.MustCompile(`^([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}$`)
)

// Open returns the store of the document name in db. It creates the table if there
// is none, but not the document. The name is 1 to 200 letters, digits, dots, slashes,
// dashes and underscores. Stores of different names share a table. The caller closes
// db when the store is no longer used. ctx bounds the call.
//
// A table of another kind is [ErrSchema]. A SQLite database that may lose writes that
// it acknowledged is [ErrDurability]. Other errors of the database are wrapped in
// [keyring.ErrStore]: opening may work later.
func Open(ctx context.Context, db *sql.DB, d Dialect, name string, opts *Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqlstore: database is nil")
	}
	dialect := dialects[d]
	if dialect == nil {
		return nil, fmt.Errorf("sqlstore: unknown dialect %d", uint8(d))
	}
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("sqlstore: invalid document name %.200q", name)
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Table == "" {
		o.Table = DefaultTable
	}
	if !validTable.MatchString(o.Table) || strings.Contains(o.Table, ".") && !dialect.schemas {
		return nil, fmt.Errorf("sqlstore: invalid table name %.200q", o.Table)
	}
	if o.Listen != nil && !dialect.notifies {
		return nil, fmt.Errorf("sqlstore: %v has no notifications to listen for", d)
	}
	if err := ensureTable(ctx, db, dialect, o.Table); err != nil {
		return nil, openError(ctx, o.Table, err)
	}
	if err := dialect.checkDurability(ctx, db); err != nil {
		return nil, openError(ctx, o.Table, err)
	}
	store := &Store{db: db, name: name, sql: dialect.statements(quote(o.Table)), listen: o.Listen}
	if dialect.exposes {
		store.detach = make(chan struct{}, 1)
	}
	return store, nil
}

// openError returns the error of Open for an error of the table.
func openError(ctx context.Context, table string, err error) error {
	if errors.Is(err, ErrSchema) || errors.Is(err, ErrDurability) {
		return err
	}
	return fmt.Errorf("%w: sqlstore: open table %s: %w", keyring.ErrStore, table, document.WithContext(ctx, err))
}

// Load implements [keyring.Store]. A document larger than [MaxSize] is
// [keyring.ErrDamaged], and is not read. A standby is [ErrStandby].
func (s *Store) Load(ctx context.Context) ([]byte, string, error) {
	var (
		version sql.NullString
		size    sql.NullInt64
		data    []byte
		standby bool
	)
	err := retryOnConflict(ctx, func() error {
		return s.db.QueryRowContext(ctx, s.sql.load, MaxSize, s.name).Scan(&version, &size, &data, &standby)
	})
	switch {
	case err != nil:
		return nil, "", s.wrap(ctx, "load", err)
	case standby:
		return nil, "", s.wrap(ctx, "load", ErrStandby)
	case !version.Valid:
		return nil, "", keyring.ErrNotExist
	case size.Int64 > MaxSize:
		return nil, "", fmt.Errorf("%w: sqlstore: %s is %d bytes, at most %d", keyring.ErrDamaged, s.name, size.Int64, MaxSize)
	case version.String == "":
		return nil, "", fmt.Errorf("%w: sqlstore: %s has no version", keyring.ErrDamaged, s.name)
	}
	return data, version.String, nil
}

// Swap implements [keyring.Store], in one statement.
//
// In PostgreSQL the statement continues when ctx ends: Swap returns, and the next Swap of
// this Store waits until the statement has ended. If Swap canceled a commit that waits for a
// synchronous standby, PostgreSQL would make the commit visible without replicating it, and
// a failover would lose a document that others have already read.
func (s *Store) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if len(data) == 0 || len(data) > MaxSize {
		return "", fmt.Errorf("sqlstore: document of %d bytes, want 1 to %d", len(data), MaxSize)
	}
	if !utf8.ValidString(version) || strings.Contains(version, "\x00") {
		if err := ctx.Err(); err != nil {
			return "", s.wrap(ctx, "swap", err)
		}
		return "", keyring.ErrConflict // not a version, and a database may refuse to compare it
	}
	next := rand.Text()
	statement, args := s.sql.create, []any{s.name, next, data}
	if version != "" {
		statement, args = s.sql.swap, []any{next, data, s.name, version}
	}
	exec := s.exec
	if s.detach != nil {
		exec = s.execDetached
	}
	var written int64
	err := retryOnConflict(ctx, func() (err error) {
		written, err = exec(ctx, statement, args)
		return err
	})
	switch {
	case err != nil:
		return "", s.wrap(ctx, "swap", err)
	case written == 0:
		return "", keyring.ErrConflict
	}
	return next, nil
}

// exec returns the number of rows that a statement wrote.
func (s *Store) exec(ctx context.Context, statement string, args []any) (int64, error) {
	result, err := s.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// execDetached is exec for a statement that must not be canceled. ctx ends the wait for the
// turn, for a connection and for the answer. The statement continues in a goroutine that
// owns copies of the arguments.
func (s *Store) execDetached(ctx context.Context, statement string, args []any) (int64, error) {
	select {
	case s.detach <- struct{}{}:
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: an earlier write is still running", ctx.Err())
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		<-s.detach
		return 0, err
	}
	for i, arg := range args {
		if data, ok := arg.([]byte); ok {
			args[i] = bytes.Clone(data) // the caller may change it after Swap has returned
		}
	}
	type answer struct {
		written int64
		err     error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-s.detach }()
		defer conn.Close()
		result, err := conn.ExecContext(context.WithoutCancel(ctx), statement, args...)
		if err != nil {
			done <- answer{0, err}
			return
		}
		written, err := result.RowsAffected()
		done <- answer{written, err}
	}()
	select {
	case a := <-done:
		return a.written, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Now implements [keyring.Clock] by the clock of a PostgreSQL server. SQLite has none.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if s.sql.clock == "" {
		return time.Time{}, s.wrap(ctx, "read clock", errors.ErrUnsupported)
	}
	var millis int64
	var standby bool
	err := retryOnConflict(ctx, func() error { return s.db.QueryRowContext(ctx, s.sql.clock).Scan(&millis, &standby) })
	if err == nil && standby {
		err = ErrStandby
	}
	if err != nil {
		return time.Time{}, s.wrap(ctx, "read clock", err)
	}
	return time.UnixMilli(millis), nil
}

// MaxSize returns the size of the largest document in bytes. Package localkms asks for it.
func (s *Store) MaxSize() int { return MaxSize }

// wrap returns the error of an operation.
func (s *Store) wrap(ctx context.Context, op string, err error) error {
	return fmt.Errorf("sqlstore: %s %s: %w", op, s.name, document.WithContext(ctx, err))
}
