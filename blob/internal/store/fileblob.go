package store

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// This file holds all that works around package fileblob of gocloud.

// isDirectory reports whether a bucket is a fileblob bucket.
func isDirectory(bucket *gcblob.Bucket) bool {
	var info fs.FileInfo
	return bucket.As(&info) && info.IsDir()
}

// listAttempts bounds how often a directory is read whose files come and go.
const listAttempts = 10

// listTree lists a fileblob bucket, one directory at a time. fileblob visits "a/1"
// before "a-1", but begins each page behind the last key of the page before in byte
// order, so it leaves out of later pages what sorts otherwise. listTree therefore
// takes each directory in one page; memory grows with the largest directory.
//
// fileblob also fails with NotFound if a file disappears between its reading of the
// directory and its look at the file. listTree then asks again.
func listTree(ctx context.Context, bucket *gcblob.Bucket, prefix string, visit func(Listed) error) error {
	var page []*gcblob.ListObject
	for size, attempt := 4*firstPage, 1; ; {
		var next []byte
		var err error
		page, next, err = bucket.ListPage(ctx, gcblob.FirstPageToken, size, &gcblob.ListOptions{Prefix: prefix, Delimiter: "/"})
		switch {
		case gcerrors.Code(err) == gcerrors.NotFound && attempt < listAttempts:
			attempt++
			continue
		case err != nil:
			return err
		}
		if len(next) == 0 {
			break
		}
		size *= 4
	}
	slices.SortFunc(page, func(a, b *gcblob.ListObject) int { return strings.Compare(a.Key, b.Key) })
	for _, object := range page {
		var err error
		if object.IsDir {
			err = listTree(ctx, bucket, object.Key, visit)
		} else {
			err = visit(Listed{Key: object.Key, Size: object.Size})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fileSize returns the size of the file that r reads, if r reads one. fileblob
// looks at a file and then opens it, so the size that it reports and the bytes that
// it serves may belong to two versions.
func fileSize(r *gcblob.Reader) (size int64, ok bool) {
	var from io.Reader
	if !r.As(&from) {
		return 0, false
	}
	if part, ok := from.(*io.LimitedReader); ok {
		from = part.R
	}
	file, ok := from.(*os.File)
	if !ok {
		return 0, false
	}
	info, err := file.Stat()
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

// attrsSuffix ends the names of the files in which package fileblob keeps
// objects' attributes. It lists nothing whose name ends so.
const attrsSuffix = ".attrs"

// unfinishedName is the end of the names of files in which package fileblob (of gocloud
// v0.47.0) has what it is writing. With its NoTempDir they lie beside the objects,
// and are listed as some.
var unfinishedName = regexp.MustCompile(`\.[0-9a-f]{16}\.tmp$`)

// ErrUnfinished: what was replaced by itself would be published in the place of what
// its writer has written.
var ErrUnfinished = errors.New("blob: unfinished write (delete the file if no writer runs)")

// IsUnfinished reports whether a key is the name of a file that a fileblob bucket has
// not yet published under its own.
func IsUnfinished(store *gcblob.Bucket, key string) bool {
	return unfinishedName.MatchString(key) && isDirectory(store)
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
type Files struct {
	path string    // of the object
	temp string    // of what is to become the object, which fileblob has opened
	sum  hash.Hash // of all that is written to temp: the store's MD5
}

// reading takes note of where the object is.
func (f *Files) Reading() *gcblob.ReaderOptions {
	return &gcblob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		var file *os.File
		if as(&file) {
			f.path = file.Name()
		}
		return nil
	}}
}

// writing takes note of where the new object is being written.
func (f *Files) Writing(as func(any) bool) {
	var file *os.File
	if as(&file) {
		f.temp, f.sum = file.Name(), md5.New()
	}
}

// Write adds to the sum.
func (f *Files) Write(p []byte) (int, error) {
	if f.sum != nil {
		f.sum.Write(p)
	}
	return len(p), nil
}

// publish puts the new object in the place of the old one, which was plain or not,
// with the attributes that opts, of its write, has for it. done is false, and nothing
// has happened, where that is the store's to do.
func (f *Files) Publish(store *gcblob.Bucket, opts *gcblob.WriterOptions, plain bool) (done bool, err error) {
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
func (f *Files) attributes(data []byte, opts *gcblob.WriterOptions) ([]byte, error) {
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
