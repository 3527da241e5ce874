package s3gateway_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// model records what clients did to the keys of a bucket, and so knows what a read may find.
// Operations overlap: a read may find the content of any write that began before the read
// ended, unless another write had replaced it before the read began. All contents differ, so
// that a read identifies the write that it found.
type model struct {
	mu       sync.Mutex
	begin    time.Time
	writes   map[string][]*write // of each key; the first is its absence at the beginning
	contents []*content
}

// write is an operation that gives a key a content, or takes it away.
type write struct {
	content    *content // nil for a deletion
	start, end time.Duration
	what       string
}

// unknown is the end of a write that may have failed. It may take effect at any later time.
const unknown = time.Duration(math.MaxInt64)

// content is the plaintext of an object, which no two writes of new objects share.
type content struct {
	seed uint64
	size int
}

// marker is in every content, and must be nowhere in the store.
var marker = []byte("<plaintext of a client>")

// bytes returns the content: random bytes with the marker in every KiB.
func (c *content) bytes() []byte {
	p := make([]byte, c.size)
	rand.NewChaCha8([32]byte{0: byte(c.seed), 1: byte(c.seed >> 8), 2: byte(c.seed >> 16)}).Read(p)
	for at := 100; at+len(marker) <= len(p); at += 1 << 10 {
		copy(p[at:], marker)
	}
	return p
}

func (c *content) String() string {
	if c == nil {
		return "absent"
	}
	return fmt.Sprintf("content %d of %d bytes", c.seed, c.size)
}

func newModel(keys []string) *model {
	m := &model{begin: time.Now(), writes: map[string][]*write{}}
	for _, key := range keys {
		m.writes[key] = []*write{{what: "the beginning"}}
	}
	return m
}

func (m *model) now() time.Duration { return time.Since(m.begin) }

// newContent returns a content that nobody has written yet. It has 32 bytes at least.
func (m *model) newContent(size int) *content {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &content{uint64(len(m.contents)), max(size, 32)}
	m.contents = append(m.contents, c)
	return c
}

// startWrite notes a write before its request. Until its end is known, it may take effect
// at any time.
func (m *model) startWrite(key string, c *content, what string) *write {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &write{content: c, start: m.now(), end: unknown, what: what}
	m.writes[key] = append(m.writes[key], w)
	return w
}

// endWrite notes that a write took effect.
func (m *model) endWrite(w *write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.end = m.now()
}

// withdraw notes that a write has no effect.
func (m *model) withdraw(key string, w *write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes[key] = slices.DeleteFunc(m.writes[key], func(other *write) bool { return other == w })
}

// possibleContents returns what a read may have found that began at start and ends now.
func (m *model) possibleContents(key string, start time.Duration) []*content {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := m.now()
	var found []*content
	for _, w := range m.writes[key] {
		replaced := slices.ContainsFunc(m.writes[key], func(other *write) bool { return other.start > w.end && other.end < start })
		if w.start <= end && !replaced {
			found = append(found, w.content)
		}
	}
	return found
}

// find returns the content whose bytes from offset are p, of those that a read may have
// found, or reports an error. size is that of the whole object.
func (m *model) find(t *testing.T, what, key string, start time.Duration, p []byte, offset, size int) *content {
	possible := m.possibleContents(key, start)
	for _, c := range possible {
		if c != nil && c.size == size && bytes.Equal(c.bytes()[offset:offset+len(p)], p) {
			return c
		}
	}
	t.Errorf("%s %s: found %d bytes from %d of %d that no client has left there; it may have %v. %s", what, key, len(p), offset, size, possible, m.history(key))
	return nil
}

// checkAbsence reports an error unless a read may have found nothing.
func (m *model) checkAbsence(t *testing.T, what, key string, start time.Duration) {
	if possible := m.possibleContents(key, start); !slices.Contains(possible, nil) {
		t.Errorf("%s %s: nothing is there, and it may have %v. %s", what, key, possible, m.history(key))
	}
}

// history returns the last writes of a key, for the messages of failures.
func (m *model) history(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var text bytes.Buffer
	fmt.Fprintf(&text, "Now is %v; the last writes:", m.now())
	for _, w := range m.writes[key][max(0, len(m.writes[key])-12):] {
		end := fmt.Sprint(w.end)
		if w.end == unknown {
			end = "unknown"
		}
		fmt.Fprintf(&text, "\n\t%v to %s: %s, %v", w.start, end, w.what, w.content)
	}
	return text.String()
}
