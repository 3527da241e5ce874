// Package s3test tests package blob on S3: over gocloud's s3blob and two servers,
// gofakes3 in the test's process, and versitygw, a process that keeps objects as
// plain files, so that a test can look at what lies there and damage it.
//
// A test that finds no versitygw skips;
// go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 has it.
package s3test
