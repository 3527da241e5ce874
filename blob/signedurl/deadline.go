package signedurl

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// sendSize is how many bytes a client must receive within one idle timeout, unless it
// is fast.
const sendSize = 16 << 10

// refusalTime is how long a client may go on to send a body that nobody wants, so
// that it can finish and read the response.
const refusalTime = 2 * time.Second

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// A deadline stands only while the Handler waits for the client: HTTP/2 ends a
// stream whose deadline passes, even if nobody waits. Errors of setting one are
// ignored, since the only one is [http.ErrNotSupported].

// sender writes an object to a client that must keep receiving. It sends pieces, and
// each piece must leave within the idle timeout. The pieces grow up to copySize bytes
// while the client is fast, since small pieces cost up to 1.6 times as much CPU, and
// begin again with sendSize bytes when the client becomes slow.
type sender struct {
	w     http.ResponseWriter
	conn  *http.ResponseController
	idle  time.Duration
	piece int // in bytes
}

func (s *sender) Write(p []byte) (n int, err error) {
	if s.idle <= 0 {
		return s.w.Write(p)
	}
	defer s.conn.SetWriteDeadline(time.Time{})
	for err == nil && len(p) > 0 {
		begun := time.Now()
		_ = s.conn.SetWriteDeadline(begun.Add(s.idle))
		var k int
		k, err = s.w.Write(p[:min(len(p), s.piece)])
		n, p = n+k, p[k:]
		if time.Since(begun) < s.idle/64 { // a client 32 times slower gets the next piece in time
			s.piece = min(2*s.piece, copySize)
		} else {
			s.piece = sendSize
		}
	}
	return n, err
}

// receiver reads the body of a request from a client that must keep sending.
type receiver struct {
	r    io.Reader
	conn *http.ResponseController
	idle time.Duration
}

func (s *receiver) Read(p []byte) (int, error) {
	if s.idle > 0 {
		_ = s.conn.SetReadDeadline(time.Now().Add(s.idle))
	}
	n, err := s.r.Read(p)
	if s.idle > 0 {
		_ = s.conn.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &httpError{http.StatusRequestTimeout, "RequestTimeout", &goneError{err}}
	}
	return n, err
}

// dropBody keeps a client whose request failed from holding the connection: the
// server would wait for the body before it lets go.
func dropBody(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusalTime))
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// breakOff ends a response that has begun, without its end.
func breakOff(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(longAgo)
	panic(http.ErrAbortHandler)
}
