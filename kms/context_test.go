package kms_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

// TestAssociatedData freezes the encoding, which stored data keys are bound to.
func TestAssociatedData(t *testing.T) {
	for _, c := range []struct {
		ec   kms.Context
		want string
	}{
		{nil, "00000000"},
		{kms.Context{}, "00000000"},
		{kms.Context{"": ""}, "00000001" + "00000000" + "00000000"},
		{kms.Context{"b": "2", "a": "1é"}, "00000002" + "00000001" + "61" + "00000003" + "31c3a9" + "00000001" + "62" + "00000001" + "32"},
		{kms.Context{"a": "", "B": "\x00"}, "00000002" + "00000001" + "42" + "00000001" + "00" + "00000001" + "61" + "00000000"},
	} {
		require.Equal(t, hex.EncodeToString([]byte("blobseal kms context v1\x00"))+c.want, hex.EncodeToString(c.ec.AssociatedData()))
	}
}

// decode inverts the encoding. It returns false for what encodes no context.
func decode(b []byte) (kms.Context, bool) {
	b, ok := bytes.CutPrefix(b, []byte("blobseal kms context v1\x00"))
	number := func() uint32 {
		if len(b) < 4 {
			ok = false
			return 0
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		return n
	}
	text := func() string {
		n := number()
		if uint64(n) > uint64(len(b)) {
			ok = false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	ec, last := kms.Context{}, ""
	count := number()
	for i := uint32(0); i < count && ok; i++ {
		k := text()
		if i > 0 && k <= last {
			ok = false
		}
		last, ec[k] = k, text()
	}
	return ec, ok && len(b) == 0
}

// FuzzAssociatedData: each context has one encoding, and no other context has it.
func FuzzAssociatedData(f *testing.F) {
	f.Add("a", "1", "b", "2", []byte("blobseal kms context v1\x00\x00\x00\x00\x00"))
	f.Add("", "", "\x00", "é", []byte("blobseal kms context v1\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string, raw []byte) {
		a, b := kms.Context{k1: v1, k2: v2}, kms.Context{k1 + v1: k2 + v2}
		for _, ec := range []kms.Context{a, b} {
			got, ok := decode(ec.AssociatedData())
			if !ok || !maps.Equal(got, ec) {
				t.Fatalf("%q is decoded as %q, %v", ec, got, ok)
			}
		}
		if !maps.Equal(a, b) && bytes.Equal(a.AssociatedData(), b.AssociatedData()) {
			t.Fatalf("%q and %q are one", a, b)
		}
		if ec, ok := decode(raw); ok && !bytes.Equal(ec.AssociatedData(), raw) {
			t.Fatalf("%q has two encodings", ec)
		}
	})
}
