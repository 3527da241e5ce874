package blob

import (
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"regexp"
	"runtime"

	gcblob "gocloud.dev/blob"
)

// attrsSuffix ends the names of the files in which package fileblob keeps
// objects' attributes. It lists nothing whose name ends so.
const attrsSuffix = ".attrs"

// underWay is the end of the names of files in which package fileblob (of gocloud
// v0.47.0) has what it is writing. With its NoTempDir they lie beside the objects,
// and are listed as some.
var underWay = regexp.MustCompile(`\.[0-9a-f]{16}\.tmp$`)

// errUnderWay: what was replaced by itself would be published in the place of what
// its writer has written.
var errUnderWay = errors.New("blob: by its name, the file is what a writer has under way, or left behind")

// isUnderWay reports whether a key is the name of a file that a fileblob bucket has
// not yet published under its own.
func isUnderWay(store *gcblob.Bucket, key string) bool {
	return underWay.MatchString(key) && isDirectory(store)
}

// files publishes an object of a fileblob bucket that keeps attributes. fileblob
// itself truncates their file and writes it anew, and refuses to read the object
// while, or if, it is not whole: of 100 processes that were killed in rewraps, 44
// left such an object behind. So the file with the attributes is replaced by
// renaming another one.
//
// The attributes go first, as fileblob does it, but for an object that was plain:
// with metadata that says otherwise it would be damaged, whereas what is encrypted
// needs no metadata. So whatever comes between, the object is readable.
//
// Of any other store it notes nothing, and publishes nothing.
type files struct {
	path string    // of the object
	temp string    // of what is to become the object, which fileblob has opened
	sum  hash.Hash // of all that is written to temp: the store's MD5
}

// reading takes note of where the object is.
func (f *files) reading() *gcblob.ReaderOptions {
	return &gcblob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		var file *os.File
		if as(&file) {
			f.path = file.Name()
		}
		return nil
	}}
}

// writing takes note of where the new object is being written.
func (f *files) writing(as func(any) bool) {
	var file *os.File
	if as(&file) {
		f.temp, f.sum = file.Name(), md5.New()
	}
}

// Write adds to the sum.
func (f *files) Write(p []byte) (int, error) {
	if f.sum != nil {
		f.sum.Write(p)
	}
	return len(p), nil
}

// publish puts the new object in the place of the old one, which was plain or not,
// with the attributes that opts, of its write, has for it. done is false, and nothing
// has happened, where that is the store's to do.
func (f *files) publish(store *gcblob.Bucket, opts *gcblob.WriterOptions, plain bool) (done bool, err error) {
	if f.path == "" || f.temp == "" || !isDirectory(store) {
		return false, nil
	}
	if runtime.GOOS == "windows" {
		return false, nil // an open file is not renamed there
	}
	info, err := os.Lstat(f.path + attrsSuffix)
	if err != nil || !info.Mode().IsRegular() {
		return false, nil // fileblob keeps no attributes, or has none yet
	}
	old, err := os.ReadFile(f.path + attrsSuffix)
	if err != nil {
		return true, fmt.Errorf("blob: attributes of %s: %w", f.path, err)
	}
	attributes := func(data []byte) error {
		if err := replaceFile(f.path+attrsSuffix, data, info.Mode().Perm()); err != nil {
			return fmt.Errorf("blob: attributes of %s: %w", f.path, err)
		}
		return nil
	}
	changed, err := f.attributes(old, opts)
	if err != nil {
		return true, fmt.Errorf("blob: attributes of %s: %w", f.path, err)
	}
	if plain {
		if err := os.Rename(f.temp, f.path); err != nil {
			return true, err
		}
		return true, attributes(changed)
	}
	if err := attributes(changed); err != nil {
		return true, err
	}
	if err := os.Rename(f.temp, f.path); err != nil {
		return true, errors.Join(err, attributes(old))
	}
	return true, nil
}

// attributes returns fileblob's document of the attributes with what changes.
func (f *files) attributes(data []byte, opts *gcblob.WriterOptions) ([]byte, error) {
	var doc map[string]json.RawMessage
	err := json.Unmarshal(data, &doc)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]any{
		"user.metadata": opts.Metadata, "user.content_encoding": opts.ContentEncoding, "md5": f.sum.Sum(nil),
	} {
		if doc[name], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(doc)
}

// replaceFile replaces a file with attributes at once.
func replaceFile(name string, data []byte, mode os.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(name), ".blobseal-*"+attrsSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // does nothing after the renaming
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(mode)
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}
