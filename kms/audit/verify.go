package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms"
)

// ChainError reports the first place where a trail is not what was written.
type ChainError struct {
	Kind   ChainKind
	File   string
	Line   int    // in File, from 1; one past the last line if the end is missing
	Seq    uint64 // number of the first entry that is affected
	Detail string

	torn bool // the file ends within a line
	gap  bool // another entry is in the place of Seq
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("audit: trail is broken: entry %d is %s: %s:%d: %s", e.Seq, e.Kind, e.File, e.Line, e.Detail)
}

// ChainKind says what was done to a trail.
type ChainKind string

// What happened to an entry. If an edit has several explanations, Verify reports
// the first of these.
const (
	ChainMissing   ChainKind = "missing"   // the entry, and maybe more, is gone
	ChainEdited    ChainKind = "edited"    // the entry, or one soon after, was changed
	ChainReordered ChainKind = "reordered" // the entry was moved or repeated
	ChainTruncated ChainKind = "truncated" // the trail ends before or within the entry
	ChainForked    ChainKind = "forked"    // the signer signed two different trails
	ChainUnsigned  ChainKind = "unsigned"  // a checkpoint should precede the entry
)

// VerifyOptions are the options of [Verify] and [Read].
type VerifyOptions struct {
	// Verifier checks the signed checkpoints of a trail. [note.NewVerifier] makes
	// one from the verifier key. A trail without checkpoints is then an error.
	// Without a Verifier, checkpoints are not checked.
	Verifier note.Verifier

	// Last is an entry that the trail must contain: the [FileSink.Last] or
	// VerifyResult.Last that you kept. Without it, Verify cannot notice that
	// entries are missing at the end.
	Last *Anchor

	// First is the entry before the first one, if you archived older files: the
	// VerifyResult.Last of those files. nil means that the trail is complete.
	First *Anchor
}

// VerifyResult summarizes a verified trail.
type VerifyResult struct {
	Last       Anchor  // the last entry, or First if none follows it
	Signed     Anchor  // the last entry that a checkpoint covers; zero without a Verifier
	Records    int     // number of records
	Recoveries []Entry // notes on lines that a crash tore; investigate any you cannot explain
}

// Verify reads the trail that a [FileSink] wrote to path, in all its files, and
// checks that every entry is present, in order and unchanged. If not, it returns
// a [*ChainError] that names the first entry affected.
//
// Without keys, the chain detects accidents and edits by hand. It does not detect
// an attacker who rewrites all hashes after an edit, or who removes entries at
// the end. Two options do:
//
//   - Last detects every change before an entry that you kept an anchor of.
//   - Verifier detects every change before a signed checkpoint. It cannot detect
//     that an attacker removed the end of the trail, checkpoints included, nor
//     changes to the few entries behind the last checkpoint.
//
// You can verify a trail while a sink writes it, but a line that is being written
// may look truncated.
func Verify(path string, opts *VerifyOptions) (VerifyResult, error) {
	v, files, err := openTrail(path, opts)
	if err != nil {
		return VerifyResult{}, err
	}
	return v.verify(files)
}

func (v *verifier) verify(files []string) (VerifyResult, error) {
	result := VerifyResult{Last: v.at}
	for e, err := range v.readAll(files) {
		if err != nil {
			return result, err
		}
		result.Last = e.anchor()
		switch {
		case e.Record != nil:
			result.Records++
		case e.Note.Type == noteRecovery:
			result.Recoveries = append(result.Recoveries, e)
		case e.Note.Type == noteCheckpoint && v.key != nil:
			result.Signed = v.signed
		}
	}
	return result, nil
}

// Read returns the entries of a trail in order. Each was verified, as by
// [Verify], before Read returns it. The sequence ends with the first error.
func Read(path string, opts *VerifyOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		v, files, err := openTrail(path, opts)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		v.readAll(files)(yield)
	}
}

// openTrail returns a verifier, and the files of the trail at path, oldest first.
func openTrail(path string, opts *VerifyOptions) (*verifier, []string, error) {
	v, err := newVerifier(opts)
	if err != nil {
		return nil, nil, err
	}
	files, err := rotatedFiles(path)
	if err != nil {
		return nil, nil, err
	}
	// A crash between two renames leaves only rotated files.
	if _, err := os.Stat(path); err == nil || len(files) == 0 || !errors.Is(err, fs.ErrNotExist) {
		files = append(files, path)
	}
	return v, files, nil
}

// verifier follows a trail through its files.
type verifier struct {
	open     func(name string) (io.ReadCloser, error)
	key      note.Verifier // nil: checkpoints are not checked
	last     *Anchor       // nil: any end will do
	anyStart bool          // the files before the first one are gone

	at   Anchor // the entry before
	file string // where that is
	line int    // 0: not in these files

	signed     Anchor      // what the last checkpoint signs
	every      int         // by the last checkpoint; 0: no checkpoint so far
	unsigned   int         // entries since the last checkpoint
	unexpected *ChainError // the entry numbered as last is not last
}

func newVerifier(opts *VerifyOptions) (*verifier, error) {
	v := &verifier{open: openFile, at: origin, signed: origin}
	if opts == nil {
		return v, nil
	}
	v.key, v.last = opts.Verifier, opts.Last
	if opts.First == nil {
		return v, nil
	}
	v.at, v.signed = *opts.First, *opts.First
	if v.last != nil && v.last.Seq < v.at.Seq {
		return nil, fmt.Errorf("audit: %w: Last (entry %d) is before First (entry %d): verify the archived files against Last",
			kms.ErrInvalid, v.last.Seq, v.at.Seq)
	}
	if v.last != nil && v.last.Seq == v.at.Seq && v.last.Hash != v.at.Hash {
		return nil, &ChainError{Kind: ChainEdited, Seq: v.at.Seq, Detail: "First and Last have different hashes of it"}
	}
	return v, nil
}

func openFile(name string) (io.ReadCloser, error) { return os.Open(name) }

// readAll returns the entries of a whole trail.
func (v *verifier) readAll(files []string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i, name := range files {
			for e, err := range v.readFile(name) {
				if broken, ok := errors.AsType[*ChainError](err); ok && broken.gap && v.containsEntry(files[i:], broken.Seq) {
					broken.Kind = ChainReordered
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
		switch {
		case v.unexpected != nil:
			yield(Entry{}, v.unexpected)
		case v.last != nil && v.at.Seq < v.last.Seq:
			yield(Entry{}, &ChainError{
				Kind: ChainTruncated, File: v.file, Line: v.line + 1, Seq: v.at.Seq + 1,
				Detail: fmt.Sprintf("the trail once reached entry %d", v.last.Seq),
			})
		}
	}
}

func (v *verifier) readFile(name string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r, err := v.open(name)
		if err != nil {
			yield(Entry{}, fmt.Errorf("audit: %w", err))
			return
		}
		defer r.Close()
		v.read(name, r)(yield)
	}
}

// containsEntry reports whether one of the files has an entry of this number.
func (v *verifier) containsEntry(files []string, seq uint64) bool {
	for _, name := range files {
		r, err := v.open(name)
		if err != nil {
			return false
		}
		defer r.Close()
		br := bufio.NewReader(r)
		for {
			line, err := readLine(br)
			if err != nil {
				break
			}
			if e, err := parseLine(line); err == nil && e.Seq == seq {
				return true
			}
		}
	}
	return false
}

// read returns the entries of one file. The sequence ends with the first error.
func (v *verifier) read(name string, r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		br := bufio.NewReader(r)
		for number := 1; ; number++ {
			e, err := v.next(br, name, number)
			if errors.Is(err, io.EOF) {
				if v.file != name {
					v.file, v.line = name, 0 // the file is empty
				}
				return
			}
			if err != nil && v.unexpected != nil {
				err = v.unexpected // happened before
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if v.unexpected == nil && !yield(e, nil) {
				return
			}
		}
	}
}

// next reads and checks one line; io.EOF means that the file has no more.
func (v *verifier) next(br *bufio.Reader, file string, number int) (Entry, error) {
	at := Entry{File: file, Line: number}
	line, err := readLine(br)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		torn := at.broken(ChainTruncated, v.at.Seq+1, "the file ends within the line")
		torn.torn = true
		return Entry{}, torn
	case errors.Is(err, errLongLine):
		return Entry{}, at.broken(ChainEdited, v.at.Seq+1, "%v", err)
	case errors.Is(err, io.EOF):
		return Entry{}, err
	case err != nil:
		return Entry{}, fmt.Errorf("audit: %w", err)
	}
	e, err := parseLine(line)
	if err != nil {
		return Entry{}, at.broken(ChainEdited, v.at.Seq+1, "%v", err)
	}
	e.File, e.Line, e.size = file, number, int64(len(line))+1
	if err := v.check(&e); err != nil {
		return Entry{}, err
	}
	v.at, v.file, v.line = e.anchor(), file, number
	return e, nil
}

// check reports whether e follows the entry before, and is what First, Last and
// the checkpoints say.
func (v *verifier) check(e *Entry) error {
	continues := e.Note != nil && e.Note.Type == noteContinue
	if v.anyStart && continues {
		v.at = Anchor{Seq: e.Seq - 1, Hash: e.Prev}
		v.signed = v.at
	}
	v.anyStart = false
	switch want := v.at.Seq + 1; {
	case e.Seq < want:
		return e.broken(ChainReordered, want, "entry %d is in its place", e.Seq)
	case e.Seq > want:
		missing := e.broken(ChainMissing, want, "entry %d is in its place", e.Seq)
		missing.gap = true
		return missing
	case e.Prev != v.at.Hash && v.line == 0:
		return e.broken(ChainEdited, want, "its prev is not entry %d's hash (check First)", v.at.Seq)
	case e.Prev != v.at.Hash: // the hash of the entry before was recomputed after an edit
		before := Entry{File: v.file, Line: v.line}
		return before.broken(ChainEdited, v.at.Seq, "its hash is not entry %d's prev", want)
	}
	if err := v.checkSignature(e, continues); err != nil {
		return err
	}
	if v.last == nil || v.last.Seq != e.Seq || v.last.Hash == e.Hash {
		return nil
	}
	mismatch := e.broken(ChainEdited, e.Seq, "its hash is not that of Last: it or an entry before was changed")
	if v.key == nil {
		return mismatch
	}
	v.unexpected = mismatch // unless a later checkpoint proves a fork
	return nil
}

// checkSignature checks a checkpoint, or whether one is overdue.
func (v *verifier) checkSignature(e *Entry, continues bool) error {
	if v.key == nil {
		return nil
	}
	if e.Note == nil || e.Note.Type != noteCheckpoint {
		v.unsigned++
		switch {
		case v.every == 0 && !continues:
			return e.broken(ChainUnsigned, e.Seq, "no checkpoint of %s precedes it", v.key.Name())
		case v.every > 0 && v.unsigned > v.every:
			return e.broken(ChainUnsigned, e.Seq, "no checkpoint follows entry %d within %d entries", v.signed.Seq, v.every)
		}
		return nil
	}
	c, err := openCheckpoint(e.Note.Signed, v.key)
	suspect := v.signed.Seq + 1 // the first entry that no checkpoint vouches for
	switch {
	case err != nil:
		return e.broken(ChainEdited, e.Seq, "%v", err)
	case c.Seq > v.at.Seq:
		return e.broken(ChainMissing, suspect, "the checkpoint here signs %d entries, but %d precede it", c.Seq, v.at.Seq)
	case c.Seq < v.at.Seq:
		return e.broken(ChainEdited, suspect, "the checkpoint here signs %d entries, but %d precede it", c.Seq, v.at.Seq)
	case c.Hash != v.at.Hash:
		return e.broken(ChainEdited, suspect, "entries %d to %d are not those that the checkpoint here signs", suspect, c.Seq)
	case v.unexpected != nil:
		v.unexpected.Kind = ChainForked
		v.unexpected.Detail = fmt.Sprintf("its hash is not that of Last, but the checkpoint at %s:%d signs it: two trails exist", e.File, e.Line)
		return v.unexpected
	}
	v.signed, v.every, v.unsigned = c.Anchor, c.every, 0
	return nil
}

// broken returns an error about the entry seq that shows at e.
func (e *Entry) broken(kind ChainKind, seq uint64, format string, args ...any) *ChainError {
	return &ChainError{Kind: kind, File: e.File, Line: e.Line, Seq: seq, Detail: fmt.Sprintf(format, args...)}
}
