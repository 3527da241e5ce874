package keys

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/sse"
)

// Mode returns the mode of what the keys seal.
func (k *Keys) Mode() sse.Mode {
	switch {
	case k.Ring != nil:
		return sse.ModeManaged
	case k.Service != nil:
		return sse.ModeKMS
	}
	return sse.ModeCustomer
}

// Sources returns the keys of a bucket with objects of several modes. The first one
// seals. A ring and a service have the same root, unless the ring's root is a key of a
// service in a directory: then the service has that service's root.
func (f OpenFlags) Sources() (all []Source) {
	root := f.Source().Root
	service := root
	if f.Ring != "" && root.Local() {
		service = root.serviceRoot()
	}
	if f.Ring != "" {
		all = append(all, Source{Ring: f.Ring, Root: root})
	}
	if f.KMS != "" {
		source := f.Source()
		source.Ring, source.Customer, source.Root = "", "", service
		all = append(all, source)
	}
	if f.CustomerKeyFile != "" {
		all = append(all, Source{Customer: f.CustomerKeyFile})
	}
	switch {
	case len(all) == 0:
		return []Source{f.Source()} // Check says what is missing
	case f.KMS == "":
		all[0].KMSKeys, all[0].AnyKey, all[0].Principal = f.KMSKey, f.AnyKMSKey, f.Principal
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
