package keyringtest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
)

// TestMain lets more tests run at once than there are processors. Most of them wait:
// for a disk, or for a broken store.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(max(8, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestMemStore(t *testing.T) {
	keyringtest.Run(t, func(*testing.T) keyring.Store { return keyring.NewMemStore() }, keyringtest.Capabilities{Watches: true})
}

// clockStore is a store with a clock.
type clockStore interface {
	keyring.Store
	keyring.Clock
}

// fileStore knows its own path, for the capabilities.
type fileStore struct {
	clockStore
	path string
}

func openFile(t *testing.T, path string) keyring.Store {
	s, err := keyring.NewFileStore(path)
	require.NoError(t, err)
	return fileStore{s.(clockStore), path}
}

func TestFileStore(t *testing.T) {
	t.Parallel()
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
			t.Parallel()
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

// broken are stores that break the contract, each with the subtests that must fail. Other
// subtests may fail, too.
var broken = map[string]struct {
	store  func() keyring.Store
	cannot bool // watch, so that the subtest for such stores runs
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

// TestChild runs in the child. TestBrokenStores expects it to fail.
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
	if len(b.fails) > 0 { // a store that breaks nothing gets the usual time
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
