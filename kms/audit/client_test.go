package audit_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// memorySink is a sink whose records a test takes.
type memorySink struct{ kmstest.Sink }

// take removes the records so far and returns them without ids and times, which change
// with each run.
func (s *memorySink) take() []audit.Record {
	out := s.Records()
	s.Forget()
	for i := range out {
		out[i].EventID, out[i].Time = "", time.Time{}
	}
	return out
}

var (
	alice = kms.Principal{ID: "alice", Type: "User"}
	bob   = kms.Principal{ID: "bob", Type: "User"}
	photo = kms.Context{"blobseal:object": "photos"}
)

func as(t testing.TB, p kms.Principal) context.Context { return kms.WithPrincipal(t.Context(), p) }

func TestClientIsAClient(t *testing.T) {
	for _, authorizing := range []bool{false, true} {
		t.Run(fmt.Sprint(authorizing), func(t *testing.T) {
			kmstest.Run(t, func(t *testing.T) kmstest.Subject {
				f := kmstest.NewFake()
				var service kms.Client = f
				if authorizing {
					service = kmstest.Authorizing{Fake: f}
				}
				audited := audit.NewClient(service, new(memorySink))
				_, ok := audited.(kms.Authorizer)
				require.Equal(t, authorizing, ok)
				s := f.Subject()
				s.Client = audited
				return s
			})
		})
	}
}

// TestRecords: each use leaves one record, with all that is known about it. It is
// long because it is one history of one client.
func TestRecords(t *testing.T) {
	fake := kmstest.NewFake("key")
	fake.SetAlias("alias", "key")
	sink := new(memorySink)
	client := audit.NewClient(cache.New(fake, &cache.Options{StaleReads: time.Hour, MaxUses: 2}), sink)
	var r kms.Report
	ctx := kms.WithReport(kms.WithResource(as(t, alice), "photos/cat.jpg"), &r)
	k, err := client.GenerateDataKey(ctx, "alias", photo)
	require.NoError(t, err)
	require.Equal(t, kms.Report{RequestID: "fake-1", KeyID: kmstest.ARN("key"), KeyVersion: "1"}, r)
	want := audit.Record{
		RequestID: "fake-1", Principal: alice, Operation: "GenerateDataKey", RequestedKeyID: "alias", KeyID: kmstest.ARN("key"), KeyVersion: "1",
		Context: photo, Resource: "photos/cat.jpg", Outcome: "success",
	}
	require.Equal(t, []audit.Record{want}, sink.take())

	_, err = client.GenerateDataKey(as(t, alice), "alias", photo)
	require.NoError(t, err)
	want.RequestID, want.Cached, want.Resource = "", true, "photos" // from the context's pair
	require.Equal(t, []audit.Record{want}, sink.take())

	for range 2 {
		_, err = client.Decrypt(as(t, bob), "key", k.Ciphertext, photo)
		require.NoError(t, err)
	}
	fake.Fail(kms.ErrUnavailable, 1)
	_, err = client.Decrypt(as(t, bob), "key", k.Ciphertext, photo)
	require.NoError(t, err)
	want = audit.Record{
		RequestID: "fake-2", Principal: bob, Operation: "Decrypt", RequestedKeyID: "key", KeyID: kmstest.ARN("key"), KeyVersion: "1",
		Context: photo, Resource: "photos", Outcome: "success",
	}
	cached := want
	cached.RequestID, cached.Cached = "", true
	stale := cached
	stale.Stale = true
	require.Equal(t, []audit.Record{want, cached, stale}, sink.take())

	// Failures carry the name of their kind.
	for _, kind := range []struct {
		err  error
		code string
	}{
		{kms.ErrNotFound, "NotFound"},
		{kms.ErrDisabled, "Disabled"},
		{kms.ErrPendingDeletion, "PendingDeletion"},
		{kms.ErrDenied, "Denied"},
		{kms.ErrCiphertext, "InvalidCiphertext"},
		{kms.ErrInvalid, "Invalid"},
		{kms.ErrUnavailable, "Unavailable"},
		{context.Canceled, "Canceled"},
		{context.DeadlineExceeded, "Canceled"},
		{errors.New("else"), "Internal"},
	} {
		fake.Fail(fmt.Errorf("service: %w", kind.err), 1)
		_, err := client.GenerateDataKey(as(t, bob), "key", kms.Context{"x": "y"})
		require.ErrorIs(t, err, kind.err)
		got := sink.take()
		require.Len(t, got, 1)
		require.Equal(t, "failure", got[0].Outcome)
		require.Equal(t, kind.code, got[0].ErrorCode)
		require.Equal(t, "service: "+kind.err.Error(), got[0].ErrorMessage)
		require.Equal(t, kind.code, audit.ErrorCode(err))
	}
	require.Empty(t, audit.ErrorCode(nil))

	// A use is recorded even if its caller gave up.
	ended, cancel := context.WithCancel(as(t, bob))
	cancel()
	_, err = client.GenerateDataKey(ended, "key", nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "Canceled", sink.take()[0].ErrorCode)

	// A long message is cut between characters.
	fake.Fail(errors.New(strings.Repeat("é", 5000)), 1)
	_, err = client.GenerateDataKey(as(t, bob), "key", nil)
	require.Error(t, err)
	require.Less(t, len(sink.take()[0].ErrorMessage), 1100)
}

// TestRecordsOfOtherBytes: names that are not UTF-8 stay different in a trail,
// although JSON would make them equal.
func TestRecordsOfOtherBytes(t *testing.T) {
	path := auditPath(t)
	s := openSink(t, path, nil)
	client := audit.NewClient(kmstest.NewFake("key"), s)
	for _, p := range []string{"a\xff", "a\xfe", "ä\\\xff", `ä\`} {
		ctx := kms.WithResource(as(t, kms.Principal{ID: p, Type: p}), p)
		_, err := client.GenerateDataKey(ctx, "no "+p, kms.Context{p: p, p + "'": "x"})
		require.ErrorIs(t, err, kms.ErrNotFound)
	}
	require.NoError(t, s.Close())
	var got []string
	for e, err := range audit.Read(path, nil) {
		require.NoError(t, err)
		p := e.Record.Principal.ID
		require.Equal(t, kms.Principal{ID: p, Type: p}, e.Record.Principal)
		require.Equal(t, p, e.Record.Resource)
		require.Equal(t, "no "+p, e.Record.RequestedKeyID)
		require.Equal(t, kms.Context{p: p, p + "'": "x"}, e.Record.Context)
		got = append(got, p)
	}
	require.Equal(t, []string{`a\xff`, `a\xfe`, `ä\\\xff`, `ä\`}, got)
}

func TestRecordsAreUnique(t *testing.T) {
	sink := new(memorySink)
	client := audit.NewClient(kmstest.NewFake("key"), sink)
	for range 100 {
		_, err := client.GenerateDataKey(as(t, alice), "key", nil)
		require.NoError(t, err)
	}
	seen := make(map[string]bool)
	for _, r := range sink.Records() {
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, r.EventID)
		require.False(t, seen[r.EventID])
		seen[r.EventID] = true
		require.WithinDuration(t, time.Now(), r.Time, time.Minute)
		require.Equal(t, time.UTC, r.Time.Location())
	}
}

// TestRefusedHit: an audit client records refusals by a cache that asks, in front of
// the cache and behind it. Behind the cache, it does not see other hits.
func TestRefusedHit(t *testing.T) {
	for _, outside := range []bool{true, false} {
		fake := kmstest.NewFake("key")
		sink := new(memorySink)
		var client kms.Client
		if outside {
			client = audit.NewClient(cache.New(kmstest.Authorizing{Fake: fake}, nil), sink)
		} else {
			client = cache.New(audit.NewClient(kmstest.Authorizing{Fake: fake}, sink), nil)
		}
		for range 3 {
			_, err := client.GenerateDataKey(as(t, alice), "key", photo)
			require.NoError(t, err)
		}
		require.Len(t, sink.take(), map[bool]int{true: 3, false: 1}[outside])
		fake.Disable("key")
		_, err := client.GenerateDataKey(as(t, alice), "key", photo)
		require.ErrorIs(t, err, kms.ErrDisabled)
		got := sink.take()
		require.Len(t, got, 1)
		require.Equal(t, "Disabled", got[0].ErrorCode)
		require.Equal(t, kmstest.ARN("key"), got[0].KeyID)
		require.Equal(t, kms.OpGenerateDataKey, got[0].Operation)
	}
}

// TestUnrecordedUseFails: no result is returned without its record.
func TestUnrecordedUseFails(t *testing.T) {
	full := errors.New("no space left on device")
	fake := kmstest.NewFake("key")
	sink := new(memorySink)
	var key *kms.DataKey
	var plaintext []byte
	fake.AnswerKey(func(k *kms.DataKey) *kms.DataKey { key = k; return k })
	fake.AnswerPlaintext(func(p []byte) []byte { plaintext = p; return p })
	client := audit.NewClient(fake, sink)
	good, err := client.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	sink.Fail(full, -1)
	k, err := client.GenerateDataKey(as(t, alice), "key", photo)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.ErrorIs(t, err, full)
	require.Nil(t, k)
	require.Nil(t, key.Plaintext(), "data key of a use that was not recorded")
	p, err := client.Decrypt(as(t, alice), "key", good.Ciphertext, photo)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.Nil(t, p)
	require.Equal(t, make([]byte, 32), plaintext)
	_, err = client.Decrypt(as(t, alice), "none", good.Ciphertext, photo)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.ErrorIs(t, err, full)
	require.ErrorIs(t, err, kms.ErrNotFound)
	failed, ok := errors.AsType[*kms.KeyError](err)
	require.True(t, ok)
	require.Equal(t, kms.KeyError{Op: kms.OpDecrypt, KeyID: "none", Err: failed.Err}, *failed)
}

func TestSlogSink(t *testing.T) {
	var log bytes.Buffer
	fake := kmstest.NewFake("key")
	client := audit.NewClient(fake, audit.NewSlogSink(slog.New(slog.NewJSONHandler(&log, nil)).With("service", "photos")))
	k, err := client.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	_, err = client.Decrypt(as(t, bob), "other", k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrNotFound)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	require.Len(t, lines, 2)
	var got struct {
		audit.Record
		Level, Msg, Service string
	}
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &got))
	require.Equal(t, "INFO kms audit photos", got.Level+" "+got.Msg+" "+got.Service)
	require.Equal(t, alice, got.Principal)
	require.Equal(t, photo, got.Context)
	require.Equal(t, "success", got.Outcome)
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &got))
	require.Equal(t, "WARN", got.Level)
	require.Equal(t, "NotFound", got.ErrorCode)
	for _, secret := range []string{string(k.Plaintext()), hex.EncodeToString(k.Plaintext()), hex.EncodeToString(k.Ciphertext)} {
		require.NotContains(t, log.String(), secret)
	}

	// It is an error if the logger drops records or fails.
	log.Reset()
	quiet := audit.NewClient(fake, audit.NewSlogSink(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	_, err = quiet.GenerateDataKey(as(t, alice), "key", photo)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	failing := audit.NewClient(fake, audit.NewSlogSink(slog.New(slog.NewJSONHandler(failingWriter{}, nil))))
	_, err = failing.GenerateDataKey(as(t, alice), "key", photo)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.ErrorIs(t, err, errWriter)
}

var errWriter = errors.New("writer fails")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errWriter }

// TestNilArguments: with a nil client or sink, the first call fails and does not panic.
func TestNilArguments(t *testing.T) {
	var cached *cache.Client
	var file *audit.FileSink
	for _, client := range []kms.Client{
		audit.NewClient(nil, new(memorySink)), audit.NewClient(cached, new(memorySink)),
		audit.NewClient(kmstest.NewFake("key"), nil), audit.NewClient(kmstest.NewFake("key"), file),
	} {
		_, err := client.GenerateDataKey(t.Context(), "key", nil)
		require.ErrorIs(t, err, kms.ErrInvalid)
		_, err = client.Decrypt(t.Context(), "key", nil, nil)
		require.ErrorIs(t, err, kms.ErrInvalid)
	}
}
