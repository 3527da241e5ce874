package gcpkms_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// trail is a sink in memory.
type trail struct {
	mu      sync.Mutex
	records []audit.Record
}

func (t *trail) Write(_ context.Context, r audit.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records = append(t.records, r)
	return nil
}

func seal(t *testing.T, mode sse.Encrypter, obj sse.Object, text string) []byte {
	t.Helper()
	var stored bytes.Buffer
	w, err := sse.NewWriter(t.Context(), &stored, mode, obj, nil)
	require.NoError(t, err)
	_, err = io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return stored.Bytes()
}

func open(t *testing.T, mode sse.Decrypter, obj sse.Object, stored []byte) (string, error) {
	t.Helper()
	r, err := sse.NewReader(t.Context(), bytes.NewReader(stored), mode, obj)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), err
}

// TestMode: SSE-KMS end to end, through a rotation and in bad times.
func TestMode(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	mode, err := sse.NewKMS(newClient(t, s), keyID, nil)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg", Context: kms.Context{"tenant": "ü"}}
	stored := seal(t, mode, obj, "meow")
	env, err := sse.ReadEnvelope(bytes.NewReader(stored))
	require.NoError(t, err)
	require.Equal(t, keyID, env.KeyID())

	s.Rotate(keyID)
	text, err := open(t, mode, obj, stored)
	require.NoError(t, err)
	require.Equal(t, "meow", text)
	d, err := mode.Decrypt(t.Context(), obj, env)
	require.NoError(t, err)
	rewrapped, err := mode.Rewrap(t.Context(), obj, d)
	require.NoError(t, err)
	s.SetState(keyID+"/cryptoKeyVersions/1", kmspb.CryptoKeyVersion_DESTROYED)
	_, err = mode.Decrypt(t.Context(), obj, rewrapped)
	require.NoError(t, err, "rewrapped under the version that is left")
	_, err = open(t, mode, obj, stored)
	require.ErrorIs(t, err, kms.ErrPendingDeletion)
	require.NotErrorIs(t, err, sse.ErrKey, "the object is not called broken")
	_, err = mode.Decrypt(t.Context(), sse.Object{Bucket: "photos", Key: "dog.jpg", AnyContext: true}, rewrapped)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorIs(t, err, kms.ErrCiphertext, "Google refuses another object's context")
}

// TestSameKey: a key's versions are the key, but name no key for a request.
func TestSameKey(t *testing.T) {
	s := newServer(t)
	c, keyID := newClient(t, s), s.CreateKey("photos")
	other := strings.Replace(keyID, "cryptoKeys/", "cryptoKeys/x-", 1)
	for _, tc := range []struct {
		name, id string
		same     bool
	}{
		{keyID, keyID, true},
		{keyID, keyID + "/cryptoKeyVersions/7", true},
		{keyID, other, false},
		{keyID, other + "/cryptoKeyVersions/7", false},
		{keyID + "/cryptoKeyVersions/7", keyID + "/cryptoKeyVersions/7", false},
		{"alias/photos", keyID, false},
	} {
		same, known := c.SameKey(tc.name, tc.id)
		require.True(t, known)
		require.Equal(t, tc.same, same, "%s %s", tc.name, tc.id)
	}
	for _, none := range []string{keyID + "/cryptoKeyVersions/7", "alias/photos"} {
		_, err := sse.NewKMS(c, none, nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
}

// TestModeOverCacheAndAudit: SSE-KMS with a cache and an audit trail.
func TestModeOverCacheAndAudit(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	var calls atomic.Int64
	s.Intercept(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		calls.Add(1)
		return next(ctx, in)
	})
	cache := kms.NewCache(newClient(t, s), nil)
	defer cache.Close()
	var sink trail
	mode, err := sse.NewKMS(audit.NewClient(cache, &sink), keyID, &sse.KMSOptions{BucketKey: true})
	require.NoError(t, err)

	for _, name := range []string{"a", "b", "c"} {
		obj := sse.Object{Bucket: "photos", Key: name}
		stored := seal(t, mode, obj, "text of "+name)
		text, err := open(t, mode, obj, stored)
		require.NoError(t, err)
		require.Equal(t, "text of "+name, text)
		_, err = open(t, mode, sse.Object{Bucket: "photos", Key: "another"}, stored)
		require.ErrorIs(t, err, sse.ErrKey)
	}
	require.EqualValues(t, 2, calls.Load(), "calls for three objects that were written, and opened twice")
	require.Len(t, sink.records, 9)
	for i, r := range sink.records {
		require.Equal(t, keyID, r.KeyID, "record %d", i)
		require.Equal(t, r.Operation == kms.OpGenerateDataKey, r.KeyVersion == "1", "record %d", i)
		require.Equal(t, audit.OutcomeSuccess, r.Outcome, "record %d", i)
		require.Equal(t, kms.Context{sse.ContextObject: "photos"}, r.Context, "record %d", i)
		require.Equal(t, i >= 2, r.Cached, "record %d", i)
	}

	// While the service is down, what the cache has still opens, and nothing else.
	s.Close()
	_, err = mode.Encrypt(t.Context(), sse.Object{Bucket: "videos", Key: "a"})
	require.ErrorIs(t, err, kms.ErrUnavailable)
	require.Equal(t, "Unavailable", sink.records[len(sink.records)-1].ErrorCode)
	_, err = mode.Encrypt(t.Context(), sse.Object{Bucket: "photos", Key: "d"})
	require.NoError(t, err)
}
