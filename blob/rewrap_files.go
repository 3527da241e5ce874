package blob

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"runtime"

	gcblob "gocloud.dev/blob"
)

// attrsSuffix ends the names of the files in which package fileblob keeps
// objects' attributes. It lists nothing whose name ends so.
const attrsSuffix = ".attrs"

// files publishes an object of a fileblob bucket that keeps attributes. fileblob
// itself truncates their file and writes it anew, and refuses to read the object
// while, or if, it is not whole: of 100 processes that were killed in rewraps, 44
// left such an object behind. So the file with the attributes is replaced by
// renaming another one, and then the object, as fileblob does it.
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

// publish puts the new object in the place of the old one, with metadata for its
// own. done is false, and nothing has happened, where that is the store's to do.
func (f *files) publish(store *gcblob.Bucket, metadata map[string]string) (done bool, err error) {
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
	if err := f.replaceAttributes(info.Mode().Perm(), metadata); err != nil {
		return true, fmt.Errorf("blob: attributes of %s: %w", f.path, err)
	}
	return true, os.Rename(f.temp, f.path)
}

// replaceAttributes replaces what changes in the file with the attributes.
func (f *files) replaceAttributes(mode os.FileMode, metadata map[string]string) error {
	data, err := os.ReadFile(f.path + attrsSuffix)
	if err != nil {
		return err
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	for name, value := range map[string]any{"user.metadata": metadata, "md5": f.sum.Sum(nil)} {
		if doc[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	if data, err = json.Marshal(doc); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".blobseal-*"+attrsSuffix)
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
	return os.Rename(temp.Name(), f.path+attrsSuffix)
}
