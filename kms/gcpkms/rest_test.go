package gcpkms_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	google "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// TestREST: Google's client over REST, whose errors are others. It is long because it
// is one history of one key.
func TestREST(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer{}))
	require.NoError(t, err)
	defer conn.Close()
	// Google's JSON of the same service.
	serve := func(w http.ResponseWriter, r *http.Request) {
		var in, out proto.Message = new(kmspb.EncryptRequest), new(kmspb.EncryptResponse)
		method := kmspb.KeyManagementService_Encrypt_FullMethodName
		if strings.HasSuffix(r.URL.Path, ":decrypt") {
			in, out, method = new(kmspb.DecryptRequest), new(kmspb.DecryptResponse), kmspb.KeyManagementService_Decrypt_FullMethodName
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = protojson.Unmarshal(body, in)
		}
		if err == nil {
			err = conn.Invoke(r.Context(), method, in, out)
		}
		w.Header().Set("Content-Type", "application/json")
		if err == nil {
			answer, _ := protojson.Marshal(out)
			w.Write(answer)
			return
		}
		refusal := status.Convert(err)
		code := map[codes.Code]int{codes.PermissionDenied: 403, codes.NotFound: 404}[refusal.Code()]
		detailed := refusal.Proto()
		detailed.Code = int32(max(code, 400))
		answer, _ := protojson.Marshal(detailed)
		w.WriteHeader(int(detailed.Code))
		io.WriteString(w, `{"error":`+string(answer)+`}`)
	}
	var handler atomic.Value
	handler.Store(http.HandlerFunc(serve))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.Load().(http.HandlerFunc)(w, r) }))
	defer web.Close()
	c, err := google.NewKeyManagementRESTClient(t.Context(), option.WithEndpoint(web.URL), option.WithoutAuthentication())
	require.NoError(t, err)
	defer c.Close()
	c.CallOptions.Encrypt, c.CallOptions.Decrypt = nil, nil
	client, err := gcpkms.New(c)
	require.NoError(t, err)

	ec := kms.Context{"blobseal:object": "photos/cat.jpg"}
	k, err := client.GenerateDataKey(t.Context(), keyID, ec)
	require.NoError(t, err)
	plaintext, err := client.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
	require.NoError(t, err)
	require.Equal(t, k.Plaintext(), plaintext)
	_, err = client.Decrypt(t.Context(), keyID, k.Ciphertext, nil)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
	_, err = client.GenerateDataKey(t.Context(), gcpkmstest.KeyRing+"/cryptoKeys/unknown", nil)
	kmstest.RequireKind(t, err, kms.ErrNotFound)
	for state, kind := range map[gcpkmstest.State]error{
		kmspb.CryptoKeyVersion_DISABLED: kms.ErrDisabled, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED: kms.ErrPendingDeletion,
	} {
		s.SetState(keyID, state)
		_, err = client.GenerateDataKey(t.Context(), keyID, ec)
		kmstest.RequireKind(t, err, kind)
		_, err = client.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kind)
	}
	s.Deny("rest", "Encrypt")
	_, err = client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrDenied)
	for code, kind := range map[int]error{429: kms.ErrUnavailable, 500: kms.ErrUnavailable, 502: kms.ErrUnavailable, 503: kms.ErrUnavailable, 401: kms.ErrDenied} {
		handler.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		_, err = client.GenerateDataKey(t.Context(), keyID, nil)
		kmstest.RequireKind(t, err, kind)
	}
	handler.Store(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	_, err = client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	web.Close()
	_, err = client.GenerateDataKey(t.Context(), keyID, nil)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	_, network := errors.AsType[net.Error](err)
	require.True(t, network, "%v", err)
}

// bearer is the token of a principal.
type bearer struct{}

func (bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer rest"}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }
