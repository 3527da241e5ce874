package audit

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// rotatedFiles returns the older files of the trail at path, oldest first: those
// that logrotate renamed (path.2, path.1), then those that a sink set aside
// (path.000001, path.000002).
func rotatedFiles(path string) ([]string, error) {
	dir, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	type rotated struct {
		name string
		rank int
	}
	var files []rotated
	for _, e := range dir {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		n, err := strconv.ParseUint(suffix, 10, 31)
		if !ok || err != nil || n == 0 {
			continue
		}
		rank := int(n)
		if len(suffix) < asideDigits {
			rank = -rank
		}
		files = append(files, rotated{filepath.Join(filepath.Dir(path), e.Name()), rank})
	}
	slices.SortFunc(files, func(a, b rotated) int { return cmp.Compare(a.rank, b.rank) })
	var names []string
	for _, f := range files {
		names = append(names, f.name)
	}
	return names, nil
}

// asideDigits is the least number of digits in the name of a file set aside.
const asideDigits = 6

// lastRotated returns the newest of the older files, or "". logrotate also renames
// files that are empty, which do not count.
func lastRotated(path string) (string, error) {
	names, err := rotatedFiles(path)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Backward(names) {
		info, err := os.Stat(name)
		if err != nil {
			return "", fmt.Errorf("audit: %w", err)
		}
		if info.Size() > 0 || len(filepath.Ext(name)) > asideDigits {
			return name, nil
		}
	}
	return "", nil
}

// nextAside returns the name under which to set the file at path aside.
func nextAside(path string) (string, error) {
	names, err := rotatedFiles(path)
	if err != nil {
		return "", err
	}
	number := uint64(0)
	for _, name := range names {
		suffix := name[strings.LastIndexByte(name, '.')+1:]
		if n, err := strconv.ParseUint(suffix, 10, 31); err == nil && len(suffix) >= asideDigits {
			number = max(number, n)
		}
	}
	return fmt.Sprintf("%s.%0*d", path, asideDigits, number+1), nil
}
