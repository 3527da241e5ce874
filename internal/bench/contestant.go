package main

import (
	"bytes"
	"io"
)

// A contestant encrypts and decrypts whole objects in memory. Its decrypt needs only the
// output of its encrypt, keys, and, if its note says so, data that a service stores
// apart from the object.
//
// Long-lived keys, and what the library lets callers derive from them once, are set up
// beforehand, as in a service. Whatever each object needs, such as a nonce, a salt, a
// data key or a header, is part of the work.
type contestant struct {
	name    string
	peer    bool // another library
	misused bool // used in a faster way than its documentation allows
	encrypt []way
	decrypt []way
	// decryptOnly means that the contestant does not encrypt.
	decryptOnly bool
	// open prepares random access to what encrypt made; nil if there is none.
	open func(sealed []byte) (io.ReaderAt, error)
}

// A way is one of several forms of a library's API for the same work. At each size, only
// the fastest takes part.
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

// contestants returns all contestants: raw first, then blobseal's.
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

// find returns the contestant with a name.
func find(all []*contestant, name string) *contestant {
	for _, c := range all {
		if c.name == name {
			return c
		}
	}
	panic("bench: no contestant " + name)
}

// sink discards the output of a contestant. Unlike io.Discard, it is no io.ReaderFrom:
// reads of 8 KiB would slow down libraries that only offer a Reader.
type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }

// There are three ways to use a streaming library.

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

// pushFrom is push with the writer's ReadFrom.
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

// pull encrypts or decrypts through a Reader with io.CopyBuffer, which uses WriteTo if the
// Reader has it. Otherwise it reuses a buffer of the size of the largest chunk of all
// libraries but Tink, so that it allocates nothing and needs few calls.
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
