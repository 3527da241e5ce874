package blob

import (
	"bytes"
	"io"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// compositeRead is a read of an object that was uploaded in parts. Its envelope and
// the list of its parts are at its end, so it makes up to four requests: for the head,
// which shows that the object is composite, for the end, for a list of more than 1,400
// parts, and for the chunks. It holds only the response of the last one.
type compositeRead struct {
	*getter
	from   *gcblob.Reader // the response that tells the object's attributes
	seen   stored.Version
	pieces *store.Pieces
	env    *sse.Envelope // nil until the trailer was read
	object *sse.Composite
}

// newComposite returns the read of an object whose version is that of from, and whose
// first bytes are head. It ends the response that g holds.
func (g *getter) newComposite(from *gcblob.Reader, head []byte) *compositeRead {
	g.end()
	c := &compositeRead{getter: g, from: from, seen: store.VersionRead(from)}
	c.pieces = g.b.store.Pieces(g.ctx, g.key, c.seen, g.readerOptions())
	c.pieces.Keep(0, head)
	return c
}

// openTrailer reads the trailer and opens the envelope in it. The object's size and
// the list of its parts are authentic then.
func (c *compositeRead) openTrailer() error {
	if c.seen.Size < 0 {
		return store.ErrUnpacked
	}
	t, err := sse.ReadTrailer(c.pieces, c.seen.Size)
	if err != nil {
		return err
	}
	c.env = t.Envelope()
	d, err := c.b.decrypt(c.ctx, c.key, c.env)
	if err != nil {
		return err
	}
	c.object, err = t.Open(d)
	return err
}

// open returns n bytes of the stored object from off.
func (c *compositeRead) open(off, n int64) (io.Reader, error) {
	if n <= drainSize || c.pieces.Kept(off, n) != nil {
		data, err := c.pieces.Range(off, n)
		return bytes.NewReader(data), err
	}
	r, err := c.getter.open(c.seen, off, n)
	if err != nil {
		return nil, err
	}
	c.from = r
	return r, nil
}

// reader returns the driver's reader of plaintext, of which it reads the first byte:
// if the requests met two versions of the object, that byte does not open. The
// plaintext's own reader holds its last byte back until the end is proved.
func (c *compositeRead) reader(plaintext io.Reader) (*reader, error) {
	first := &prefixed{rest: plaintext}
	_, err := io.ReadFull(plaintext, first.byte[:])
	switch {
	case err == io.EOF && c.object.Size() == 0:
		return c.getter.reader(new(bytes.Reader), 0, c.env, c.from), nil
	case err != nil:
		return nil, err
	}
	return c.getter.reader(first, c.object.Size(), c.env, c.from), nil
}

// compositeWhole reads a whole composite object, which inner reads, and whose content
// so far is in content. It takes a small object into memory, and ends the request of a
// larger one, since it must not hold that while it asks for the trailer.
func (g *getter) compositeWhole(inner *gcblob.Reader, content io.Reader) (*reader, *sse.Envelope, error) {
	keep := int64(g.b.store.EnvelopeSize) // which ReadEnvelope has read
	if inner.Size() <= drainSize {
		keep = drainSize
	}
	head, err := io.ReadAll(io.LimitReader(content, keep))
	if err != nil {
		return nil, nil, err
	}
	c := g.newComposite(inner, head)
	if err := c.openTrailer(); err != nil {
		return nil, c.env, err
	}
	at, n, err := c.object.StoredRange(0, -1)
	if err != nil {
		return nil, c.env, err
	}
	src, err := c.open(0, at+n)
	if err != nil {
		return nil, c.env, err
	}
	r, err := c.reader(c.object.Reader(src))
	return r, c.env, err
}
