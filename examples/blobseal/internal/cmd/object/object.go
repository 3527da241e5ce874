// Package object has the commands on sealed files.
package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

// EnvelopeUnit is the size that envelopes are padded to a multiple of, so that a new one
// has the same size.
const EnvelopeUnit = 1024

func envelopeSize(env *sse.Envelope) int {
	return (env.Size() + EnvelopeUnit - 1) / EnvelopeUnit * EnvelopeUnit
}

// objectFlags name the object that a file is bound to.
type objectFlags struct {
	Object  string   `placeholder:"BUCKET/KEY" help:"Name that the file is bound to, and opens under. Without it, you can rename the file freely."`
	Context []string `placeholder:"K=V" sep:"none" help:"Pair of the encryption context; may be repeated. Bound to the file, and not secret."`
}

func (f objectFlags) object() (obj sse.Object, err error) {
	if obj, err = parseObject("--object", f.Object); err != nil {
		return obj, err
	}
	obj.Context, err = console.ParsePairs("--context", f.Context)
	return obj, err
}

// parseObject splits a name at its first slash. An empty name is the empty object.
func parseObject(flag, name string) (obj sse.Object, err error) {
	if name == "" {
		return obj, nil
	}
	var found bool
	if obj.Bucket, obj.Key, found = strings.Cut(name, "/"); !found {
		return obj, message.Usagef("%s %q: want BUCKET/KEY", flag, name)
	}
	return obj, nil
}

// Object is a sealed file, or standard input, whose envelope was read.
type Object struct {
	*file.Input
	env  *sse.Envelope
	body io.Reader // what follows the envelope; nil of a composite file
	Size int64     // of the body; -1 if unknown

	// Of a composite file, which was uploaded in parts:
	trailer *sse.Trailer
	parts   *sse.Composite // nil until Decrypt
}

// Open opens a sealed file and reads its envelope. The caller closes the object.
func Open(ctx context.Context, c *console.Console, name string) (*Object, error) {
	in, err := file.Open(ctx, c, name)
	if err != nil {
		return nil, err
	}
	return readObject(in)
}

// readObject reads the envelope of an input, which it closes if it fails.
func readObject(in *file.Input) (o *Object, err error) {
	o = &Object{Input: in, Size: -1}
	if !o.Regular() {
		o.body = o.R
		o.env, err = sse.ReadEnvelope(o.R)
	} else if o.env, err = sse.ReadEnvelope(io.NewSectionReader(o.File, 0, o.Input.Size)); err == nil {
		o.Size = o.Input.Size - int64(o.env.Size())
		o.body = o.bodyAt()
	} else if errors.Is(err, sse.ErrComposite) {
		if o.trailer, err = sse.ReadTrailer(o.File, o.Input.Size); err == nil {
			o.env = o.trailer.Envelope()
			o.Size = o.Input.Size - int64(o.env.Size())
		}
	}
	if err != nil {
		in.Close()
		return nil, aboutObject(o, nil, err)
	}
	return o, nil
}

// bodyAt returns the body of a regular file, for random access.
func (o *Object) bodyAt() *io.SectionReader {
	return io.NewSectionReader(o.File, int64(o.env.Size()), o.Size)
}

// Decrypt opens the object's data key, and the list of parts of a composite file, which
// proves its size.
func (o *Object) Decrypt(ctx context.Context, k *keys.Keys, obj sse.Object) (*sse.Decryption, error) {
	obj.AnyContext = obj.Context == nil
	d, err := k.Decrypt(ctx, obj, o.env)
	if err == nil && o.trailer != nil {
		o.parts, err = o.trailer.Open(d)
	}
	return d, aboutObject(o, k, err)
}

// openBody returns the reader of the plaintext, and the source below, whose progress
// shows.
func (o *Object) openBody(ctx context.Context, c *console.Console, d *sse.Decryption) (*console.Source, io.Reader, error) {
	if o.parts == nil {
		src := c.Track(ctx, o.Name, o.body, o.Size)
		return src, d.Reader(src), nil
	}
	at, n, err := o.parts.StoredRange(0, -1)
	if err != nil {
		return nil, nil, err
	}
	src := c.Track(ctx, o.Name, io.NewSectionReader(o.File, 0, at+n), at+n)
	return src, o.parts.Reader(src), nil
}

// openRange is openBody for n bytes from off of a regular file.
func (o *Object) openRange(ctx context.Context, c *console.Console, d *sse.Decryption, off, n int64) (*console.Source, io.Reader, error) {
	if o.parts == nil {
		at, length, err := sse.CiphertextRange(off, n)
		if err != nil {
			return nil, nil, err
		}
		length = min(length, o.Size-at)
		src := c.Track(ctx, o.Name, io.NewSectionReader(o.bodyAt(), at, length), length)
		return src, d.RangeReader(src, off, n), nil
	}
	at, length, err := o.parts.StoredRange(off, n)
	if err != nil {
		return nil, nil, err
	}
	src := c.Track(ctx, o.Name, io.NewSectionReader(o.File, at, length), length)
	return src, o.parts.RangeReader(src, off, n), nil
}

// prove authenticates the end of a regular file's body, and returns the size of the
// plaintext.
func (o *Object) prove(d *sse.Decryption) (int64, error) {
	if o.parts != nil {
		return o.parts.Size(), nil
	}
	r, err := d.ReaderAt(o.bodyAt(), o.Size)
	if err != nil {
		return 0, aboutObject(o, nil, err)
	}
	return r.Size(), nil
}

// badChunk describes the first chunk that is not authentic.
func (o *Object) badChunk(i int64) string {
	at, length, _ := sse.CiphertextRange(i*sse.ChunkSize, sse.ChunkSize-1) // a reader found the chunk, so the offset is valid
	text := fmt.Sprintf("damaged: chunk %d is not authentic, at byte %d of the file (byte %d of the plaintext)",
		i, int64(o.env.Size())+at, i*sse.ChunkSize)
	if o.Size >= 0 && at+length > o.Size {
		text += "; it is the last one: the file may have been cut short"
	}
	return text
}

// aboutObject returns an error of a sealed file as a [message.Problem]. Keys that
// were not tried yet are nil.
func aboutObject(o *Object, k *keys.Keys, err error) error {
	if part, ok := errors.AsType[*sse.PartError](err); ok && !message.InWords(err) {
		return message.Problemf(err, o.Name, "damaged: part %d is not authentic", part.Number)
	}
	if chunk, ok := errors.AsType[*sse.ChunkError](err); ok && !errors.Is(err, sse.ErrTruncated) && !message.InWords(err) {
		return message.Problemf(err, o.Name, "%s", o.badChunk(chunk.Chunk))
	}
	var a message.Attempt
	if o.env != nil {
		a = k.Attempt(o.env.Mode(), o.env.KeyID())
	}
	return a.About(o.Name, err)
}
