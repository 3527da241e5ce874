package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

const (
	customerName = "blobseal, customer key"
	managedName  = "blobseal, managed"
	preparedName = "blobseal, key at hand"
	objectBucket = "photos"
	objectKey    = "2026/09/cat.jpg"
)

var object = sse.Object{Bucket: objectBucket, Key: objectKey}

// blobseals returns this library in its modes and forms.
func blobseals() ([]*contestant, error) {
	ctx := context.Background()
	customer, err := sse.NewCustomer(randomBytes(32))
	if err != nil {
		return nil, err
	}
	root, err := keyring.NewKeyRoot(randomBytes(32))
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		return nil, err
	}
	managed := sse.NewManaged(ring)
	return []*contestant{
		detached(customerName, customer),
		detached(managedName, managed),
		selfContained("blobseal, self-contained", managed),
		prepared(preparedName, customer),
	}, nil
}

// detached returns the primary form, with a key phase for each object in both directions
// and the body as a stream. It stores the envelope apart from the body, as a service with
// a metadata store does, and keeps the last one.
func detached(name string, cipher sse.Cipher) *contestant {
	ctx := context.Background()
	var env *sse.Envelope
	writer := func(dst io.Writer) (io.WriteCloser, error) {
		e, err := cipher.Encrypt(ctx, object)
		if err != nil {
			return nil, err
		}
		env = e.Envelope()
		return e.Writer(dst), nil
	}
	return &contestant{
		name: name,
		encrypt: []way{
			push("Writer.Write", writer),
			pushFrom("Writer.ReadFrom", writer),
			pull("Reader.WriteTo", func(src io.Reader) (io.Reader, error) {
				e, err := cipher.Encrypt(ctx, object)
				if err != nil {
					return nil, err
				}
				env = e.Envelope()
				return e.Reader(src), nil
			}),
		},
		decrypt: []way{pull("Reader.WriteTo", func(src io.Reader) (io.Reader, error) {
			d, err := cipher.Decrypt(ctx, object, env)
			if err != nil {
				return nil, err
			}
			return d.Reader(src), nil
		})},
		open: func(sealed []byte) (io.ReaderAt, error) {
			d, err := cipher.Decrypt(ctx, object, env)
			if err != nil {
				return nil, err
			}
			return d.ReaderAt(bytes.NewReader(sealed), int64(len(sealed)))
		},
	}
}

// selfContained returns the form with the envelope in front of the body.
func selfContained(name string, cipher sse.Cipher) *contestant {
	ctx := context.Background()
	return &contestant{
		name: name,
		encrypt: []way{push("NewWriter", func(dst io.Writer) (io.WriteCloser, error) {
			return sse.NewWriter(ctx, dst, cipher, object, nil)
		})},
		decrypt: []way{pull("NewReader", func(src io.Reader) (io.Reader, error) {
			return sse.NewReader(ctx, src, cipher, object)
		})},
	}
}

// prepared returns a contestant that decrypts with one Decryption, as a service that
// serves the same object many times does.
func prepared(name string, cipher sse.Cipher) *contestant {
	ctx := context.Background()
	var d *sse.Decryption
	return &contestant{
		name:        name,
		decryptOnly: true,
		encrypt: []way{push("Writer.Write", func(dst io.Writer) (io.WriteCloser, error) {
			e, err := cipher.Encrypt(ctx, object)
			if err != nil {
				return nil, err
			}
			d, err = cipher.Decrypt(ctx, object, e.Envelope())
			return e.Writer(dst), err
		})},
		decrypt: []way{pull("Reader.WriteTo", func(src io.Reader) (io.Reader, error) {
			return d.Reader(src), nil
		})},
	}
}

func randomBytes(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}
