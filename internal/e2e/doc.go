// Package e2e tests blobseal on real servers: PostgreSQL, which the tests start
// themselves, SQLite, and fleets of processes that share one of them.
//
// A test that finds no PostgreSQL skips. On Debian, install it with
// apt-get install postgresql. Fleets run for BLOBSEAL_STRESS, such as 2m.
package e2e
