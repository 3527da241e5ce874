package chunked_test

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

// hostiles misuse one stream each, in ways that leave it unclear who owns its
// buffer: with calls at the same time, panics, and sources and destinations
// that use memory after their call. Each returns when its goroutines have
// ended. Those that see memory they should not see report it.
var hostiles = map[string]func(c *chunked.Cipher, report func(string)){
	"Close while a Write blocks": func(c *chunked.Cipher, report func(string)) {
		entered, release := make(chan struct{}), make(chan struct{})
		w := c.Writer(writerFunc(func(p []byte) (int, error) {
			before := bytes.Clone(p)
			close(entered)
			<-release
			if !bytes.Equal(before, p) {
				report("a blocked destination saw its bytes change")
			}
			return len(p), nil
		}))
		var wg sync.WaitGroup
		wg.Go(func() {
			w.Write(own(100))
			w.Write(own(chunk - 100)) // fills the stream's own buffer
		})
		<-entered
		if w.Close() == nil {
			report("Close succeeded during a Write")
		}
		innocent(c, report)
		close(release)
		wg.Wait()
		if w.Close() == nil {
			report("Close succeeded after two calls at once")
		}
	},
	"a destination closes its writer": func(c *chunked.Cipher, report func(string)) {
		var w *chunked.Writer
		w = c.Writer(writerFunc(func(p []byte) (int, error) {
			before := bytes.Clone(p)
			w.Close()
			innocent(c, report)
			if !bytes.Equal(before, p) {
				report("a destination saw its bytes change")
			}
			return len(p), nil
		}))
		w.Write(own(1))
		w.Write(own(chunk - 1))
		if w.Close() == nil {
			report("Close succeeded within a Write")
		}
	},
	"a source pushes, is refused and panics": func(c *chunked.Cipher, report func(string)) {
		r := c.EncryptingReader(pushing(func(w io.Writer) {
			w.Write(own(10))
			w.Write(own(chunk))
			panic("stop")
		}))
		func() {
			defer func() { recover() }()
			r.WriteTo(writerFunc(func([]byte) (int, error) { return 0, errors.New("full") }))
		}()
		r.Read(make([]byte, 10))
		r.WriteTo(io.Discard)
	},
	"a source pushes after its WriteTo": func(c *chunked.Cipher, report func(string)) {
		var kept io.Writer
		r := c.EncryptingReader(pushing(func(w io.Writer) {
			w.Write(own(10))
			kept = w
		}))
		r.WriteTo(io.Discard)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := kept.Write(own(100)); err == nil {
				report("a source wrote after the end")
			}
		})
		innocent(c, report)
		wg.Wait()
	},
	"a source still pushes when its WriteTo returns": func(c *chunked.Cipher, report func(string)) {
		var wg sync.WaitGroup
		entered, release := make(chan struct{}), make(chan struct{})
		r := c.EncryptingReader(pushing(func(w io.Writer) {
			w.Write(own(10))
			wg.Go(func() { w.Write(own(chunk - 10)) })
			<-entered
		}))
		_, err := r.WriteTo(writerFunc(func(p []byte) (int, error) {
			before := bytes.Clone(p)
			close(entered)
			<-release
			if !bytes.Equal(before, p) {
				report("a destination saw its bytes change")
			}
			return len(p), nil
		}))
		if err == nil {
			report("WriteTo succeeded before its source was done")
		}
		innocent(c, report)
		close(release)
		wg.Wait()
	},
	"a source fails and still writes": func(c *chunked.Cipher, report func(string)) {
		for _, size := range []int{100, 2 * batch} {
			var wg sync.WaitGroup
			late := make(chan struct{})
			r := c.EncryptingReader(readerFunc(func(p []byte) (int, error) {
				wg.Go(func() {
					<-late
					fill(p, 0xAA)
				})
				return 0, errors.New("timeout")
			}))
			r.Read(make([]byte, size))
			close(late)
			innocent(c, report)
			wg.Wait()
		}
	},
	"a destination fails and still reads": func(c *chunked.Cipher, report func(string)) {
		for _, size := range []int{chunk - 1, 2 * batch} {
			var wg sync.WaitGroup
			late := make(chan struct{})
			w := c.Writer(writerFunc(func(p []byte) (int, error) {
				before := bytes.Clone(p)
				wg.Go(func() {
					<-late
					if !bytes.Equal(before, p) {
						report("a destination that failed saw its bytes change")
					}
				})
				return 0, errors.New("timeout")
			}))
			if size < batch {
				w.Write(own(1)) // so that size fills the stream's own buffer
			}
			w.Write(own(size))
			close(late)
			innocent(c, report)
			wg.Wait()
		}
	},
	"a ReaderAt fails and still writes": func(c *chunked.Cipher, report func(string)) {
		var wg sync.WaitGroup
		late := make(chan struct{})
		c.ReaderAt(readerAtFunc(func(p []byte, _ int64) (int, error) {
			wg.Go(func() {
				<-late
				fill(p, 0xAA)
			})
			return 0, errors.New("timeout")
		}), 10*sealed+16)
		close(late)
		innocent(c, report)
		wg.Wait()
	},
	"two Reads at once": func(c *chunked.Cipher, report func(string)) {
		r := c.EncryptingReader(bytes.NewReader(own(4 * chunk)))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { drainBy(r, 5000) })
		}
		innocent(c, report)
		wg.Wait()
	},
	"a source reads its reader": func(c *chunked.Cipher, report func(string)) {
		var r *chunked.Reader
		r = c.EncryptingReader(readerFunc(func(p []byte) (int, error) {
			_, err := r.Read(p)
			return copy(p, own(100)), err
		}))
		if _, err := drain(r); err == nil {
			report("a reader within its own source ended well")
		}
	},
}

// own is what hostile streams hold.
func own(n int) []byte { return bytes.Repeat([]byte{0xAA}, n) }

func fill(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}

// pushing is a source that writes itself.
type pushing func(w io.Writer)

func (pushing) Read([]byte) (int, error) { return 0, io.EOF }

func (f pushing) WriteTo(w io.Writer) (int64, error) {
	f(w)
	return 0, nil
}

type readerAtFunc func(p []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// innocentText is longer than a batch, and its body is right if it decrypts.
var innocentText = bytes.Repeat([]byte{0xEE}, batch+3*chunk+500)

// innocent uses streams as documented, with calls that need buffers of every
// kind, and checks each byte.
func innocent(c *chunked.Cipher, report func(string)) {
	var body bytes.Buffer
	w := c.Writer(&body)
	for rest := innocentText[:3*chunk+500]; len(rest) > 0; {
		n, err := w.Write(rest[:min(9999, len(rest))])
		if err != nil {
			report(err.Error())
			return
		}
		rest = rest[n:]
	}
	_, err := w.ReadFrom(bytes.NewReader(innocentText[3*chunk+500:]))
	if err = errors.Join(err, w.Close()); err != nil {
		report(err.Error())
	}
	small, err := drainBy(c.Reader(bytes.NewReader(body.Bytes())), 5000)
	if err != nil || !bytes.Equal(small, innocentText) {
		report("an innocent stream lost bytes in small reads")
	}
	large, err := writeTo(c.Reader(struct{ io.Reader }{&body}))
	if err != nil || !bytes.Equal(large, innocentText) {
		report("an innocent stream lost bytes in WriteTo")
	}
}

// TestBuffersHaveOneOwner runs hostile streams beside innocent ones. Run it
// under the race detector, too.
func TestBuffersHaveOneOwner(t *testing.T) {
	c := newCipher(t)
	for name, hostile := range hostiles {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			report := func(what string) { t.Error(what) }
			done := make(chan struct{})
			for range 2 {
				wg.Go(func() {
					for {
						innocent(c, report)
						select {
						case <-done:
							return
						default:
						}
					}
				})
			}
			for range 20 {
				hostile(c, report)
			}
			close(done)
			wg.Wait()
		})
	}
}

// TestFailureStays: once two calls met in a stream, no later call succeeds.
// SPEC ERR-3
func TestFailureStays(t *testing.T) {
	c := newCipher(t)
	var w *chunked.Writer
	w = c.Writer(writerFunc(func(p []byte) (int, error) {
		require.Error(t, w.Close())
		return len(p), nil
	}))
	_, err := w.Write(own(chunk))
	require.ErrorContains(t, err, "in use")
	for range 3 {
		_, again := w.Write(own(1))
		require.Equal(t, err, again)
		_, again = w.ReadFrom(bytes.NewReader(own(1)))
		require.Equal(t, err, again)
		require.Equal(t, err, w.Close())
	}
}
