package store

import (
	"context"

	gcblob "gocloud.dev/blob"
)

// Pages of a listing grow from the first size to the largest: a walk begins soon,
// and a store whose every page costs a pass over all keys, like memblob, serves
// few pages. A page takes some 200 bytes for each object.
const (
	firstPage   = 1000
	largestPage = 16_000
)

// Listed is an object as the store's listing shows it.
type Listed struct {
	Key  string
	Size int64 // as stored; below zero if unknown
}

// List calls visit for each object whose key begins with prefix, in the order of
// the store's listing, until the first error.
func (s *Store) List(ctx context.Context, prefix string, visit func(Listed) error) error {
	if s.directory {
		return listTree(ctx, s.Inner, prefix, visit)
	}
	size := firstPage
	for token := gcblob.FirstPageToken; len(token) > 0; {
		page, next, err := s.Inner.ListPage(ctx, token, size, &gcblob.ListOptions{Prefix: prefix})
		if err != nil {
			return err
		}
		for _, object := range page {
			if err := visit(Listed{Key: object.Key, Size: object.Size}); err != nil {
				return err
			}
		}
		token, size = next, min(2*size, largestPage)
	}
	return nil
}
