package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// These tests need no database: they check how the store handles a driver's answers. Package
// internal/e2e tests the store with real databases.

// scripted is a driver that has a valid table, and otherwise gives the answers of a test.
type scripted struct {
	mu      sync.Mutex
	answers []answer // to the next statements; the last one repeats
	asked   int
	sent    chan<- string // if set, takes the payload of notifications

	cancelled bool // a statement that waited for release was cancelled meanwhile
}

type answer struct {
	err      error
	affected int64
	row      []driver.Value
	hang     bool // until ctx ends, and then return err
	standby  bool
	release  chan struct{} // if set, wait for it even if ctx ends
}

func (s *scripted) answer(answers ...answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers, s.asked = answers, 0
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *scripted) next(ctx context.Context) answer {
	s.mu.Lock()
	a := s.answers[min(s.asked, len(s.answers)-1)]
	s.asked++
	s.mu.Unlock()
	if a.hang {
		<-ctx.Done()
	}
	if a.release != nil {
		<-a.release
		s.mu.Lock()
		s.cancelled = s.cancelled || ctx.Err() != nil
		s.mu.Unlock()
	}
	return a
}

func (s *scripted) Connect(context.Context) (driver.Conn, error) { return &conn{s}, nil }
func (s *scripted) Driver() driver.Driver                        { return nil }

type conn struct{ s *scripted }

func (c *conn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not needed") }
func (c *conn) Close() error                        { return nil }
func (c *conn) Begin() (driver.Tx, error)           { return nil, errors.New("one statement, no transaction") }

func (c *conn) ExecContext(ctx context.Context, statement string, args []driver.NamedValue) (driver.Result, error) {
	a := c.s.next(ctx)
	if c.s.sent != nil && a.err == nil && strings.HasPrefix(statement, "SELECT pg_notify") {
		c.s.sent <- args[0].Value.(string)
	}
	return driver.RowsAffected(a.affected), a.err
}

func (c *conn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	switch {
	case strings.Contains(query, "pg_attribute"):
		return &rows{columns: 4, rows: [][]driver.Value{
			{"name", "text", true, true}, {"version", "text", true, false}, {"data", "bytea", true, false},
		}}, nil
	case strings.Contains(query, "pragma_table_info"):
		return &rows{columns: 4, rows: [][]driver.Value{
			{"name", "text", true, true}, {"version", "text", true, false}, {"data", "blob", true, false},
		}}, nil
	case strings.HasPrefix(query, "PRAGMA synchronous"):
		return &rows{columns: 1, rows: [][]driver.Value{{int64(2)}}}, nil
	}
	a := c.s.next(ctx)
	if a.err != nil {
		return nil, a.err
	}
	row := make([]driver.Value, 4) // version, size, data, whether it is a standby
	row[3] = a.standby
	copy(row, a.row)
	return &rows{columns: 4, rows: [][]driver.Value{row}}, nil
}

type rows struct {
	columns int
	rows    [][]driver.Value
}

func (r *rows) Columns() []string { return make([]string, r.columns) }
func (r *rows) Close() error      { return nil }
func (r *rows) Next(dest []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(dest, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}

func open(t *testing.T, d sqlstore.Dialect, opts *sqlstore.Options) (*sqlstore.Store, *scripted) {
	t.Helper()
	s := new(scripted)
	db := sql.OpenDB(s)
	t.Cleanup(func() { db.Close() })
	store, err := sqlstore.Open(t.Context(), db, d, "ring", opts)
	require.NoError(t, err)
	return store, s
}

func TestOpenRefuses(t *testing.T) {
	db := sql.OpenDB(new(scripted))
	defer db.Close()
	listen := func(context.Context, string, func(string)) error { return nil }
	for name, c := range map[string]struct {
		db      *sql.DB
		dialect sqlstore.Dialect
		name    string
		opts    *sqlstore.Options
	}{
		"no database":          {nil, sqlstore.PostgreSQL, "ring", nil},
		"no dialect":           {db, 0, "ring", nil},
		"unknown dialect":      {db, 3, "ring", nil},
		"no name":              {db, sqlstore.PostgreSQL, "", nil},
		"name with a space":    {db, sqlstore.PostgreSQL, "my ring", nil},
		"name with a quote":    {db, sqlstore.PostgreSQL, "ring'", nil},
		"name with a line end": {db, sqlstore.PostgreSQL, "ring\n", nil},
		"name with a zero":     {db, sqlstore.PostgreSQL, "ring\x00", nil},
		"name beyond ASCII":    {db, sqlstore.PostgreSQL, "rïng", nil},
		"long name":            {db, sqlstore.PostgreSQL, strings.Repeat("r", 201), nil},
		"quoted table":         {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: `t" (x int); --`}},
		"table with a space":   {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: "my table"}},
		"table in capitals":    {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: "Documents"}},
		"table with a digit":   {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: "1table"}},
		"table and line end":   {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: "documents\n"}},
		"long table":           {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: strings.Repeat("t", 64)}},
		"table of a database":  {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: "a.b.c"}},
		"schema alone":         {db, sqlstore.PostgreSQL, "ring", &sqlstore.Options{Table: "a."}},
		"schema in SQLite":     {db, sqlstore.SQLite, "ring", &sqlstore.Options{Table: "main.t"}},
		"listening in SQLite":  {db, sqlstore.SQLite, "ring", &sqlstore.Options{Listen: listen}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sqlstore.Open(t.Context(), c.db, c.dialect, c.name, c.opts)
			require.Error(t, err)
			require.Nil(t, s)
			require.NotErrorIs(t, err, keyring.ErrStore)
		})
	}
}

// sqlState and sqliteCode are what drivers' errors tell.
type (
	sqlState   string
	sqliteCode int
)

func (e sqlState) Error() string    { return "SQLSTATE " + string(e) }
func (e sqlState) SQLState() string { return string(e) }
func (e sqliteCode) Error() string  { return "sqlite" }
func (e sqliteCode) Code() int      { return int(e) }

// The store repeats statements that failed because of a conflict, however the driver reports
// it, and no others.
func TestCollisions(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		again bool
	}{
		"serialization failure": {sqlState("40001"), true},
		"deadlock":              {sqlState("40P01"), true},
		"unique violation":      {sqlState("23505"), false},
		"no such table":         {sqlState("42P01"), false},
		"shut down":             {sqlState("57P01"), false},
		"busy":                  {sqliteCode(5), true},
		"busy snapshot":         {sqliteCode(5 | 2<<8), true},
		"locked":                {sqliteCode(6), true},
		"full":                  {sqliteCode(13), false},
		"locked in words":       {errors.New("database is locked (5) (SQLITE_BUSY)"), true},
		"table locked in words": {errors.New("database table is locked: t"), true},
		"reset":                 {errors.New("connection reset by peer"), false},
	} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				s, script := open(t, sqlstore.SQLite, nil)
				script.answer(answer{err: c.err}, answer{err: c.err}, answer{affected: 1, row: []driver.Value{"v", int64(1), []byte("x")}})
				version, err := s.Swap(t.Context(), "", []byte("x"))
				if !c.again {
					require.ErrorIs(t, err, c.err)
					require.NotErrorIs(t, err, keyring.ErrConflict)
					require.Equal(t, 1, script.count())
					_, _, err = s.Load(t.Context())
					require.ErrorIs(t, err, c.err)
					require.NotErrorIs(t, err, keyring.ErrNotExist)
					return
				}
				require.NoError(t, err)
				require.NotEmpty(t, version)
				require.Equal(t, 3, script.count())

				script.answer(answer{err: c.err}, answer{row: []driver.Value{"v", int64(1), []byte("x")}})
				data, _, err := s.Load(t.Context())
				require.NoError(t, err)
				require.Equal(t, "x", string(data))

				script.answer(answer{err: c.err}) // for ever
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				_, err = s.Swap(ctx, "v", []byte("x"))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, c.err)
				require.Equal(t, 10*time.Second, time.Since(start))
				require.InDelta(t, 130, script.count(), 70, "tries in ten seconds")
			})
		})
	}
}

// In PostgreSQL the statement of a Swap outlives ctx, because a commit that is canceled while
// it waits for a standby becomes visible. The next Swap waits for the statement.
func TestSwapIsNotCancelled(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		s, script := open(t, sqlstore.PostgreSQL, nil)
		release := make(chan struct{})
		script.answer(answer{affected: 1, release: release}, answer{affected: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Swap(ctx, "v", []byte("x"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))

		next, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Swap(next, "v", []byte("y"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "earlier write")
		require.Equal(t, 1, script.count())
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, keyring.ErrNotExist, "loads do not wait")

		close(release)
		synctest.Wait()
		require.False(t, script.cancelled)
		_, err = s.Swap(t.Context(), "v", []byte("z"))
		require.NoError(t, err)
	})
}

// A standby is refused, with or without a document: its data may be old.
func TestStandbyIsRefused(t *testing.T) {
	s, script := open(t, sqlstore.PostgreSQL, nil)
	for _, row := range [][]driver.Value{nil, {"v", int64(1), []byte("x")}} {
		script.answer(answer{row: row, standby: true})
		_, _, err := s.Load(t.Context())
		require.ErrorIs(t, err, sqlstore.ErrStandby)
		require.NotErrorIs(t, err, keyring.ErrNotExist)
	}
}

// If a driver hides that ctx ended, the store's error still shows it.
func TestEndOfCtxShows(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		s, script := open(t, sqlstore.SQLite, nil)
		hidden := errors.New("interrupted")
		script.answer(answer{hang: true, err: hidden})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Swap(ctx, "", []byte("x"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, hidden)
		require.ErrorContains(t, err, "ring")
	})
}

func TestAnswersToSwap(t *testing.T) {
	s, script := open(t, sqlstore.PostgreSQL, nil)
	script.answer(answer{affected: 0})
	_, err := s.Swap(t.Context(), "v", []byte("x"))
	require.ErrorIs(t, err, keyring.ErrConflict)
	script.answer(answer{affected: 1})
	seen := make(map[string]bool)
	for range 100 {
		version, err := s.Swap(t.Context(), "v", []byte("x"))
		require.NoError(t, err)
		require.False(t, seen[version])
		seen[version] = true
	}
	script.answer(answer{err: errors.New("not to be asked")})
	for _, version := range []string{"\x00", "a\x00", "\xff"} {
		_, err = s.Swap(t.Context(), version, []byte("x"))
		require.ErrorIs(t, err, keyring.ErrConflict)
	}
	require.Zero(t, script.count())
}

func TestWatch(t *testing.T) {
	t.Run("without Listen", func(t *testing.T) {
		s, _ := open(t, sqlstore.PostgreSQL, nil)
		require.ErrorIs(t, s.Watch(t.Context(), func() {}), errors.ErrUnsupported)
	})
	broken := errors.New("connection reset by peer")
	for name, end := range map[string]error{"fails": broken, "ends": nil} {
		t.Run("Listen "+name, func(t *testing.T) {
			var calls int
			s, script := open(t, sqlstore.PostgreSQL, &sqlstore.Options{
				Listen: func(_ context.Context, channel string, heard func(string)) error {
					require.Equal(t, sqlstore.Channel, channel)
					for _, document := range []string{"", "other", "ring", "ring2", "Ring", "ring"} {
						heard(document)
					}
					return end
				},
			})
			script.answer(answer{})
			err := s.Watch(t.Context(), func() { calls++ })
			require.Error(t, err)
			if end != nil {
				require.ErrorIs(t, err, end)
			}
			require.Equal(t, 3, calls, "its own document, and the begin")
		})
	}
}

// A pooler accepts LISTEN and delivers nothing. The watch must not wait for ever.
func TestWatchNoticesSilence(t *testing.T) {
	for name, test := range map[string]struct {
		probe   answer
		deliver bool
		deaf    bool
	}{
		"delivered":         {deliver: true},
		"not delivered":     {deaf: true},
		"could not be sent": {probe: answer{err: errors.New("connection refused")}},
	} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				notified := make(chan string, 1)
				s, script := open(t, sqlstore.PostgreSQL, &sqlstore.Options{
					Listen: func(ctx context.Context, _ string, heard func(string)) error {
						heard("")
						for {
							select {
							case payload := <-notified:
								if test.deliver {
									heard(payload)
									heard(payload)
								}
							case <-ctx.Done():
								return ctx.Err()
							}
						}
					},
				})
				script.answer(test.probe)
				script.sent = notified
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				err := s.Watch(ctx, func() {})
				if test.deaf {
					require.ErrorContains(t, err, "not to a pooler")
					require.NotErrorIs(t, err, context.Canceled)
					require.Equal(t, sqlstore.ListenTimeout, time.Since(began))
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, time.Hour, time.Since(began))
				}
			})
		})
	}
}
