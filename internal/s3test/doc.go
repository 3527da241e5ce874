// Package s3test tests packages blob and awss3 on two S3 servers: gofakes3, in the process of
// the test, and versitygw, a process that keeps objects in plain files. Tests read these files
// and damage them.
//
// A test that finds no versitygw skips. To install it, run
// go install github.com/versity/versitygw/cmd/versitygw@v1.8.0.
package s3test
