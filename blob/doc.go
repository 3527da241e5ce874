// Package blob makes a bucket of gocloud.dev/blob that encrypts at rest.
package blob
