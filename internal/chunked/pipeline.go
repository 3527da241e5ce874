package chunked

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
)

// A call on many chunks handles them in batches. As measured on two cores, smaller
// batches cost too many wake-ups, larger batches leave a core idle at both ends of a
// call, and more memory in batches does not stay in the cache.
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
	prompt bool   // the source returned less than asked: emit before asking again
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

// input returns room for the chunks of a batch, and for proof behind them.
func (b *batch) input() []byte {
	if b.inBuf == nil {
		b.inBuf = make([]byte, batchChunks*SealedChunkSize+proof)
	}
	return b.inBuf
}

// output returns an empty slice with room for the output of a batch, behind a held
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
// fetch and emit. All workers end before run, to be called once, returns or panics.
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

	pending []*batch    // submitted but not emitted, oldest first
	work    chan *batch // submitted but not taken by a worker
	done    [batchDepth]chan struct{}
	turn    int // index in done for the next batch; its previous user is emitted
	workers int
	wg      sync.WaitGroup
}

// run moves batches until fetch has no more or something fails. It returns the
// first failure in the order of the stream: an error of fetch comes after the
// batches fetched before it.
func (p *pipeline) run() error {
	p.procs = cmp.Or(p.procs, runtime.GOMAXPROCS(0))
	defer p.stop()
	for more, fetchErr := true, error(nil); ; {
		if more && len(p.pending) < batchDepth {
			b := batches.Get().(*batch)
			more, fetchErr = p.fetch(b) // if it panics, b is dropped
			more = more && fetchErr == nil
			alone := len(p.pending) == 0 && (b.prompt || !more)
			switch {
			case len(b.in) == 0 && len(b.out) == 0:
				b.recycle()
			case alone || p.procs == 1: // no other batch to overlap with
				p.op(b)
				if err := p.finish(b); err != nil {
					return err
				}
			default:
				prompt := b.prompt // next may emit and recycle b
				p.submit(b)
				for prompt && len(p.pending) > 0 {
					if err := p.next(); err != nil {
						return err
					}
				}
			}
			continue
		}
		if len(p.pending) == 0 {
			return fetchErr
		}
		if err := p.next(); err != nil {
			return err
		}
	}
}

// submit queues b, for a worker or for the caller when it has to wait.
func (p *pipeline) submit(b *batch) {
	if p.work == nil {
		p.work = make(chan *batch, batchDepth)
		p.pending = make([]*batch, 0, batchDepth)
	}
	if p.workers < min(p.procs, batchDepth)-1 {
		p.workers++
		p.wg.Go(func() {
			for b := range p.work {
				p.op(b)
				b.done <- struct{}{}
			}
		})
	}
	if p.done[p.turn] == nil {
		p.done[p.turn] = make(chan struct{}, 1)
	}
	b.done = p.done[p.turn]
	p.turn = (p.turn + 1) % batchDepth
	p.pending = append(p.pending, b)
	p.work <- b // never blocks: pending has at most batchDepth batches
}

// next emits the oldest batch. Until op has run on it, the caller works too.
func (p *pipeline) next() error {
	oldest := p.pending[0]
	for {
		select {
		case <-oldest.done:
			p.pending = slices.Delete(p.pending, 0, 1)
			return p.finish(oldest)
		case b := <-p.work:
			p.op(b)
			b.done <- struct{}{}
		}
	}
}

// finish emits b and returns the error of emit or, if there is none, of op.
func (p *pipeline) finish(b *batch) error {
	if err := p.emit(b); err != nil {
		return err // without recycle: the destination may still use b
	}
	err := b.err
	b.recycle()
	return err
}

// stop ends the workers and recycles what they no longer work on.
func (p *pipeline) stop() {
	if p.work == nil {
		return
	}
	close(p.work)
	for range p.work { // abandoned
	}
	p.wg.Wait()
	for _, b := range p.pending {
		b.recycle()
	}
}

func (c *Cipher) sealBatch(b *batch) {
	b.out = c.sealChunks(b.out, b.in, b.first, &b.nonce)
}

func (c *Cipher) openBatch(b *batch) {
	b.out, b.err = c.openChunks(b.out, b.in, b.first, &b.nonce)
}
