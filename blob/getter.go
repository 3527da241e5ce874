package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// drainSize is the size up to which a read takes a response into memory, so that
// its connection is free for the next request.
const drainSize = 128 << 10

// maxPart bounds what a read keeps of a response in memory: an envelope with a few
// chunks.
const maxPart = 512 << 10

// getter makes the requests of one read. It holds at most one response that is not
// read to its end, and makes no request while it holds one: otherwise readers that
// share a bounded pool of connections would wait for each other for ever.
type getter struct {
	b      *Bucket
	ctx    context.Context // of this read
	cancel context.CancelFunc
	key    string
	hook   func(as func(any) bool) error

	mu sync.Mutex // for calls of hook

	held *gcblob.Reader // the response that is being read, or nil
}

func (b *Bucket) getter(ctx context.Context, key string, hook func(as func(any) bool) error) *getter {
	g := &getter{b: b, key: key, hook: hook}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// anyVersion is the version that a read's first request sees.
var anyVersion = stored.Version{Size: -1}

// open requests n bytes of the version seen of the stored object from off. The caller
// reads the response, and makes no other request before it calls end.
func (g *getter) open(seen stored.Version, off, n int64) (*gcblob.Reader, error) {
	r, err := g.request(seen, off, n)
	if err != nil {
		return nil, err
	}
	g.held = r
	return r, nil
}

// part is a response that was read to its end.
type part struct {
	*gcblob.Reader // closed; for its attributes
	data           []byte
}

// version returns the version that the part is of.
func (p *part) version() stored.Version { return store.VersionRead(p.Reader) }

// reader reads the part's data.
func (p *part) reader() *bytes.Reader { return bytes.NewReader(p.data) }

// fetch requests n bytes of the version seen of the stored object from off and reads
// them, so that it holds no response when it returns. It is safe for concurrent use.
func (g *getter) fetch(seen stored.Version, off, n int64) (*part, error) {
	r, err := g.request(seen, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n < 0 || n > maxPart {
		n = maxPart
	}
	size := max(0, min(n, r.Size()-off, sse.MaxEnvelopeSize+drainSize))
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(r, n)); err != nil {
		return nil, err
	}
	return &part{Reader: r, data: data.Bytes()}, nil
}

func (g *getter) request(seen stored.Version, off, n int64) (*gcblob.Reader, error) {
	return g.b.store.OpenVersion(g.ctx, g.key, seen, off, n, g.readerOptions())
}

// readerOptions returns the options of a request, which has the caller's hook.
func (g *getter) readerOptions() *gcblob.ReaderOptions {
	if g.hook == nil {
		return nil
	}
	return &gcblob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.hook(as)
	}}
}

// end ends the response that open returned.
func (g *getter) end() error {
	if g.held == nil {
		return nil
	}
	err := g.held.Close()
	g.held = nil
	return err
}

// close ends the read.
func (g *getter) close() error {
	err := g.end()
	g.cancel()
	return err
}

// decrypt opens the envelope of the object at key for b's request.
func (b *Bucket) decrypt(ctx context.Context, key string, env *sse.Envelope) (*sse.Decryption, error) {
	dec, _ := b.decrypter(env.Mode())
	d, err := dec.Decrypt(ctx, b.object(key), env)
	if errors.Is(err, sse.ErrKey) && env.Mode() != sse.ModeCustomer {
		err = fmt.Errorf("%w (bucket opened as %q: objects bound to a different name do not open)", err, b.store.Name)
	}
	return d, store.KeyError(err)
}
