package etcdauth

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
	"github.com/blobseal/blobseal/internal/testbed/selfsigned"
)

const (
	tokenTTL = 2 // seconds
	password = "not-a-secret"
	patience = 2 * time.Minute
)

// server is an etcd of one member. Its users are root, who may do everything,
// blobs, who may use /blobs/, and stranger, who may do nothing.
type server struct {
	t             testing.TB
	dir           string
	client, peers int
	tls           *tls.Config // of clients
	etcd          *embed.Etcd
}

func startServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), client: freeport.Get(t), peers: freeport.Get(t)}
	s.tls = &tls.Config{RootCAs: selfsigned.Write(t, s.path("cert.pem"), s.path("key.pem"))}
	s.start()
	t.Cleanup(func() { s.etcd.Close() })
	s.enableAuth()
	return s
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) start() {
	s.t.Helper()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "test", s.path("data")
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	peers := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", s.peers)}
	clients := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", s.client)}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: s.path("cert.pem"), KeyFile: s.path("key.pem")}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.AuthTokenTTL = tokenTTL
	etcd, err := embed.StartEtcd(cfg)
	require.NoError(s.t, err)
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(patience):
		etcd.Close()
		require.FailNow(s.t, "etcd is not ready")
	}
	s.etcd = etcd
}

// restart stops the server and starts it again on the same data and port.
func (s *server) restart() {
	s.etcd.Close()
	s.start()
}

func (s *server) enableAuth() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := s.connect(s.t, "")
	must := func(_ any, err error) { require.NoError(s.t, err) }
	must(c.RoleAdd(ctx, "root"))
	must(c.UserAdd(ctx, "root", password))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.RoleAdd(ctx, "blobs"))
	must(c.RoleGrantPermission(ctx, "blobs", "/blobs/", clientv3.GetPrefixRangeEnd("/blobs/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(c.UserAdd(ctx, "blobs", password))
	must(c.UserGrantRole(ctx, "blobs", "blobs"))
	must(c.UserAdd(ctx, "stranger", password))
	must(c.AuthEnable(ctx))
}

// connect returns a client that authenticates as user, unless that is empty.
func (s *server) connect(t testing.TB, user string) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{
		Endpoints: []string{fmt.Sprintf("127.0.0.1:%d", s.client)}, TLS: s.tls, DialTimeout: 30 * time.Second, Logger: zap.NewNop(),
	}
	if user != "" {
		cfg.Username, cfg.Password = user, password
	}
	c, err := clientv3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
