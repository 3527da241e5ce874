package sse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

const kmsKey = "arn:example:kms:eu-1:111122223333:key/7"

func newKMS(t testing.TB, client kms.Client, keyID string, opts *sse.KMSOptions) *sse.KMS {
	t.Helper()
	k, err := sse.NewKMS(client, keyID, opts)
	require.NoError(t, err)
	return k
}

// TestKMSContext: what the key service binds and sees. SPEC KEK-3
func TestKMSContext(t *testing.T) {
	fake := kmstest.NewFake(kmsKey)
	fake.SetAlias("alias/photos", kmsKey)
	ctx := kms.WithPrincipal(t.Context(), kms.Principal{ID: "writer"})
	for _, tc := range []struct {
		bucketKey bool
		object    string
	}{{false, "photos/2026/cat.jpg"}, {true, "photos"}} {
		k := newKMS(t, fake, "alias/photos", &sse.KMSOptions{BucketKey: tc.bucketKey})
		require.Equal(t, "alias/photos", sse.RequestedKey(k))
		e, err := k.Encrypt(ctx, object)
		require.NoError(t, err)
		env := e.Envelope()
		require.Equal(t, kmsKey, env.KeyID(), "never an alias")
		require.Equal(t, tc.bucketKey, env.BucketKeyEnabled())
		require.Equal(t, object.Context, env.Context())
		// Either way of writing is read by either way of reading.
		for _, opts := range []*sse.KMSOptions{{Accept: sse.AnyKey}, {Accept: sse.AnyKey, BucketKey: true}} {
			_, err = newKMS(t, fake, "", opts).Decrypt(ctx, anyContext(object), env)
			require.NoError(t, err)
		}
		calls := fake.Calls()
		for _, call := range calls[len(calls)-3:] {
			require.Equal(t, "writer", call.Principal.ID)
			require.Equal(t, "photos/2026/cat.jpg", call.Resource)
			require.Equal(t, kms.Context{"team": "blue", "case": "17", sse.ContextObject: tc.object}, call.Context)
		}
	}
	require.Equal(t, 2, fake.Count(kms.OpGenerateDataKey))
	require.Equal(t, 4, fake.Count(kms.OpDecrypt))
}

// TestReservedNames: callers cannot speak for us. SPEC ENV-8
func TestReservedNames(t *testing.T) {
	fake := kmstest.NewFake(kmsKey)
	k := newKMS(t, fake, kmsKey, nil)
	for _, name := range []string{sse.ContextObject, "blobseal:bucket-key", "blobseal:", "blobseal:new"} {
		obj := sse.Object{Context: kms.Context{name: "true"}}
		for _, enc := range []sse.Encrypter{k, newCustomer(t, customerKey), sse.NewManaged(newRing(t))} {
			_, err := enc.Encrypt(t.Context(), obj)
			require.ErrorIs(t, err, sse.ErrInvalid, name)
			require.ErrorContains(t, err, "reserved")
		}
	}
	require.Zero(t, fake.Count(), "refused before the key service was asked")
}

func TestKMSArguments(t *testing.T) {
	for _, none := range []kms.Client{nil, (*cache.Client)(nil), (*localkms.Client)(nil)} {
		_, err := sse.NewKMS(none, kmsKey, nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
	fake := kmstest.NewFake(kmsKey)
	_, err := sse.NewKMS(fake, "", nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.NewKMS(fake, kmsKey, &sse.KMSOptions{BucketKey: true, NoBucketKey: true})
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = newKMS(t, fake, "", &sse.KMSOptions{Accept: sse.AnyKey}).Encrypt(t.Context(), object)
	require.ErrorIs(t, err, sse.ErrInvalid)

	// What names the object to the service is text. SPEC KEK-3
	bucketKey := newKMS(t, fake, kmsKey, &sse.KMSOptions{BucketKey: true})
	for _, k := range []*sse.KMS{newKMS(t, fake, kmsKey, nil), bucketKey} {
		_, err = k.Encrypt(t.Context(), sse.Object{Bucket: "\xff"})
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
	obj := sse.Object{Bucket: "b", Key: "\xff"}
	_, err = newKMS(t, fake, kmsKey, nil).Encrypt(t.Context(), obj)
	require.ErrorIs(t, err, sse.ErrInvalid)
	got, err := open(bucketKey, obj, seal(t, bucketKey, obj, []byte("secret"), nil))
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	_, err = newKMS(t, fake, kmsKey, nil).Encrypt(t.Context(), sse.Object{Context: kms.Context{"": ""}})
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestKMSRefusals: each kind of refusal stays visible, writes nothing, and is
// ErrKey only where the object, the context or the envelope is wrong.
func TestKMSRefusals(t *testing.T) {
	p := kms.Principal{ID: "reader"}
	for name, tc := range map[string]struct {
		fault func(f *kmstest.Fake)
		want  error
		isKey bool // on Decrypt
	}{
		"not found":   {func(f *kmstest.Fake) { f.RemoveKey(kmsKey) }, kms.ErrNotFound, true},
		"disabled":    {func(f *kmstest.Fake) { f.Disable(kmsKey) }, kms.ErrDisabled, false},
		"pending":     {func(f *kmstest.Fake) { f.ScheduleDeletion(kmsKey) }, kms.ErrPendingDeletion, false},
		"denied":      {func(f *kmstest.Fake) { f.Deny(p) }, kms.ErrDenied, false},
		"unavailable": {func(f *kmstest.Fake) { f.Fail(kms.ErrUnavailable, -1) }, kms.ErrUnavailable, false},
		"replaced":    {func(f *kmstest.Fake) { f.AddKey(kmsKey) }, nil, true},
	} {
		fake := kmstest.NewFake(kmsKey)
		k := newKMS(t, fake, kmsKey, nil)
		data := seal(t, k, object, []byte("secret"), nil)
		tc.fault(fake)
		ctx := kms.WithPrincipal(t.Context(), p)
		var dst bytes.Buffer
		_, err := sse.NewWriter(ctx, &dst, k, object, nil)
		if tc.want != nil {
			require.ErrorIs(t, err, tc.want, name)
			require.Zero(t, dst.Len(), name)
		}
		_, err = sse.NewReader(ctx, bytes.NewReader(data), k, object)
		require.Error(t, err, name)
		require.Equal(t, tc.isKey, errors.Is(err, sse.ErrKey), "%s: %v", name, err)
		if tc.want != nil {
			require.ErrorIs(t, err, tc.want, name)
		}
		require.Equal(t, name == "unavailable", errors.Is(err, kms.ErrUnavailable), name)
	}
}

// TestKMSSlow: ctx ends a call that hangs.
func TestKMSSlow(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake(kmsKey)
		k := newKMS(t, fake, kmsKey, nil)
		data := seal(t, k, object, nil, nil)
		fake.SetLatency(time.Hour)
		for name, call := range map[string]func(ctx context.Context) error{
			"encrypt": func(ctx context.Context) error { _, err := k.Encrypt(ctx, object); return err },
			"decrypt": func(ctx context.Context) error {
				_, err := sse.NewReader(ctx, bytes.NewReader(data), k, object)
				return err
			},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Minute, cancel)
			start := time.Now()
			require.ErrorIs(t, call(ctx), context.Canceled, name)
			require.Equal(t, time.Minute, time.Since(start), name)
		}
	})
}

// TestKMSGarbage: whatever the service answers, nothing is stored under it that
// could not be read back, and nothing wrong is read.
func TestKMSGarbage(t *testing.T) {
	fake := kmstest.NewFake(kmsKey, "other")
	k := newKMS(t, fake, kmsKey, nil)
	data := seal(t, k, object, []byte("secret"), nil)
	other, err := fake.GenerateDataKey(t.Context(), "other", nil)
	require.NoError(t, err)

	for name, answer := range map[string]func([]byte) []byte{
		"nothing":            func([]byte) []byte { return nil },
		"short":              func(p []byte) []byte { return p[:31] },
		"long":               func(p []byte) []byte { return append(p, 0) },
		"zeros":              func(p []byte) []byte { return make([]byte, 32) },
		"another's data key": func([]byte) []byte { return bytes.Clone(other.Plaintext()) },
	} {
		fake.AnswerPlaintext(answer)
		got, err := open(k, object, data)
		require.ErrorIs(t, err, sse.ErrKey, name)
		require.Empty(t, got)
	}
	fake.Recover()
	for name, answer := range map[string]func(*kms.DataKey) *kms.DataKey{
		"no data key":   func(*kms.DataKey) *kms.DataKey { return nil },
		"no key id":     func(k *kms.DataKey) *kms.DataKey { k.KeyID = ""; return k },
		"no ciphertext": func(k *kms.DataKey) *kms.DataKey { k.Ciphertext = nil; return k },
		"no plaintext":  func(k *kms.DataKey) *kms.DataKey { return &kms.DataKey{KeyID: k.KeyID, Ciphertext: k.Ciphertext} },
		"cleared":       func(k *kms.DataKey) *kms.DataKey { k.Clear(); return k },
	} {
		fake.AnswerKey(answer)
		_, err := k.Encrypt(t.Context(), object)
		require.ErrorIs(t, err, kms.ErrUnavailable, name)
	}
	fake.AnswerKey(func(k *kms.DataKey) *kms.DataKey { k.Ciphertext = make([]byte, 6145); return k })
	_, err = k.Encrypt(t.Context(), object)
	require.ErrorIs(t, err, sse.ErrTooLarge)
}

// TestDataKeysAreCleared: a mode erases the data key that sealed an object's, also if
// the envelope cannot hold the rest.
func TestDataKeysAreCleared(t *testing.T) {
	fake := kmstest.NewFake(kmsKey)
	k := newKMS(t, fake, kmsKey, nil)
	var given []*kms.DataKey
	fake.AnswerKey(func(k *kms.DataKey) *kms.DataKey {
		given = append(given, k)
		return k
	})
	e, err := k.Encrypt(t.Context(), object)
	require.NoError(t, err)
	d, err := k.Decrypt(t.Context(), object, e.Envelope())
	require.NoError(t, err)
	_, err = k.Rewrap(t.Context(), object, d)
	require.NoError(t, err)
	_, err = k.Encrypt(t.Context(), sse.Object{Key: strings.Repeat("k", 65536)})
	require.ErrorIs(t, err, sse.ErrTooLarge)
	require.Len(t, given, 3)
	for i, key := range given {
		require.Nil(t, key.Plaintext(), i)
	}
}

// TestBucketKeys: through a cache, many objects cost one call for each
// principal, have data keys of their own, and each opens as itself alone.
func TestBucketKeys(t *testing.T) {
	fake := kmstest.NewFake(kmsKey)
	cached := cache.New(fake, nil)
	k := newKMS(t, cached, kmsKey, &sse.KMSOptions{BucketKey: true})
	const each = 500
	heads := map[string]bool{}
	var first, last []byte
	for i := range each {
		for _, who := range []string{"alice", "bob"} {
			ctx := kms.WithPrincipal(t.Context(), kms.Principal{ID: who})
			var dst bytes.Buffer
			w, err := sse.NewWriter(ctx, &dst, k, sse.Object{Bucket: "b", Key: fmt.Sprint(who, i)}, nil)
			require.NoError(t, err)
			io.WriteString(w, who)
			require.NoError(t, w.Close())
			env, err := sse.ReadEnvelope(bytes.NewReader(dst.Bytes()))
			require.NoError(t, err)
			raw := marshal(t, env)
			heads[string(raw[len(raw)-56:])] = true
			if first == nil {
				first = dst.Bytes()
			}
			last = dst.Bytes()
		}
	}
	require.Len(t, heads, 2*each)
	require.Equal(t, 2, fake.Count())
	got, err := open(k, sse.Object{Bucket: "b", Key: fmt.Sprint("bob", each-1)}, last)
	require.NoError(t, err)
	require.Equal(t, "bob", string(got))
	_, err = open(k, sse.Object{Bucket: "b", Key: "alice1"}, first)
	require.ErrorIs(t, err, sse.ErrKey, "one bucket key, and yet bound to its name")

	cached.Invalidate()
	fake.Disable(kmsKey)
	_, err = k.Encrypt(t.Context(), sse.Object{Bucket: "b"})
	require.ErrorIs(t, err, kms.ErrDisabled)
}

// TestRewrapToKMS honours exactly what was asked, or fails.
func TestRewrapToKMS(t *testing.T) {
	fake := kmstest.NewFake(kmsKey, "second")
	k := newKMS(t, fake, kmsKey, nil)
	data := seal(t, k, object, []byte("secret"), &sse.WriterOptions{EnvelopeSize: 1024})
	env, err := sse.ReadEnvelope(bytes.NewReader(data))
	require.NoError(t, err)
	d, err := k.Decrypt(t.Context(), object, env)
	require.NoError(t, err)
	second := newKMS(t, fake, "second", &sse.KMSOptions{BucketKey: true})
	both := newKMS(t, fake, kmsKey, &sse.KMSOptions{Accept: func(id string) bool { return id == kmstest.ARN("second") }})
	moved, err := second.Rewrap(t.Context(), anyContext(object), d)
	require.NoError(t, err)
	require.Equal(t, kmstest.ARN("second"), moved.KeyID())
	require.True(t, moved.BucketKeyEnabled())
	require.Equal(t, 1024, moved.Size())
	_, err = open(k, object, append(marshal(t, moved), data[1024:]...))
	require.ErrorIs(t, err, sse.ErrKey)
	got, err := open(both, object, append(marshal(t, moved), data[1024:]...))
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))

	// Back out of the key service, where the reserved pair does not go.
	d, err = both.Decrypt(t.Context(), object, moved)
	require.NoError(t, err)
	out, err := newCustomer(t, customerKey).Rewrap(t.Context(), object, d)
	require.NoError(t, err)
	require.False(t, out.BucketKeyEnabled())
	require.Equal(t, object.Context, out.Context())

	for _, fault := range []error{kms.ErrDenied, kms.ErrUnavailable, kms.ErrDisabled} {
		fake.Fail(fault, 1)
		_, err = second.Rewrap(t.Context(), object, d)
		require.ErrorIs(t, err, fault)
	}
	_, err = newKMS(t, fake, "third", nil).Rewrap(t.Context(), object, d)
	require.ErrorIs(t, err, kms.ErrNotFound)
}
