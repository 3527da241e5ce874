package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/etcdstore"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// documentsHelp says where a ring, or the document of the embedded key service, can be.
const documentsHelp = "a path, postgres://HOST/DATABASE?document=NAME or etcd://HOST:PORT/KEY"

// openingTimeout bounds the wait for a database.
const openingTimeout = 30 * time.Second

// isDatabase reports whether the value of a flag is the URL of a database.
func isDatabase(text string) bool {
	scheme, _, _ := strings.Cut(text, "://")
	return scheme == "postgres" || scheme == "postgresql" || scheme == "etcd"
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
	if scheme == "etcd" {
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
		// Changes of other gateways arrive at once.
		Listen: func(ctx context.Context, channel string, heard func(document string)) error {
			conn, err := pgx.Connect(ctx, u.String())
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
				return err
			}
			heard("")
			for {
				n, err := conn.WaitForNotification(ctx)
				if err != nil {
					return err
				}
				heard(n.Payload)
			}
		},
	})
}

// openEtcd opens a key of a cluster. User, password and certificates come from the
// variables of etcdctl. With a certificate, the connection uses TLS.
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
	if files.TrustedCAFile != "" || files.CertFile != "" {
		var err error
		if config.TLS, err = files.ClientConfig(); err != nil {
			return nil, fmt.Errorf("ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY: %w", err)
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	return etcdstore.New(client, key)
}
