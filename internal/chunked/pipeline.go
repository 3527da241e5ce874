package chunked

import (
	"runtime"
	"sync"
)

// A call that moves many chunks moves them in batches. On two cores, smaller
// batches cost too many wake-ups; larger ones, and more of them, leave the cache;
// larger ones also leave a core idle at both ends of a call.
const (
	batchChunks = 16
	batchDepth  = 4 // batches of one call in progress
)

// batch is a run of chunks on its way through a pipeline.
type batch struct {
	in     []byte // set by fetch: in the caller's memory, or in inBuf
	out    []byte // op appends its output to the slice that fetch sets
	first  uint64 // index of the first chunk
	proven bool   // the last byte of out may be released, see stream
	prompt bool   // the source returned less than was asked: emit before asking again
	doubt  bool   // the source failed and may still use inBuf
	err    error  // why op stopped early; out holds what came before

	done   chan struct{} // of the run, capacity 1: op has run
	nonce  [nonceSize]byte
	inBuf  []byte // see input
	outBuf []byte // see output
}

// batches holds only memory. A channel that outlived its call would connect
// the bubbles of tests that use testing/synctest.
var batches = sync.Pool{New: func() any { return new(batch) }}

// input is room for sealed chunks to transform, and for proof behind them.
func (b *batch) input() []byte {
	if b.inBuf == nil {
		b.inBuf = make([]byte, batchChunks*SealedChunkSize+proof)
	}
	return b.inBuf
}

// output is an empty slice with room for the output of a batch, behind a held
// byte.
func (b *batch) output() []byte {
	if b.outBuf == nil {
		b.outBuf = make([]byte, 0, batchChunks*SealedChunkSize)
	}
	return b.outBuf
}

// recycle returns the batch to the pool. A batch that a source or destination
// may still use is left to the garbage collector instead.
func (b *batch) recycle() {
	if b.doubt {
		return
	}
	b.in, b.out, b.err, b.done = nil, nil, nil, nil // the caller's memory is not ours to keep
	b.proven, b.prompt = false, false
	batches.Put(b)
}

// pipeline runs op on batches, on up to GOMAXPROCS goroutines, one of which is
// the caller's, and emits the batches in order. Only the caller's goroutine runs
// fetch and emit. All workers end before run returns or panics.
type pipeline struct {
	// fetch prepares a batch. An empty one is dropped. fetch returns false, or
	// an error, if no batch follows this one.
	fetch func(*batch) (more bool, err error)
	// op seals or opens in to out. It touches only the batch.
	op func(*batch)
	// emit takes the output, and the good part of a batch that failed.
	emit func(*batch) error
	// procs bounds the goroutines that run op; 0 means GOMAXPROCS.
	procs int
}

// run moves batches until fetch has no more or something fails. It returns the
// first failure in the order of the stream: an error of fetch comes after the
// batches fetched before it.
func (p *pipeline) run() error {
	r := running{pipeline: p, procs: p.procs}
	if r.procs == 0 {
		r.procs = runtime.GOMAXPROCS(0)
	}
	defer r.stop()
	return r.loop()
}

// running is the state of one run.
type running struct {
	*pipeline
	procs   int
	pending []*batch    // submitted but not emitted, oldest first
	work    chan *batch // submitted but not taken by a worker
	done    [batchDepth]chan struct{}
	turn    int // index in done for the next batch; its previous user is emitted
	workers int
	wg      sync.WaitGroup
}

func (r *running) loop() error {
	for more, fetchErr := true, error(nil); ; {
		if more && len(r.pending) < batchDepth {
			b := batches.Get().(*batch)
			more, fetchErr = r.fetch(b) // if it panics, b is dropped
			more = more && fetchErr == nil
			alone := len(r.pending) == 0 && (b.prompt || !more)
			switch {
			case len(b.in) == 0 && len(b.out) == 0:
				b.recycle()
			case alone || r.procs == 1: // no other batch to overlap with
				r.op(b)
				if err := r.finish(b); err != nil {
					return err
				}
			default:
				prompt := b.prompt // b belongs to somebody else once it is emitted
				r.submit(b)
				for prompt && len(r.pending) > 0 {
					if err := r.next(); err != nil {
						return err
					}
				}
			}
			continue
		}
		if len(r.pending) == 0 {
			return fetchErr
		}
		if err := r.next(); err != nil {
			return err
		}
	}
}

// submit queues b, for a worker or for the caller when it has to wait.
func (r *running) submit(b *batch) {
	if r.work == nil {
		r.work = make(chan *batch, batchDepth)
		r.pending = make([]*batch, 0, batchDepth)
	}
	if r.workers < min(r.procs, batchDepth)-1 {
		r.workers++
		r.wg.Go(func() {
			for b := range r.work {
				r.op(b)
				b.done <- struct{}{}
			}
		})
	}
	if r.done[r.turn] == nil {
		r.done[r.turn] = make(chan struct{}, 1)
	}
	b.done = r.done[r.turn]
	r.turn = (r.turn + 1) % batchDepth
	r.pending = append(r.pending, b)
	r.work <- b // never blocks: pending has at most batchDepth batches
}

// next emits the oldest batch. Until that is done, the caller works too.
func (r *running) next() error {
	oldest := r.pending[0]
	for done := false; !done; {
		select {
		case <-oldest.done:
			done = true
			continue
		default:
		}
		select {
		case <-oldest.done:
			done = true
		case b := <-r.work:
			r.op(b)
			b.done <- struct{}{}
		}
	}
	copy(r.pending, r.pending[1:])
	r.pending = r.pending[:len(r.pending)-1]
	return r.finish(oldest)
}

// finish emits b and returns the error of emit or, if there is none, of op.
func (r *running) finish(b *batch) error {
	if err := r.emit(b); err != nil {
		return err // without recycle: the destination may still use b
	}
	err := b.err
	b.recycle()
	return err
}

// stop ends the workers and recycles what they no longer work on.
func (r *running) stop() {
	if r.work == nil {
		return
	}
	for abandoned := true; abandoned; {
		select {
		case <-r.work:
		default:
			abandoned = false
		}
	}
	close(r.work)
	r.wg.Wait()
	for _, b := range r.pending {
		b.recycle()
	}
}

// sealBatch encrypts whole chunks.
func (c *Cipher) sealBatch(b *batch) {
	for i, in := b.first, b.in; len(in) > 0; i, in = i+1, in[ChunkSize:] {
		b.out = c.sealChunk(b.out, in[:ChunkSize], i, &b.nonce)
	}
}

// openBatch decrypts chunks, of which the last may be shorter.
func (c *Cipher) openBatch(b *batch) {
	for i, in := b.first, b.in; len(in) > 0; i++ {
		n := min(len(in), SealedChunkSize)
		out, err := c.openChunk(b.out, in[:n], i, &b.nonce)
		if err != nil {
			b.err = err
			return
		}
		b.out, in = out, in[n:]
	}
}
