package signedurl_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
)

func digest(content string) string {
	sum := md5.Sum([]byte(content))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestDisconnectWhileWriting: an incomplete upload stores nothing.
func TestDisconnectWhileWriting(t *testing.T) {
	sizes := map[string]int{"nothing": 0, "below sniffing": 100, "some": 5_000, "much": 3_000_000}
	for _, b := range newBeds(t, nil) {
		for name, sent := range sizes {
			for _, how := range []string{"Content-Length: 4000000", "Transfer-Encoding: chunked"} {
				for _, contentType := range []string{"", "Content-Type: a/b\r\n"} {
					t.Run(strings.Join([]string{b.name, name, how, contentType}, "/"), func(t *testing.T) {
						u, err := url.Parse(b.url(t, "k", "PUT", ""))
						require.NoError(t, err)
						conn, err := net.Dial("tcp", u.Host)
						require.NoError(t, err)
						fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n\r\n", u.RequestURI(), u.Host, contentType, how)
						if strings.HasPrefix(how, "Transfer") {
							fmt.Fprintf(conn, "%x\r\n", 4_000_000)
						}
						_, err = conn.Write(pattern(sent))
						require.NoError(t, err)
						require.NoError(t, conn.Close())
						<-b.done
						require.False(t, b.has(t, "k"))
					})
				}
			}
		}
		// It leaves an existing object alone.
		t.Run(b.name+"/replacing", func(t *testing.T) {
			b.write(t, "old", []byte("old"), nil)
			req, err := http.NewRequestWithContext(t.Context(), "PUT", b.url(t, "old", "PUT", ""),
				io.MultiReader(bytes.NewReader(pattern(100_000)), iotest.ErrReader(errors.New("the client fails"))))
			require.NoError(t, err)
			_, err = b.server.Client().Do(req)
			require.Error(t, err)
			<-b.done
			got, err := b.bucket.ReadAll(t.Context(), "old")
			require.NoError(t, err)
			require.Equal(t, "old", string(got))
		})
	}
}

// TestPutCommitsOnce: the handler closes the bucket's writer in every case, and
// commits only a whole body.
func TestPutCommitsOnce(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   io.Reader
		header []string
		status int
		commit bool
	}{
		{"well", strings.NewReader("body"), nil, 200, true},
		{"of unknown length", io.MultiReader(strings.NewReader("bo"), strings.NewReader("dy")), nil, 200, true},
		{"wrong digest", strings.NewReader("body"), []string{"Content-Md5", digest("other")}, 400, false},
		{"too long, unknown length", io.MultiReader(bytes.NewReader(make([]byte, 1001))), nil, 413, false},
		{"as long as it may be", bytes.NewReader(make([]byte, 1000)), nil, 200, true},
		{"longest, unknown length", io.MultiReader(bytes.NewReader(make([]byte, 1000))), nil, 200, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(nil)
			b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{MaxSize: 1000})
			got := b.do(t, "PUT", b.url(t, "k", "PUT", ""), tc.body, append(tc.header, "Content-Type", "a/b")...)
			require.Equal(t, tc.status, got.status)
			<-b.done
			require.Len(t, s.writes, 1)
			require.True(t, s.writes[0].closed)
			require.Equal(t, tc.commit, s.writes[0].committed)
			require.Equal(t, "a/b", s.writes[0].contentType)
		})
	}
	t.Run("too long is refused at once", func(t *testing.T) {
		s := newScript(nil)
		b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{MaxSize: 1000})
		require.Equal(t, 413, b.do(t, "PUT", b.url(t, "k", "PUT", ""), bytes.NewReader(make([]byte, 1001))).status)
		require.Empty(t, s.writes)
	})
	// Some servers do not check Content-Length.
	for name, body := range map[string]string{"shorter than it says": "bod", "longer than it says": "body and more"} {
		t.Run(name, func(t *testing.T) {
			mem := blobtest.NewMem(t)
			b := newBed(t, "plain", mem, nil)
			r := httptest.NewRequest("PUT", b.url(t, "k", "PUT", ""), strings.NewReader(body))
			r.ContentLength = 4
			rec := httptest.NewRecorder()
			signedurl.NewHandler(mem, b.signer, nil).ServeHTTP(rec, r)
			require.Equal(t, 400, rec.Code)
			_, err := mem.ReadAll(t.Context(), "k")
			require.ErrorIs(t, err, gcerrors.ErrNotFound)
		})
	}
	t.Run("without a limit", func(t *testing.T) {
		s := newScript(nil)
		b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{MaxSize: -1})
		require.Equal(t, 200, b.do(t, "PUT", b.url(t, "k", "PUT", ""), bytes.NewReader(make([]byte, 1001))).status)
	})
	t.Run("the bucket refuses", func(t *testing.T) {
		s := newScript(nil)
		s.openErr = fmt.Errorf("no: %w", blob.ErrPolicy)
		b := newBed(t, "script", s.bucket(), nil)
		require.Equal(t, 403, b.do(t, "PUT", b.url(t, "k", "PUT", ""), strings.NewReader("x"), "Content-Type", "a/b").status)
	})
}

// TestRefusedPutSendsNoContinue: a client that waits for 100 Continue gets the
// refusal instead.
func TestRefusedPutSendsNoContinue(t *testing.T) {
	b := newBed(t, "plain", blobtest.NewMem(t), nil)
	u, err := url.Parse(b.url(t, "k", "GET", ""))
	require.NoError(t, err)
	conn, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", u.RequestURI(), u.Host)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 403 Forbidden\r\n", line)
}

// TestDeleteThatFindsNothing: Google's store says "not found" to who may not delete,
// and a busy store says it of an object that is stored right afterwards.
func TestDeleteThatFindsNothing(t *testing.T) {
	for _, tc := range []struct{ refusals, status int }{{0, 204}, {1, 204}, {1000, 403}} {
		spy, inner := blobtest.NewSpy(t)
		b := newBed(t, "spy", inner, nil)
		require.NoError(t, inner.WriteAll(t.Context(), "k", []byte("x"), nil))
		_, notFound := inner.ReadAll(t.Context(), "nothing")
		var deletes atomic.Int64
		spy.Hook = func(_ context.Context, call string) error {
			if call == "DELETE k" && deletes.Add(1) <= int64(tc.refusals) {
				return notFound
			}
			return nil
		}
		require.Equal(t, tc.status, b.do(t, "DELETE", b.url(t, "k", "DELETE", ""), nil).status)
		exists, err := inner.Exists(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, tc.status == 403, exists)
	}
}
