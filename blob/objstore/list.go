package objstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"
)

const (
	defaultPageSize = 1000
	parallelLooks   = 16
)

// ListPaged implements [driver.Bucket]. It walks the directories of the bucket in the order of
// keys, which not all providers follow, and holds the names in one path of directories. Each
// page starts at the directories that lead to its first key.
func (d *bucketDriver) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if opts.BeforeList != nil {
		if err := opts.BeforeList(asNothing); err != nil {
			return nil, err
		}
	}
	l := &listing{d: d, ctx: ctx, opts: opts, size: opts.PageSize, after: string(opts.PageToken)}
	if l.size <= 0 {
		l.size = defaultPageSize
	}
	dir := opts.Prefix[:strings.LastIndex(opts.Prefix, "/")+1]
	if err := l.walk(dir); err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	page := &driver.ListPage{Objects: l.objects, NextPageToken: l.next}
	return page, d.lookAt(ctx, page)
}

var errPageFull = errors.New("objstore: page is full")

// listing collects one page.
type listing struct {
	d    *bucketDriver
	ctx  context.Context
	opts *driver.ListOptions
	size int

	after   string // the last entry of the page before; its page token
	objects []*driver.ListObject
	next    []byte
}

// walk visits the entries of a directory. Its name is empty or ends with a slash.
func (l *listing) walk(dir string) error {
	var names []string
	err := l.d.inner.Iter(l.ctx, dir, func(name string) error {
		if len(name) > len(dir) && strings.HasPrefix(name, dir) { // not the directory's own marker
			names = append(names, name)
		}
		return l.ctx.Err()
	})
	if err != nil && !errors.Is(err, syscall.ENOTDIR) { // a file has that name
		return err
	}
	slices.Sort(names) // a directory's slash puts it where its keys belong
	for _, name := range names {
		if err := l.visit(name); err != nil {
			return err
		}
	}
	return nil
}

// visit visits an object, or a directory, whose name ends with a slash.
func (l *listing) visit(name string) error {
	prefix := l.opts.Prefix
	isDir := strings.HasSuffix(name, "/")
	inPrefix := strings.HasPrefix(name, prefix)
	switch {
	case !isDir && inPrefix:
		return l.add(name)
	case !isDir:
		return nil
	case !inPrefix && !strings.HasPrefix(prefix, name):
		return nil
	case name <= l.after && !strings.HasPrefix(l.after, name): // all of it was in an earlier page
		return nil
	case inPrefix && l.opts.Delimiter == "/":
		return l.add(name)
	}
	return l.walk(name)
}

// add adds a key to the page, or its common prefix if it has the delimiter.
func (l *listing) add(key string) error {
	isDir := false
	if rest, delimiter := key[len(l.opts.Prefix):], l.opts.Delimiter; delimiter != "" {
		if i := strings.Index(rest, delimiter); i >= 0 {
			key, isDir = key[:len(l.opts.Prefix)+i+len(delimiter)], true
		}
	}
	if key <= l.after {
		return nil
	}
	if len(l.objects) == l.size {
		l.next = []byte(l.after)
		return errPageFull
	}
	l.after = key
	l.objects = append(l.objects, &driver.ListObject{Key: key, IsDir: isDir, AsFunc: asNothing})
	return nil
}

// lookAt requests the attributes of a page's objects. It drops objects that were deleted
// meanwhile.
func (d *bucketDriver) lookAt(ctx context.Context, page *driver.ListPage) error {
	deleted := make([]bool, len(page.Objects))
	looks, looking := errgroup.WithContext(ctx)
	looks.SetLimit(parallelLooks)
	for i, o := range page.Objects {
		if o.IsDir {
			continue
		}
		looks.Go(func() error {
			if looking.Err() != nil {
				return looking.Err()
			}
			attrs, err := d.inner.Attributes(looking, o.Key)
			switch {
			case err == nil:
				o.Size, o.ModTime = attrs.Size, attrs.LastModified
			case d.ErrorCode(err) == gcerrors.NotFound:
				deleted[i] = true
			default:
				return err
			}
			return nil
		})
	}
	err := looks.Wait()
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return err
	}
	i := -1
	page.Objects = slices.DeleteFunc(page.Objects, func(*driver.ListObject) bool { i++; return deleted[i] })
	return nil
}
