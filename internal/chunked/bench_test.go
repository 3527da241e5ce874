package chunked_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"testing"

	"github.com/blobseal/blobseal/internal/chunked"
)

// BenchmarkSeal and BenchmarkOpen set the streams beside the bare AEAD. The full
// table, with other libraries, is in internal/bench.
func BenchmarkSeal(b *testing.B) {
	c := newCipher(b)
	for _, size := range []int{64 << 10, 1 << 20, 64 << 20} {
		p := pattern(size)
		b.Run(fmt.Sprintf("raw/%dKiB", size>>10), func(b *testing.B) {
			aead, n, out := rawGCM(b)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for rest := p; len(rest) > 0; rest = rest[chunk:] {
					aead.Seal(out[:0], n, rest[:chunk], nil)
				}
			}
		})
		b.Run(fmt.Sprintf("Write/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				w := c.Writer(io.Discard)
				w.Write(p)
				w.Close()
			}
		})
		b.Run(fmt.Sprintf("ReadFrom/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				w := c.Writer(io.Discard)
				w.ReadFrom(bytes.NewReader(p))
				w.Close()
			}
		})
		b.Run(fmt.Sprintf("WriteTo/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				c.EncryptingReader(bytes.NewReader(p)).WriteTo(io.Discard)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	c := newCipher(b)
	for _, size := range []int{64 << 10, 1 << 20, 64 << 20} {
		var body bytes.Buffer
		w := c.Writer(&body)
		w.Write(pattern(size))
		w.Close()
		b.Run(fmt.Sprintf("WriteTo/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				c.Reader(bytes.NewReader(body.Bytes())).WriteTo(io.Discard)
			}
		})
		p := make([]byte, size)
		b.Run(fmt.Sprintf("Read/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				io.ReadFull(c.Reader(bytes.NewReader(body.Bytes())), p)
			}
		})
		at, err := c.ReaderAt(bytes.NewReader(body.Bytes()), int64(body.Len()))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("ReadAt/%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				at.ReadAt(p, 0)
			}
		})
	}
}

func rawGCM(b *testing.B) (cipher.AEAD, []byte, []byte) {
	block, err := aes.NewCipher(make([]byte, chunked.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return aead, make([]byte, 12), make([]byte, chunked.SealedChunkSize)
}
