package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"
)

// Sizes of a trail's lines, in bytes.
const (
	maxRecord = 256 << 10 // a record in JSON
	maxTorn   = 64 << 10  // what a recovery note keeps of a torn line
	maxLine   = 1 << 20   // a line, which has room for either
)

// Anchor identifies an entry of a trail and, by its hash, all entries before it.
// Keep anchors where the writer of the trail cannot reach them, and pass them to
// [Verify] later. The zero Anchor with a hash of zeros precedes the first entry.
type Anchor struct {
	Seq  uint64 `json:"seq"`  // the first entry has 1
	Hash string `json:"hash"` // of the entry, in hexadecimal
}

// origin is the anchor before the first entry of every trail.
var origin = Anchor{Hash: hex.EncodeToString(make([]byte, sha256.Size))}

// Note is an entry that describes the trail itself; see [OpenFileSink].
type Note struct {
	// Type is "continue" where a new file continues the trail, "recovery" where a
	// crash tore the line that stood here, or "checkpoint" where the entries so far
	// are signed.
	Type string    `json:"type"`
	Time time.Time `json:"time"`

	// For a recovery: the torn line's size, its SHA-256 in hexadecimal, and its
	// first 64 KiB.
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Torn   []byte `json:"torn,omitempty"`

	// For a checkpoint: the signed text.
	Signed string `json:"signed,omitempty"`
}

// The types of notes.
const (
	noteContinue   = "continue"
	noteRecovery   = "recovery"
	noteCheckpoint = "checkpoint"
)

// Entry is a line of a trail: a record or a note.
type Entry struct {
	File string // path of the file
	Line int    // in File, from 1
	Seq  uint64 // in the trail, from 1
	Prev string // hash of the entry before
	Hash string

	Record *Record // nil for a note
	Note   *Note   // nil for a record

	size int64
}

func (e *Entry) anchor() Anchor { return Anchor{Seq: e.Seq, Hash: e.Hash} }

// Parts of a line, and how many bytes surround the record or note.
const (
	chainLabel   = "blobseal audit v1\x00"
	seqPart      = `{"seq":`
	prevPart     = `,"prev":"`
	hashPart     = `,"hash":"`
	recordPart   = `"record":`
	notePart     = `"note":`
	hexSize      = 2 * sha256.Size
	lineOverhead = len(seqPart) + 20 + len(prevPart) + hexSize + len(`",`) + len(hashPart) + hexSize + len("\"}\n")
)

func noteBody(n Note) []byte {
	n.Time = time.Now().Round(0).UTC()
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // every Note has a JSON form, until the year 9999
	}
	return append([]byte(notePart), b...)
}

// appendLine appends to b the line with this body that follows a, and returns
// the line's anchor.
func (a Anchor) appendLine(b, body []byte) ([]byte, Anchor) {
	begin := len(b)
	b = append(b, seqPart...)
	b = strconv.AppendUint(b, a.Seq+1, 10)
	b = append(b, prevPart...)
	b = append(b, a.Hash...)
	b = append(b, `",`...)
	b = append(b, body...)
	next := Anchor{Seq: a.Seq + 1, Hash: chainHash(b[begin:])}
	b = append(b, hashPart...)
	b = append(b, next.Hash...)
	return append(b, "\"}\n"...), next
}

func chainHash(line []byte) string {
	h := sha256.New()
	h.Write([]byte(chainLabel))
	h.Write(line)
	return hex.EncodeToString(h.Sum(nil))
}

// Reasons why a line is not an entry.
var (
	errNotAnEntry  = errors.New("the line is not an entry of an audit trail")
	errWrongHash   = errors.New("the line does not match its hash")
	errMalformed   = errors.New("the entry's number or previous hash is malformed")
	errUnknownBody = errors.New("the entry holds neither a record nor a note")
	errLongLine    = errors.New("the line is too long")
)

// parseLine parses a line without its newline. It checks the line's own hash;
// the caller checks Seq and Prev.
func parseLine(line []byte) (Entry, error) {
	end := len(line) - len(hashPart) - hexSize - len(`"}`)
	if end < 0 || !bytes.HasPrefix(line[end:], []byte(hashPart)) || !bytes.HasSuffix(line, []byte(`"}`)) {
		return Entry{}, errNotAnEntry
	}
	e := Entry{Hash: string(line[end+len(hashPart) : len(line)-len(`"}`)])}
	if chainHash(line[:end]) != e.Hash {
		return Entry{}, errWrongHash
	}
	rest, hasSeq := bytes.CutPrefix(line[:end], []byte(seqPart))
	digits, rest, hasPrev := bytes.Cut(rest, []byte(prevPart))
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	canonical := err == nil && seq > 0 && strconv.FormatUint(seq, 10) == string(digits)
	if !hasSeq || !hasPrev || !canonical || len(rest) < hexSize || !bytes.HasPrefix(rest[hexSize:], []byte(`",`)) {
		return Entry{}, errMalformed
	}
	e.Seq, e.Prev = seq, string(rest[:hexSize])
	body := rest[hexSize+len(`",`):]
	if record, ok := bytes.CutPrefix(body, []byte(recordPart)); ok {
		err = json.Unmarshal(record, &e.Record)
	} else if note, ok := bytes.CutPrefix(body, []byte(notePart)); ok {
		err = json.Unmarshal(note, &e.Note)
	}
	if err != nil || e.Record == nil && e.Note == nil {
		return Entry{}, errUnknownBody
	}
	return e, nil
}

// readLine returns the next line without its newline. At the end of r it returns
// io.EOF, or io.ErrUnexpectedEOF if the last line has no newline.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, longLine(r, err)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// longLine returns errLongLine if the rest of r has a newline, and
// io.ErrUnexpectedEOF if not. err is what the last ReadSlice returned.
func longLine(r *bufio.Reader, err error) error {
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	return errLongLine
}
