package kms

import (
	"strconv"
	"time"
)

// SetNow replaces the cache's clock.
func (c *Cache) SetNow(now func() time.Time) { c.now = now }

// Plaintexts returns the cache's own slices of plaintext, not copies.
func (c *Cache) Plaintexts() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out [][]byte
	for _, e := range c.entries {
		out = append(out, e.plaintext.Bytes())
	}
	return out
}

// SinkFile is what a FileSink needs of a file.
type SinkFile = sinkFile

// WrapFile has the sink write through wrap, now and after each begin of a file.
func (s *FileSink) WrapFile(wrap func(SinkFile) SinkFile) {
	s.io.Lock()
	defer s.io.Unlock()
	s.wrap = wrap
	s.file = wrap(s.file)
}

// ParseLine reads a line of an audit trail and writes it again.
func ParseLine(line []byte) (Entry, []byte, error) {
	e, err := parseLine(line)
	if err != nil {
		return e, nil, err
	}
	body := line[len(seqPart)+len(chainDigits(e.Seq))+len(prevPart)+hexSize+len(`",`) : len(line)-len(hashPart)-hexSize-len(`"}`)]
	again, _ := Anchor{Seq: e.Seq - 1, Hash: e.Prev}.appendLine(nil, body)
	return e, again[:len(again)-1], nil
}

func chainDigits(seq uint64) string { return strconv.FormatUint(seq, 10) }

// MaxLine bounds a line for its readers.
const MaxLine = maxLine
