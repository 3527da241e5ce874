package layers

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	link        = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	heading     = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInAnchor = regexp.MustCompile(`[^\pL\pN _-]`)
)

// TestLinks: the files and sections that documents link to exist.
func TestLinks(t *testing.T) {
	links := 0
	require.NoError(t, filepath.WalkDir("../..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		if filepath.Ext(file) != ".md" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			target, section := match[1], strings.TrimPrefix(match[2], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			if target = filepath.Join(filepath.Dir(file), target); match[1] == "" {
				target = file
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which does not exist", file, match[1])
			} else if section != "" && !hasSection(t, target, section) {
				t.Errorf("%s links to %s%s, and there is no such section", file, match[1], match[2])
			}
		}
		return nil
	}))
	require.Greater(t, links, 50)
}

// TestMapAndWalks: the folders and files that CONTRIBUTING.md names exist.
func TestMapAndWalks(t *testing.T) {
	text, err := os.ReadFile("../../.github/CONTRIBUTING.md")
	require.NoError(t, err)
	names := regexp.MustCompile("`([a-z0-9]+(?:/[a-z0-9_]+)+(?:\\.go)?)`").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(names), 40)
	for _, name := range names {
		_, err := os.Stat(filepath.Join("../..", name[1]))
		require.NoError(t, err)
	}
}

// hasSection reports whether a document has a heading with an anchor, which is made as
// GitHub makes it.
func hasSection(t *testing.T, file, anchor string) bool {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, match := range heading.FindAllStringSubmatch(string(text), -1) {
		words := notInAnchor.ReplaceAllString(strings.ToLower(match[1]), "")
		if strings.ReplaceAll(words, " ", "-") == anchor {
			return true
		}
	}
	return false
}
