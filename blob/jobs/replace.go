package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// replace reads an object and puts what the operation makes of it in its place.
func (j *job) replace(ctx context.Context, r *Result) error {
	x := &replacement{job: j, r: r, watch: j.s.Locks.Watch(r.Key), files: j.s.Files()}
	defer x.watch.End()
	var err error
	if x.source, err = j.s.Source(ctx, r.Key, x.files.Reading()); err != nil {
		return absentIfNotFound(err)
	}
	defer x.source.Close()
	made, err := x.convert(ctx)
	if err != nil || r.Outcome != OutcomeDone {
		return err
	}
	if made.tail != nil {
		if err := x.replaceEnd(ctx, made); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		parts, err := x.source.Open(ctx, made.tail.Off)
		if err != nil {
			return absentIfNotFound(err)
		}
		made.body = made.trailer.Copy(parts, made.tail)
	}
	out, err := x.write(ctx, made)
	if err != nil {
		return err
	}
	x.source.Close()
	if err := out.Commit(func(publish func() error) error { return x.publish(ctx, publish) }); err != nil {
		return err
	}
	return x.files.SyncDirectory()
}

// replacement replaces one object. All that it judges by and all that it copies
// belong to one version of the object: it reads the attributes before it opens the
// object and again before it publishes, and envelope and body are of one stream.
type replacement struct {
	*job
	r       *Result
	watch   *stored.Watch
	files   *store.Files
	source  *store.Source         // the object as it is
	env     *sse.Envelope         // of the object as it is, or nil
	options *gcblob.WriterOptions // of the write
}

// newObject is what an operation made of an object.
type newObject struct {
	env     *sse.Envelope
	body    io.Reader      // what follows the envelope; all of a composite object
	trailer *store.Trailer // of a composite object as it is, or nil
	tail    *store.Tail    // that takes its place
}

// convert has the operation look at the object and, if the outcome is
// [OutcomeDone], returns the object that takes its place.
func (x *replacement) convert(ctx context.Context) (*newObject, error) {
	src, err := x.source.Open(ctx, -1)
	if err != nil {
		return nil, absentIfNotFound(err)
	}
	attrs := x.source.Attrs
	object := store.Object{Key: x.r.Key, Stored: attrs.Size, Size: -1, ModTime: attrs.ModTime}
	var body io.Reader
	object.Envelope, body, err = stored.ReadEnvelope(stored.ExactReader(src, attrs.Size, store.ErrSize), x.s.EnvelopeSize)
	_, hinted := stored.ParseHint(attrs.Metadata)
	if errors.Is(err, sse.ErrComposite) {
		object.Trailer, err = x.source.Trailer(ctx)
		if err == nil {
			object.Envelope = object.Trailer.Envelope()
		} else if _, told := stored.KindOf(err, hinted); !told {
			return nil, absentIfNotFound(err)
		}
	}
	x.env = object.Envelope
	object.Classify(err, hinted)
	e := entryOf(object)
	x.r.From = e.Seal
	if x.r.Outcome, err = x.op.decide(ctx, e, x.env); x.r.Outcome != OutcomeDone {
		return nil, err
	}
	sealed, body, err := x.op.convert(ctx, x.r.Key, x.env, body)
	if err != nil {
		return nil, store.KeyError(err)
	}
	if object.Trailer != nil { // nothing has read the parts, which do not change
		tail, err := x.s.Replace(object.Trailer, sealed)
		return &newObject{env: sealed, trailer: object.Trailer, tail: tail}, err
	}
	sealed, err = x.s.Fit(sealed)
	return &newObject{env: sealed, body: body}, err
}

// replaceEnd has the store itself copy the parts of a composite object. It returns
// [errors.ErrUnsupported] if the store does not.
func (x *replacement) replaceEnd(ctx context.Context, made *newObject) error {
	x.writeOptions()
	publish, abort, err := x.s.StartReplaceEnd(ctx, x.r.Key, x.source.Attrs, made.tail, x.options)
	if err != nil {
		return err
	}
	x.r.To, x.r.Stored = keyOf(made.env), int64(len(made.tail.Data))
	called := false
	err = x.publish(ctx, func() error {
		called = true
		return publish()
	})
	if !called {
		err = errors.Join(err, abort())
	}
	return err
}

// writeOptions sets the options of the write, once for each attempt at it.
func (x *replacement) writeOptions() {
	x.options = store.OptionsLike(x.source.Attrs)
	x.options.BeforeWrite = func(as func(any) bool) error {
		x.files.Writing(as)
		if x.s.IfUnchanged == nil {
			return nil
		}
		return x.s.IfUnchanged(as, x.source.Attrs)
	}
}

// write writes the new object. It is not visible before it is committed.
func (x *replacement) write(ctx context.Context, made *newObject) (*store.Writer, error) {
	x.writeOptions()
	create := x.s.Create
	if made.tail != nil {
		create = x.s.CreateComposite
	}
	out, err := create(ctx, x.r.Key, made.env, x.options)
	if err != nil {
		return nil, err
	}
	x.files.Write(out.Head())
	x.r.To, x.r.Stored = keyOf(made.env), int64(len(out.Head()))
	n, err := copyBody(io.MultiWriter(out, x.files), made.body)
	if err == nil {
		err = x.files.Sync()
	}
	if err != nil {
		out.Abort()
		return nil, err
	}
	x.r.Stored += n
	return out, nil
}

// publish makes the new object visible unless somebody changed the old one.
func (x *replacement) publish(ctx context.Context, publish func() error) error {
	return x.s.Change(ctx, x.watch, func(changed bool) error {
		if changed {
			return stored.ErrChanged
		}
		if err := x.s.CheckUnchanged(ctx, x.r.Key, x.source.Attrs, x.env); err != nil {
			return absentIfNotFound(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if done, err := x.files.Publish(x.options, x.env == nil); done {
			return err
		}
		err := publish()
		switch {
		case x.s.IfUnchanged == nil:
			return err
		case gcerrors.Code(err) == gcerrors.FailedPrecondition:
			return fmt.Errorf("%w: %w", stored.ErrChanged, err)
		}
		return absentIfNotFound(err) // S3 answers so to If-Match
	})
}

var bodyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyBody is [io.Copy] with a buffer of its own.
func copyBody(dst io.Writer, src io.Reader) (int64, error) {
	buf := bodyBuffers.Get().(*[64 << 10]byte)
	n, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
	if err == nil { // after a failure, dst or src may still use the buffer
		bodyBuffers.Put(buf)
	}
	return n, err
}
