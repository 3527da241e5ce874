// Package gcpkmstest is a fake of Google Cloud KMS for tests of services that use
// package gcpkms. It serves Google's own client over gRPC, and checks and returns
// checksums as the service does.
//
// It serves Encrypt and Decrypt. The bearer token is the name of the caller. Do not
// encrypt anything worth protecting with it.
package gcpkmstest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"hash/crc32"
	"net"
	"path"
	"strconv"
	"strings"
	"sync"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// KeyRing is the resource name of the ring of all keys.
const KeyRing = "projects/test/locations/global/keyRings/test"

// State is the state of a version of a key.
type State = kmspb.CryptoKeyVersion_CryptoKeyVersionState

// Server is a Google Cloud KMS. Its methods are safe for concurrent use.
type Server struct {
	// Addr is the server's address, HOST:PORT.
	Addr string

	server *grpc.Server
	conns  *connections

	mu        sync.Mutex
	keys      map[string][]*version // by name of the key, from version 1
	denied    map[permission]bool
	intercept grpc.UnaryServerInterceptor
}

// version is a version of a key.
type version struct {
	name     string
	state    State
	material cipher.AEAD
}

type permission struct{ principal, method string }

// NewServer returns a server that listens on a port of 127.0.0.1 until Close.
func NewServer() (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Addr: l.Addr().String(), conns: &connections{Listener: l},
		keys: make(map[string][]*version), denied: make(map[permission]bool),
	}
	s.server = grpc.NewServer(grpc.UnaryInterceptor(s.intercepted))
	kmspb.RegisterKeyManagementServiceServer(s.server, service{s: s})
	go s.server.Serve(s.conns) // ends with Close
	return s, nil
}

// Close stops the server and its connections.
func (s *Server) Close() { s.server.Stop() }

// Disconnect breaks all connections. Clients may come back.
func (s *Server) Disconnect() { s.conns.disconnect() }

// ClientOptions returns the options with which Google's client calls this server as a
// principal:
//
//	client, err := kms.NewKeyManagementClient(ctx, server.ClientOptions("me@example.com")...)
func (s *Server) ClientOptions(principal string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(s.Addr),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithPerRPCCredentials(token(principal))),
	}
}

// token is a bearer token.
type token string

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// CreateKey makes a key with one version, which is enabled, and returns its name.
func (s *Server) CreateKey(id string) string {
	name := KeyRing + "/cryptoKeys/" + id
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys[name] != nil {
		panic("gcpkmstest: there is a key " + name)
	}
	s.keys[name] = []*version{newVersion(name, 1)}
	return name
}

// Rotate gives a key a new primary version. Older ones still decrypt.
func (s *Server) Rotate(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = append(s.must(key), newVersion(key, len(s.keys[key])+1))
}

// SetState sets the state of a version of a key, or of all versions of a key.
func (s *Server) SetState(name string, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, one, _ := strings.Cut(name, "/cryptoKeyVersions/")
	for _, v := range s.must(key) {
		if one == "" || v.name == name {
			v.state = state
		}
	}
}

// RemoveKey takes a key away.
func (s *Server) RemoveKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.must(key)
	delete(s.keys, key)
}

// must returns the versions of a key.
func (s *Server) must(key string) []*version {
	if s.keys[key] == nil {
		panic("gcpkmstest: no key " + key)
	}
	return s.keys[key]
}

// Deny takes from a principal the permission for methods, "Encrypt" or "Decrypt".
func (s *Server) Deny(principal string, methods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range methods {
		s.denied[permission{principal, m}] = true
	}
}

// Intercept has all calls go through i, which may fail them, hold them up, and
// change requests and answers; nil ends that.
func (s *Server) Intercept(i grpc.UnaryServerInterceptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = i
}

func (s *Server) intercepted(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	s.mu.Lock()
	i := s.intercept
	s.mu.Unlock()
	if i == nil {
		return next(ctx, in)
	}
	return i(ctx, in, info, next)
}

// service is what the server serves, apart from the methods for tests.
type service struct {
	kmspb.UnimplementedKeyManagementServiceServer
	s *Server
}

// Encrypt implements the method of the service.
func (v service) Encrypt(ctx context.Context, in *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	versions, err := s.find(ctx, "Encrypt", in.GetName())
	if err != nil {
		return nil, err
	}
	ad := in.GetAdditionalAuthenticatedData()
	if err := intact("plaintext", in.GetPlaintext(), in.GetPlaintextCrc32C()); err != nil {
		return nil, err
	}
	if err := intact("additional_authenticated_data", ad, in.GetAdditionalAuthenticatedDataCrc32C()); err != nil {
		return nil, err
	}
	if len(in.GetPlaintext()) == 0 || len(in.GetPlaintext()) > 64<<10 || len(ad) > 64<<10 {
		return nil, status.Error(codes.InvalidArgument, "The data is empty or too long.")
	}
	primary := versions[len(versions)-1]
	if err := primary.usable(); err != nil {
		return nil, err
	}
	ciphertext := primary.material.Seal([]byte(primary.name+"\x00"), nil, in.GetPlaintext(), ad)
	return &kmspb.EncryptResponse{
		Name:                    primary.name,
		Ciphertext:              ciphertext,
		CiphertextCrc32C:        checksum(ciphertext),
		VerifiedPlaintextCrc32C: in.GetPlaintextCrc32C() != nil,
		VerifiedAdditionalAuthenticatedDataCrc32C: in.GetAdditionalAuthenticatedDataCrc32C() != nil,
		ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
	}, nil
}

// Decrypt implements the method of the service.
func (v service) Decrypt(ctx context.Context, in *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	versions, err := s.find(ctx, "Decrypt", in.GetName())
	if err != nil {
		return nil, err
	}
	ad := in.GetAdditionalAuthenticatedData()
	if err := intact("ciphertext", in.GetCiphertext(), in.GetCiphertextCrc32C()); err != nil {
		return nil, err
	}
	if err := intact("additional_authenticated_data", ad, in.GetAdditionalAuthenticatedDataCrc32C()); err != nil {
		return nil, err
	}
	name, sealed, _ := strings.Cut(string(in.GetCiphertext()), "\x00")
	for i, v := range versions {
		if v.name != name {
			continue
		}
		if err := v.usable(); err != nil {
			return nil, err
		}
		plaintext, err := v.material.Open(nil, nil, []byte(sealed), ad)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, "Decryption failed: the ciphertext is invalid.")
		}
		return &kmspb.DecryptResponse{
			Plaintext:       plaintext,
			PlaintextCrc32C: checksum(plaintext),
			UsedPrimary:     i == len(versions)-1,
			ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
		}, nil
	}
	return nil, status.Error(codes.InvalidArgument, "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
}

// find returns the versions of a key, for who asks in ctx.
func (s *Server) find(ctx context.Context, method, key string) ([]*version, error) {
	if ok, _ := path.Match("projects/*/locations/*/keyRings/*/cryptoKeys/*", key); !ok {
		return nil, status.Errorf(codes.InvalidArgument, "Resource name [%s] does not match the pattern of a CryptoKey.", key)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	principal := ""
	for _, value := range md.Get("authorization") {
		principal = strings.TrimPrefix(value, "Bearer ")
	}
	if principal == "" {
		return nil, status.Error(codes.Unauthenticated, "Request is missing required authentication credential.")
	}
	if s.denied[permission{principal, method}] {
		return nil, status.Errorf(codes.PermissionDenied,
			"Permission 'cloudkms.cryptoKeyVersions.useTo%s' denied on resource '%s' (or it may not exist).", method, key)
	}
	if s.keys[key] == nil {
		return nil, status.Errorf(codes.NotFound, "CryptoKey %s not found.", key)
	}
	return s.keys[key], nil
}

func newVersion(key string, n int) *version {
	var raw [32]byte
	rand.Read(raw[:])
	block, err := aes.NewCipher(raw[:])
	if err != nil {
		panic(err) // the length is right
	}
	material, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &version{
		name: key + "/cryptoKeyVersions/" + strconv.Itoa(n), material: material,
		state: kmspb.CryptoKeyVersion_ENABLED,
	}
}

// usable says, in the service's words, why a version cannot be used.
func (v *version) usable() error {
	if v.state == kmspb.CryptoKeyVersion_ENABLED {
		return nil
	}
	refusal := status.Newf(codes.FailedPrecondition, "%s is not enabled, current state is: %s.", v.name, v.state)
	if v.state != kmspb.CryptoKeyVersion_DISABLED {
		return refusal.Err()
	}
	detailed, err := refusal.WithDetails(&errdetails.PreconditionFailure{
		Violations: []*errdetails.PreconditionFailure_Violation{{Type: "KEY_DISABLED", Subject: v.name}},
	})
	if err != nil {
		panic(err) // a detail can be encoded
	}
	return detailed.Err()
}

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

// intact fails unless data has the checksum, if there is one.
func intact(field string, data []byte, sum *wrapperspb.Int64Value) error {
	if sum == nil || sum.GetValue() == checksum(data).GetValue() {
		return nil
	}
	return status.Errorf(codes.InvalidArgument, "The checksum in field %[1]s_crc32c did not match the data in field %[1]s.", field)
}

// connections is a listener that can break what it accepted.
type connections struct {
	net.Listener

	mu   sync.Mutex
	open []net.Conn
}

func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.open = append(c.open, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *connections) disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}
