package sse_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryRequirementIsCited: each numbered requirement of SPEC.md is named,
// behind the word SPEC, by a test of this module, and no test cites one that is
// not there.
func TestEveryRequirementIsCited(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	required := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\*\*\[([A-Z]+-\d+)\]\*\*`).FindAllStringSubmatch(string(spec), -1) {
		require.False(t, required[m[1]], "%s is defined twice", m[1])
		required[m[1]] = true
	}
	require.Greater(t, len(required), 25)

	cited := map[string]string{}
	citation := regexp.MustCompile(`SPEC((?: [A-Z]+-\d+)+)`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range citation.FindAllStringSubmatch(string(text), -1) {
			for _, id := range strings.Fields(m[1]) {
				cited[id] = path
			}
		}
		return nil
	})
	require.NoError(t, err)
	for id := range required {
		require.Contains(t, cited, id, "no test cites %s", id)
	}
	for id, path := range cited {
		require.True(t, required[id], "%s cites %s, which SPEC.md does not have", path, id)
	}
}
