package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Dialect is the kind of SQL that a database speaks.
type Dialect uint8

// The dialects.
const (
	PostgreSQL Dialect = iota + 1
	SQLite
)

// String returns the dialect's name.
func (d Dialect) String() string {
	if x := dialects[d]; x != nil {
		return x.name
	}
	return fmt.Sprintf("dialect %d", uint8(d))
}

var dialects = map[Dialect]*dialect{PostgreSQL: &postgreSQL, SQLite: &sqlite}

// dialect holds what differs between databases.
type dialect struct {
	name     string
	schemas  bool // tables may be qualified
	notifies bool
	exposes  bool              // a canceled commit may be visible without being durable
	types    map[string]string // of the columns, by name

	statements      func(table string) statements
	checkDurability func(ctx context.Context, db *sql.DB) error
}

// statements are the statements for one table. The comments name their parameters in order,
// and after a colon what they return or do.
type statements struct {
	columns string // the table's name: of each column its name, its type, whether it is not null and whether it is unique
	table   string // none: create the table
	load    string // maximal size, document's name: one row, even without a document, of version, size, data and whether the server is a standby
	create  string // document's name, new version, data
	swap    string // new version, data, document's name, old version
	notify  string // payload: send a notification
	clock   string // none: the server's time in milliseconds since 1970, and whether it is a standby; empty if there is no server
}

var postgreSQL = dialect{
	name:     "PostgreSQL",
	schemas:  true,
	notifies: true,
	exposes:  true,
	types:    map[string]string{"name": "text", "version": "text", "data": "bytea"},
	statements: func(table string) statements {
		// durable is a row that makes the commit wait for the disk, even if
		// synchronous_commit is off.
		const durable = `set_config('synchronous_commit', CASE current_setting('synchronous_commit')
			WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)`
		const notify = `pg_notify('` + Channel + `', d.name)`
		return statements{
			columns: `SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, EXISTS (
					SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND i.indimmediate
					AND i.indpred IS NULL AND i.indexprs IS NULL AND array_length(i.indkey::int2[], 1) = 1 AND i.indkey[0] = a.attnum)
				FROM pg_attribute a
				WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`,
			table: `CREATE TABLE ` + table + ` (name text NOT NULL PRIMARY KEY, version text NOT NULL, data bytea NOT NULL)`,
			load: `SELECT d.version, length(d.data), CASE WHEN length(d.data) <= $1 THEN d.data END, pg_is_in_recovery()
				FROM (SELECT 1) AS one LEFT JOIN ` + table + ` AS d ON d.name = $2`,
			create: `INSERT INTO ` + table + ` AS d (name, version, data) SELECT $1, $2, $3 FROM ` + durable + `
				ON CONFLICT (name) DO NOTHING RETURNING ` + notify,
			swap: `UPDATE ` + table + ` AS d SET version = $1, data = $2 FROM ` + durable + `
				WHERE d.name = $3 AND d.version = $4 RETURNING ` + notify,
			notify: `SELECT pg_notify('` + Channel + `', $1)`,
			clock:  `SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, pg_is_in_recovery()`,
		}
	},
	checkDurability: func(context.Context, *sql.DB) error { return nil }, // each write sets synchronous_commit
}

var sqlite = dialect{
	name:  "SQLite",
	types: map[string]string{"name": "text", "version": "text", "data": "blob"},
	statements: func(table string) statements {
		return statements{
			columns: `SELECT name, lower(type), "notnull", pk = 1 AND (SELECT max(pk) FROM pragma_table_info(?1)) = 1 FROM pragma_table_info(?1)`,
			table:   `CREATE TABLE ` + table + ` (name TEXT NOT NULL PRIMARY KEY, version TEXT NOT NULL, data BLOB NOT NULL)`,
			load: `SELECT d.version, length(d.data), CASE WHEN length(d.data) <= ? THEN d.data END, 0
				FROM (SELECT 1) AS one LEFT JOIN ` + table + ` AS d ON d.name = ?`,
			create: `INSERT INTO ` + table + ` (name, version, data) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING`,
			swap:   `UPDATE ` + table + ` SET version = ?, data = ? WHERE name = ? AND version = ?`,
		}
	},
	checkDurability: func(ctx context.Context, db *sql.DB) error {
		const full = 2
		var synchronous int
		if err := db.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous); err != nil {
			return err
		}
		if synchronous < full {
			return fmt.Errorf("%w: PRAGMA synchronous is %d, want FULL (%d) or EXTRA", ErrDurability, synchronous, full)
		}
		return nil
	},
}

// quote returns a valid table name for a statement.
func quote(table string) string { return `"` + strings.ReplaceAll(table, ".", `"."`) + `"` }

// ensureTable creates the table unless it exists, and checks it.
func ensureTable(ctx context.Context, db *sql.DB, d *dialect, table string) error {
	found, err := checkTable(ctx, db, d, table)
	if found || err != nil {
		return err
	}
	// CREATE TABLE IF NOT EXISTS would not help: in PostgreSQL it can fail if two run at
	// once, and it fails for a user without the right to create tables.
	_, createErr := db.ExecContext(ctx, d.statements(quote(table)).table)
	found, err = checkTable(ctx, db, d, table)
	switch {
	case found || err != nil:
		return err
	case createErr != nil:
		return fmt.Errorf("create: %w", createErr)
	default:
		return errors.New("created the table, but it does not exist")
	}
}

// checkTable reports whether the table exists. If it is not a table of this package, the
// error is [ErrSchema].
func checkTable(ctx context.Context, db *sql.DB, d *dialect, table string) (found bool, err error) {
	argument := table
	if d.schemas {
		argument = quote(table) // to_regclass parses it
	}
	rows, err := db.QueryContext(ctx, d.statements(quote(table)).columns, argument)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	missing := make(map[string]bool)
	for name := range d.types {
		missing[name] = true
	}
	for rows.Next() {
		var name, kind string
		var notNull, unique bool
		if err := rows.Scan(&name, &kind, &notNull, &unique); err != nil {
			return false, err
		}
		found = true
		want, ours := d.types[name]
		if !ours {
			continue
		}
		delete(missing, name)
		if kind != want || !notNull || name == "name" && !unique {
			return true, fmt.Errorf("%w: column %s of %s is %s, not null %t, unique %t", ErrSchema, name, table, kind, notNull, unique)
		}
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	if found && len(missing) > 0 {
		return true, fmt.Errorf("%w: %s lacks columns of name, version and data", ErrSchema, table)
	}
	return found, nil
}
