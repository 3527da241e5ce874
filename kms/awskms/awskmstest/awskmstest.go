// Package awskmstest is a fake of AWS KMS for tests of services that use package
// awskms. It speaks the service's protocol to the SDK's own client. Unlike
// emulators, it has keys that are disabled or pending deletion.
//
// It serves GenerateDataKey and Decrypt, and refuses parameters that it does not
// model. It checks no signature: the access key id says who the caller is. Do not
// encrypt anything worth protecting with it.
package awskmstest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// The region and account of all keys.
const (
	Region    = "us-east-1"
	AccountID = "111122223333"
)

const arnPrefix = "arn:aws:kms:" + Region + ":" + AccountID + ":"

// State is the state of a key.
type State string

// The states of a key. Only an enabled key can be used.
const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
	PendingImport   State = "PendingImport"
	Unavailable     State = "Unavailable" // its key store is disconnected
)

// Server is an AWS KMS. Its methods are safe for concurrent use.
type Server struct {
	// URL is the server's endpoint.
	URL string

	server *httptest.Server

	mu        sync.Mutex
	keys      map[string]*key // by id
	aliases   map[string]string
	denied    map[permission]bool
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

// key is a key, with the generations of its material.
type key struct {
	id       string
	state    State
	material []cipher.AEAD
}

type permission struct{ accessKeyID, operation string }

// NewServer returns a server that listens on a port of 127.0.0.1 until Close.
func NewServer() *Server {
	s := &Server{keys: make(map[string]*key), aliases: make(map[string]string), denied: make(map[permission]bool)}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.server.URL
	return s
}

// Close stops the server and its connections.
func (s *Server) Close() {
	s.server.CloseClientConnections()
	s.server.Close()
}

// Client returns the SDK's client for the server, with the credentials of
// accessKeyID.
func (s *Server) Client(accessKeyID string, optFns ...func(*kms.Options)) *kms.Client {
	return kms.New(kms.Options{
		Region:       Region,
		BaseEndpoint: &s.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKeyID, SecretAccessKey: "secret"}, nil
		}),
	}, optFns...)
}

// CreateKey makes an enabled key and returns its ARN.
func (s *Server) CreateKey() string {
	var b [16]byte
	rand.Read(b[:])
	k := &key{id: fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), state: Enabled}
	k.material = append(k.material, newMaterial())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.id] = k
	return k.arn()
}

// SetState sets the state of the key with an ARN.
func (s *Server) SetState(arn string, state State) { s.change(arn, func(k *key) { k.state = state }) }

// Rotate gives a key new material. What the old encrypted stays readable.
func (s *Server) Rotate(arn string) {
	s.change(arn, func(k *key) { k.material = append(k.material, newMaterial()) })
}

// RemoveKey takes a key away, as the end of its waiting period does, with its aliases.
func (s *Server) RemoveKey(arn string) {
	s.change(arn, func(k *key) {
		delete(s.keys, k.id)
		for alias, id := range s.aliases {
			if id == k.id {
				delete(s.aliases, alias)
			}
		}
	})
}

// SetAlias makes alias, which begins with "alias/", stand for the key with an ARN.
func (s *Server) SetAlias(alias, arn string) { s.change(arn, func(k *key) { s.aliases[alias] = k.id }) }

func (s *Server) change(arn string, how func(*key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[strings.TrimPrefix(arn, arnPrefix+"key/")]
	if k == nil {
		panic("awskmstest: no key " + arn)
	}
	how(k)
}

// Deny takes from an access key the permission for operations, such as "Decrypt".
func (s *Server) Deny(accessKeyID string, operations ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range operations {
		s.denied[permission{accessKeyID, op}] = true
	}
}

// Intercept has h called before each request is served, also while others are; nil
// ends that. If it returns true it has answered the request itself.
func (s *Server) Intercept(h func(w http.ResponseWriter, r *http.Request) (answered bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = h
}

// WriteError answers a request with an error of AWS's, such as status 400 and the
// code "ThrottlingException".
func WriteError(w http.ResponseWriter, status int, code, message string) {
	write(w, status, map[string]string{"__type": code, "message": message})
}

func write(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // maps and structs of texts
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", rand.Text())
	w.WriteHeader(status)
	w.Write(text)
}

// failure is an error that is the client's fault.
type failure struct{ code, message string }

func (f *failure) Error() string { return f.code + ": " + f.message }

func failf(code, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

// request is the parameters of either operation.
type request struct {
	KeyID             string `json:"KeyId"`
	KeySpec           string
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

// response is the result of either operation.
type response struct {
	KeyID               string `json:"KeyId"`
	KeyMaterialID       string `json:"KeyMaterialId"`
	Plaintext           []byte
	CiphertextBlob      []byte `json:",omitempty"`
	EncryptionAlgorithm string `json:",omitempty"`
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	out, err := s.answer(r)
	if f, ok := errors.AsType[*failure](err); ok {
		WriteError(w, http.StatusBadRequest, f.code, f.message)
		return
	}
	write(w, http.StatusOK, out)
}

func (s *Server) answer(r *http.Request) (*response, error) {
	operation, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if r.Method != http.MethodPost || r.URL.Path != "/" || !ok || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		return nil, failf("UnknownOperationException", "")
	}
	credential, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	if !ok {
		return nil, failf("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	accessKeyID, scope, _ := strings.Cut(credential, "/")
	if !strings.Contains(scope, "/"+Region+"/kms/aws4_request") {
		return nil, failf("InvalidSignatureException", "Credential should be scoped to a valid region.")
	}
	in := new(request)
	body := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20))
	body.DisallowUnknownFields()
	if err := body.Decode(in); err != nil {
		return nil, failf("SerializationException", "%v", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(in.KeyID)
	if err != nil {
		return nil, err
	}
	if s.denied[permission{accessKeyID, operation}] {
		return nil, failf("AccessDeniedException", "User: %s is not authorized to perform: kms:%s on resource: %s", accessKeyID, operation, k.arn())
	}
	switch k.state {
	case Enabled:
	case Disabled:
		return nil, failf("DisabledException", "%s is disabled.", k.arn())
	default:
		return nil, failf("KMSInvalidStateException", "%s is in state %s, which is not valid for this request.", k.arn(), k.state)
	}
	switch operation {
	case "GenerateDataKey":
		return k.generateDataKey(in)
	case "Decrypt":
		return k.decrypt(in)
	default:
		return nil, failf("UnknownOperationException", "")
	}
}

// find returns the key that a key id, key ARN, alias or alias ARN names.
func (s *Server) find(name string) (*key, error) {
	if name == "" || len(name) > 2048 {
		return nil, failf("ValidationException", "1 validation error detected: Value at 'keyId' failed to satisfy constraint: Member must have length between 1 and 2048")
	}
	local, ok := strings.CutPrefix(name, arnPrefix)
	if !ok && strings.HasPrefix(name, "arn:") {
		return nil, failf("NotFoundException", "Invalid arn %s", name)
	}
	if id, ok := s.aliases[local]; ok {
		return s.keys[id], nil
	}
	if k := s.keys[strings.TrimPrefix(local, "key/")]; k != nil {
		return k, nil
	}
	return nil, failf("NotFoundException", "Key '%s' does not exist", name)
}

func newMaterial() cipher.AEAD {
	var raw [32]byte
	rand.Read(raw[:])
	block, err := aes.NewCipher(raw[:])
	if err != nil {
		panic(err) // the length is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (k *key) arn() string { return arnPrefix + "key/" + k.id }

func (k *key) materialID(generation int) string { return fmt.Sprintf("%s-%d", k.id, generation) }

func (k *key) generateDataKey(in *request) (*response, error) {
	if in.KeySpec != "AES_256" || in.CiphertextBlob != nil {
		return nil, failf("ValidationException", "KeySpec %q", in.KeySpec)
	}
	plaintext := make([]byte, 32)
	rand.Read(plaintext)
	generation := len(k.material) - 1
	header := binary.BigEndian.AppendUint32(append([]byte{1}, k.id...), uint32(generation))
	blob := k.material[generation].Seal(header, nil, plaintext, associated(header, in.EncryptionContext))
	return &response{KeyID: k.arn(), KeyMaterialID: k.materialID(generation), Plaintext: plaintext, CiphertextBlob: blob}, nil
}

func (k *key) decrypt(in *request) (*response, error) {
	blob := in.CiphertextBlob
	if len(blob) == 0 || len(blob) > 6144 || in.KeySpec != "" {
		return nil, failf("ValidationException", "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must have length between 1 and 6144")
	}
	size := 1 + len(k.id) + 4
	if len(blob) < size || blob[0] != 1 {
		return nil, &failure{"InvalidCiphertextException", ""}
	}
	header, sealed := blob[:size:size], blob[size:]
	if string(header[1:1+len(k.id)]) != k.id {
		return nil, failf("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	generation := binary.BigEndian.Uint32(header[1+len(k.id):])
	if uint64(generation) >= uint64(len(k.material)) {
		return nil, &failure{"InvalidCiphertextException", ""}
	}
	plaintext, err := k.material[generation].Open(nil, nil, sealed, associated(header, in.EncryptionContext))
	if err != nil {
		return nil, &failure{"InvalidCiphertextException", ""}
	}
	return &response{KeyID: k.arn(), KeyMaterialID: k.materialID(int(generation)), Plaintext: plaintext, EncryptionAlgorithm: "SYMMETRIC_DEFAULT"}, nil
}

// associated is what a ciphertext is bound to: a map's JSON is sorted, and texts
// from JSON are UTF-8, so that it is one for each context.
func associated(header []byte, context map[string]string) []byte {
	if context == nil {
		context = map[string]string{}
	}
	text, err := json.Marshal(context)
	if err != nil {
		panic(err) // a map of texts
	}
	return slices.Concat(header, text)
}
