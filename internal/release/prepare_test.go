package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// newRepository makes a git repository of a few small modules that depend on each
// other as ours do.
func newRepository(t *testing.T) *release {
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+who+"_NAME", "Maintainer")
		t.Setenv("GIT_"+who+"_EMAIL", "maintainer@example.com")
	}
	r := &release{version: "v0.1.0", git: runner{dir: t.TempDir()}, dir: t.TempDir(), out: io.Discard}
	for name, text := range map[string]string{
		"LICENSE":             "free",
		changelogName:         "# Changelog\n\n## v0.1.0 (not released)\n\n- Everything.\n\n## v0.0.9 (2026-01-01)\n\n- Less.\n",
		"go.mod":              "module " + rootModule + "\n\ngo 1.26.0\n",
		"sse/sse.go":          "package sse\n",
		"blob/go.mod":         gomod("blob", "../", ""),
		"blob/blob.go":        "package blob\n\nimport _ \"" + rootModule + "/sse\"\n",
		"examples/go.mod":     gomod("examples", "../", "blob"),
		"examples/main.go":    "package main\n\nimport _ \"" + rootModule + "/blob\"\n\nfunc main() {}\n",
		"internal/x/go.mod":   gomod("internal/x", "../../", "blob"),
		"internal/x/doc.go":   "package x\n",
		"internal/bed/go.mod": "module " + rootModule + "/internal/bed\n\ngo 1.26.0\n",
		"blob/go.sum":         "",
		"examples/go.sum":     "",
		"sse/testdata/a.txt":  "vector\r\n",
	} {
		write(t, filepath.Join(r.git.dir, name), text)
	}
	git(t, r, "init", "--quiet", "--initial-branch=main")
	git(t, r, "add", "--all")
	git(t, r, "commit", "--quiet", "--message", "begin")
	return r
}

// gomod returns a go.mod as main has it: with placeholder versions and replacements.
func gomod(folder, up, dependency string) string {
	text := "module " + rootModule + "/" + folder + "\n\ngo 1.26.0\n\nrequire " + rootModule + " v0.0.0\n\nreplace " + rootModule + " => " + up + "\n"
	if dependency != "" {
		text += "\nrequire " + rootModule + "/" + dependency + " v0.0.0 // indirect\n\nreplace " + rootModule + "/" + dependency + " => " + up + dependency + "\n"
	}
	return text
}

func write(t *testing.T, name, text string) {
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
}

func git(t *testing.T, r *release, args ...string) string {
	out, err := r.git.output(t.Context(), "git", args...)
	require.NoError(t, err)
	return out
}

// TestPrepare makes a release and checks commits, tags, versions and changelog.
func TestPrepare(t *testing.T) {
	r := newRepository(t)
	require.NoError(t, r.prepare(t.Context(), false, ""))
	require.ElementsMatch(t, []string{"v0.1.0", "blob/v0.1.0", "examples/v0.1.0"}, strings.Fields(git(t, r, "tag", "--list")))
	require.Empty(t, git(t, r, "status", "--porcelain"))
	require.Equal(t, git(t, r, "rev-parse", "HEAD~"), git(t, r, "rev-parse", "examples/v0.1.0^{commit}"))
	require.Regexp(t, `## v0.1.0 \(\d{4}-\d\d-\d\d\)`, git(t, r, "show", "v0.1.0:"+changelogName))

	for _, name := range []string{"go.mod", "blob/go.mod", "examples/go.mod"} {
		text := git(t, r, "show", "v0.1.0:"+name)
		require.NotContains(t, text, "replace", name)
		require.NotContains(t, text, "v0.0.0", name)
	}
	require.Contains(t, git(t, r, "show", "v0.1.0:examples/go.mod"), rootModule+"/blob v0.1.0 // indirect")
	require.Contains(t, git(t, r, "show", "v0.1.0:internal/x/go.mod"), "replace", "a test bed is not released")

	for _, name := range []string{"blob/go.mod", "examples/go.mod", "internal/x/go.mod"} {
		text := git(t, r, "show", "HEAD:"+name)
		require.Contains(t, text, "replace "+rootModule+" => ../", name)
		require.Contains(t, text, rootModule+" v0.1.0", name)
	}
	require.Empty(t, git(t, r, "show", "HEAD:blob/go.sum"), "replaced modules have no sums")
}

// TestGoReadsTags compares what the go command makes of the tags with the hashes in
// the release's go.sum files.
func TestGoReadsTags(t *testing.T) {
	r := newRepository(t)
	require.NoError(t, r.prepare(t.Context(), false, ""))
	consumer := runner{dir: t.TempDir(), env: []string{
		"GOWORK=off", "GOFLAGS=-modcacherw", "GOPROXY=direct", "GOSUMDB=off", "GOMODCACHE=" + t.TempDir(), "GOVCS=*:all",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url." + r.git.dir + ".insteadOf", "GIT_CONFIG_VALUE_0=https://" + rootModule,
	}}
	for _, m := range []string{"", "/blob"} {
		out, err := consumer.output(t.Context(), "go", "mod", "download", "-json", rootModule+m+"@v0.1.0")
		require.NoError(t, err)
		var got struct{ Sum, GoModSum string }
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		sums := git(t, r, "show", "v0.1.0:examples/go.sum")
		require.Contains(t, sums, rootModule+m+" v0.1.0 "+got.Sum+"\n")
		require.Contains(t, sums+"\n", rootModule+m+" v0.1.0/go.mod "+got.GoModSum+"\n")
	}
}

// TestPrepareRefuses: a release that cannot be made changes nothing.
func TestPrepareRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, r *release)
		says  string
	}{
		"dirty tree":         {func(t *testing.T, r *release) { write(t, filepath.Join(r.git.dir, "new"), "x") }, "has changes"},
		"no version":         {func(t *testing.T, r *release) { r.version = "0.1.0" }, "is not a version"},
		"short version":      {func(t *testing.T, r *release) { r.version = "v0.1" }, "is not a version"},
		"tag of the root":    {func(t *testing.T, r *release) { git(t, r, "tag", "v0.1.0") }, "tag v0.1.0 exists"},
		"tag of a module":    {func(t *testing.T, r *release) { git(t, r, "tag", "blob/v0.1.0") }, "tag blob/v0.1.0 exists"},
		"no notes":           {func(t *testing.T, r *release) { r.version = "v0.2.0" }, "no section of v0.2.0"},
		"notes of a release": {func(t *testing.T, r *release) { r.version = "v0.0.9" }, "says that v0.0.9 was released"},
		"foreign replacement": {func(t *testing.T, r *release) {
			commitFile(t, r, "blob/go.mod", gomod("blob", "../", "")+"\nreplace example.com/x => ../x\n")
		}, "replaces example.com/x"},
		"requires a test bed": {func(t *testing.T, r *release) {
			commitFile(t, r, "blob/go.mod", gomod("blob", "../", "internal/bed"))
		}, "requires " + rootModule + "/internal/bed"},
		"misnamed module": {func(t *testing.T, r *release) {
			commitFile(t, r, "kms/awskms/go.mod", gomod("kms/aws", "../../", ""))
		}, "rename it to " + rootModule + "/kms/awskms"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			test.spoil(t, r)
			head, status, tags := git(t, r, "rev-parse", "HEAD"), git(t, r, "status", "--porcelain"), git(t, r, "tag", "--list")
			require.ErrorContains(t, r.prepare(context.Background(), false, ""), test.says)
			require.Equal(t, head, git(t, r, "rev-parse", "HEAD"))
			require.Equal(t, status, git(t, r, "status", "--porcelain"))
			require.Equal(t, tags, git(t, r, "tag", "--list"))
			require.Len(t, strings.Split(git(t, r, "worktree", "list"), "\n"), 1)
		})
	}
}

func commitFile(t *testing.T, r *release, name, text string) {
	write(t, filepath.Join(r.git.dir, name), text)
	git(t, r, "add", "--all")
	git(t, r, "commit", "--quiet", "--message", name)
}
