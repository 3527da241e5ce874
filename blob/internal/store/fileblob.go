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
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// This file holds all that works around package fileblob of gocloud v0.49.0. Each part
// names the upstream issue, if there is one; drop the part when a release fixes it.

// isDirectory reports whether a bucket is a fileblob bucket, or a driver over one.
func isDirectory(bucket *gcblob.Bucket) bool {
	var info fs.FileInfo
	return bucket.As(&info) && info.IsDir()
}

// bareDirectory returns the directory of a fileblob bucket, or "" if a driver other
// than gocloud's own PrefixedBucket and SingleKeyBucket wraps it: only then may this
// package replace files itself, since nothing else looks at the driver's calls.
//
// gocloud gives no access to a bucket's driver. If its fields change, every bucket
// counts as wrapped, and a test fails.
func bareDirectory(bucket *gcblob.Bucket) string {
	driver := reflect.ValueOf(bucket).Elem().FieldByName("b")
	for {
		for driver.Kind() == reflect.Interface || driver.Kind() == reflect.Pointer {
			driver = driver.Elem()
		}
		if driver.Kind() != reflect.Struct {
			return ""
		}
		switch t := driver.Type(); t.PkgPath() + "." + t.Name() {
		case "gocloud.dev/blob/fileblob.bucket":
			if dir := driver.FieldByName("dir"); dir.Kind() == reflect.String {
				return dir.String()
			}
			return ""
		case "gocloud.dev/blob/driver.prefixedBucket", "gocloud.dev/blob/driver.singleKeyBucket":
			driver = driver.FieldByName("base")
		default:
			return ""
		}
	}
}

// CheckKey returns [sse.ErrInvalid] for a key that names the same file as another key:
// fileblob escapes "//", "../" and a trailing slash, but cleans the path that results.
// Two such keys would overwrite each other's object, and get around a policy that goes
// by names. Compare go-cloud issue 3667, which fixed only keys that leave the bucket.
func (s *Store) CheckKey(key string) error {
	if !s.directory {
		return nil
	}
	parts := strings.Split(key, "/")
	for i, part := range parts {
		last := i == len(parts)-1
		if part == "." || part == ".." && last || part == "" && i == 0 && !last {
			return fmt.Errorf("%w: key %q is another key's file in a file bucket (leave out empty and dot parts)", sse.ErrInvalid, key)
		}
	}
	return nil
}

// lockName is the file, in a fileblob bucket's directory, that writers lock. fileblob
// lists no file of this suffix.
const lockName = ".blobseal-lock" + attrsSuffix

// fileLock makes the writers of a directory take turns, in all processes that use this
// package: fileblob has no conditional write.
type fileLock struct {
	path  string
	turns stored.Locks // of this process, which locks the file once
}

func newFileLock(dir string) *fileLock { return &fileLock{path: filepath.Join(dir, lockName)} }

// run runs fn while no other process does. ctx ends the wait for others; if there is
// nothing to wait for, fn runs even if ctx has ended.
func (l *fileLock) run(ctx context.Context, fn func() error) error {
	return l.turns.Commit(ctx, l.path, func() error {
		lock := flock.New(l.path)
		locked, err := lock.TryLock()
		if err == nil && !locked {
			_, err = lock.TryLockContext(ctx, time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("blob: lock of the directory: %w", err)
		}
		return errors.Join(fn(), lock.Close())
	})
}

// listAttempts bounds how often a directory is read whose files come and go.
const listAttempts = 10

// listTree lists a fileblob bucket, one directory at a time. fileblob visits "a/1"
// before "a-1", but begins each page behind the last key of the page before in byte
// order, so it leaves out of later pages what sorts otherwise. listTree therefore
// takes each directory in one page; memory grows with the largest directory. See
// go-cloud issue 3089 and pull request 3791.
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
// it serves may belong to two versions. No issue yet.
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

// attrsSuffix ends the names of the files in which fileblob keeps objects'
// attributes. fileblob lists no file of this suffix.
const attrsSuffix = ".attrs"

// unfinishedName matches the names of files that fileblob is writing. With its
// NoTempDir, which go-cloud issue 3294 asked for, they lie beside the objects, are listed
// as objects, and stay behind if the process is killed (issue 3286).
var unfinishedName = regexp.MustCompile(`\.[0-9a-f]{16}\.tmp$`)

// ErrUnfinished means that a file is what a writer has not published yet. If a job
// replaced it, the writer would publish the job's object as its own.
var ErrUnfinished = errors.New("blob: unfinished write (delete the file if no writer runs)")

// IsUnfinished reports whether key names a file that fileblob has not published yet.
func (s *Store) IsUnfinished(key string) bool {
	return s.directory && unfinishedName.MatchString(key)
}

// Files publishes an object of a fileblob bucket that keeps attributes. fileblob
// truncates the file with the attributes and writes it again; if it is killed
// meanwhile, it refuses to read the object: of 100 processes that were killed in
// rewraps, 44 left such an object behind. Files replaces that file by a rename. No
// issue yet; git-pkgs/proxy pull request 328 describes the same.
//
// The attributes go first, as in fileblob. An object that was plain goes before its
// attributes: with attributes that call it encrypted it would be damaged, whereas an
// encrypted object needs none. So the object is readable at every moment.
//
// In any other bucket, and in one that a driver wraps, Files does nothing, so that
// the driver's conditions, locks and metrics see the write.
type Files struct {
	bare bool
	path string    // of the object
	temp string    // of what is to become the object, which fileblob has opened
	sum  hash.Hash // of all that is written to temp: the store's MD5
}

// Files returns the Files of one write.
func (s *Store) Files() *Files { return &Files{bare: s.files != nil} }

// Reading returns options that note where the object is.
func (f *Files) Reading() *gcblob.ReaderOptions {
	return &gcblob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		var file *os.File
		if f.bare && as(&file) {
			f.path = file.Name()
		}
		return nil
	}}
}

// Writing notes where the new object is being written.
func (f *Files) Writing(as func(any) bool) {
	var file *os.File
	if f.bare && as(&file) {
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

// Sync makes what was written to the new object survive a power cut. fileblob does
// not; a service that writes an object again loses nothing, but a job's checkpoint
// would call done what the disk never had.
func (f *Files) Sync() error {
	if f.temp == "" {
		return nil
	}
	file, err := os.OpenFile(f.temp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// SyncDirectory makes the publication survive a power cut.
func (f *Files) SyncDirectory() error {
	if f.path == "" || runtime.GOOS == "windows" { // which has no such call
		return nil
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Publish puts the new object in the place of the old one, which was plain or not,
// with the attributes that opts, of its write, has for it. If done is false, nothing
// has happened, and the driver has to publish.
func (f *Files) Publish(opts *gcblob.WriterOptions, plain bool) (done bool, err error) {
	if f.path == "" || f.temp == "" {
		return false, nil
	}
	if runtime.GOOS == "windows" {
		return false, nil // no rename of open files
	}
	info, err := os.Lstat(f.path + attrsSuffix)
	if err != nil || !info.Mode().IsRegular() {
		return false, nil // fileblob keeps no attributes, or has none yet
	}
	old, err := os.ReadFile(f.path + attrsSuffix)
	if err != nil {
		return true, err
	}
	changed, err := f.attributes(old, opts)
	if err != nil {
		return true, fmt.Errorf("blob: attributes of %s: %w", f.path, err)
	}
	replaceAttributes := func(data []byte) error { return replaceFile(f.path+attrsSuffix, data, info.Mode().Perm()) }
	if plain {
		if err := os.Rename(f.temp, f.path); err != nil {
			return true, err
		}
		return true, replaceAttributes(changed)
	}
	if err := replaceAttributes(changed); err != nil {
		return true, err
	}
	if err := os.Rename(f.temp, f.path); err != nil {
		return true, errors.Join(err, replaceAttributes(old))
	}
	return true, nil
}

// attributes returns data, fileblob's document of an object's attributes, with the
// metadata, encoding and MD5 of the new object.
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

// replaceFile replaces a file by a rename; SyncDirectory makes that last. This module
// cannot import the internal package by which rings replace their files.
func replaceFile(name string, data []byte, mode os.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(name), ".blobseal-*"+attrsSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // does nothing after the rename
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(mode)
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}
