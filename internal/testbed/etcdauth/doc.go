// Package etcdauth holds tests of package etcdstore on an etcd that demands
// authentication and TLS. The server runs inside the test.
package etcdauth
