package s3gateway

import (
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
)

// WrapInner puts another backend between a gateway and its inner store. It is called
// before the gateway serves.
func (g *Gateway) WrapInner(wrap func(backend.Backend) backend.Backend) { g.Backend = wrap(g.Backend) }

// WrapAttributes does so between a store of files and their attributes.
func (f *Files) WrapAttributes(wrap func(meta.MetadataStorer) meta.MetadataStorer) {
	f.attributes.MetadataStorer = wrap(f.attributes.MetadataStorer)
}

// DoInTime is doInTime.
var DoInTime = doInTime
