package s3gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// doInTime sends a request. The request fails if the server does nothing for a time: it
// does not read the request's body, does not answer, or sends nothing of the response's
// body. The time does not include what the client needs to produce one body or to read the
// other.
func doInTime(client s3.HTTPClient, r *http.Request, wait time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	s := &stall{wait: wait, ended: func() {
		cancel(fmt.Errorf("s3gateway: the inner store, %s, does nothing for %v (check it)", r.URL.Host, wait))
	}}
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &stallBody{r.Body, s, s.stop, s.start}
	}
	s.start()
	response, err := client.Do(r)
	s.end()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && r.Context().Err() != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		cancel(nil)
		return response, err
	}
	answer := &stall{wait: wait, ended: s.ended}
	response.Body = &stallResponse{stallBody{response.Body, answer, answer.start, answer.stop}, ctx, cancel}
	return response, nil
}

// stall calls ended if nobody stops it for a time after its start.
type stall struct {
	wait  time.Duration
	ended func()

	mu    sync.Mutex
	timer *time.Timer
	done  bool
}

func (s *stall) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.done:
	case s.timer == nil:
		s.timer = time.AfterFunc(s.wait, s.ended)
	default:
		s.timer.Reset(s.wait)
	}
}

func (s *stall) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// end stops the stall for good. The transport may continue to read the request's body.
func (s *stall) end() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
}

// stallBody calls before and after around each Read.
type stallBody struct {
	io.ReadCloser
	s             *stall
	before, after func()
}

func (b *stallBody) Read(p []byte) (int, error) {
	b.before()
	defer b.after()
	return b.ReadCloser.Read(p)
}

// stallResponse is the body of a response. Closing it ends the request's context.
type stallResponse struct {
	stallBody
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *stallResponse) Read(p []byte) (int, error) {
	n, err := b.stallBody.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, context.Cause(b.ctx))
	}
	return n, err
}

func (b *stallResponse) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
