package sse_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// serviceDocument is an embedded key service in a vector.
type serviceDocument struct {
	Document []byte   `json:"document"` // base64
	RootKey  hexBytes `json:"root_key"`
	Account  string   `json:"account"`
	Region   string   `json:"region"`
}

func (d *serviceDocument) client(t *testing.T) *localkms.Client {
	root, err := keyring.NewKeyRoot(d.RootKey)
	require.NoError(t, err)
	service, err := localkms.Open(t.Context(), storeOf(t, d.Document), root, nil)
	require.NoError(t, err)
	client, err := service.Client(d.Account, d.Region)
	require.NoError(t, err)
	return client
}

func storeOf(t *testing.T, document []byte) keyring.Store {
	store := keyring.NewMemStore()
	_, err := store.Swap(t.Context(), "", document)
	require.NoError(t, err)
	return store
}

// serviceVector is an object under a key of an embedded key service.
type serviceVector struct {
	vector
	ServiceKey string           `json:"service_key"`
	Accept     []string         `json:"accept,omitempty"`
	Service    *serviceDocument `json:"service"`
}

// ringVector is a ring document, and what must come of it.
type ringVector struct {
	Comment string `json:"comment"`
	Ring    []byte `json:"ring"` // base64

	// The root is one of these.
	RootKey     hexBytes         `json:"root_key,omitempty"`
	Passphrase  string           `json:"passphrase,omitempty"`
	ServiceKey  string           `json:"service_key,omitempty"`
	RootContext kms.Context      `json:"root_context,omitempty"`
	Service     *serviceDocument `json:"service,omitempty"`

	Result   string              `json:"result"` // "valid", or the failure: SPEC.md, RING-6
	KEKs     map[string]hexBytes `json:"keks,omitempty"`
	Unusable []string            `json:"unusable,omitempty"`
}

func (v *ringVector) root(t *testing.T) keyring.Root {
	var root keyring.Root
	var err error
	switch {
	case v.Passphrase != "":
		root, err = keyring.NewPassphraseRoot([]byte(v.Passphrase), cheapPassphrase)
	case v.Service != nil:
		root, err = keyring.NewKMSRoot(v.Service.client(t), v.ServiceKey, &keyring.KMSRootOptions{Context: v.RootContext})
	default:
		root, err = keyring.NewKeyRoot(v.RootKey)
	}
	require.NoError(t, err)
	return root
}

var cheapPassphrase = &keyring.PassphraseParams{Time: 2, Memory: 19 << 10, Threads: 1}

// textVector is the text form of an envelope, or something like it.
type textVector struct {
	Comment  string `json:"comment"`
	Text     string `json:"text"`
	Result   string `json:"result"` // "valid" or "format"
	Envelope []byte `json:"envelope,omitempty"`
}

// eachVector runs a test for each file of a folder of testdata/v1, and returns
// how many there are of each result.
func eachVector[V any](t *testing.T, folder string, test func(t *testing.T, v *V) (result string)) {
	files, err := filepath.Glob(filepath.Join("testdata/v1", folder, "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	results := map[string]int{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			v := new(V)
			decoder := json.NewDecoder(bytes.NewReader(text))
			decoder.DisallowUnknownFields()
			require.NoError(t, decoder.Decode(v))
			results[test(t, v)]++
		})
	}
	require.Greater(t, len(results), 1, "vectors of one result")
}

// SPEC KEK-3 KEK-4 KEK-5 SVC-2 LKMS-1 LKMS-2 LKMS-3 LKMS-4 VEC-2
func TestServiceVectors(t *testing.T) {
	eachVector(t, "service", func(t *testing.T, v *serviceVector) string {
		cipher, err := sse.NewKMS(v.Service.client(t), v.ServiceKey, &sse.KMSOptions{
			Accept: func(id string) bool { return slices.Contains(v.Accept, id) },
		})
		require.NoError(t, err)
		got, err := open(cipher, sse.Object{Bucket: v.Bucket, Key: v.Key, Context: v.Context, AnyContext: v.Context == nil}, v.Object)
		requireResult(t, v.Result, err)
		sum := sha512.Sum512(got)
		require.Equal(t, []byte(v.PlaintextSHA512), sum[:])
		require.Len(t, got, v.PlaintextSize)
		return v.Result
	})
}

// refusedKinds are errors of the class refused.
var refusedKinds = []error{
	keyring.ErrDisabled, keyring.ErrDestroyed, keyring.ErrStore,
	kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrDenied, kms.ErrUnavailable,
}

// requireResult requires an error to be of one class alone.
func requireResult(t *testing.T, result string, err error) {
	t.Helper()
	if result == "refused" {
		require.True(t, slices.ContainsFunc(refusedKinds, func(kind error) bool { return errors.Is(err, kind) }), "%v", err)
	}
	for class, kind := range resultErrors {
		switch {
		case kind == nil:
			require.Equal(t, class == result, err == nil, "%v", err)
		case class == "corrupt" && result == "truncated": // a kind of it
		default:
			require.Equal(t, class == result, errors.Is(err, kind), "%s: %v", class, err)
		}
	}
}

// SPEC RING-1 RING-2 RING-3 RING-6 ROOT-1 ROOT-2 ROOT-3 ROOT-4 KEK-1 KEK-2 VEC-3
func TestRingVectors(t *testing.T) {
	failures := map[string]error{
		"damaged": keyring.ErrDamaged, "version": keyring.ErrVersion, "root": keyring.ErrRoot, "unavailable": keyring.ErrRootUnavailable,
	}
	eachVector(t, "ring", func(t *testing.T, v *ringVector) string {
		ring, err := keyring.Open(t.Context(), storeOf(t, v.Ring), v.root(t), nil)
		if v.Result != "valid" {
			require.NotNil(t, failures[v.Result])
			for name, kind := range failures {
				require.Equal(t, name == v.Result, errors.Is(err, kind), "%s: %v", name, err)
			}
			return v.Result
		}
		require.NoError(t, err)
		var unusable []string
		for _, info := range ring.Versions() {
			key, err := ring.Key(t.Context(), info.ID)
			if kek, ok := v.KEKs[info.ID]; ok {
				require.NoError(t, err)
				sealed, err := key.Seal([]byte("data key"), nil)
				require.NoError(t, err)
				opened, result := strangerOpen(kek, sealed, "")
				require.Equal(t, "valid", result)
				require.Equal(t, "data key", string(opened))
				continue
			}
			require.True(t, errors.Is(err, keyring.ErrDisabled) || errors.Is(err, keyring.ErrDestroyed), "%v", err)
			unusable = append(unusable, info.ID)
		}
		require.Equal(t, v.Unusable, unusable)
		require.Len(t, ring.Versions(), len(v.KEKs)+len(v.Unusable))
		return v.Result
	})
}

// SPEC ENV-6 VEC-4
func TestTextVectors(t *testing.T) {
	eachVector(t, "text", func(t *testing.T, v *textVector) string {
		env := new(sse.Envelope)
		err := env.UnmarshalText([]byte(v.Text))
		if v.Result != "valid" {
			require.Equal(t, "format", v.Result)
			require.ErrorIs(t, err, sse.ErrFormat)
			return v.Result
		}
		require.NoError(t, err)
		require.Equal(t, v.Envelope, marshal(t, env))
		text, err := env.MarshalText()
		require.NoError(t, err)
		require.Equal(t, v.Text, string(text))
		return v.Result
	})
}
