package awskms_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
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

// newEnvelope returns the envelope of a new object.
func newEnvelope(t *testing.T, mode sse.Encrypter, obj sse.Object) *sse.Envelope {
	t.Helper()
	e, err := mode.Encrypt(t.Context(), obj)
	require.NoError(t, err)
	return e.Envelope()
}

// TestAliasMoved: after an alias has moved, new objects are under its new key.
// Objects of the old key open only if that key is accepted.
func TestAliasMoved(t *testing.T) {
	s := newServer(t)
	oldKey, newKey := s.CreateKey(), s.CreateKey()
	s.SetAlias("alias/photos", oldKey)
	client := newClient(t, s)
	byAlias, err := sse.NewKMS(client, "alias/photos", nil)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg", Context: kms.Context{"tenant": "ü"}}
	env := newEnvelope(t, byAlias, obj)
	require.Equal(t, oldKey, env.KeyID(), "the envelope has the ARN, not the alias")
	restarted, err := sse.NewKMS(newClient(t, s), "alias/photos", nil) // and has never written
	require.NoError(t, err)
	_, err = restarted.Decrypt(t.Context(), obj, env)
	require.NoError(t, err)

	s.SetAlias("alias/photos", newKey)
	require.Equal(t, newKey, newEnvelope(t, byAlias, obj).KeyID())
	for _, mode := range []*sse.KMS{byAlias, restarted} {
		_, err = mode.Decrypt(t.Context(), obj, env)
		require.ErrorIs(t, err, sse.ErrKey)
		require.ErrorContains(t, err, oldKey)
		require.ErrorContains(t, err, "KMSOptions.Accept")
	}
	mode, err := sse.NewKMS(client, "alias/photos", &sse.KMSOptions{Accept: func(id string) bool { return id == oldKey }})
	require.NoError(t, err)
	d, err := mode.Decrypt(t.Context(), obj, env)
	require.NoError(t, err)
	rewrapped, err := mode.Rewrap(t.Context(), obj, d)
	require.NoError(t, err)
	require.Equal(t, newKey, rewrapped.KeyID())

	// By the alias itself the old key's ciphertext does not open.
	k, err := client.GenerateDataKey(t.Context(), oldKey, nil)
	require.NoError(t, err)
	_, err = client.Decrypt(t.Context(), "alias/photos", k.Ciphertext, nil)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)

	// And where it is only denied or disabled, the object is not called broken.
	s.SetState(oldKey, awskmstest.Disabled)
	_, err = mode.Decrypt(t.Context(), obj, env)
	require.ErrorIs(t, err, kms.ErrDisabled)
	require.NotErrorIs(t, err, sse.ErrKey)
}

// TestSameKey: ids, ARNs and the replicas of multi-Region keys.
func TestSameKey(t *testing.T) {
	const (
		id  = "1234abcd-12ab-34cd-56ef-1234567890ab"
		mrk = "mrk-1234abcd12ab34cd56ef1234567890ab"
		us  = "arn:aws:kms:us-east-1:111122223333:key/"
		eu  = "arn:aws:kms:eu-west-1:111122223333:key/"
	)
	c := newClient(t, newServer(t))
	for _, tc := range []struct {
		name, id    string
		same, known bool
	}{
		{id, us + id, true, true},
		{us + id, us + id, true, true},
		{us + id, eu + id, false, true},
		{us + mrk, eu + mrk, true, true},
		{mrk, eu + mrk, true, true},
		{us + mrk, "arn:aws:kms:eu-west-1:444455556666:key/" + mrk, false, true},
		{us + id, "arn:aws-cn:kms:us-east-1:111122223333:key/" + id, false, true},
		{id, us + mrk, false, true},
		{id, "", false, true},
		{"alias/photos", us + id, false, false},
		{"arn:aws:kms:us-east-1:111122223333:alias/photos", us + id, false, false},
	} {
		same, known := c.SameKey(tc.name, tc.id)
		require.Equal(t, tc.same, same, "%s %s", tc.name, tc.id)
		require.Equal(t, tc.known, known, "%s %s", tc.name, tc.id)
	}
}

// TestModeOverCacheAndAudit: SSE-KMS end to end, with a cache and an audit trail.
func TestModeOverCacheAndAudit(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey()
	s.SetAlias("alias/photos", keyID)
	var requests atomic.Int64
	s.Intercept(func(http.ResponseWriter, *http.Request) bool { requests.Add(1); return false })
	cached := cache.New(newClient(t, s), nil)
	defer cached.Invalidate()
	var sink trail
	mode, err := sse.NewKMS(audit.NewClient(cached, &sink), "alias/photos", &sse.KMSOptions{BucketKey: true})
	require.NoError(t, err)

	for _, name := range []string{"a", "b", "c"} {
		obj := sse.Object{Bucket: "photos", Key: name}
		env := newEnvelope(t, mode, obj)
		_, err := mode.Decrypt(t.Context(), obj, env)
		require.NoError(t, err)
		_, err = mode.Decrypt(t.Context(), sse.Object{Bucket: "photos", Key: "another"}, env)
		require.ErrorIs(t, err, sse.ErrKey)
	}
	require.EqualValues(t, 2, requests.Load(), "requests for three objects that were written, and opened twice")
	require.Len(t, sink.records, 9)
	for i, r := range sink.records {
		require.Equal(t, keyID, r.KeyID, "record %d", i)
		require.NotEmpty(t, r.KeyVersion, "record %d", i)
		require.Equal(t, "success", r.Outcome, "record %d", i)
		require.Equal(t, kms.Context{sse.ContextObject: "photos"}, r.Context, "record %d", i)
		require.Equal(t, i >= 2, r.Cached, "record %d", i)
		require.Equal(t, i < 2, r.RequestID != "", "record %d", i)
	}

	// While the service is down, what the cache has still opens, and nothing else.
	s.Close()
	_, err = mode.Encrypt(t.Context(), sse.Object{Bucket: "videos", Key: "a"})
	require.ErrorIs(t, err, kms.ErrUnavailable)
	last := sink.records[len(sink.records)-1]
	require.Equal(t, "Unavailable", last.ErrorCode)
	_, err = mode.Encrypt(t.Context(), sse.Object{Bucket: "photos", Key: "d"})
	require.NoError(t, err)
}
