package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"time"

	"github.com/blobseal/blobseal/kms"
)

// Bounds of a trail, in bytes.
const (
	maxRecord = 256 << 10 // of a record in JSON
	maxTorn   = 64 << 10  // of a torn line that its note keeps
	maxLine   = 1 << 20   // of a line; both fit
)

// Anchor is a place in an audit trail. Whoever keeps one elsewhere, where the
// writer of the trail cannot reach it, can tell later whether the trail up to
// there is still the same.
type Anchor struct {
	Seq  uint64 `json:"seq"`  // number of a line; the first has 1
	Hash string `json:"hash"` // its hash
}

// start is where every trail starts.
var start = Anchor{Hash: hex.EncodeToString(make([]byte, sha256.Size))}

// Note is what an audit trail says of itself; see [OpenFileSink].
type Note struct {
	Type NoteType  `json:"type"`
	Time time.Time `json:"time"`

	// Of a recovery: how long what was torn is, its SHA-256 in hex, and its first
	// 64 KiB.
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Torn   []byte `json:"torn,omitempty"`
}

// NoteType is what a [Note] is on.
type NoteType string

// The types of notes.
const (
	NoteContinue NoteType = "continue" // a file begins, and the one before was full
	NoteRecovery NoteType = "recovery" // a line was torn by a crash
)

// Parts of a line, and how much of it is neither record nor note, at most.
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

func recordBody(r Record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("audit: record: %w", err)
	}
	if len(b) > maxRecord {
		return nil, fmt.Errorf("%w: audit record of %d bytes, at most %d", kms.ErrInvalid, len(b), maxRecord)
	}
	return append([]byte(recordPart), b...), nil
}

func recordBodies(records []Record) ([][]byte, error) {
	bodies := make([][]byte, 0, len(records))
	for _, r := range records {
		body, err := recordBody(r)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

func noteBody(n Note) []byte {
	n.Time = time.Now().Round(0).UTC()
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // there is nothing in it that JSON cannot say, up to the year 9999
	}
	return append([]byte(notePart), b...)
}

// appendLine appends the line that follows a, and returns its place.
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

// Entry is a line of an audit trail.
type Entry struct {
	File string // as it was named
	Line int    // in File, from 1
	Seq  uint64 // in the trail, from 1
	Prev string // hash of the entry before
	Hash string

	Record *Record // nil if it is a note
	Note   *Note   // nil if it is a record

	size int64
}

// parseLine reads a line without its end. The hash is checked, and prev is not.
func parseLine(line []byte) (Entry, error) {
	var e Entry
	bad := func(what string) (Entry, error) { return Entry{}, errors.New(what) }
	cut := len(line) - len(hashPart) - hexSize - len(`"}`)
	if cut < 0 || !bytes.HasPrefix(line[cut:], []byte(hashPart)) || !bytes.HasSuffix(line, []byte(`"}`)) {
		return bad("it is no line of an audit trail")
	}
	e.Hash = string(line[cut+len(hashPart) : len(line)-len(`"}`)])
	if chainHash(line[:cut]) != e.Hash {
		return bad("its hash is another")
	}
	rest, ok := bytes.CutPrefix(line[:cut], []byte(seqPart))
	digits, rest, ok2 := bytes.Cut(rest, []byte(prevPart))
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if !ok || !ok2 || err != nil || seq == 0 || strconv.FormatUint(seq, 10) != string(digits) || len(rest) < hexSize+len(`",`) ||
		string(rest[hexSize:hexSize+len(`",`)]) != `",` {
		return bad("its number or the hash before are not in their form")
	}
	e.Seq, e.Prev = seq, string(rest[:hexSize])
	rest = rest[hexSize+len(`",`):]
	if body, ok := bytes.CutPrefix(rest, []byte(recordPart)); ok {
		err = json.Unmarshal(body, &e.Record)
	} else if body, ok := bytes.CutPrefix(rest, []byte(notePart)); ok {
		err = json.Unmarshal(body, &e.Note)
	}
	if err != nil || e.Record == nil && e.Note == nil {
		return bad("it holds neither record nor note")
	}
	return e, nil
}

// ChainError names the first place where an audit trail is not what was written.
type ChainError struct {
	Kind   ChainKind
	File   string
	Line   int    // in File, from 1; the one after the last if the end is missing
	Seq    uint64 // number of the entry that is not what it was
	Detail string

	torn bool // the file ends within a line
}

// ChainKind is what was done to an audit trail.
type ChainKind string

// What can be told. An edit which makes two readings possible has the first.
const (
	ChainMissing   ChainKind = "missing"   // entries Seq and maybe more are not there
	ChainEdited    ChainKind = "edited"    // entry Seq is another
	ChainReordered ChainKind = "reordered" // entry Seq stands elsewhere, or twice
	ChainTruncated ChainKind = "truncated" // the trail ends before Seq, or within it
)

func (e *ChainError) Error() string {
	return fmt.Sprintf("audit: trail is broken: entry %d is %s: %s:%d: %s", e.Seq, e.Kind, e.File, e.Line, e.Detail)
}

// VerifyOptions are the options of [Verify] and [Read].
type VerifyOptions struct {
	// First is the place before the first entry: what an earlier verification
	// returned as Last, if the files up to there were moved away since. nil means
	// that the trail is there from its begin.
	First *Anchor

	// Last is a place that the trail must have reached, from [FileSink.Last] or an
	// earlier verification. Without it, entries missing at the end cannot be told.
	Last *Anchor
}

// VerifyResult is what [Verify] found.
type VerifyResult struct {
	Last       Anchor  // place of the last entry
	Records    int     // number of records
	Recoveries []Entry // notes on lines that a crash tore: where a crash is unknown, look into them
}

// Verify reads the trail that a [FileSink] with this path wrote, in all its
// files, and checks that each entry is there, in order, and unchanged. If not, the
// error is a [ChainError] that names the first entry of which that is not so.
//
// The chain has no key. It proves that nobody damaged a trail by accident, or
// edited it by hand: entries changed, removed, inserted or moved. It proves
// nothing against whoever may write the files and makes all hashes anew from
// some entry on, or who cuts entries off the end. Both show against an [Anchor]
// that was kept out of their reach: from time to time put [FileSink.Last] into
// another system, and give it as opts.Last.
//
// nil opts means a trail from its begin, and no demand on its end. A trail that
// is being written can be verified meanwhile; a line that is just being written
// may show as truncated.
func Verify(path string, opts *VerifyOptions) (VerifyResult, error) {
	return verify(Read(path, opts))
}

func verify(entries iter.Seq2[Entry, error]) (VerifyResult, error) {
	v := VerifyResult{Last: start}
	for e, err := range entries {
		if err != nil {
			return v, err
		}
		v.Last = Anchor{e.Seq, e.Hash}
		switch {
		case e.Record != nil:
			v.Records++
		case e.Note.Type == NoteRecovery:
			v.Recoveries = append(v.Recoveries, e)
		}
	}
	return v, nil
}

// Read returns the entries of a trail, each verified as by [Verify] before
// it is returned. The sequence ends with the first error.
func Read(path string, opts *VerifyOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		names, err := asideFiles(path)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if _, err := os.Stat(path); err == nil || len(names) == 0 || !errors.Is(err, fs.ErrNotExist) {
			names = append(names, path) // absent between two files, after a crash
		}
		var sources []source
		for _, name := range names {
			sources = append(sources, source{name, func() (io.ReadCloser, error) { return os.Open(name) }})
		}
		readAll(opts, sources, yield)
	}
}

// source is a file to read.
type source struct {
	name string
	open func() (io.ReadCloser, error)
}

func readAll(opts *VerifyOptions, sources []source, yield func(Entry, error) bool) {
	v := verifier{at: start}
	if opts != nil {
		v.last = opts.Last
		if opts.First != nil {
			v.at = *opts.First
		}
	}
	for i, s := range sources {
		r, err := s.open()
		if err != nil {
			yield(Entry{}, fmt.Errorf("audit: file: %w", err))
			return
		}
		goesOn := true
		for e, err := range v.read(s.name, r) {
			if broken, ok := errors.AsType[*ChainError](err); ok && broken.Kind == ChainMissing && elsewhere(broken.Seq, sources[i+1:]) {
				broken.Kind = ChainReordered
			}
			if goesOn = yield(e, err) && err == nil; !goesOn {
				break
			}
		}
		_ = r.Close() // read only
		if !goesOn {
			return
		}
	}
	if v.last != nil && v.at.Seq < v.last.Seq {
		yield(Entry{}, &ChainError{
			Kind: ChainTruncated, File: v.file, Line: v.line + 1, Seq: v.at.Seq + 1,
			Detail: fmt.Sprintf("the trail is known to reach entry %d", v.last.Seq),
		})
	}
}

// elsewhere reports whether one of the files has an entry of this number.
func elsewhere(seq uint64, files []source) bool {
	for _, s := range files {
		r, err := s.open()
		if err != nil {
			return false
		}
		found := holds(bufio.NewReader(r), seq)
		_ = r.Close() // read only
		if found {
			return true
		}
	}
	return false
}

// holds reports whether what is left of r has an entry of this number.
func holds(r *bufio.Reader, seq uint64) bool {
	for {
		line, err := readLine(r)
		if err != nil {
			return false
		}
		if e, err := parseLine(line); err == nil && e.Seq == seq {
			return true
		}
	}
}

var errLongLine = errors.New("it is longer than lines are")

// readLine returns the next line without its end; io.ErrUnexpectedEOF if it has none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, errLongLine
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

// verifier follows a trail through its files.
type verifier struct {
	at       Anchor // the entry before
	last     *Anchor
	anyStart bool // the first entry may be any

	file string // of the entry before
	line int
}

// read returns the entries of one file.
func (v *verifier) read(name string, r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		br := bufio.NewReader(r)
		prevFile, prevLine := v.file, v.line // where the entry before stands
		for number := 1; ; number++ {
			broken := func(kind ChainKind, detail string) *ChainError {
				return &ChainError{Kind: kind, File: name, Line: number, Seq: v.at.Seq + 1, Detail: detail}
			}
			line, err := readLine(br)
			switch {
			case errors.Is(err, io.EOF):
				if v.file != name { // without entries
					v.file, v.line = name, 0
				}
				return
			case errors.Is(err, io.ErrUnexpectedEOF):
				e := broken(ChainTruncated, "the file ends within it")
				e.torn = true
				yield(Entry{}, e)
				return
			case errors.Is(err, errLongLine):
				e := broken(ChainEdited, err.Error())
				e.torn = endless(br)
				yield(Entry{}, e)
				return
			case err != nil:
				yield(Entry{}, fmt.Errorf("audit: file: %w", err))
				return
			}
			e, err := parseLine(line)
			if err != nil {
				yield(Entry{}, broken(ChainEdited, err.Error()))
				return
			}
			e.File, e.Line, e.size = name, number, int64(len(line))+1
			if v.anyStart {
				v.at, v.anyStart = Anchor{e.Seq - 1, e.Prev}, false
			}
			switch want := v.at.Seq + 1; {
			case e.Seq < want:
				yield(Entry{}, broken(ChainReordered, fmt.Sprintf("entry %d stands in its place", e.Seq)))
				return
			case e.Seq > want:
				kind := ChainMissing
				if holds(br, want) {
					kind = ChainReordered
				}
				yield(Entry{}, broken(kind, fmt.Sprintf("entry %d stands in its place", e.Seq)))
				return
			case e.Prev != v.at.Hash && prevLine == 0:
				yield(Entry{}, broken(ChainEdited, "it knows another entry before it"))
				return
			case e.Prev != v.at.Hash:
				// One of two is not what it was: the one before, with its hash made anew.
				yield(Entry{}, &ChainError{
					Kind: ChainEdited, File: prevFile, Line: prevLine, Seq: v.at.Seq,
					Detail: fmt.Sprintf("entry %d knows another", want),
				})
				return
			case v.last != nil && v.last.Seq == e.Seq && v.last.Hash != e.Hash:
				yield(Entry{}, broken(ChainEdited, "it is known to be another"))
				return
			}
			v.at = Anchor{e.Seq, e.Hash}
			v.file, v.line = name, number
			prevFile, prevLine = name, number
			if !yield(e, nil) {
				return
			}
		}
	}
}

// endless reports whether r has no end of a line any more.
func endless(r *bufio.Reader) bool {
	for {
		_, err := r.ReadSlice('\n')
		switch {
		case err == nil:
			return false
		case !errors.Is(err, bufio.ErrBufferFull):
			return errors.Is(err, io.EOF)
		}
	}
}
