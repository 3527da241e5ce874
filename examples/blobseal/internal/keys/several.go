package keys

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/sse"
)

// Mode is that of what the keys seal.
func (k *Keys) Mode() sse.Mode {
	switch {
	case k.Ring != nil:
		return sse.ModeManaged
	case k.Service != nil:
		return sse.ModeKMS
	}
	return sse.ModeCustomer
}

// Sources are the keys of a bucket with objects of several modes, the first of
// which seals. A ring and a service then have the same root, but a ring may also be
// under a key of a service in a directory: then that has the service's root.
func (f Flags) Sources() (all []Source) {
	root := f.Source().Root
	service := root
	if f.Ring != "" && root.Local() {
		service = root.own()
	}
	if f.Ring != "" {
		all = append(all, Source{Ring: f.Ring, Root: root})
	}
	if f.KMS != "" {
		all = append(all, Source{KMS: f.KMS, KMSKey: f.KMSKey, Principal: f.Principal, Root: service})
	}
	if f.CustomerKeyFile != "" {
		all = append(all, Source{Customer: f.CustomerKeyFile})
	}
	switch {
	case len(all) == 0:
		return []Source{f.Source()} // which fails its check
	case f.KMS == "":
		all[0].KMSKey, all[0].Principal = f.KMSKey, f.Principal
	}
	return all
}

// OpenAll opens the keys of all sources. The caller closes them.
func OpenAll(ctx context.Context, c *console.Console, sources []Source) (all []*Keys, err error) {
	for _, s := range sources {
		k, err := s.Open(ctx, c)
		if err != nil {
			CloseAll(all)
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

func CheckAll(sources []Source) error {
	for _, s := range sources {
		if err := s.Check(); err != nil {
			return err
		}
	}
	return nil
}

func CloseAll(all []*Keys) {
	for _, k := range all {
		k.Close()
	}
}

// ServiceOf are the keys of a key service among others.
func ServiceOf(all []*Keys) *Keys {
	for _, k := range all {
		if k.Service != nil {
			return k
		}
	}
	return nil
}
