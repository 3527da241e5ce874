package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// Envelopes are padded to a multiple of this many bytes, so that another one
// fits in their place.
const envelopeUnit = 1024

// Sizes of a chunk of a body, from the format.
const (
	chunkSize       = 16384
	sealedChunkSize = 16400
)

func envelopeSize(env *sse.Envelope) int {
	return (env.Size() + envelopeUnit - 1) / envelopeUnit * envelopeUnit
}

// objectFlags say which object a file is.
type objectFlags struct {
	Object  string   `placeholder:"BUCKET/KEY" help:"Name that the file is bound to; it opens under no other. Without it a file is bound to no name and can be renamed freely."`
	Context []string `placeholder:"K=V" sep:"none" help:"Pair of the encryption context; may be repeated. It is bound to the file and readable in it."`
}

func (f objectFlags) object() (obj sse.Object, err error) {
	if obj, err = parseObject("--object", f.Object); err != nil {
		return obj, err
	}
	obj.Context, err = parsePairs("--context", f.Context)
	return obj, err
}

// parsePairs parses NAME=VALUE, each name once. No pairs are nil.
func parsePairs(flag string, texts []string) (pairs map[string]string, err error) {
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, usagef("%s %q: want NAME=VALUE", flag, text)
		}
		if _, twice := pairs[name]; twice {
			return nil, usagef("%s: %q is there twice", flag, name)
		}
		if pairs == nil {
			pairs = map[string]string{}
		}
		pairs[name] = value
	}
	return pairs, nil
}

// parseObject splits a name at its first slash. No name is the empty one.
func parseObject(flag, name string) (obj sse.Object, err error) {
	if name == "" {
		return obj, nil
	}
	var found bool
	if obj.Bucket, obj.Key, found = strings.Cut(name, "/"); !found {
		return obj, usagef("%s %q: want BUCKET/KEY", flag, name)
	}
	return obj, nil
}

// object is a sealed file, or standard input, of which the envelope was read.
type object struct {
	*input
	env     *sse.Envelope
	body    io.Reader // what is behind the envelope
	size    int64     // of the body; -1 if it is not known
	pending bool      // env is that of an unfinished rewrap, from its journal
}

// openObject opens a sealed file and reads its envelope, or that of a rewrap
// that was interrupted. The caller closes it.
func (c *console) openObject(ctx context.Context, name string) (*object, error) {
	in, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	o := &object{input: in, size: -1}
	if err := o.readEnvelope(ctx); err != nil {
		in.Close()
		return nil, aboutObject(o, nil, err)
	}
	return o, nil
}

func (o *object) readEnvelope(ctx context.Context) (err error) {
	if !o.regular() {
		o.body = o.r
		o.env, err = sse.ReadEnvelope(o.r)
		return err
	}
	if err := lockFile(ctx, o.file, false); err != nil { // not in the midst of a rewrap
		return err
	}
	defer unlockFile(o.file)
	j, err := findJournal(o.input.name, o.file)
	if err != nil {
		return err
	}
	if j.state == journalPending {
		o.env, o.pending = j.env, true
	} else if o.env, err = sse.ReadEnvelope(io.NewSectionReader(o.file, 0, o.input.size)); err != nil {
		return err
	}
	o.size = o.input.size - int64(o.env.Size())
	o.body = o.bodyAt()
	return nil
}

// bodyAt gives random access to the body of a regular file.
func (o *object) bodyAt() *io.SectionReader {
	return io.NewSectionReader(o.file, int64(o.env.Size()), o.size)
}

// decrypt opens the object's data key. It proves the end of a body that can be
// read at random, so that a file which was cut short is refused before a byte of
// it is used.
func (o *object) decrypt(ctx context.Context, k *keys, obj sse.Object) (*sse.Decryption, error) {
	if err := k.accept(ctx, o.name, o.env.Mode(), o.env.KeyID()); err != nil {
		return nil, err
	}
	d, err := k.Decrypt(ctx, obj, o.env)
	return d, aboutObject(o, k, err)
}

// prove authenticates the length of a regular file's body and returns the
// plaintext's.
func (o *object) prove(d *sse.Decryption) (int64, error) {
	r, err := d.ReaderAt(o.bodyAt(), o.size)
	if err != nil {
		return 0, aboutObject(o, nil, err)
	}
	return r.Size(), nil
}

// badChunk describes the first chunk that is not authentic.
func (o *object) badChunk(i int64) string {
	text := fmt.Sprintf("damaged: chunk %d is not authentic, at byte %d of the file (byte %d of the plaintext)",
		i, int64(o.env.Size())+i*sealedChunkSize, i*chunkSize)
	if o.size >= 0 && i == o.size/sealedChunkSize {
		text += "; it is the last one: the file may have been cut short"
	}
	return text
}

// sameFile tells whether two names lead to one file.
func sameFile(in *input, name string) bool {
	if in.file == nil || name == "-" {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && os.SameFile(in.info, info)
}
