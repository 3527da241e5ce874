package awskms_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// TestNames: all forms of a key's name, and the ARN that comes of each.
func TestNames(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey()
	s.SetAlias("alias/photos", keyID)
	client := newClient(t, s)
	for _, name := range []string{
		keyID, keyID[strings.Index(keyID, "key/")+len("key/"):], "alias/photos", "arn:aws:kms:us-east-1:111122223333:alias/photos",
	} {
		var r kms.Report
		ctx := kms.WithReport(t.Context(), &r)
		k, err := client.GenerateDataKey(ctx, name, nil)
		require.NoError(t, err, name)
		require.Equal(t, keyID, k.KeyID)
		generation := r.KeyVersion
		require.Equal(t, kms.Report{RequestID: r.RequestID, KeyID: keyID, KeyVersion: generation}, r)
		require.NotEmpty(t, r.RequestID)
		require.NotEmpty(t, generation)

		r = kms.Report{}
		plaintext, err := client.Decrypt(ctx, name, k.Ciphertext, nil)
		require.NoError(t, err, name)
		require.Equal(t, k.Plaintext(), plaintext)
		require.Equal(t, kms.Report{RequestID: r.RequestID, KeyID: keyID, KeyVersion: generation}, r)
		require.NotEmpty(t, r.RequestID)
	}
	var requests atomic.Int64
	s.Intercept(func(http.ResponseWriter, *http.Request) bool { requests.Add(1); return false })
	for _, name := range []string{"", "\xff"} {
		_, err := client.GenerateDataKey(t.Context(), name, nil)
		kmstest.RequireKind(t, err, kms.ErrInvalid)
		_, err = client.Decrypt(t.Context(), name, []byte("x"), nil)
		kmstest.RequireKind(t, err, kms.ErrInvalid)
	}
	require.Zero(t, requests.Load())
	for name, kind := range map[string]error{
		"alias/unknown": kms.ErrNotFound,
		"unknown":       kms.ErrNotFound,
		"arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000": kms.ErrNotFound,
		strings.Repeat("long", 600): kms.ErrInvalid,
	} {
		_, err := client.GenerateDataKey(t.Context(), name, nil)
		kmstest.RequireKind(t, err, kind)
		_, err = client.Decrypt(t.Context(), name, []byte("x"), nil)
		kmstest.RequireKind(t, err, kind)
	}
	// A refusal names what is known, too.
	s.SetState(keyID, awskmstest.Disabled)
	var r kms.Report
	_, err := client.GenerateDataKey(kms.WithReport(t.Context(), &r), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrDisabled)
	require.Equal(t, keyID, r.KeyID)
	require.NotEmpty(t, r.RequestID)
}

// TestContextOnTheWire: a context is AWS's own, and none is sent that JSON would change.
// SPEC SVC-2
func TestContextOnTheWire(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey()
	client := newClient(t, s)
	var body []byte
	s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		return false
	})
	_, err := client.GenerateDataKey(t.Context(), keyID, kms.Context{"b": "2", "ключ": "\"\x00"})
	require.NoError(t, err)
	require.JSONEq(t, `{"KeyId":"`+keyID+`","KeySpec":"AES_256","EncryptionContext":{"b":"2","ключ":"\"\u0000"}}`, string(body))
	for _, ec := range []kms.Context{{"a\xff": ""}, {"a": "\xc3"}} {
		body = nil
		_, err := client.GenerateDataKey(t.Context(), keyID, ec)
		kmstest.RequireKind(t, err, kms.ErrInvalid)
		_, err = client.Decrypt(t.Context(), keyID, []byte("x"), ec)
		kmstest.RequireKind(t, err, kms.ErrInvalid)
		require.Nil(t, body, "a request was sent")
	}
}

// stub answers as it is told, which no server does.
type stub struct {
	generate *sdk.GenerateDataKeyOutput
	decrypt  *sdk.DecryptOutput
	err      error
	asked    string
}

func (s *stub) GenerateDataKey(_ context.Context, in *sdk.GenerateDataKeyInput, _ ...func(*sdk.Options)) (*sdk.GenerateDataKeyOutput, error) {
	s.asked = *in.KeyId
	return s.generate, s.err
}

func (s *stub) Decrypt(_ context.Context, in *sdk.DecryptInput, _ ...func(*sdk.Options)) (*sdk.DecryptOutput, error) {
	s.asked = *in.KeyId
	return s.decrypt, s.err
}

func newStubbed(t *testing.T, s *stub, opts *awskms.Options) *awskms.Client {
	t.Helper()
	c, err := awskms.New(s, opts)
	require.NoError(t, err)
	return c
}

// TestAnswers: an answer by another key, or of another size, is none, and its
// plaintext is cleared.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name              string
		asked             string
		answered          *string
		plaintext         int
		ciphertext        int
		generate, decrypt error
	}{
		{"by ARN", arnA, aws.String(arnA), 32, 100, nil, nil},
		{"by id", "a", aws.String(arnA), 32, 100, nil, nil},
		{"by alias", "alias/photos", aws.String(arnA), 32, 100, nil, nil},
		{"by alias ARN", aliasARN, aws.String(arnA), 32, 100, nil, nil},
		{"another key by ARN", arnA, aws.String(arnB), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"another key by id", "a", aws.String(arnB), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"a longer id", "a", aws.String(arnA + "a"), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"another account", aliasARN, aws.String("arn:aws:kms:us-east-1:444455556666:key/a"), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"another region", arnEast, aws.String(arnWest), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"an alias", "alias/photos", aws.String("alias/photos"), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"an alias ARN", aliasARN, aws.String(aliasARN), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"a bare id", "a", aws.String("a"), 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"no key", arnA, nil, 32, 100, kms.ErrUnavailable, kms.ErrUnavailable},
		{"128 bits", arnA, aws.String(arnA), 16, 100, kms.ErrUnavailable, kms.ErrCiphertext},
		{"264 bits", arnA, aws.String(arnA), 33, 100, kms.ErrUnavailable, kms.ErrCiphertext},
		{"no plaintext", arnA, aws.String(arnA), 0, 100, kms.ErrUnavailable, kms.ErrCiphertext},
		{"no ciphertext", arnA, aws.String(arnA), 32, 0, kms.ErrUnavailable, nil},
		{"a ciphertext that fits no envelope", arnA, aws.String(arnA), 32, 6145, kms.ErrUnavailable, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			generated, decrypted := bytes.Repeat([]byte{7}, c.plaintext), bytes.Repeat([]byte{7}, c.plaintext)
			s := &stub{
				generate: &sdk.GenerateDataKeyOutput{KeyId: c.answered, Plaintext: generated, CiphertextBlob: make([]byte, c.ciphertext)},
				decrypt:  &sdk.DecryptOutput{KeyId: c.answered, Plaintext: decrypted},
			}
			client := newStubbed(t, s, nil)
			k, err := client.GenerateDataKey(t.Context(), c.asked, nil)
			require.Equal(t, make([]byte, c.plaintext), generated, "the SDK's copy is cleared")
			if c.generate == nil {
				require.NoError(t, err)
				require.Equal(t, arnA, k.KeyID)
				require.Equal(t, bytes.Repeat([]byte{7}, 32), k.Plaintext())
			} else {
				kmstest.RequireKind(t, err, c.generate)
				require.Nil(t, k)
			}
			plaintext, err := client.Decrypt(t.Context(), c.asked, []byte("x"), nil)
			if c.decrypt == nil {
				require.NoError(t, err)
				require.Equal(t, bytes.Repeat([]byte{7}, 32), plaintext)
			} else {
				kmstest.RequireKind(t, err, c.decrypt)
				require.Nil(t, plaintext)
				require.Equal(t, make([]byte, c.plaintext), decrypted)
			}
		})
	}
}

// TestReplicaRegion: multi-Region keys, and they alone, are asked in another region.
func TestReplicaRegion(t *testing.T) {
	for asked, want := range map[string]string{
		arnEast:    arnWest,
		arnWest:    arnWest,
		arnA:       arnA,
		aliasARN:   aliasARN,
		"mrk-1":    "mrk-1",
		"alias/me": "alias/me",
	} {
		answered := want
		if !strings.Contains(want, ":key/") {
			answered = arnWest
		}
		if want == aliasARN {
			answered = arnEast
		}
		s := &stub{
			generate: &sdk.GenerateDataKeyOutput{KeyId: &answered, Plaintext: make([]byte, 32), CiphertextBlob: []byte("x")},
			decrypt:  &sdk.DecryptOutput{KeyId: &answered, Plaintext: make([]byte, 32)},
		}
		client := newStubbed(t, s, &awskms.Options{ReplicaRegion: "us-west-2"})
		k, err := client.GenerateDataKey(t.Context(), asked, nil)
		require.NoError(t, err, asked)
		require.Equal(t, want, s.asked)
		require.Equal(t, answered, k.KeyID)
		_, err = client.Decrypt(t.Context(), asked, []byte("x"), nil)
		require.NoError(t, err, asked)
		require.Equal(t, want, s.asked)
	}
}

// TestErrors: what has no answer of the service behind it.
func TestErrors(t *testing.T) {
	_, err := awskms.New(nil, nil)
	kmstest.RequireKind(t, err, kms.ErrInvalid)
	_, err = awskms.New((*sdk.Client)(nil), nil)
	kmstest.RequireKind(t, err, kms.ErrInvalid)
	for _, c := range []struct {
		name string
		err  error
		kind error
	}{
		{"a name that does not resolve", &net.DNSError{Err: "no such host", Name: "kms", IsNotFound: true}, kms.ErrUnavailable},
		{"credentials that STS refuses", &smithy.GenericAPIError{Code: "AccessDenied"}, kms.ErrDenied},
		{"the service's own type", &types.KMSInvalidStateException{}, kms.ErrPendingDeletion},
		{"canceled by others", context.Canceled, kms.ErrUnavailable},
		{"no credentials", errors.New("static credentials are empty"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			client := newClient(t, s, func(o *sdk.Options) {
				o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, c.err })
			})
			_, err := client.GenerateDataKey(t.Context(), s.CreateKey(), nil)
			kmstest.RequireKind(t, err, c.kind)
			require.ErrorContains(t, err, c.err.Error())
		})
	}
	t.Run("a certificate that nobody knows", func(t *testing.T) {
		web := httptest.NewUnstartedServer(nil)
		web.Config.ErrorLog = log.New(io.Discard, "", 0)
		web.StartTLS()
		defer web.Close()
		client := newClient(t, newServer(t), func(o *sdk.Options) { o.BaseEndpoint = &web.URL })
		_, err := client.GenerateDataKey(t.Context(), arnA, nil)
		kmstest.RequireKind(t, err, kms.ErrUnavailable)
	})
}
