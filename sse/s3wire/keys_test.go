package s3wire_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// encryptionHeaders returns a response's headers about encryption.
func encryptionHeaders(h http.Header) map[string]string {
	found := make(map[string]string)
	for _, name := range []string{
		s3wire.HeaderEncryption, s3wire.HeaderKeyID, s3wire.HeaderContext, s3wire.HeaderBucketKey,
		s3wire.HeaderCustomerAlgorithm, s3wire.HeaderCustomerKey, s3wire.HeaderCustomerKeyMD5,
	} {
		if value := h.Get(name); value != "" {
			found[name] = value
		}
	}
	return found
}

// TestHeaderFacts has a test for each sentence about headers: responses echo what
// the object's envelope says.
func TestHeaderFacts(t *testing.T) {
	pairs := encoded(`{"tenant":"red"}`)
	arn := kmstest.ARN("photos")
	for _, c := range []struct {
		name            string
		write, read     http.Header
		wrote, readBack map[string]string
	}{
		{
			"nothing → AES256", nil, nil,
			map[string]string{s3wire.HeaderEncryption: "AES256"},
			map[string]string{s3wire.HeaderEncryption: "AES256"},
		},
		{
			"SSE-S3 → AES256", headers(s3wire.HeaderEncryption, "AES256"), nil,
			map[string]string{s3wire.HeaderEncryption: "AES256"},
			map[string]string{s3wire.HeaderEncryption: "AES256"},
		},
		{
			"SSE-KMS without key id → the default key", headers(s3wire.HeaderEncryption, "aws:kms"), nil,
			map[string]string{s3wire.HeaderEncryption: "aws:kms", s3wire.HeaderKeyID: kmstest.ARN("default")},
			map[string]string{s3wire.HeaderEncryption: "aws:kms", s3wire.HeaderKeyID: kmstest.ARN("default")},
		},
		{
			"SSE-KMS → aws:kms + key id (full ARN) + context where given + bucket-key-enabled",
			headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, "alias/photos", s3wire.HeaderContext, pairs, s3wire.HeaderBucketKey, "true"), nil,
			map[string]string{s3wire.HeaderEncryption: "aws:kms", s3wire.HeaderKeyID: arn, s3wire.HeaderContext: pairs, s3wire.HeaderBucketKey: "true"},
			map[string]string{s3wire.HeaderEncryption: "aws:kms", s3wire.HeaderKeyID: arn, s3wire.HeaderBucketKey: "true"},
		},
		{
			"SSE-C → algorithm + key MD5, never the key", customerHeaders(), customerHeaders(),
			map[string]string{s3wire.HeaderCustomerAlgorithm: "AES256", s3wire.HeaderCustomerKeyMD5: customerMD5},
			map[string]string{s3wire.HeaderCustomerAlgorithm: "AES256", s3wire.HeaderCustomerKeyMD5: customerMD5},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			require.Equal(t, c.wrote, encryptionHeaders(b.put(t, "/b/k", c.write)))
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				response, body := b.do(t, method, "/b/k", c.read, "")
				require.Equal(t, 200, response.StatusCode, body)
				require.Equal(t, c.readBack, encryptionHeaders(response.Header))
				if method == http.MethodGet {
					require.Equal(t, "meow", body)
				}
			}
		})
	}
	t.Run("GET/HEAD must not carry the SSE-S3/SSE-KMS request headers → 400", func(t *testing.T) {
		b := newBed(t)
		b.put(t, "/b/k", nil)
		for _, name := range []string{s3wire.HeaderEncryption, s3wire.HeaderKeyID, s3wire.HeaderContext, s3wire.HeaderBucketKey} {
			b.refused(t, 400, "InvalidArgument", http.MethodGet, "/b/k", headers(name, "AES256"))
			b.refused(t, 400, "InvalidArgument", http.MethodHead, "/b/k", headers(name, "AES256"))
		}
	})
	t.Run("aws:kms:dsse is known and not implemented", func(t *testing.T) {
		b := newBed(t)
		b.refused(t, 501, "NotImplemented", http.MethodPut, "/b/k", headers(s3wire.HeaderEncryption, "aws:kms:dsse"))
	})
	t.Run("nothing was opened", func(t *testing.T) {
		b := newBed(t)
		h := make(http.Header)
		b.keys.ForRead(nil).SetHeaders(h.Set)
		cipher, err := b.keys.ForWrite(&s3wire.Write{Algorithm: s3wire.AWSKMS, Context: kms.Context{"a": "b"}}, nil)
		require.NoError(t, err)
		cipher.SetHeaders(h.Set)
		require.Empty(t, h)
	})
}

// TestContextFacts: the key service sees S3's default context, and the pairs of the
// request.
func TestContextFacts(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.Header
		want kms.Context
	}{
		`S3's default context is {"aws:s3:arn": object ARN}`: {
			headers(s3wire.HeaderEncryption, "aws:kms"),
			kms.Context{"aws:s3:arn": "arn:aws:s3:::b/a/k", sse.ContextObject: "b/a/k"},
		},
		"with Bucket Keys the bucket ARN": {
			headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderBucketKey, "true"),
			kms.Context{"aws:s3:arn": "arn:aws:s3:::b", sse.ContextObject: "b", "blobseal:bucket-key": "true"},
		},
		"Users add pairs": {
			headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderContext, encoded(`{"tenant":"red"}`)),
			kms.Context{"aws:s3:arn": "arn:aws:s3:::b/a/k", "tenant": "red", sse.ContextObject: "b/a/k"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			delete(c.want, "blobseal:bucket-key") // of the envelope, which the key service does not see
			b.put(t, "/b/a/k", c.h)
			response, body := b.do(t, http.MethodGet, "/b/a/k", nil, "")
			require.Equal(t, 200, response.StatusCode, body)
			calls := b.fake.Calls()
			require.Len(t, calls, 2)
			for _, call := range calls {
				require.Equal(t, c.want, call.Context)
				require.Equal(t, "alice", call.Principal.ID)
			}
		})
	}
	t.Run("overriding aws:s3:arn is refused", func(t *testing.T) {
		b := newBed(t)
		b.refused(t, 400, "InvalidArgument", http.MethodPut, "/b/k",
			headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderContext, encoded(`{"aws:s3:arn":"arn:aws:s3:::b/k"}`)))
	})
}

// TestBucketKeys: one data key serves many objects, per requester, behind a cache.
func TestBucketKeys(t *testing.T) {
	fake := kmstest.NewFake("default")
	keys, err := s3wire.NewKeys(s3wire.KeysOptions{KMS: cache.New(fake, nil), DefaultKey: "default"})
	require.NoError(t, err)
	write := func(principal, key string, bucketKey bool) {
		w := &s3wire.Write{Algorithm: s3wire.AWSKMS}
		cipher, err := keys.ForWrite(w, &s3wire.Configuration{BucketKeyEnabled: bucketKey})
		require.NoError(t, err)
		_, err = cipher.Encrypt(kms.WithPrincipal(t.Context(), kms.Principal{ID: principal}), sse.Object{Bucket: "b", Key: key})
		require.NoError(t, err)
	}
	for i := range 5 {
		write("alice", fmt.Sprint(i), true)
		write("bob", fmt.Sprint(i), true)
	}
	require.Equal(t, 2, fake.Count())
	for i := range 5 {
		write("alice", fmt.Sprint(i), false)
	}
	require.Equal(t, 7, fake.Count())
}

// TestForWrite: the request decides, and the bucket's configuration where it is
// silent.
func TestForWrite(t *testing.T) {
	yes, no := true, false
	kmsDefault := &s3wire.Configuration{Algorithm: s3wire.AWSKMS, KeyID: "photos", BucketKeyEnabled: true}
	for name, c := range map[string]struct {
		w         s3wire.Write
		c         *s3wire.Configuration
		mode      sse.Mode
		key       string
		bucketKey bool
	}{
		"no configuration":                   {s3wire.Write{}, nil, sse.ModeManaged, "", false},
		"configuration with a key":           {s3wire.Write{}, kmsDefault, sse.ModeKMS, kmstest.ARN("photos"), true},
		"configuration without a key":        {s3wire.Write{}, &s3wire.Configuration{Algorithm: s3wire.AWSKMS}, sse.ModeKMS, kmstest.ARN("default"), false},
		"request without bucket key":         {s3wire.Write{BucketKey: &no}, kmsDefault, sse.ModeKMS, kmstest.ARN("photos"), false},
		"request with bucket key":            {s3wire.Write{Algorithm: s3wire.AWSKMS, BucketKey: &yes}, nil, sse.ModeKMS, kmstest.ARN("default"), true},
		"request with another mode":          {s3wire.Write{Algorithm: s3wire.AES256}, kmsDefault, sse.ModeManaged, "", false},
		"request with aws:kms and no key":    {s3wire.Write{Algorithm: s3wire.AWSKMS}, kmsDefault, sse.ModeKMS, kmstest.ARN("default"), true},
		"request with another key":           {s3wire.Write{Algorithm: s3wire.AWSKMS, KeyID: "alias/photos"}, nil, sse.ModeKMS, kmstest.ARN("photos"), false},
		"request without bucket key, SSE-S3": {s3wire.Write{BucketKey: &no}, nil, sse.ModeManaged, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			cipher, err := b.keys.ForWrite(&c.w, c.c)
			require.NoError(t, err)
			require.Equal(t, c.mode, cipher.Mode())
			e, err := cipher.Encrypt(t.Context(), sse.Object{Bucket: "b", Key: "k"})
			require.NoError(t, err)
			env := e.Envelope()
			require.Equal(t, c.mode, env.Mode())
			require.Equal(t, c.bucketKey, env.BucketKeyEnabled())
			if c.mode == sse.ModeKMS {
				require.Equal(t, c.key, env.KeyID())
			} else {
				require.Empty(t, env.Context())
				require.Empty(t, cipher.RequestedKey())
			}
		})
	}
	t.Run("a bucket key without SSE-KMS", func(t *testing.T) {
		_, err := newBed(t).keys.ForWrite(&s3wire.Write{BucketKey: &yes}, nil)
		requireCode(t, "InvalidArgument", err)
	})
	t.Run("a context too long for an envelope", func(t *testing.T) {
		w := &s3wire.Write{Algorithm: s3wire.AWSKMS, Context: kms.Context{"a": strings.Repeat("b", 8192)}}
		cipher, err := newBed(t).keys.ForWrite(w, nil)
		require.NoError(t, err)
		_, err = cipher.Encrypt(t.Context(), sse.Object{Bucket: "b", Key: "k"})
		requireCode(t, "InvalidArgument", err)
		require.ErrorIs(t, err, sse.ErrTooLarge)
	})
}

// TestModesThatAreNotConfigured: a mode without keys is refused, for writing and
// for reading.
func TestModesThatAreNotConfigured(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/s3", nil)
	b.put(t, "/b/kms", headers(s3wire.HeaderEncryption, "aws:kms"))
	none, err := s3wire.NewKeys(s3wire.KeysOptions{})
	require.NoError(t, err)
	b.srv.keys = none
	b.refused(t, 501, "NotImplemented", http.MethodPut, "/b/k", nil)
	b.refused(t, 501, "NotImplemented", http.MethodPut, "/b/k", headers(s3wire.HeaderEncryption, "aws:kms"))
	b.refused(t, 501, "NotImplemented", http.MethodGet, "/b/s3", nil)
	b.refused(t, 501, "NotImplemented", http.MethodGet, "/b/kms", nil)
	b.put(t, "/b/c", customerHeaders())
	_, err = none.ForRead(nil).Decrypt(t.Context(), sse.Object{}, nil)
	requireCode(t, "InternalError", err)
	require.ErrorIs(t, err, sse.ErrFormat)
}

func TestNewKeysRefuses(t *testing.T) {
	customer, err := sse.NewCustomer(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	for name, opts := range map[string]s3wire.KeysOptions{
		"a managed cipher of another mode": {Managed: customer},
		"a default key without service":    {DefaultKey: "photos"},
		"accepted keys without service":    {Accept: sse.AnyKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s3wire.NewKeys(opts)
			require.ErrorIs(t, err, sse.ErrInvalid)
		})
	}
	keys, err := s3wire.NewKeys(s3wire.KeysOptions{Managed: (*sse.Customer)(nil), KMS: (*kmstest.Fake)(nil)})
	require.NoError(t, err)
	_, err = keys.ForWrite(nil, nil)
	requireCode(t, "NotImplemented", err)
}

// TestAcceptedKeys: without Accept, only the default key; with it, no key that it
// refuses, whatever alias a request uses.
func TestAcceptedKeys(t *testing.T) {
	obj := sse.Object{Bucket: "b", Key: "k"}
	b := newBed(t)
	encrypt := func(keys *s3wire.Keys, keyID string) (*sse.Envelope, error) {
		cipher, err := keys.ForWrite(&s3wire.Write{Algorithm: s3wire.AWSKMS, KeyID: keyID}, nil)
		if err != nil {
			return nil, err
		}
		e, err := cipher.Encrypt(t.Context(), obj)
		if err != nil {
			return nil, err
		}
		return e.Envelope(), nil
	}
	photos, err := encrypt(b.keys, "photos")
	require.NoError(t, err)
	byDefault, err := encrypt(b.keys, "")
	require.NoError(t, err)

	t.Run("nil", func(t *testing.T) {
		for _, defaultKey := range []string{"", "default"} {
			keys, err := s3wire.NewKeys(s3wire.KeysOptions{KMS: b.fake, DefaultKey: defaultKey})
			require.NoError(t, err)
			_, err = encrypt(keys, "photos")
			requireCode(t, "AccessDenied", err)
			_, err = encrypt(keys, "")
			require.NoError(t, err)
			_, err = keys.ForRead(nil).Decrypt(t.Context(), obj, photos)
			requireCode(t, "AccessDenied", err)
			_, err = keys.ForRead(nil).Decrypt(t.Context(), obj, byDefault)
			require.NoError(t, err)
		}
		keys, err := s3wire.NewKeys(s3wire.KeysOptions{KMS: b.fake, DefaultKey: "default"})
		require.NoError(t, err)
		_, err = encrypt(keys, kmstest.ARN("default")) // another name of the default key
		require.NoError(t, err)
	})
	t.Run("only photos", func(t *testing.T) {
		b.fake.AddKey("secret")
		b.fake.SetAlias("alias/secret", "secret")
		keys, err := s3wire.NewKeys(s3wire.KeysOptions{KMS: b.fake, Accept: func(id string) bool { return id == kmstest.ARN("photos") }})
		require.NoError(t, err)
		for _, name := range []string{"", "photos", "alias/photos"} {
			env, err := encrypt(keys, name)
			require.NoError(t, err, name)
			_, err = keys.ForRead(nil).Decrypt(t.Context(), obj, env)
			require.NoError(t, err, name)
		}
		for _, name := range []string{"secret", "alias/secret"} {
			_, err := encrypt(keys, name)
			requireCode(t, "AccessDenied", err)
		}
	})
}

// TestRewrap: a copy, or a rotation, gets the destination's context.
func TestRewrap(t *testing.T) {
	b := newBed(t)
	from, to := sse.Object{Bucket: "b", Key: "from"}, sse.Object{Bucket: "c", Key: "to"}
	customerWrite, err := s3wire.ParseWrite(customerHeaders().Values, true)
	require.NoError(t, err)
	writes := map[string]*s3wire.Write{
		"SSE-S3":  {},
		"SSE-KMS": {Algorithm: s3wire.AWSKMS, Context: kms.Context{"tenant": "red"}},
		"SSE-C":   customerWrite,
	}
	for source, w := range writes {
		for target, w2 := range writes {
			t.Run(source+" to "+target, func(t *testing.T) {
				first, err := b.keys.ForWrite(w, b.srv.configuration.Load())
				require.NoError(t, err)
				e, err := first.Encrypt(t.Context(), from)
				require.NoError(t, err)
				body, err := io.ReadAll(e.Reader(bytes.NewReader([]byte("meow"))))
				require.NoError(t, err)
				d, err := first.Decrypt(t.Context(), from, e.Envelope())
				require.NoError(t, err)

				second, err := b.keys.ForWrite(w2, b.srv.configuration.Load())
				require.NoError(t, err)
				env, err := second.Rewrap(t.Context(), to, d)
				require.NoError(t, err)
				if w2.Algorithm == s3wire.AWSKMS {
					require.Equal(t, kms.Context{"tenant": "red", "aws:s3:arn": "arn:aws:s3:::c/to"}, env.Context())
				} else {
					require.Empty(t, env.Context())
				}
				h := make(http.Header)
				second.SetHeaders(h.Set)
				require.NotEmpty(t, h)

				opener := b.keys.ForRead(&s3wire.Read{Customer: w2.Customer})
				d, err = opener.Decrypt(t.Context(), to, env)
				require.NoError(t, err)
				plain, err := io.ReadAll(d.Reader(bytes.NewReader(body)))
				require.NoError(t, err)
				require.Equal(t, "meow", string(plain))
				_, err = opener.Decrypt(t.Context(), from, env)
				require.Error(t, err)
			})
		}
	}
	t.Run("a stale ARN", func(t *testing.T) {
		cipher, err := b.keys.ForWrite(writes["SSE-KMS"], nil)
		require.NoError(t, err)
		e, err := cipher.Encrypt(t.Context(), from)
		require.NoError(t, err)
		d, err := cipher.Decrypt(t.Context(), from, e.Envelope())
		require.NoError(t, err)
		any := to
		any.AnyContext = true
		env, err := cipher.Rewrap(t.Context(), any, d)
		require.NoError(t, err)
		_, err = cipher.Decrypt(t.Context(), to, env)
		requireCode(t, "InternalError", err)
	})
}

// TestCiphersAreConcurrent: one request may use its cipher in several goroutines.
func TestCiphersAreConcurrent(t *testing.T) {
	b := newBed(t)
	cipher, err := b.keys.ForWrite(&s3wire.Write{Algorithm: s3wire.AWSKMS, Context: kms.Context{"a": "b"}}, nil)
	require.NoError(t, err)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			obj := sse.Object{Bucket: "b", Key: fmt.Sprint(i)}
			e, err := cipher.Encrypt(t.Context(), obj)
			if err == nil {
				_, err = cipher.Decrypt(t.Context(), obj, e.Envelope())
			}
			if err != nil {
				t.Error(err)
			}
			cipher.SetHeaders(make(http.Header).Set)
		})
	}
	group.Wait()
}

// TestRingFaults: what goes wrong with the service's own keys is no fault of the
// client.
func TestRingFaults(t *testing.T) {
	t.Run("edited store", func(t *testing.T) {
		b := newBed(t)
		b.put(t, "/b/k", nil)
		stored, _ := b.srv.objects.Load("/b/k")
		b.srv.objects.Store("/b/moved", stored)
		b.refused(t, 500, "InternalError", http.MethodGet, "/b/moved", nil)
	})
	t.Run("disabled version", func(t *testing.T) {
		b := newBed(t)
		b.put(t, "/b/k", nil)
		versions := b.ring.Versions()
		require.Len(t, versions, 1)
		_, err := b.ring.Rotate(t.Context())
		require.NoError(t, err)
		_, err = b.ring.SetState(t.Context(), versions[0].ID, keyring.Disabled)
		require.NoError(t, err)
		b.refused(t, 403, "AccessDenied", http.MethodGet, "/b/k", nil)
	})
}
