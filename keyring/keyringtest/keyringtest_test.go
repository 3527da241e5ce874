package keyringtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
)

func TestMemStore(t *testing.T) {
	keyringtest.Run(t, func(*testing.T) keyring.Store { return keyring.NewMemStore() }, keyringtest.Capabilities{Watches: true})
}

// fileStore knows its own path, for the capabilities.
type fileStore struct {
	*keyring.FileStore
	path string
}

func openFile(t *testing.T, path string) keyring.Store {
	s, err := keyring.NewFileStore(path)
	require.NoError(t, err)
	return fileStore{s, path}
}

func TestFileStore(t *testing.T) {
	again := func(t *testing.T, s keyring.Store) keyring.Store { return openFile(t, s.(fileStore).path) }
	breaks := map[string]func(path string) error{
		"directory": func(path string) error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
		"link to nothing": func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink(path+".gone", path))
		},
		"link to itself": func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink(path, path))
		},
		"directory gone": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"too large":      func(path string) error { return os.Truncate(path, 1<<30) },
	}
	for name, damage := range breaks {
		t.Run(name, func(t *testing.T) {
			keyringtest.Run(t, func(t *testing.T) keyring.Store {
				return openFile(t, filepath.Join(t.TempDir(), "ring"))
			}, keyringtest.Capabilities{
				Another: again,
				Reopen:  again,
				Break: func(t *testing.T, s keyring.Store) {
					require.NoError(t, damage(s.(fileStore).path))
				},
			})
		})
		if testing.Short() {
			break
		}
	}
}

// broken are stores that break the contract, each with the subtests that must
// tell. Others may, since one breach entails another.
var broken = map[string]struct {
	store  func() keyring.Store
	cannot bool // watch, as its test says
	fails  []string
}{
	"nothing wrong": {store: func() keyring.Store { return new(memory) }},
	"missing is another error": {
		store: func() keyring.Store { return &memory{absent: errors.New("no rows in result set")} },
		fails: []string{"Load of an empty store is ErrNotExist"},
	},
	"unreadable is missing": {
		store: func() keyring.Store { return &memory{unreadable: keyring.ErrNotExist} },
		fails: []string{"A document that cannot be read is not absent"},
	},
	"unreadable is empty": {
		store: func() keyring.Store { return &memory{unreadable: errNone} },
		fails: []string{"A document that cannot be read is not absent"},
	},
	"creates over what is there": {
		store: func() keyring.Store { return &memory{clobbers: true} },
		fails: []string{
			"Swap with no version is a conflict if there is a document", "Of several Swaps at once one succeeds",
			"Swap with any other version is a conflict and changes nothing", "Handles of one store exclude each other",
		},
	},
	"ignores the version": {
		store: func() keyring.Store { return &memory{ignoresVersion: true} },
		fails: []string{
			"Swap with any other version is a conflict and changes nothing",
			"Swap with no version is a conflict if there is a document", "Of several Swaps at once one succeeds",
			"A version stays the same as long as the document does", "Handles of one store exclude each other",
			"Another handle sees the latest document", "The document outlives the handle", "No update is lost",
		},
	},
	"replaces what is not there": {
		store: func() keyring.Store { return &memory{upserts: true} },
		fails: []string{"Swap with a version is a conflict if there is no document"},
	},
	"lost update": {
		store: func() keyring.Store { return &memory{forgetful: true} },
		fails: []string{"Of several Swaps at once one succeeds", "No update is lost", "Handles of one store exclude each other"},
	},
	"conflict is nil": {
		store: func() keyring.Store { return &memory{conflict: errNone} },
		fails: []string{"Swap with any other version is a conflict and changes nothing", "No update is lost"},
	},
	"conflict is another error": {
		store: func() keyring.Store { return &memory{conflict: errors.New("duplicate key")} },
		fails: []string{"Swap with any other version is a conflict and changes nothing"},
	},
	"conflict that changes": {
		store: func() keyring.Store { return &memory{changesAnyway: true} },
		fails: []string{
			"Swap with any other version is a conflict and changes nothing",
			"Swap with no version is a conflict if there is a document",
		},
	},
	"version of Load differs": {
		store: func() keyring.Store { return &memory{loadVersion: "x"} },
		fails: []string{"Swap with no version creates the document"},
	},
	"version names the length": {
		store: func() keyring.Store {
			return &memory{name: func(data []byte, _ int) string { return fmt.Sprint(len(data)) }}
		},
		fails: []string{"A version is never empty and never names two documents"},
	},
	"version comes back": {
		store: func() keyring.Store { return &memory{name: func(_ []byte, n int) string { return fmt.Sprint(n % 7) }} },
		fails: []string{"A version is never empty and never names two documents"},
	},
	"empty version": {
		store: func() keyring.Store { return &memory{name: func([]byte, int) string { return "" }} },
		fails: []string{"A version is never empty and never names two documents"},
	},
	"version by the hour": {
		store: func() keyring.Store { return &memory{restless: true} },
		fails: []string{"A version stays the same as long as the document does"},
	},
	"keeps the caller's slice": {
		store: func() keyring.Store { return &memory{aliasesInput: true} },
		fails: []string{"A store keeps no reference to what it was given"},
	},
	"gives out its own slice": {
		store: func() keyring.Store { return &memory{aliasesOutput: true} },
		fails: []string{"A caller may change what it got"},
	},
	"text only": {
		store: func() keyring.Store {
			return &memory{transform: func(b []byte) []byte { return []byte(strings.ToValidUTF8(string(b), "?")) }}
		},
		fails: []string{"Documents are arbitrary bytes of up to MaxDocumentSize"},
	},
	"trims": {
		store: func() keyring.Store { return &memory{transform: bytes.TrimSpace} },
		fails: []string{"Documents are arbitrary bytes of up to MaxDocumentSize"},
	},
	"64 KiB": {
		store: func() keyring.Store {
			return &memory{transform: func(b []byte) []byte { return b[:min(len(b), 1<<16)] }}
		},
		fails: []string{"Documents are arbitrary bytes of up to MaxDocumentSize"},
	},
	"torn reads": {
		store: func() keyring.Store { return &memory{torn: true} },
		fails: []string{"Load returns whole documents while Swaps go on"},
	},
	"stale reads": {
		store: func() keyring.Store { return &memory{stale: true} },
		fails: []string{"Swap with the current version replaces the document"},
	},
	"deaf to ctx": {
		store: func() keyring.Store { return &memory{deaf: true} },
		fails: []string{"After the end of ctx both fail with its error and do nothing"},
	},
	"hides the end of ctx": {
		store: func() keyring.Store { return &memory{ended: errors.New("i/o timeout")} },
		fails: []string{"After the end of ctx both fail with its error and do nothing"},
	},
	"writes and then looks at ctx": {
		store: func() keyring.Store { return &memory{late: true} },
		fails: []string{"After the end of ctx both fail with its error and do nothing"},
	},
	"handles with caches": {
		store: func() keyring.Store { return &memory{cached: true} },
		fails: []string{"Another handle sees the latest document"},
	},
	"gone with the handle": {
		store: func() keyring.Store { return &memory{volatile: true} },
		fails: []string{"The document outlives the handle"},
	},
	"watch that does not say that it began": {
		store: func() keyring.Store { return &memory{silent: true} },
		fails: []string{"A watch begins, and ends with its ctx"},
	},
	"watch that hears nothing": {
		store: func() keyring.Store { return &memory{numb: true} },
		fails: []string{"A watch hears of every change, through whichever handle", "A watch that breaks says why, and another may follow"},
	},
	"watch that hears its own handle": {
		store: func() keyring.Store { return &memory{selfish: true} },
		fails: []string{"A watch hears of every change, through whichever handle"},
	},
	"watch that goes on": {
		store: func() keyring.Store { return &memory{lingers: true} },
		fails: []string{"A watch begins, and ends with its ctx"},
	},
	"watch that ends well": {
		store: func() keyring.Store { return &memory{watchEnd: errNone} },
		fails: []string{"A watch begins, and ends with its ctx"},
	},
	"watch that breaks in silence": {
		store: func() keyring.Store { return &memory{unbreakable: true} },
		fails: []string{"A watch that breaks says why, and another may follow"},
	},
	"watch that breaks well": {
		store: func() keyring.Store { return &memory{watchBreak: errNone} },
		fails: []string{"A watch that breaks says why, and another may follow"},
	},
	"watch that is none": {
		store: func() keyring.Store { return &memory{watchless: true} },
		fails: []string{
			"A watch begins, and ends with its ctx", "A watch hears of every change, through whichever handle",
			"A watch that breaks says why, and another may follow",
		},
	},
	"watch that nobody promised": {
		store:  func() keyring.Store { return new(memory) },
		cannot: true,
		fails:  []string{"A store that cannot watch says so"},
	},
}

// childEnv names the broken store that a child process is to test.
const childEnv = "KEYRINGTEST_BROKEN"

// TestChild is what the child runs. Its failures are what TestBrokenStores wants.
func TestChild(t *testing.T) {
	name, isChild := os.LookupEnv(childEnv)
	if !isChild {
		t.Skip("not a child")
	}
	b, found := broken[name]
	require.True(t, found)
	caps := keyringtest.Capabilities{
		Another:    func(_ *testing.T, s keyring.Store) keyring.Store { return s.(*memory).another() },
		Reopen:     func(_ *testing.T, s keyring.Store) keyring.Store { return s.(*memory).reopen() },
		Break:      func(_ *testing.T, s keyring.Store) { s.(*memory).break_() },
		Watches:    !b.cannot,
		BreakWatch: func(_ *testing.T, s keyring.Store) { s.(*memory).breakWatch() },
	}
	if len(b.fails) > 0 { // else it has the time that any store has
		caps = caps.WithPatience(2 * time.Second)
	}
	keyringtest.Run(t, func(*testing.T) keyring.Store { return b.store() }, caps)
}

var failure = regexp.MustCompile(`(?m)^    --- FAIL: TestChild/(\S+)`)

func TestBrokenStores(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.timeout=5m")
			cmd.Env = append(os.Environ(), childEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if len(b.fails) == 0 {
				require.NoError(t, err, "%s", out)
				return
			}
			require.Error(t, err, "%s", out)
			require.NotContains(t, string(out), "panic:")
			var failed []string
			for _, m := range failure.FindAllStringSubmatch(string(out), -1) {
				failed = append(failed, strings.ReplaceAll(m[1], "_", " "))
			}
			require.Subset(t, failed, b.fails, "%s", out)
		})
	}
}

// errNone stands for a nil error where the zero value means the right one.
var errNone = errors.New("none")

// memory is a store whose zero value keeps the contract. Each field breaks it.
type memory struct {
	absent, unreadable, conflict, ended              error
	clobbers, ignoresVersion, upserts, changesAnyway bool
	forgetful                                        bool
	loadVersion                                      string
	name                                             func(data []byte, n int) string
	restless, aliasesInput, aliasesOutput            bool
	transform                                        func([]byte) []byte
	torn, stale, deaf, late, cached, volatile        bool

	silent, numb, selfish, lingers, unbreakable, watchless bool
	watchEnd, watchBreak                                   error

	shared *document // of all handles
	once   sync.Once

	cache        []byte // of a cached handle
	cacheVersion string
}

type document struct {
	mu            sync.Mutex
	data, earlier []byte
	version       string
	swaps, loads  int
	broken        bool
	changed       chan struct{} // closed by the next write; nil if nobody waits
	cut           chan struct{} // closed when the watches are to break; nil if there are none
	writer        *memory       // the handle that wrote last
}

func (m *memory) document() *document {
	m.once.Do(func() {
		if m.shared == nil {
			m.shared = new(document)
		}
	})
	return m.shared
}

func (m *memory) another() keyring.Store {
	d := m.document()
	return m.with(d)
}

func (m *memory) reopen() keyring.Store {
	if m.volatile {
		return m.with(new(document))
	}
	return m.another()
}

func (m *memory) with(d *document) *memory {
	return &memory{
		absent: m.absent, unreadable: m.unreadable, conflict: m.conflict, ended: m.ended,
		clobbers: m.clobbers, ignoresVersion: m.ignoresVersion, upserts: m.upserts, changesAnyway: m.changesAnyway,
		forgetful: m.forgetful, loadVersion: m.loadVersion, name: m.name,
		restless: m.restless, aliasesInput: m.aliasesInput, aliasesOutput: m.aliasesOutput, transform: m.transform,
		torn: m.torn, stale: m.stale, deaf: m.deaf, late: m.late, cached: m.cached, volatile: m.volatile,
		silent: m.silent, numb: m.numb, selfish: m.selfish, lingers: m.lingers, unbreakable: m.unbreakable, watchless: m.watchless,
		watchEnd: m.watchEnd, watchBreak: m.watchBreak,
		shared: d,
	}
}

func (m *memory) break_() {
	d := m.document()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = true
}

func (m *memory) end(ctx context.Context) error {
	if err := ctx.Err(); err != nil && !m.deaf {
		if m.ended != nil {
			return m.ended
		}
		return err
	}
	return nil
}

func (m *memory) readError() error {
	switch m.unreadable {
	case nil:
		return errors.New("i/o error")
	case errNone:
		return nil
	}
	return m.unreadable
}

func (m *memory) Load(ctx context.Context) ([]byte, string, error) {
	if err := m.end(ctx); err != nil {
		return nil, "", err
	}
	d := m.document()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loads++
	switch {
	case d.broken:
		return nil, "", m.readError()
	case d.version == "" && d.swaps == 0 && m.absent != nil:
		return nil, "", m.absent
	case d.swaps == 0:
		return nil, "", keyring.ErrNotExist
	case m.cached && m.cache != nil:
		return bytes.Clone(m.cache), m.cacheVersion, nil
	case m.torn && d.loads%3 == 0:
		return bytes.Clone(d.data[:len(d.data)/2]), d.version, nil
	case m.stale && d.earlier != nil:
		return bytes.Clone(d.earlier), d.version, nil
	}
	version := d.version
	if m.loadVersion != "" {
		version = m.loadVersion
	}
	if m.restless {
		version = fmt.Sprint(version, ".", d.loads)
	}
	if m.cached {
		m.cache, m.cacheVersion = bytes.Clone(d.data), version
	}
	if m.aliasesOutput {
		return d.data, version, nil
	}
	return bytes.Clone(d.data), version, nil
}

func (m *memory) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := m.end(ctx); err != nil && !m.late {
		return "", err
	}
	d := m.document()
	if m.forgetful { // compares, then writes, with nothing held in between
		d.mu.Lock()
		same := version == d.version
		d.mu.Unlock()
		if !same {
			return "", keyring.ErrConflict
		}
		pause()
		d.mu.Lock()
		defer d.mu.Unlock()
		return m.write(d, data), m.end(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		if m.unreadable == nil {
			return "", errors.New("i/o error")
		}
		return m.write(d, data), nil
	}
	same := version == d.version
	if m.restless {
		same = version == "" && d.version == "" || d.version != "" && strings.HasPrefix(version, d.version)
	}
	switch {
	case m.ignoresVersion, m.clobbers && version == "", m.upserts && d.swaps == 0:
	case !same:
		if m.changesAnyway {
			m.write(d, data)
		}
		switch m.conflict {
		case nil:
			return "", keyring.ErrConflict
		case errNone:
			return d.version, nil
		}
		return "", m.conflict
	}
	v := m.write(d, data)
	if m.cached {
		m.cache, m.cacheVersion = bytes.Clone(data), v
	}
	return v, m.end(ctx)
}

func (m *memory) write(d *document, data []byte) string {
	if m.transform != nil {
		data = m.transform(data)
	}
	d.earlier = d.data
	d.data = data
	if !m.aliasesInput {
		d.data = bytes.Clone(data)
	}
	d.swaps++
	d.writer = m
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
	d.version = fmt.Sprint("v", d.swaps)
	if m.name != nil {
		d.version = m.name(data, d.swaps)
	}
	return d.version
}

// pause lets the others run between a comparison and the write that follows.
func pause() { time.Sleep(time.Millisecond) }

func (m *memory) breakWatch() {
	d := m.document()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut != nil && !m.unbreakable {
		close(d.cut)
		d.cut = nil
	}
}

func (m *memory) Watch(ctx context.Context, changed func()) error {
	if m.watchless {
		return errors.ErrUnsupported
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d := m.document()
	for first := true; ; first = false {
		d.mu.Lock()
		if d.changed == nil {
			d.changed = make(chan struct{})
		}
		if d.cut == nil {
			d.cut = make(chan struct{})
		}
		next, cut, mine := d.changed, d.cut, d.writer == m
		d.mu.Unlock()
		if first && !m.silent || !first && !m.numb && (mine || !m.selfish) {
			changed()
		}
		select {
		case <-next:
		case <-cut:
			if m.watchBreak == errNone {
				return nil
			}
			return errors.New("connection reset")
		case <-ctx.Done():
			if m.lingers {
				go func() {
					<-next
					changed()
				}()
			}
			if m.watchEnd == errNone {
				return nil
			}
			return ctx.Err()
		}
	}
}
