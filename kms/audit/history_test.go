package audit_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// TestHistories runs random histories of a trail: writes, full disks, failed
// flushes, kills, rotations, truncations and edits. It compares the trail with a
// model. See [seeds.Run] for how to run one again, or many.
func TestHistories(t *testing.T) { seeds.Run(t, 6, runHistory) }

// Keys of the histories' trails, fixed so that a seed says everything.
const (
	historySigner   = "PRIVATE+KEY+history.example.com/audit+00654e85+AenLLrSBg4IUcMtqOhMtfMdOTs/0PvTJ/2OWRxMeOFWe"
	historyVerifier = "history.example.com/audit+00654e85+AaQ+vC0N3ygP2ydJLtGmiFvKkG/KjXOvFa5fv83Qju0F"
)

// expected is a record of the model.
type expected struct {
	name   string
	unsure bool // Write failed, so the record may be in the trail or not
}

// history is a trail and its model.
type history struct {
	*testing.T
	rand      *rand.Rand
	path      string
	opts      audit.FileSinkOptions
	verifier  note.Verifier // nil if the trail is not signed
	logrotate bool          // or else the sink rotates

	sink    *audit.FileSink
	file    *mortalFile
	records []expected
	last    *audit.Anchor // after the last acknowledged record
	next    int
	steps   []string
}

func runHistory(t *testing.T, seed uint64) {
	// The bubble's clock makes the times in notes, and so their sizes, repeatable.
	synctest.Test(t, func(t *testing.T) {
		h := &history{T: t, rand: rand.New(rand.NewPCG(seed, 0)), path: auditPath(t)}
		defer func() {
			if t.Failed() {
				t.Logf("the last steps: %q", h.steps[max(0, len(h.steps)-12):])
			}
		}()
		h.logrotate = h.rand.IntN(3) == 0
		h.opts = audit.FileSinkOptions{MaxSize: 1500 + h.rand.Int64N(4000), CheckpointInterval: time.Hour}
		if h.logrotate {
			h.opts.MaxSize = -1
		}
		if h.rand.IntN(2) == 0 {
			var err error
			h.opts.Signer, err = audit.NewSigner(historySigner)
			require.NoError(t, err)
			h.verifier, err = note.NewVerifier(historyVerifier)
			require.NoError(t, err)
		}
		h.open()
		for range 60 {
			h.step()
			if t.Failed() {
				return
			}
		}
		h.close()
		if h.verifier != nil && h.last != nil {
			v, err := audit.Verify(h.path, &audit.VerifyOptions{Verifier: h.verifier})
			require.NoError(t, err)
			require.Equal(t, v.Last.Seq, v.Signed.Seq+1, "Close signs all that is there")
		}
	})
}

// step does something, and checks what the trail says then.
func (h *history) step() {
	steps := []struct {
		name   string
		weight int
		do     func()
	}{
		{"write", 30, h.write},
		{"restart", 6, func() { h.close(); h.open() }},
		{"kill between writes", 4, func() { h.kill(); h.open() }},
		{"kill within a write", 10, h.killWithinWrite},
		{"full disk", 6, h.fullDisk},
		{"failed flush", 6, h.failedFlush},
		{"reopen", 4, func() { require.NoError(h, h.sink.Reopen()) }},
		{"rotate", 8, h.rotate},
		{"rotate while closed", 4, func() { h.close(); h.rotate(); h.open() }},
		{"edit", 8, h.edit},
		{"rehashed edit", 4, h.rehashedEdit},
		{"truncate", 2, h.truncate},
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	choice := h.rand.IntN(total)
	for _, s := range steps {
		if choice -= s.weight; choice < 0 {
			h.steps = append(h.steps, s.name)
			s.do()
			h.check()
			return
		}
	}
}

// open starts a process that writes the trail.
func (h *history) open() {
	h.opts.CheckpointEvery = 1 + h.rand.IntN(5)
	h.sink = openSink(h, h.path, &h.opts)
	h.file = &mortalFile{left: -1}
	h.sink.WrapFile(func(f audit.SinkFile) audit.SinkFile {
		h.file.SinkFile = f
		return h.file
	})
}

func (h *history) close() { require.NoError(h, h.sink.Close()) }

func (h *history) kill() {
	h.file.dead = true
	require.NoError(h, h.sink.Abandon())
}

// put writes a record and tells the model.
func (h *history) put() error {
	h.next++
	name := fmt.Sprint("user ", h.next, strings.Repeat("!", h.rand.IntN(200)))
	r := audit.Record{
		Time: time.Now(), EventID: "event", Principal: kms.Principal{ID: name}, Operation: kms.OpDecrypt, Outcome: "success",
	}
	err := h.sink.Write(h.Context(), r)
	h.records = append(h.records, expected{name: name, unsure: err != nil})
	if err == nil {
		last := h.sink.Last()
		h.last = &last
	}
	return err
}

func (h *history) write() {
	for range 1 + h.rand.IntN(5) {
		require.NoError(h, h.put())
	}
}

func (h *history) killWithinWrite() {
	h.file.left, h.file.full = h.rand.IntN(900), errKilled
	for range 20 {
		if err := h.put(); err != nil {
			require.ErrorIs(h, err, errKilled)
			break
		}
	}
	h.kill()
	h.open()
}

func (h *history) fullDisk() {
	h.file.left, h.file.full = h.rand.IntN(900), syscall.ENOSPC
	for range 20 {
		if err := h.put(); err != nil {
			require.ErrorIs(h, err, syscall.ENOSPC)
			break
		}
	}
	h.file.left = -1
}

func (h *history) failedFlush() {
	h.file.sync = syscall.EIO
	require.ErrorIs(h, h.put(), syscall.EIO)
	require.ErrorIs(h, h.put(), syscall.EIO, "nobody knows what is on the disk")
	if h.rand.IntN(2) == 0 {
		require.NoError(h, h.sink.Reopen())
		return
	}
	h.close()
	h.open()
}

// rotate renames the files as logrotate does.
func (h *history) rotate() {
	if _, err := os.Stat(h.path); err != nil || !h.logrotate {
		return
	}
	for n := len(h.files()) - 1; n > 0; n-- {
		require.NoError(h, os.Rename(fmt.Sprint(h.path, ".", n), fmt.Sprint(h.path, ".", n+1)))
	}
	require.NoError(h, os.Rename(h.path, h.path+".1"))
}

// files returns the trail's files, oldest first, the current one last.
func (h *history) files() []string {
	aside, err := filepath.Glob(h.path + ".0*")
	require.NoError(h, err)
	var names []string
	for n := 1; ; n++ {
		name := fmt.Sprint(h.path, ".", n)
		if _, err := os.Stat(name); err != nil {
			break
		}
		names = append(names, name)
	}
	slices.Reverse(names)
	return slices.Concat(names, aside, []string{h.path})
}

func (h *history) verify() error {
	_, err := audit.Verify(h.path, &audit.VerifyOptions{Last: h.last, Verifier: h.verifier})
	return err
}

// check compares the trail with the model.
func (h *history) check() {
	if _, err := os.Stat(h.path); err != nil && len(h.files()) == 1 {
		require.Empty(h, h.records)
		return
	}
	var got []string
	for e, err := range audit.Read(h.path, &audit.VerifyOptions{Last: h.last, Verifier: h.verifier}) {
		if err != nil {
			require.Fail(h, "the trail is broken", "%v", err)
			return
		}
		if e.Record != nil {
			got = append(got, e.Record.Principal.ID)
		}
	}
	// What may be there or not is settled from now on.
	var settled []expected
	for _, r := range h.records {
		switch {
		case len(got) > 0 && got[0] == r.name:
			got = got[1:]
			settled = append(settled, expected{name: r.name})
		case !r.unsure:
			require.Fail(h, "a record that was acknowledged is missing", "%q, found %q", r.name, got[:min(1, len(got))])
			return
		}
	}
	require.Empty(h, got, "records nobody wrote")
	h.records = settled
}

// change edits a file, and expects that Verify finds it. Then it restores the file.
func (h *history) change(name string, edited []byte, what string) {
	before := readFile(h, name)
	if bytes.Equal(before, edited) {
		return
	}
	require.NoError(h, os.WriteFile(name, edited, 0o600))
	require.ErrorAs(h, h.verify(), new(*audit.ChainError), "%s of %s", what, filepath.Base(name))
	require.NoError(h, os.WriteFile(name, before, 0o600))
}

// somefile returns a file with entries up to the last acknowledged one, and its
// lines; nil if there is none.
func (h *history) someFile() (string, [][]byte) {
	files := h.files()
	name := files[h.rand.IntN(len(files))]
	content, err := os.ReadFile(name)
	if err != nil || len(content) == 0 || h.last == nil {
		return "", nil
	}
	return name, slices.Collect(bytes.Lines(content))
}

// edit changes, removes, repeats, moves or cuts a line.
func (h *history) edit() {
	name, lines := h.someFile()
	if lines == nil {
		return
	}
	i := h.rand.IntN(len(lines))
	var entry audit.Entry
	entry, _, err := audit.ParseLine(bytes.TrimSuffix(lines[i], []byte("\n")))
	require.NoError(h, err)
	if entry.Seq > h.last.Seq {
		return // a note behind the anchor, which may be lost
	}
	edited := slices.Clone(lines)
	what := []string{"change", "removal", "repetition", "swap", "cut", "change with its hash"}[h.rand.IntN(6)]
	switch what {
	case "change":
		edited[i] = bytes.Clone(lines[i])
		edited[i][h.rand.IntN(len(lines[i]))] ^= 1 << h.rand.IntN(8)
	case "change with its hash":
		edited[i] = rehash(bytes.Replace(lines[i], []byte(`"id":"user`), []byte(`"id":"USER`), 1))
	case "removal":
		edited = slices.Delete(edited, i, i+1)
	case "repetition":
		edited = slices.Insert(edited, i, lines[i])
	case "swap":
		if i > 0 {
			edited[i-1], edited[i] = edited[i], edited[i-1]
		}
	case "cut":
		edited = append(edited[:i], lines[i][:h.rand.IntN(len(lines[i]))])
	}
	h.change(name, bytes.Join(edited, nil), what)
}

// rehashedEdit changes a record and recomputes all later hashes. The anchor shows
// it, and the next checkpoint does.
func (h *history) rehashedEdit() {
	if len(h.records) == 0 || h.last == nil {
		return
	}
	victim := h.records[h.rand.IntN(len(h.records))].name
	before := make(map[string][]byte)
	prev, found := strings.Repeat("0", 64), false
	var seq, signed uint64 // of the victim, and of the last checkpoint
	for _, name := range h.files() {
		content, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		before[name] = content
		var edited []byte
		for line := range bytes.Lines(content) {
			entry, _, err := audit.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
			require.NoError(h, err)
			line = bytes.Replace(line, []byte(`"prev":"`+entry.Prev), []byte(`"prev":"`+prev), 1)
			if entry.Record != nil && entry.Record.Principal.ID == victim && entry.Seq <= h.last.Seq {
				line, found = bytes.Replace(line, []byte(`"id":"user`), []byte(`"id":"USER`), 1), true
				seq = entry.Seq
			}
			if entry.Note != nil && entry.Note.Signed != "" {
				signed = entry.Seq
			}
			line = rehash(line)
			entry, _, err = audit.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
			require.NoError(h, err)
			prev = entry.Hash
			edited = append(edited, line...)
		}
		require.NoError(h, os.WriteFile(name, edited, 0o600))
	}
	if found {
		require.ErrorAs(h, h.verify(), new(*audit.ChainError), "edit of %q", victim)
	}
	if found && seq < signed { // found without the anchor, too
		_, err := audit.Verify(h.path, &audit.VerifyOptions{Verifier: h.verifier})
		require.ErrorAs(h, err, new(*audit.ChainError), "edit of %q, entry %d, signed in entry %d", victim, seq, signed)
	}
	for name, content := range before {
		require.NoError(h, os.WriteFile(name, content, 0o600))
	}
}

// truncate cuts the current file while the sink has it. The sink goes on, the trail
// shows the loss, and a new trail begins elsewhere.
func (h *history) truncate() {
	info, err := os.Stat(h.path)
	if err != nil || len(h.records) == 0 {
		return
	}
	size := h.rand.Int64N(info.Size() + 1)
	if h.rand.IntN(2) == 0 {
		size = 0
	}
	require.NoError(h, os.Truncate(h.path, size))
	h.write()
	if size < info.Size() {
		require.ErrorAs(h, h.verify(), new(*audit.ChainError), "%d of %d bytes left", size, info.Size())
	}
	h.close()
	h.open() // the current file is sound
	h.close()
	for _, name := range h.files() {
		require.NoError(h, os.RemoveAll(name))
	}
	h.records, h.last = nil, nil
	h.open()
}
