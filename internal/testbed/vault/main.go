// Command vault serves the real Transit engine of HashiCorp Vault, without the
// rest of Vault, for the tests of kms/vaultkms.
//
// It is a module of its own and no part of the workspace: what Vault requires
// would choose versions for everything else. Build and use it so, and never tidy
// its go.mod, which lists what this program's imports need of Vault's graph:
//
//	cd internal/testbed/vault && GOWORK=off go build -o /tmp/vaultbed .
//	BLOBSEAL_VAULTBED=/tmp/vaultbed go test ./kms/vaultkms/...
//
// It listens on a free port of 127.0.0.1, prints its URL as the only line of its
// standard output, and serves until its standard input ends. It keeps everything
// in memory. Its one token is "vaultbed".
//
// Of Vault's API it has what lies below a mount of Transit, and sys/mounts/PATH to
// make mounts (POST) and to remove them (DELETE). A namespace (X-Vault-Namespace)
// is a prefix of the path, as it is in Vault. Status codes and errors come from
// the engine, through the function with which Vault itself makes them HTTP. There
// are no policies, audit devices or seals.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const token = "vaultbed"

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, &server{mounts: make(map[string]*mount)}))
}

// server is the part of Vault between HTTP and the engines.
type server struct {
	mu     sync.RWMutex
	mounts map[string]*mount // by path, with its namespace, without slashes around
}

// mount is one Transit engine and its storage.
type mount struct {
	path    string
	engine  logical.Backend
	storage logical.Storage
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Token") != token {
		respond(w, http.StatusForbidden, nil, "permission denied")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok {
		respond(w, http.StatusNotFound, nil)
		return
	}
	namespace := strings.Trim(r.Header.Get("X-Vault-Namespace"), "/")
	if target, ok := strings.CutPrefix(path, "sys/mounts/"); ok {
		s.setMount(w, r, join(namespace, target))
		return
	}
	path = join(namespace, path)
	m := s.find(path)
	if m == nil {
		respond(w, http.StatusNotFound, nil, fmt.Sprintf("no handler for route %q. route entry not found.", path))
		return
	}
	m.serve(w, r, strings.TrimPrefix(path, m.path+"/"))
}

func join(namespace, path string) string {
	return strings.Trim(namespace+"/"+strings.Trim(path, "/"), "/")
}

func (s *server) find(path string) *mount {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for p := path; p != ""; {
		cut := strings.LastIndexByte(p, '/')
		if cut < 0 {
			return nil
		}
		p = p[:cut]
		if m := s.mounts[p]; m != nil {
			return m
		}
	}
	return nil
}

func (s *server) setMount(w http.ResponseWriter, r *http.Request, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Method {
	case http.MethodDelete:
		delete(s.mounts, path)
	case http.MethodPost, http.MethodPut:
		var input struct{ Type string }
		if err := json.NewDecoder(r.Body).Decode(&input); err != nil || input.Type != "transit" {
			respond(w, http.StatusBadRequest, nil, "this server mounts transit alone")
			return
		}
		if s.mounts[path] != nil {
			respond(w, http.StatusBadRequest, nil, "path is already in use at "+path+"/")
			return
		}
		m, err := newMount(path)
		if err != nil {
			respond(w, http.StatusInternalServerError, nil, err.Error())
			return
		}
		s.mounts[path] = m
	default:
		respond(w, http.StatusMethodNotAllowed, nil, logical.ErrUnsupportedOperation.Error())
		return
	}
	respond(w, http.StatusNoContent, nil)
}

func newMount(path string) (*mount, error) {
	ctx := context.Background()
	m := &mount{path: path, storage: new(logical.InmemStorage)}
	config := &logical.BackendConfig{
		StorageView: m.storage,
		Logger:      hclog.NewNullLogger(),
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: time.Hour},
		BackendUUID: rand.Text(),
	}
	engine, err := transit.Backend(ctx, config)
	if err != nil {
		return nil, err
	}
	// The engine declares a create without an existence check, over which the sdk
	// of this version panics.
	for _, path := range engine.Paths {
		if path.ExistenceCheck == nil {
			path.ExistenceCheck = func(context.Context, *logical.Request, *framework.FieldData) (bool, error) { return true, nil }
		}
	}
	if err := engine.Setup(ctx, config); err != nil {
		return nil, err
	}
	m.engine = engine
	return m, m.engine.Initialize(ctx, &logical.InitializationRequest{Storage: m.storage})
}

// serve has the engine answer for path, which is relative to the mount.
func (m *mount) serve(w http.ResponseWriter, r *http.Request, path string) {
	req := &logical.Request{ID: rand.Text(), Path: path, MountPoint: m.path + "/", Storage: m.storage}
	switch r.Method {
	case http.MethodGet:
		req.Operation = logical.ReadOperation
		if r.URL.Query().Get("list") == "true" {
			req.Operation = logical.ListOperation
		}
	case "LIST":
		req.Operation = logical.ListOperation
	case http.MethodDelete:
		req.Operation = logical.DeleteOperation
	case http.MethodPost, http.MethodPut:
		req.Operation = logical.UpdateOperation
		decoder := json.NewDecoder(r.Body)
		decoder.UseNumber()
		if err := decoder.Decode(&req.Data); err != nil && err != io.EOF {
			respond(w, http.StatusBadRequest, nil, "failed to parse JSON input: "+err.Error())
			return
		}
		// Whether a write creates is for the engine to say, where it has an opinion.
		if checked, exists, err := m.engine.HandleExistenceCheck(r.Context(), req); err == nil && checked && !exists {
			req.Operation = logical.CreateOperation
		}
	default:
		respond(w, http.StatusMethodNotAllowed, nil, logical.ErrUnsupportedOperation.Error())
		return
	}
	response, err := m.engine.HandleRequest(r.Context(), req)
	if status, failure := logical.RespondErrorCommon(req, response, err); status != 0 {
		logical.AdjustErrorStatusCode(&status, failure)
		if failure != nil {
			respond(w, status, nil, failure.Error())
		} else {
			respond(w, status, nil)
		}
		return
	}
	if response == nil {
		respond(w, http.StatusNoContent, nil)
		return
	}
	status := http.StatusOK
	if code, ok := response.Data[logical.HTTPStatusCode].(int); ok {
		status = code
	}
	respond(w, status, map[string]any{
		"request_id": req.ID, "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": response.Data, "wrap_info": nil, "warnings": response.Warnings, "auth": nil,
	})
}

// respond writes body, or what Vault writes in its place: the errors.
func respond(w http.ResponseWriter, status int, body map[string]any, errs ...string) {
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	if body == nil {
		if errs == nil {
			errs = []string{}
		}
		body = map[string]any{"errors": errs}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
