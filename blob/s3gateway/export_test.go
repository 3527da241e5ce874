package s3gateway

import (
	"context"

	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3response"
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

// CopyBody has a store copy an object's body of n bytes into an upload.
func CopyBody(ctx context.Context, store backend.Backend, n int64) error {
	g := &Gateway{Backend: store}
	src := &version{g: g, ctx: ctx, bucket: "photos", key: "src", etag: "0123", size: n}
	a := &assembling{resealed: &resealed{
		Gateway: g, r: &request{ctx: ctx}, src: &object{version: src}, to: n,
		put: s3response.PutObjectInput{Bucket: ptr("photos"), Key: ptr("dst")},
	}}
	return a.copyBody(0)
}

// NewOver returns a gateway over a store, without keys.
func NewOver(store backend.Backend) *Gateway { return &Gateway{Backend: store} }

// WaitOf is waitOf.
var WaitOf = waitOf
