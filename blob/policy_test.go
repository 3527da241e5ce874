package blob_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// foreign is a cipher that this package does not know.
type foreign struct{ sse.Cipher }

// TestPolicy: the bucket writes what its policy allows and explains it so. It refuses the
// rest, names the rule, and leaves no trace.
func TestPolicy(t *testing.T) {
	ctx := context.Background()
	fake := kmstest.NewFake("arn:a", "arn:b")
	fake.SetAlias("alias/b", "arn:b")
	newKey := func(id string) *sse.KMS {
		cipher, err := sse.NewKMS(fake, id, nil)
		require.NoError(t, err)
		return cipher
	}
	for _, test := range []struct {
		name    string
		policy  blob.Policy
		cipher  sse.Cipher
		rule    blob.Rule
		refused bool
		late    bool // only the key tells
	}{
		{"default", blob.Policy{}, nil, blob.RuleModes, false, false},
		{"another mode", blob.Policy{}, newKey("arn:a"), blob.RuleModes, false, false},
		{"a mode that is named", blob.Policy{Modes: []sse.Mode{sse.ModeManaged, sse.ModeKMS}}, newKey("arn:a"), blob.RuleModes, false, false},
		{"a mode that is not named", blob.Policy{Modes: []sse.Mode{sse.ModeManaged}}, newKey("arn:a"), blob.RuleModes, true, false},
		{"a foreign cipher of that mode", blob.Policy{Modes: []sse.Mode{sse.ModeManaged}}, foreign{newKey("arn:a")}, blob.RuleModes, true, false},
		{"customer", blob.Policy{}, ssetest.NewCustomer(t, 1), blob.RuleCustomerKeys, true, false},
		{"customer, foreign", blob.Policy{}, foreign{ssetest.NewCustomer(t, 1)}, blob.RuleCustomerKeys, true, false},
		{"customer, allowed", blob.Policy{AllowCustomerKeys: true}, ssetest.NewCustomer(t, 1), blob.RuleCustomerKeys, false, false},
		{"customer, named", blob.Policy{Modes: []sse.Mode{sse.ModeManaged, sse.ModeCustomer}}, ssetest.NewCustomer(t, 1), blob.RuleCustomerKeys, false, false},
		{"customer, only others named", blob.Policy{Modes: []sse.Mode{sse.ModeManaged}}, ssetest.NewCustomer(t, 1), blob.RuleCustomerKeys, true, false},
		{"a key that is named", blob.Policy{KMSKeys: []string{"arn:a"}}, newKey("arn:a"), blob.RuleKMSKeys, false, false},
		{"a key that is not named", blob.Policy{KMSKeys: []string{"arn:a"}}, newKey("arn:b"), blob.RuleKMSKeys, true, true},
		{"a key behind an alias", blob.Policy{KMSKeys: []string{"arn:a"}}, newKey("alias/b"), blob.RuleKMSKeys, true, true},
		{"a named key behind an alias", blob.Policy{KMSKeys: []string{"arn:b"}}, newKey("alias/b"), blob.RuleKMSKeys, false, false},
		{"an alias that is named", blob.Policy{KMSKeys: []string{"alias/b"}}, newKey("alias/b"), blob.RuleKMSKeys, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucketWith(t, inner, sse.NewManaged(blobtest.NewRing(t)), &blob.Options{Policy: test.policy})
			require.NoError(t, b.WriteAll(ctx, "source", nil, nil))
			spy.Take()
			fake.Forget()
			view := blobtest.With(t, b, blob.Request{Cipher: test.cipher})
			e := view.ExplainWrite()
			require.Empty(t, fake.Calls(), "a key was touched")
			require.Empty(t, spy.Take())
			require.Equal(t, test.rule, e.Rule, e)
			if test.refused && !test.late {
				require.ErrorIs(t, e.Err, blob.ErrPolicy)
			} else {
				require.NoError(t, e.Err)
			}
			err := view.WriteAll(ctx, "k", blobtest.Content(10), nil)
			if !test.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, blob.ErrPolicy)
			require.Equal(t, gcerrors.PermissionDenied, gcerrors.Code(err))
			require.ErrorIs(t, view.CopyFrom(ctx, "k", b, "source", nil), blob.ErrPolicy)
			if !test.late {
				require.Empty(t, fake.Calls(), "a key was touched")
			}
			require.NotContains(t, spy.Take(), "PUT k", "the store was asked")
		})
	}
}

// TestExplainRequestedKey: an explanation shows the key as the cipher requests it. The
// policy does not decide by that name.
func TestExplainRequestedKey(t *testing.T) {
	fake := kmstest.NewFake("arn:b")
	fake.SetAlias("alias/b", "arn:b")
	behind, err := sse.NewKMS(fake, "alias/b", nil)
	require.NoError(t, err)
	inner := blobtest.NewMem(t)
	require.NoError(t, inner.WriteAll(context.Background(), "plain", nil, nil))
	open := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	listed := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true, Policy: blob.Policy{KMSKeys: []string{"arn:b", "alias/b"}}})
	for _, test := range []struct {
		name   string
		b      *blob.Bucket
		cipher sse.Cipher
		want   blob.Explanation
		text   string
	}{
		{"SSE-S3", open, nil, blob.Explanation{Rule: blob.RuleModes, Cipher: blob.RuleCipher, Mode: sse.ModeManaged},
			`SSE-S3 with the bucket's cipher: allowed by Policy.Modes`},
		{"an alias", open, behind, blob.Explanation{Rule: blob.RuleModes, Cipher: blob.RuleRequest, Mode: sse.ModeKMS, RequestedKey: "alias/b"},
			`SSE-KMS under what the key service has for "alias/b" with the request's cipher: allowed by Policy.Modes`},
		{"an alias that may be any key", listed, behind, blob.Explanation{Rule: blob.RuleKMSKeys, Cipher: blob.RuleRequest, Mode: sse.ModeKMS, RequestedKey: "alias/b"},
			`SSE-KMS under what the key service has for "alias/b" with the request's cipher: left to Policy.KMSKeys, when the key is used`},
		{"a cipher that names no key", open, foreign{behind}, blob.Explanation{Rule: blob.RuleModes, Cipher: blob.RuleRequest, Mode: sse.ModeKMS},
			`SSE-KMS with the request's cipher: allowed by Policy.Modes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := blobtest.With(t, test.b, blob.Request{Cipher: test.cipher}).ExplainWrite()
			require.Equal(t, test.want, e)
			require.Equal(t, test.text, e.String())
		})
	}
	require.Empty(t, fake.Calls(), "a key was touched")
}

// TestPolicyOfTheBucketsOwn: NewBucket refuses a policy that forbids the bucket's own cipher,
// and one that makes no sense.
func TestPolicyOfTheBucketsOwn(t *testing.T) {
	_, err := blob.NewBucket(blobtest.NewMem(t), "photos", ssetest.NewCustomer(t, 1), nil)
	require.ErrorIs(t, err, blob.ErrPolicy)
	_, err = blob.NewBucket(blobtest.NewMem(t), "photos", ssetest.NewKMS(t, "a"), &blob.Options{Policy: blob.Policy{Modes: []sse.Mode{sse.ModeManaged}}})
	require.ErrorIs(t, err, blob.ErrPolicy)
	_, err = blob.NewBucket(blobtest.NewMem(t), "photos", ssetest.NewKMS(t, "a"), &blob.Options{Policy: blob.Policy{Modes: []sse.Mode{9}}})
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = blob.NewBucket(blobtest.NewMem(t), "photos", ssetest.NewKMS(t, "a"), &blob.Options{EnvelopeSize: sse.MaxEnvelopeSize + 1})
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = blob.NewBucket(blobtest.NewMem(t), "photos", (*sse.KMS)(nil), nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = blob.NewBucket(nil, "photos", ssetest.NewKMS(t, "a"), nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestOldObjects: objects that the policy no longer allows stay readable.
func TestOldObjects(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	managed, kms1, customer := sse.NewManaged(blobtest.NewRing(t)), ssetest.NewKMS(t, "a"), ssetest.NewCustomer(t, 1)
	then := blobtest.NewBucketWith(t, inner, managed, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
	for key, cipher := range map[string]sse.Cipher{"managed": managed, "kms": kms1, "customer": customer} {
		require.NoError(t, blobtest.With(t, then, blob.Request{Cipher: cipher}).WriteAll(ctx, key, []byte(key), nil))
	}
	now := blobtest.NewBucketWith(t, inner, kms1, &blob.Options{
		Policy:     blob.Policy{Modes: []sse.Mode{sse.ModeKMS}},
		Decrypters: sse.ByMode{sse.ModeManaged: managed, sse.ModeCustomer: customer},
	})
	for _, key := range []string{"managed", "kms", "customer"} {
		require.Equal(t, key, string(blobtest.ReadAll(t, now.Bucket, key)))
		got, err := blobtest.ReadRange(now.Bucket, key, 1, 2)
		require.NoError(t, err)
		require.Equal(t, key[1:3], string(got))
	}
}

// TestExplainRead explains reads without a key, and compares each with the read itself.
func TestExplainRead(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	fake := kmstest.NewFake("arn:a")
	cipher, err := sse.NewKMS(fake, "arn:a", nil)
	require.NoError(t, err)
	managed := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{
		Decrypters: sse.ByMode{sse.ModeManaged: managed}, Policy: blob.Policy{AllowCustomerKeys: true}, AllowPlain: true,
	})
	strict := blobtest.NewBucketWith(t, inner, cipher, nil)
	customer := ssetest.NewCustomer(t, 1)
	bound := kms.Context{"a": "b"}
	write := func(key string, cipher sse.Cipher) {
		require.NoError(t, blobtest.With(t, b, blob.Request{Cipher: cipher, Context: bound}).WriteAll(ctx, key, nil, nil))
	}
	write("kms", nil)
	write("managed", managed)
	write("customer", customer)
	write("damaged", nil)
	write("later", nil)
	require.NoError(t, inner.WriteAll(ctx, "plain", []byte("plain"), nil))
	replaceStored(t, inner, "damaged", []byte("damaged"))
	later := blobtest.ReadAll(t, inner, "later")
	later[8] = 2
	replaceStored(t, inner, "later", later)

	fake.Forget()
	for _, test := range []struct {
		name string
		b    *blob.Bucket
		key  string
		req  blob.Request
		kind stored.Kind
		mode sse.Mode
		rule blob.Rule
		err  error
		text string
	}{
		{"own mode", b, "kms", blob.Request{Context: bound}, stored.KindEncrypted, sse.ModeKMS, blob.RuleCipher, nil, `SSE-KMS under key "arn:a" with the bucket's cipher: allowed by the bucket's cipher`},
		{"old mode", b, "managed", blob.Request{Context: bound}, stored.KindEncrypted, sse.ModeManaged, blob.RuleDecrypters, nil, ""},
		{"customer without a key", b, "customer", blob.Request{AnyContext: true}, stored.KindEncrypted, sse.ModeCustomer, blob.RuleCipher, sse.ErrMode, ""},
		{"customer with a key", b, "customer", blob.Request{Cipher: customer, Context: bound}, stored.KindEncrypted, sse.ModeCustomer, blob.RuleRequest, nil, ""},
		{"customer's key where none is due", b, "kms", blob.Request{Cipher: customer, Context: bound}, stored.KindEncrypted, sse.ModeKMS, blob.RuleRequest, sse.ErrMode, ""},
		{"another context", b, "kms", blob.Request{}, stored.KindEncrypted, sse.ModeKMS, blob.RuleStored, sse.ErrKey, ""},
		{"plain", b, "plain", blob.Request{}, stored.KindPlain, 0, blob.RulePlain, nil, "no encryption: allowed by Options.AllowPlain"},
		{"plain with a key", b, "plain", blob.Request{Decrypters: sse.ByMode{sse.ModeCustomer: customer}}, stored.KindPlain, 0, blob.RuleRequest, sse.ErrMode, ""},
		{"plain where it is not allowed", strict, "plain", blob.Request{}, stored.KindPlain, 0, blob.RulePlain, blob.ErrPlain, ""},
		{"damaged", b, "damaged", blob.Request{}, stored.KindDamaged, 0, blob.RuleStored, sse.ErrFormat, ""},
		{"of a later version", b, "later", blob.Request{}, stored.KindUnknownVersion, 0, blob.RuleStored, sse.ErrVersion, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			view := blobtest.With(t, test.b, test.req)
			e, err := view.ExplainRead(ctx, test.key)
			require.NoError(t, err)
			require.Equal(t, []any{test.kind, test.mode, test.rule}, []any{e.Kind, e.Mode, e.Rule}, e)
			require.ErrorIs(t, e.Err, test.err)
			require.Equal(t, test.err == blob.ErrPlain, errors.Is(e.Err, blob.ErrPlain))
			if test.text != "" {
				require.Equal(t, test.text, e.String())
			}
			require.Empty(t, fake.Calls(), "a key was touched")

			// And so it is.
			r, err := view.NewReader(ctx, test.key, nil)
			require.Equal(t, test.err == nil, err == nil, err)
			if test.err == nil {
				require.NoError(t, r.Close())
			} else {
				require.ErrorIs(t, err, test.err)
			}
			fake.Forget()
		})
	}
	_, err = b.ExplainRead(ctx, "none")
	require.Equal(t, gcerrors.NotFound, gcerrors.Code(err))
}
