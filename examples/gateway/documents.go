package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/etcdstore"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// documentsHelp says where a ring, or the document of the embedded key service, can be.
const documentsHelp = "a path, postgres://HOST/DATABASE?document=NAME, etcd://HOST:PORT/KEY or, with TLS, etcds://HOST:PORT/KEY"

// openingTimeout bounds the wait for a database.
const openingTimeout = 30 * time.Second

// isDatabase reports whether the value of a flag is the URL of a database.
func isDatabase(text string) bool {
	scheme, _, _ := strings.Cut(text, "://")
	return scheme == "postgres" || scheme == "postgresql" || scheme == "etcd" || scheme == "etcds"
}

// document is where a ring or an embedded key service is.
type document struct {
	flag    string // that names the place
	at      string // a path or a URL
	store   keyring.Store
	missing bool
}

// ringDocument finds the ring.
func ringDocument(ctx context.Context, c config) (document, error) {
	return findDocument(ctx, document{flag: "--ring", at: cmp.Or(c.ring, c.path("objects.ring"))}, "gateway/ring")
}

// keysDocument finds the embedded key service.
func keysDocument(ctx context.Context, c config) (document, error) {
	at := cmp.Or(c.keyService, c.path("kms"))
	if !strings.Contains(at, "://") {
		at = filepath.Join(at, "keys")
	}
	return findDocument(ctx, document{flag: "--key-service", at: at}, "gateway/keys")
}

// findDocument looks whether a document exists. It makes nothing.
func findDocument(ctx context.Context, d document, name string) (document, error) {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	var err error
	if d.store, err = documentStore(ctx, d.flag, d.at, name); err != nil {
		return d, err
	}
	if !strings.Contains(d.at, "://") {
		if _, err := os.Stat(filepath.Dir(d.at)); errors.Is(err, fs.ErrNotExist) { // another error of the store
			d.missing = true
			return d, nil
		}
	}
	_, _, err = d.store.Load(ctx)
	d.missing = errors.Is(err, keyring.ErrNotExist)
	if err != nil && !d.missing {
		return d, fmt.Errorf("%s %s: %w", d.flag, d.at, err)
	}
	return d, nil
}

// findDocuments finds the ring and, if it is the embedded one, the key service. A typo
// must not make a second ring beside that of the objects. So what is missing is created
// only on request, or by default in a directory that has had no objects.
func findDocuments(ctx context.Context, c config) (ring, keys document, err error) {
	// Gateways make the directory of objects last. While it is missing, several may
	// start at once: one creates, and the others open.
	_, err = os.Stat(c.path("objects"))
	isNew := errors.Is(err, fs.ErrNotExist)
	if !c.embedded() {
		if _, err := parseVendorKey("--key-service", c.keyService); err != nil {
			return ring, keys, err
		}
	} else if keys, err = keysDocument(ctx, c); err != nil {
		return ring, keys, err
	}
	if ring, err = ringDocument(ctx, c); err != nil {
		return ring, keys, err
	}
	switch {
	case ring.missing && !c.create && (!isNew || c.ring != ""):
		err = fmt.Errorf("--ring: no such ring: %s (check --dir and --ring; only the first gateway of a store may create it: give --create)", ring.at)
	case keys.missing && !c.create && (!isNew || c.keyService != ""):
		err = fmt.Errorf("--key-service: no such key service: %s (check --dir and --key-service; only the first gateway of a store may create it: give --create)", keys.at)
	}
	return ring, keys, err
}

// openOrCreate opens what is in a document, and creates it if it is missing.
func openOrCreate[T, O any](ctx context.Context, d document, root keyring.Root, opts O, open, create func(context.Context, keyring.Store, keyring.Root, O) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	if !d.missing {
		opened, err := open(ctx, d.store, root, opts)
		return opened, explain(d.flag, err)
	}
	if !strings.Contains(d.at, "://") {
		if err := os.MkdirAll(filepath.Dir(d.at), 0o700); err != nil {
			var none T
			return none, fmt.Errorf("%s: %w", d.flag, err)
		}
	}
	created, err := create(ctx, d.store, root, opts)
	if errors.Is(err, keyring.ErrExist) { // another gateway was first
		created, err = open(ctx, d.store, root, opts)
	}
	return created, explain(d.flag, err)
}

// explain says which flag an error is about, and what to do.
func explain(flag string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrRoot):
		return fmt.Errorf("%s: %w (gateways that share it need the same root: copy root.key, or give --root-key-file)", flag, err)
	}
	return fmt.Errorf("%s: %w", flag, err)
}

// documentStore opens the store that flag names by its value. In PostgreSQL, document
// is the default name. Connections stay open until the process ends.
func documentStore(ctx context.Context, flag, text, document string) (keyring.Store, error) {
	scheme, _, isURL := strings.Cut(text, "://")
	if !isURL {
		path, err := filepath.Abs(text) // the engine changes the working directory
		if err != nil {
			return nil, err
		}
		return keyring.NewFileStore(path)
	}
	if !isDatabase(text) {
		return nil, fmt.Errorf("%s: %s:// is unknown (write %s)", flag, scheme, documentsHelp)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: not a URL (write %s)", flag, documentsHelp) // err has all of text
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return nil, fmt.Errorf("%s: the URL holds a password, which others can see (set PGPASSFILE, PGPASSWORD or ETCDCTL_PASSWORD)", flag)
	}
	open := openPostgres
	if scheme != "postgres" && scheme != "postgresql" {
		open = openEtcd
	}
	store, err := open(ctx, u, document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return store, nil
}

// openPostgres opens a document in a database. What the URL leaves out comes from the
// variables of PostgreSQL's own tools, such as PGPASSFILE and PGSSLROOTCERT.
func openPostgres(ctx context.Context, u *url.URL, document string) (keyring.Store, error) {
	params := u.Query()
	document = cmp.Or(params.Get("document"), document)
	params.Del("document")
	u.RawQuery = params.Encode()
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		return nil, err
	}
	return sqlstore.Open(ctx, db, sqlstore.PostgreSQL, document, &sqlstore.Options{
		Listen: sqlstore.Listen( // changes of other gateways arrive at once
			func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, u.String()) },
			func(n *pgconn.Notification) string { return n.Payload },
		),
	})
}

// openEtcd opens a key of a cluster. User, password and certificates come from the
// variables of etcdctl. With etcds:// or a certificate, the connection uses TLS.
func openEtcd(_ context.Context, u *url.URL, _ string) (keyring.Store, error) {
	key := u.Path
	if u.Host == "" || strings.Trim(key, "/") == "" || u.RawQuery != "" || u.User != nil {
		return nil, errors.New("want etcd://HOST:PORT,HOST:PORT/KEY; user and password are in ETCDCTL_USER and ETCDCTL_PASSWORD")
	}
	user, password, both := strings.Cut(os.Getenv("ETCDCTL_USER"), ":")
	if !both {
		password = os.Getenv("ETCDCTL_PASSWORD")
	}
	config := clientv3.Config{
		Endpoints: strings.Split(u.Host, ","), Username: user, Password: password,
		DialTimeout: openingTimeout, Logger: zap.NewNop(),
	}
	files := transport.TLSInfo{
		TrustedCAFile: os.Getenv("ETCDCTL_CACERT"), CertFile: os.Getenv("ETCDCTL_CERT"), KeyFile: os.Getenv("ETCDCTL_KEY"),
	}
	if u.Scheme == "etcds" || files.TrustedCAFile != "" || files.CertFile != "" {
		var err error
		if config.TLS, err = files.ClientConfig(); err != nil {
			return nil, fmt.Errorf("ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY: %w", err)
		}
	}
	for _, host := range config.Endpoints {
		if user != "" && config.TLS == nil && !isLoopback(host) {
			return nil, fmt.Errorf("the password of ETCDCTL_USER would go to %s in the clear (write etcds://, or set ETCDCTL_CACERT)", host)
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	return etcdstore.New(client, key)
}

// isLoopback reports whether a host, with or without a port, is this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}
