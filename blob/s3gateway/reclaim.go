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
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
)

// The engine completes an upload in its directory, which it renames first so that no
// other request finds it. A gateway that is killed then leaves the directory under
// that name, and the engine has no way back: the upload could neither be completed nor
// aborted. Therefore whoever completes or aborts an upload locks the directory. The
// system drops the lock when a process dies, and the next gateway that gets the lock
// renames the directory back.

// inProgress is the end of the engine's names for such directories. Their beginning is the
// upload's id and a dot.
const inProgress = ".inprogress"

// attrObjectName has the key of the object to which a directory of uploads belongs.
const attrObjectName = "objname"

// lockTime bounds how long a request waits while another request completes or aborts the
// same upload.
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

// isCompleting reports whether the engine has begun to complete the upload.
func (d *uploadDir) isCompleting() bool { return d.name != d.id }

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

// cannotLock reports whether an error of lock says that the file system does not lock
// directories.
func cannotLock(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.ENOLCK, syscall.EINVAL, syscall.EBADF, syscall.EISDIR,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// lockUpload keeps other requests, of any gateway, from completing or aborting an
// upload until unlock is called. Where the file system cannot lock directories, it
// locks nothing.
func (f *Files) lockUpload(ctx context.Context, bucket, key, id string, u *upload) (unlock func(), err error) {
	for deadline := time.Now().Add(lockTime); ; {
		d, err := findUpload(bucket, key, id)
		if err != nil {
			return nil, err
		}
		unlock, err := d.lock()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case cannotLock(err):
			return func() {}, nil
		case err != nil:
			return nil, fmt.Errorf("s3gateway: lock upload %s of %s/%s: %w", id, bucket, key, err)
		case unlock != nil && d.isCompleting():
			if err := f.giveBack(d, u); err != nil {
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

// giveBack restores an upload that a killed gateway had begun to complete: it renames the
// directory, which is locked, back. If the object was already published, giveBack deletes
// the directory and returns NoSuchUpload. It can be repeated if it is interrupted.
func (f *Files) giveBack(d *uploadDir, u *upload) error {
	parent, id := filepath.Join(d.bucket, d.parent), filepath.Join(d.parent, d.id)
	published, err := d.isPublished(u)
	if err != nil {
		return err
	}
	if published {
		err := errors.Join(os.RemoveAll(d.path()), f.attributes.DeleteAttributes(d.bucket, filepath.Join(d.parent, d.name)))
		os.Remove(parent) // fails if there are other uploads
		if err == nil {
			err = s3err.GetNoSuchUploadErr(d.id)
		}
		return err
	}
	// A part that arrived meanwhile has made a new directory.
	if err := os.RemoveAll(filepath.Join(d.bucket, id)); err != nil {
		return err
	}
	// The attributes move first: as long as the directory has the engine's name, the next
	// call repeats this one.
	if err := f.moveAttributes(d.bucket, filepath.Join(d.parent, d.name), id); err != nil {
		return err
	}
	return os.Rename(d.path(), filepath.Join(d.bucket, id))
}

// moveAttributes replaces the attributes at to by those of an upload and its parts. It does
// nothing if there are none, for example because they have moved already. Extended
// attributes move with their files.
func (f *Files) moveAttributes(bucket, from, to string) error {
	if f.sidecar == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(f.sidecar, bucket, from)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.RemoveAll(filepath.Join(f.sidecar, bucket, to)); err != nil {
		return err
	}
	return f.attributes.RenameObject(bucket, from, to)
}

// isPublished reports whether the upload has become the object. The object's attributes
// prove nothing: in SideCarDir, the engine stores them before it publishes the object.
func (d *uploadDir) isPublished(u *upload) (bool, error) {
	env, err := u.envelope()
	if err != nil {
		return false, err
	}
	file, err := os.Open(filepath.Join(d.bucket, d.key))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	return hasBody(file, info.Size(), env)
}

// reclaim restores an upload if a gateway was killed while it completed the upload.
func (g *Gateway) reclaim(d *uploadDir, u *upload) {
	if !d.isCompleting() {
		return
	}
	unlock, err := d.lock()
	if err == nil && unlock != nil {
		defer unlock()
		err = g.files.giveBack(d, u)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !cannotLock(err) && !hasCode(err, "NoSuchUpload") {
		g.opts.Log.Warn("s3gateway: an upload that was being completed cannot be restored", "bucket", d.bucket, "key", d.key, "upload", d.id, "error", err)
	}
}

// reclaimAll restores all uploads of a bucket, so that they can be listed.
func (g *Gateway) reclaimAll(ctx context.Context, bucket string) {
	found, _ := filepath.Glob(filepath.Join(bucket, posix.MetaTmpMultipartDir, "*", "*"+inProgress))
	for _, path := range found {
		parent, id := filepath.Join(posix.MetaTmpMultipartDir, filepath.Base(filepath.Dir(path))), filepath.Base(path)
		key, err := g.files.attributes.RetrieveAttribute(nil, bucket, parent, attrObjectName)
		id, _, ok := strings.Cut(id, ".")
		if ok && err == nil {
			g.getUpload(ctx, bucket, string(key), id) // which calls reclaim
		}
	}
}
