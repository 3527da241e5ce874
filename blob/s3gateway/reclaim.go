package s3gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
)

// The engine completes an upload in its directory, which it renames first so that no
// other request finds it. A gateway that is killed then leaves the directory under
// that name, and the engine has no way back: the upload could neither be completed nor
// aborted. Therefore whoever completes or aborts an upload locks the directory. The
// system drops the lock when a process dies, and the next gateway that gets the lock
// renames the directory back.

// inProgress is how the engine's names for such directories end. They begin with the
// upload's id and a dot.
const inProgress = ".inprogress"

// attrObjectName has the key of the object to which a directory of uploads belongs.
const attrObjectName = "objname"

// lockTime is how long a request waits for another one to complete or abort the same
// upload.
const lockTime = 10 * time.Second

// uploadDir is the directory of an upload: its parent, which is the same for all
// uploads of a key, its name there, and the id of the upload.
type uploadDir struct{ bucket, key, parent, name, id string }

// findUpload finds the directory of an upload, under either of its names.
func findUpload(bucket, key, id string) (*uploadDir, error) {
	sum := sha256.Sum256([]byte(key))
	d := &uploadDir{bucket: bucket, key: key, id: id, parent: filepath.Join(posix.MetaTmpMultipartDir, fmt.Sprintf("%x", sum))}
	entries, err := os.ReadDir(filepath.Join(bucket, d.parent))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == id && d.name == "" || strings.HasPrefix(e.Name(), id+".") && strings.HasSuffix(e.Name(), inProgress) {
			d.name = e.Name()
		}
	}
	if d.name == "" {
		return nil, s3err.GetNoSuchUploadErr(id)
	}
	return d, nil
}

func (d *uploadDir) path() string { return filepath.Join(d.bucket, d.parent, d.name) }

// completing reports whether the engine has begun to complete the upload.
func (d *uploadDir) completing() bool { return d.name != d.id }

// lock locks the directory. Without an error, unlock is nil if another process or
// request has the lock. The error is [fs.ErrNotExist] if the directory has moved.
func (d *uploadDir) lock() (unlock func(), err error) {
	l := flock.New(d.path(), flock.SetFlag(os.O_RDONLY))
	ok, err := l.TryLock()
	if err != nil || !ok {
		return nil, err
	}
	locked, err := l.Stat()
	if err == nil {
		var now fs.FileInfo
		if now, err = os.Stat(d.path()); err == nil && !os.SameFile(locked, now) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		l.Unlock()
		return nil, err
	}
	return func() { l.Unlock() }, nil
}

// lockUpload keeps other requests, of any gateway, from completing or aborting an
// upload until unlock is called. Where the file system cannot lock directories, it
// locks nothing.
func (f *Files) lockUpload(ctx context.Context, bucket, key, id string) (unlock func(), err error) {
	for deadline := time.Now().Add(lockTime); ; {
		d, err := findUpload(bucket, key, id)
		if err != nil {
			return nil, err
		}
		unlock, err := d.lock()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return func() {}, nil
		case unlock != nil && d.completing():
			if err := f.giveBack(d); err != nil {
				unlock()
				return nil, err
			}
			return unlock, nil
		case unlock != nil:
			return unlock, nil
		case time.Now().After(deadline):
			return nil, s3err.APIError{Code: "OperationAborted", HTTPStatusCode: 409, Description: "Another request completes or aborts this upload. Try again."}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// giveBack ends what a killed gateway has begun: the directory, which is locked, gets
// its name back, or goes if the object was already published. The error is then
// NoSuchUpload.
func (f *Files) giveBack(d *uploadDir) error {
	parent, id := filepath.Join(d.bucket, d.parent), filepath.Join(d.parent, d.id)
	value, err := f.attributes.RetrieveAttribute(nil, d.bucket, d.key, attrMultipart)
	if err == nil {
		if mp, err := backend.UnmarshalMpUploadMetadata(value, false); err == nil && mp.UploadID == d.id {
			err := errors.Join(os.RemoveAll(d.path()), f.attributes.DeleteAttributes(d.bucket, filepath.Join(d.parent, d.name)))
			os.Remove(parent) // fails if there are other uploads
			if err == nil {
				err = s3err.GetNoSuchUploadErr(d.id)
			}
			return err
		}
	}
	// A part that arrived in between has made a directory of its own.
	if err := os.RemoveAll(filepath.Join(d.bucket, id)); err != nil {
		return err
	}
	if err := os.Rename(d.path(), filepath.Join(d.bucket, id)); err != nil {
		return err
	}
	return f.attributes.RenameObject(d.bucket, filepath.Join(d.parent, d.name), id)
}

// reclaim gives an upload its directory back if a gateway was killed while it
// completed the upload.
func (f *Files) reclaim(d *uploadDir) {
	if !d.completing() {
		return
	}
	if unlock, err := d.lock(); err == nil && unlock != nil {
		defer unlock()
		f.giveBack(d) // what fails here fails again, and is reported, in lockUpload
	}
}

// reclaimAll does so for all uploads of a bucket, so that they can be listed.
func (f *Files) reclaimAll(bucket string) {
	found, _ := filepath.Glob(filepath.Join(bucket, posix.MetaTmpMultipartDir, "*", "*"+inProgress))
	for _, path := range found {
		parent, name := filepath.Join(posix.MetaTmpMultipartDir, filepath.Base(filepath.Dir(path))), filepath.Base(path)
		key, err := f.attributes.RetrieveAttribute(nil, bucket, parent, attrObjectName)
		if id, _, ok := strings.Cut(name, "."); ok && err == nil {
			f.reclaim(&uploadDir{bucket: bucket, key: string(key), parent: parent, name: name, id: id})
		}
	}
}
