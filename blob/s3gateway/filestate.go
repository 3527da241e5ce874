package s3gateway

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3err"

	"github.com/blobseal/blobseal/blob/stored"
)

// fileState is the state of an object in a store of files: its file and its attributes,
// among which are metadata, tags and locks.
type fileState struct {
	info       fs.FileInfo
	attributes map[string][]byte
}

// state returns the state of an object. If the object does not exist or changes during
// the call, the error is [stored.ErrChanged].
func (f *Files) state(bucket, key string) (*fileState, error) {
	info, err := os.Stat(filepath.Join(bucket, key))
	if err != nil {
		return nil, changedIfMissing(err)
	}
	names, err := f.attributes.ListAttributes(bucket, key)
	if err != nil {
		return nil, changedIfMissing(err)
	}
	s := &fileState{info, map[string][]byte{}}
	for _, name := range names {
		if s.attributes[name], err = f.attributes.RetrieveAttribute(nil, bucket, key, name); err != nil {
			return nil, changedIfMissing(err)
		}
	}
	return s, nil
}

func changedIfMissing(err error) error {
	for _, missing := range []error{fs.ErrNotExist, syscall.ENOTDIR, meta.ErrNoSuchKey} {
		if errors.Is(err, missing) {
			return stored.ErrChanged
		}
	}
	return err
}

// checkState returns [stored.ErrChanged] unless an object is still in a state.
func (f *Files) checkState(bucket, key string, want *fileState) error {
	now, err := f.state(bucket, key)
	if err != nil {
		return err
	}
	if !os.SameFile(now.info, want.info) || now.info.Size() != want.info.Size() || !maps.EqualFunc(now.attributes, want.attributes, bytes.Equal) {
		return stored.ErrChanged
	}
	return nil
}

// uploadID returns the id of the upload that made the object, or "".
func (s *fileState) uploadID() string {
	mp, err := backend.UnmarshalMpUploadMetadata(s.attributes[attrMultipart], false)
	if err != nil {
		return ""
	}
	return mp.UploadID
}

// checkHold returns the engine's error if the object has a legal hold, which no
// permission lifts.
func (s *fileState) checkHold() error {
	if slices.Equal(s.attributes[attrLegalHold], []byte{1}) {
		return s3err.GetAPIError(s3err.ErrObjectLocked)
	}
	return nil
}

// checkRetention returns the engine's error if the object has a retention that has not
// expired.
func (s *fileState) checkRetention() error {
	value, ok := s.attributes[attrRetention]
	if !ok {
		return nil
	}
	retention, err := auth.ParseObjectLockRetentionOutput(value)
	if err != nil {
		return err
	}
	if retention.RetainUntilDate != nil && retention.RetainUntilDate.After(time.Now()) {
		return s3err.GetAPIError(s3err.ErrObjectLocked)
	}
	return nil
}
