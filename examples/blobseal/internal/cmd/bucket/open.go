package bucket

import (
	"context"
	"iter"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Opened is a bucket that another package's command reads.
type Opened struct{ *bucket }

// Open opens a bucket with its keys, to read all of it. The caller closes it.
func Open(ctx context.Context, url, name string, all []*keys.Keys) (*Opened, error) {
	b, err := bucketFlags{Bucket: url, Name: name}.openWhole(ctx, blob.Options{}, all...)
	if err != nil {
		return nil, err
	}
	return &Opened{b}, nil
}

// Check checks all objects, to a depth of the command check.
func (b *Opened) Check(ctx context.Context, depth string) iter.Seq2[jobs.Finding, error] {
	return jobs.Check(ctx, b.Bucket, &jobs.CheckOptions{Depth: depths[depth]})
}

// Shown returns the bucket's URL without parameters.
func (b *Opened) Shown() string { return b.shown }

// About returns an error of the whole bucket as a [message.Problem].
func (b *Opened) About(err error) error { return b.about(err) }

// Explain returns the words for an error of one object.
func (b *Opened) Explain(seal jobs.KeyRef, err error) message.Words {
	return b.attempt(seal).Words(err)
}

// OfAnotherRing reports whether an object is sealed under a version of another ring.
func (b *Opened) OfAnotherRing(seal jobs.KeyRef) bool { return b.attempt(seal).OfAnotherRing() }
