package main

import (
	"bytes"
	"io"
)

// A contestant encrypts and decrypts whole objects in memory. What its encrypt
// writes is all that its decrypt needs, but for keys and, where its note says
// so, what a service keeps beside the object.
//
// Long-lived keys, and whatever the library lets callers make of them once, are
// set up beforehand, as in a service. What is due for each object, such as a
// nonce, a salt, a data key or a header, is part of the work.
type contestant struct {
	name    string
	peer    bool // another library
	misused bool // it is faster than its documentation allows
	encrypt []way
	decrypt []way
	// decryptOnly: there is no such thing in the other direction.
	decryptOnly bool
	// open prepares random access to what encrypt made; nil if there is none.
	open func(sealed []byte) (io.ReaderAt, error)
}

// A way is one of the forms of a library's API that do the same work. Only the
// one that is fastest at a size takes part there.
type way struct {
	name string
	run  func(dst io.Writer, src []byte) error
}

// seal encrypts p.
func (c *contestant) seal(p []byte) ([]byte, error) {
	var sealed bytes.Buffer
	sealed.Grow(len(p) + len(p)/512 + 1024)
	err := c.encrypt[0].run(&sealed, p)
	return sealed.Bytes(), err
}

// contestants returns all of them, raw first and blobseal's next.
func contestants() ([]*contestant, error) {
	all := []*contestant{newRaw()}
	for _, group := range []func() ([]*contestant, error){blobseals, peers} {
		more, err := group()
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// find returns the contestant of that name.
func find(all []*contestant, name string) *contestant {
	for _, c := range all {
		if c.name == name {
			return c
		}
	}
	panic("bench: no contestant " + name)
}

// sink takes what a contestant makes. It is no io.ReaderFrom, unlike io.Discard,
// whose 8 KiB reads would slow down libraries that only give a Reader.
type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }

// The three ways in which streaming libraries are driven.

// push encrypts or decrypts through a Writer: one Write of everything and Close.
func push(name string, open func(dst io.Writer) (io.WriteCloser, error)) way {
	return way{name, func(dst io.Writer, src []byte) error {
		w, err := open(dst)
		if err != nil {
			return err
		}
		if _, err := w.Write(src); err != nil {
			return err
		}
		return w.Close()
	}}
}

// pushFrom is push through the writer's ReadFrom.
func pushFrom(name string, open func(dst io.Writer) (io.WriteCloser, error)) way {
	return way{name, func(dst io.Writer, src []byte) error {
		w, err := open(dst)
		if err != nil {
			return err
		}
		if _, err := w.(io.ReaderFrom).ReadFrom(bytes.NewReader(src)); err != nil {
			return err
		}
		return w.Close()
	}}
}

// pull encrypts or decrypts through a Reader with io.CopyBuffer. A Reader that
// is an io.WriterTo gets to use it, any other one fills the same buffer again
// and again, which is as large as the largest chunk of the field, but for
// Tink's, so that it allocates nothing and needs few calls.
func pull(name string, open func(src io.Reader) (io.Reader, error)) way {
	buf := make([]byte, 65<<10)
	return way{name, func(dst io.Writer, src []byte) error {
		r, err := open(bytes.NewReader(src))
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(dst, r, buf)
		return err
	}}
}
