package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/exp/apidiff"
)

const apiSource = `package sse

import (
	"io"

	"github.com/blobseal/blobseal/internal/hidden"
)

const Size = 16384

var ErrKey error

type hides struct{ io.Reader }

type Envelope struct {
	hides
	Mode  Mode
	bytes []byte
}

type Mode uint8

type Encrypter interface{ Encrypt(p []byte) (*Envelope, error) }

type Pair[K comparable] struct {
	Key K
	n   int
}

func (p *Pair[K]) Count() int { return p.n }

type Fault = hidden.Fault

func (e *Envelope) Equal(o *Envelope) bool { return true }

func New(r io.Reader, opts ...func(*Envelope)) (Encrypter, error) { return nil, nil }
`

const hiddenSource = `package hidden

type Fault struct{ Chunk int64 }

func Unrelated() {}
`

// newAPI makes a repository whose baseline, of v0.1.0, is apiSource, and which has
// released v0.1.0.
func newAPI(t *testing.T) *release {
	r := newRepository(t)
	for _, folder := range []string{"blob", "examples", "internal/x"} {
		require.NoError(t, removeAll(filepath.Join(r.git.dir, folder)))
	}
	write(t, filepath.Join(r.git.dir, "sse/sse.go"), apiSource)
	write(t, filepath.Join(r.git.dir, "internal/hidden/hidden.go"), hiddenSource)
	require.NoError(t, writeBaseline(t.Context(), r.git.dir, "v0.1.0"))
	setChangelog(t, r, "## v0.1.0 (2026-12-01)\n\n- All.\n")
	return r
}

func setChangelog(t *testing.T, r *release, text string) {
	write(t, filepath.Join(r.git.dir, changelogName), "# Changelog\n\n"+text)
}

// TestAPIChanges makes one change at a time. Incompatible ones are refused until the
// changelog names them.
func TestAPIChanges(t *testing.T) {
	for name, test := range map[string]struct{ old, new, broken string }{
		"none":                         {"", "", ""},
		"function added":               {"func New(", "func Old() {}\n\nfunc New(", ""},
		"parameter renamed":            {"r io.Reader", "src io.Reader", ""},
		"field added":                  {"Mode  Mode", "Mode  Mode\n\tPart int", ""},
		"hidden field changed":         {"bytes []byte", "text []string", ""},
		"unrelated internal function":  {"func Unrelated() {}", "", ""},
		"function removed":             {"func New(", "func old(", "sse.New"},
		"parameter changed":            {"opts ...func(*Envelope)", "opts []func(*Envelope)", "sse.New"},
		"method removed":               {"Equal(", "equal(", "sse.Envelope.Equal"},
		"method of generic type":       {"Count() int", "Count(n int) int", "sse.Pair.Count"},
		"method added to an interface": {"Encrypter interface{ ", "Encrypter interface{ Mode() Mode; ", "sse.Encrypter.Mode"},
		"constant changed":             {"Size = 16384", "Size = 16385", "sse.Size"},
		"type changed":                 {"Mode uint8", "Mode string", "sse.Mode"},
		"promoted method removed":      {"hides struct{ io.Reader }", "hides struct{}", "sse.Envelope.Read"},
		"no longer comparable":         {"n   int", "n   int\n\tf func()", "sse.Pair"},
		"field of an internal alias":   {"Chunk int64", "Chunk int", "hidden.Fault.Chunk"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newAPI(t)
			write(t, filepath.Join(r.git.dir, "sse/sse.go"), strings.Replace(apiSource, test.old, test.new, 1))
			write(t, filepath.Join(r.git.dir, "internal/hidden/hidden.go"), strings.Replace(hiddenSource, test.old, test.new, 1))
			var out bytes.Buffer
			err := checkAPI(t.Context(), &out, r.git.dir)
			if test.broken == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.broken, out.String())

			_, changes, err := compareAPI(t.Context(), r.git.dir)
			require.NoError(t, err)
			var names strings.Builder
			for _, c := range changes {
				names.WriteString("- `" + c.identifier() + "`\n")
			}
			setChangelog(t, r, "## v0.2.0 (not released)\n\n"+names.String()+"\n## v0.1.0 (2026-12-01)\n\n- All.\n")
			require.NoError(t, checkAPI(t.Context(), &out, r.git.dir))
		})
	}
}

// TestAPIOfRemovedPackage, of a baseline that is not released yet, and after v1.
func TestAPIOfRemovedPackage(t *testing.T) {
	r := newAPI(t)
	write(t, filepath.Join(r.git.dir, "keyring/keyring.go"), "package keyring\n\ntype Ring struct{}\n")
	require.NoError(t, writeBaseline(t.Context(), r.git.dir, "v0.1.0"))
	require.NoError(t, removeAll(filepath.Join(r.git.dir, "keyring")))
	var out bytes.Buffer
	require.ErrorContains(t, checkAPI(t.Context(), &out, r.git.dir), rootModule+"/keyring")

	setChangelog(t, r, "## v0.1.0 (not released)\n\n- All.\n")
	require.NoError(t, checkAPI(t.Context(), &out, r.git.dir))
	require.Contains(t, out.String(), "not released yet")
}

// TestAPIAfterV1: no note makes up for a change that breaks programs.
func TestAPIAfterV1(t *testing.T) {
	r := newAPI(t)
	require.NoError(t, writeBaseline(t.Context(), r.git.dir, "v1.0.0"))
	write(t, filepath.Join(r.git.dir, "sse/sse.go"), strings.Replace(apiSource, "func New(", "func old(", 1))
	setChangelog(t, r, "## v1.1.0 (not released)\n\n- `sse.New` is gone.\n\n## v1.0.0 (2027-01-01)\n\n- All.\n")
	require.ErrorContains(t, checkAPI(t.Context(), new(bytes.Buffer), r.git.dir), "breaks programs that use v1.0.0: sse.New")
}

// TestAPITextsSayAll: no difference is between a package of ours and its text.
func TestAPITextsSayAll(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for _, folder := range []string{".", "blob"} {
		loaded, err := loadTypes(t.Context(), filepath.Join(root, folder))
		require.NoError(t, err)
		base := &baseline{ctx: t.Context(), texts: apiTexts(loaded), folders: map[string]string{}}
		require.NotEmpty(t, base.texts)
		for path := range base.texts {
			base.folders[path] = filepath.Join(root, folder)
		}
		for _, p := range loaded {
			if isInternal(p.Path()) {
				continue
			}
			text, err := base.check(p.Path())
			require.NoError(t, err, base.texts[p.Path()])
			require.Empty(t, apidiff.Changes(text, p).Changes, p.Path())
			require.Empty(t, apidiff.Changes(p, text).Changes, p.Path())
		}
	}
}
