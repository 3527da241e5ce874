// Package e2e tests blobseal on real servers: PostgreSQL, which the tests start
// themselves, SQLite, and fleets of processes that share one of them.
//
// A test that finds no PostgreSQL skips; on Debian, apt-get install postgresql
// has it. BLOBSEAL_STRESS, such as 2m, is how long the fleets run.
package e2e
