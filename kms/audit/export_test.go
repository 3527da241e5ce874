package audit

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// SinkFile is a file as a FileSink uses it.
type SinkFile = sinkFile

// WrapFile makes the sink write through wrap, to this file and those that follow.
func (s *FileSink) WrapFile(wrap func(SinkFile) SinkFile) {
	<-s.turn
	defer s.release()
	s.trail.wrap = wrap
	s.trail.file = wrap(s.trail.file)
}

// ParseLine parses a line of an audit trail and writes it again.
func ParseLine(line []byte) (Entry, []byte, error) {
	e, err := parseLine(line)
	if err != nil {
		return e, nil, err
	}
	digits := strconv.FormatUint(e.Seq, 10)
	body := line[len(seqPart)+len(digits)+len(prevPart)+hexSize+len(`",`) : len(line)-len(hashPart)-hexSize-len(`"}`)]
	again, _ := Anchor{Seq: e.Seq - 1, Hash: e.Prev}.appendLine(nil, body)
	return e, again[:len(again)-1], nil
}

// VerifyFiles verifies a trail whose files hold these bytes.
func VerifyFiles(opts *VerifyOptions, files ...[]byte) (VerifyResult, error) {
	v, err := newVerifier(opts)
	if err != nil {
		return VerifyResult{}, err
	}
	contents := make(map[string][]byte)
	var names []string
	for i, b := range files {
		names = append(names, strconv.Itoa(i+1))
		contents[names[i]] = b
	}
	v.open = func(name string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(contents[name])), nil }
	return v.verify(names)
}

// MaxLine bounds a line for its readers.
const MaxLine = maxLine

// Abandon releases what the sink holds, as happens when its process dies.
func (s *FileSink) Abandon() error {
	s.mu.Lock()
	s.closed = true
	if s.unfold != nil {
		s.unfold.Stop()
	}
	s.mu.Unlock()
	<-s.turn
	defer s.release()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.trail.failure = errClosed
	return errors.Join(s.trail.file.Close(), s.lock.Unlock())
}
