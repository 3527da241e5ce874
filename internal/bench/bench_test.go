package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"
)

func field(tb testing.TB) []*contestant {
	tb.Helper()
	all, err := contestants()
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// Every way of every contestant does the work: it restores what it encrypted
// and authenticates it.
func TestRoundTrip(t *testing.T) {
	for _, c := range field(t) {
		for _, size := range []int{1, kib, rawChunk - 1, rawChunk, 64 * kib, 64*kib + 1, mib + 1} {
			t.Run(fmt.Sprintf("%s/%d", c.name, size), func(t *testing.T) {
				roundTrip(t, c, randomBytes(size))
			})
		}
	}
}

func roundTrip(t *testing.T, c *contestant, p []byte) {
	for _, e := range c.encrypt {
		var sealed bytes.Buffer
		if err := e.run(&sealed, p); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		if bytes.Contains(sealed.Bytes(), p) && len(p) > 1 {
			t.Errorf("%s: does not encrypt", e.name)
		}
		for _, d := range c.decrypt {
			var opened bytes.Buffer
			if err := d.run(&opened, sealed.Bytes()); err != nil {
				t.Fatalf("%s, %s: %v", e.name, d.name, err)
			}
			if !bytes.Equal(opened.Bytes(), p) {
				t.Errorf("%s, %s: other bytes came back", e.name, d.name)
			}
			damaged := bytes.Clone(sealed.Bytes())
			damaged[len(damaged)-1-len(damaged)/3] ^= 1
			if err := d.run(sink{}, damaged); err == nil {
				t.Errorf("%s, %s: accepts a damaged object", e.name, d.name)
			}
		}
	}
}

func TestReadAt(t *testing.T) {
	p := randomBytes(mib + 1)
	for _, c := range field(t) {
		if c.open == nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			sealed, err := c.seal(p)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.open(sealed)
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				off := rand.IntN(mib - 4*kib)
				got := make([]byte, 4*kib)
				if n, err := r.ReadAt(got, int64(off)); n < len(got) {
					t.Fatalf("%d bytes at %d: %v", n, off, err)
				}
				if !bytes.Equal(got, p[off:off+len(got)]) {
					t.Fatalf("other bytes at %d", off)
				}
			}
		})
	}
}

// The command itself, over its smallest race.
func TestBench(t *testing.T) {
	var out bytes.Buffer
	match := regexp.MustCompile("^encrypt 1 KiB")
	if err := bench(&out, match, 2, 100*time.Microsecond, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GOMAXPROCS", "| Encrypt 1 KiB ", rawName, managedName, "minio/sio", "age", floorBase} {
		if !bytes.Contains(out.Bytes(), []byte(want)) {
			t.Errorf("no %q in\n%s", want, out.Bytes())
		}
	}
}

func TestMedian(t *testing.T) {
	if m := median([]float64{9, 1, 5}); m != 5 {
		t.Errorf("median is %v, want 5", m)
	}
	if m := median([]float64{9, 1, 5, 6}); m != 5.5 {
		t.Errorf("median is %v, want 5.5", m)
	}
}

// Ratios are of one round each: a slow round of both does not show.
func TestSpeedIsRoundByRound(t *testing.T) {
	ours := &result{rounds: []time.Duration{10, 1000, 10, 1000}}
	theirs := &result{rounds: []time.Duration{20, 2000, 20, 2000}}
	if s := ours.speed(theirs); s != 2 {
		t.Errorf("speed is %v, want 2", s)
	}
}

func BenchmarkEncrypt(b *testing.B) {
	for _, size := range sizes {
		p := randomBytes(size)
		for _, c := range field(b) {
			if !c.decryptOnly {
				benchmark(b, c, size, c.encrypt, p)
			}
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	for _, size := range sizes {
		p := randomBytes(size)
		for _, c := range field(b) {
			sealed, err := c.seal(p)
			if err != nil {
				b.Fatal(err)
			}
			benchmark(b, c, size, c.decrypt, sealed)
		}
	}
}

func benchmark(b *testing.B, c *contestant, size int, ways []way, src []byte) {
	for _, w := range ways {
		b.Run(fmt.Sprintf("%s/%s/%s", sizeName(size), c.name, w.name), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.run(sink{}, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadAt(b *testing.B) { benchmarkRace(b, readRace(field(b))) }

func BenchmarkFloor(b *testing.B) { benchmarkRace(b, floorRace(field(b))) }

// benchmarkRace makes a benchmark of each entrant of a race.
func benchmarkRace(b *testing.B, r race) {
	entrants, err := r.enter()
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entrants {
		for _, op := range e.ways {
			b.Run(e.name+"/"+op.name, func(b *testing.B) {
				b.SetBytes(int64(r.size))
				b.ReportAllocs()
				for b.Loop() {
					if err := op.run(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
