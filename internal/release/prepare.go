package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// runPrepare runs the command prepare.
func runPrepare(ctx context.Context, out io.Writer, args []string) error {
	flags := newFlags("prepare")
	proof := flags.Bool("prove", true, "prove the release before tagging it")
	bom := flags.String("bom", "dist", "write bills of materials to this `folder`, with the proof")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("usage: release prepare [-bom DIR] [-prove=false] VERSION, such as v0.1.0")
	}
	repository, err := runner{dir: "."}.output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "blobseal-release")
	if err != nil {
		return err
	}
	r := &release{version: flags.Arg(0), git: runner{dir: repository}, dir: dir, out: out}
	err = r.prepare(ctx, *proof, *bom)
	return errors.Join(err, removeAll(dir))
}

// A release becomes two commits and a tag per module. The commits are made in a git
// worktree of their own, so that a failure leaves the branch as it was.
type release struct {
	version string
	git     runner // in the repository
	dir     string // for temporary files
	out     io.Writer
}

func (r *release) prepare(ctx context.Context, proof bool, bom string) (err error) {
	if err := r.check(ctx); err != nil {
		return err
	}
	if proof {
		proofDir := filepath.Join(r.dir, "proof")
		if err := os.Mkdir(proofDir, 0o755); err != nil {
			return err
		}
		if err := prove(ctx, r.out, r.git.dir, r.version, bom, proofDir); err != nil {
			return err
		}
	}
	tree := filepath.Join(r.dir, "worktree")
	if err := r.git.run(ctx, "git", "worktree", "add", "--quiet", "--detach", tree, "HEAD"); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, r.git.run(context.WithoutCancel(ctx), "git", "worktree", "remove", "--force", tree))
	}()
	tagged, err := r.commit(ctx, tree)
	if err != nil {
		return err
	}
	if err := r.git.run(ctx, "git", "merge", "--quiet", "--ff-only", tagged.next); err != nil {
		return err
	}
	for _, tag := range tagged.tags {
		if err := r.git.run(ctx, "git", "tag", "--annotate", "--message", "blobseal "+r.version, tag, tagged.commit); err != nil {
			return err
		}
		fmt.Fprintln(r.out, "tagged", tag)
	}
	fmt.Fprintf(r.out, "push with: git push --atomic origin HEAD %s\n", strings.Join(tagged.tags, " "))
	return nil
}

// check refuses what cannot be released.
func (r *release) check(ctx context.Context) error {
	if !semver.IsValid(r.version) || semver.Canonical(r.version) != r.version {
		return fmt.Errorf("%q is not a version (write it as v1.2.3)", r.version)
	}
	status, err := r.git.output(ctx, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if status != "" {
		return fmt.Errorf("the working tree has changes (commit or remove them):\n%s", status)
	}
	modules, err := findModules(r.git.dir)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if !m.released() {
			continue
		}
		if found, err := r.git.output(ctx, "git", "tag", "--list", m.tag(r.version)); err != nil || found != "" {
			return errors.Join(err, fmt.Errorf("the tag %s exists (a version is never changed: choose the next one)", m.tag(r.version)))
		}
	}
	changelog, err := os.ReadFile(filepath.Join(r.git.dir, changelogName))
	if err != nil {
		return err
	}
	_, err = setDate(string(changelog), r.version, "today")
	return err
}

// tagged is what a release consists of.
type tagged struct {
	commit string   // the one that the tags name
	next   string   // the commit after, on which development goes on
	tags   []string // each after those whose modules its module requires
}

// commit makes the commits of the release in tree, a worktree without a branch.
func (r *release) commit(ctx context.Context, tree string) (t tagged, err error) {
	git := runner{dir: tree}
	name := filepath.Join(tree, changelogName)
	changelog, err := os.ReadFile(name)
	if err != nil {
		return t, err
	}
	dated, err := setDate(string(changelog), r.version, time.Now().UTC().Format(time.DateOnly))
	if err != nil {
		return t, err
	}
	if err := os.WriteFile(name, []byte(dated), 0o644); err != nil {
		return t, err
	}
	if err := writeBaseline(ctx, tree, r.version); err != nil {
		return t, err
	}
	if err := setVersions(tree, filepath.Join(r.dir, "proxy"), r.version); err != nil {
		return t, err
	}
	if t.commit, err = commitAll(ctx, git, "release "+r.version+"\n\nA released go.mod holds no replacement. The next commit restores them."); err != nil {
		return t, err
	}
	if err := git.run(ctx, "git", "checkout", "--quiet", "HEAD~", "--", ":(glob)**/go.mod", ":(glob)**/go.sum"); err != nil {
		return t, err
	}
	if err := developOn(tree, r.version); err != nil {
		return t, err
	}
	if t.next, err = commitAll(ctx, git, "go.mod: develop on "+r.version+" with replacements"); err != nil {
		return t, err
	}
	modules, err := findModules(tree)
	for _, m := range modules {
		if m.released() {
			t.tags = append(t.tags, m.tag(r.version))
		}
	}
	return t, err
}

// commitAll commits every change and returns the commit.
func commitAll(ctx context.Context, git runner, message string) (string, error) {
	if err := git.run(ctx, "git", "add", "--all"); err != nil {
		return "", err
	}
	if err := git.run(ctx, "git", "commit", "--quiet", "--message", message); err != nil {
		return "", err
	}
	return git.output(ctx, "git", "rev-parse", "HEAD")
}
