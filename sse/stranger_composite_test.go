package sse_test

// This is section 16 of SPEC.md, executed from that document alone: a reader of
// whole composite objects, and a forger of valid and invalid ones. See
// stranger_test.go.

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

const strangerV2 = "github.com/blobseal/blobseal/v2 "

// strangerEntry is a part as the manifest lists it.
type strangerEntry struct {
	number, size uint64
	salt         []byte
}

func (e strangerEntry) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(e.number))
	return append(binary.BigEndian.AppendUint64(b, e.size), e.salt...)
}

func strangerBody(p uint64) uint64 { return p + 16*(p/16384+1) }

func strangerManifestKey(dek, uploadID []byte) []byte {
	return must(hkdf.Expand(sha512.New, dek, strangerV2+"manifest key\x00"+string(uploadID), 32))
}

func strangerPartContext(uploadID []byte, number uint64) string {
	return strangerV2 + "part\x00" + string(uploadID) + string(binary.BigEndian.AppendUint16(nil, uint16(number)))
}

// strangerHead is what a part stores before its chunks.
func strangerHead(dek, uploadID []byte, e strangerEntry) []byte {
	_, _, commitment := strangerMessage(dek, e.salt, strangerPartContext(uploadID, e.number))
	prefix := binary.BigEndian.AppendUint16([]byte("\x89SSE\r\n\x1a\n\x02\x00"), uint16(e.number))
	return append(append(prefix, e.salt...), commitment...)
}

// openComposite reads a composite object. It releases whole chunks until an error.
func (s stranger) openComposite(object []byte, bucket, key string, stated map[string]string) (plain []byte, result string) {
	if !bytes.HasPrefix(object, []byte("\x89SSE\r\n\x1a\n")) || len(object) < 10 || object[8] == 1 {
		return nil, "format"
	}
	if object[8] != 2 || object[9] != 0 {
		return nil, "version"
	}
	f := strangerFields{data: object[max(0, len(object)-32):]}
	size, manifestSize, envelopeSize := f.uint(8), f.uint(4), f.uint(4)
	version, zeros, end := f.uint(1), f.take(7), string(f.take(8))
	if f.bad || end != "\x89END\r\n\x1a\n" || version != 2 || strings.Trim(string(zeros), "\x00") != "" ||
		size >= 1<<52 || manifestSize < 112 || manifestSize > 340398 || envelopeSize > 65536 ||
		84+manifestSize+envelopeSize+32 > uint64(len(object)) {
		return nil, "format"
	}
	trailer := object[uint64(len(object))-32-envelopeSize-manifestSize:]
	head, dek, result := s.openEnvelope(trailer[manifestSize:][:envelopeSize], bucket, key, stated)
	if result != "valid" {
		return nil, result
	}
	uploadID := head[:24]
	manifest, result := strangerOpen(strangerManifestKey(dek, uploadID), trailer[:manifestSize], strangerV2+"manifest")
	if result != "valid" {
		return nil, "corrupt"
	}
	f = strangerFields{data: manifest}
	filler, n := f.uint(4), f.uint(2)
	var entries []strangerEntry
	sum, stored, last := uint64(0), filler+manifestSize+envelopeSize+32, uint64(0)
	bad := n < 1 || n > 10000 || filler >= 5<<20
	for i := uint64(0); i < n && !f.bad; i++ {
		e := strangerEntry{f.uint(2), f.uint(8), f.take(24)}
		bad = bad || e.number <= last || e.number > 10000 || e.size == 0 && i < n-1 || e.size >= 1<<52
		last = e.number
		sum += min(e.size, 1<<52)
		stored += 68 + strangerBody(e.size)
		entries = append(entries, e)
	}
	if bad || f.bad || len(f.data) > 0 || sum >= 1<<52 || sum != size || stored < uint64(len(object)) {
		return nil, "corrupt"
	}
	if stored > uint64(len(object)) {
		return nil, "truncated"
	}
	for _, e := range entries {
		head := strangerHead(dek, uploadID, e)
		part := object[:68+strangerBody(e.size)]
		object = object[len(part):]
		if !bytes.Equal(part[:68], head) {
			return plain, "corrupt"
		}
		p, result := strangerOpen(dek, part[12:], strangerPartContext(uploadID, e.number))
		if plain = append(plain, p...); result != "valid" {
			return plain, "corrupt"
		}
	}
	return plain, "valid"
}

// openEnvelope opens the data key of an envelope of version 2.
func (s stranger) openEnvelope(envelope []byte, bucket, key string, stated map[string]string) (head, dek []byte, result string) {
	f := strangerFields{data: envelope}
	magic, version, mode, size := string(f.take(8)), f.uint(1), byte(f.uint(1)), f.uint(4)
	if magic != "\x89SSE\r\n\x1a\n" {
		return nil, nil, "format"
	}
	if version != 2 {
		return nil, nil, "version"
	}
	if mode < 1 || mode > 3 || size != uint64(len(envelope)) || len(envelope) < 14+56 {
		return nil, nil, "format"
	}
	head = envelope[len(envelope)-56:]
	f.data = envelope[14 : len(envelope)-56]
	keyID, wrapped, sealed, pairs := f.str16(), f.str16(), f.take(104), f.str16()
	context := map[string]string{}
	for p := (strangerFields{data: []byte(pairs)}); len(p.data) > 0; {
		name, value := p.str16(), p.str16()
		if p.bad || !utf8.ValidString(name+value) {
			return nil, nil, "format"
		}
		if !strings.HasPrefix(name, "blobseal:") {
			context[name] = value
		}
	}
	if f.bad || (mode == 3) != (keyID == "") || (mode == 2) != (wrapped != "") || len(bytes.Trim(f.data, "\x00")) > 0 {
		return nil, nil, "format"
	}
	if mode != s.mode {
		return nil, nil, "mode"
	}
	kek := s.kek(keyID)
	if kek == nil {
		return nil, nil, "key"
	}
	for name, value := range stated {
		if context[name] != value || len(stated) != len(context) {
			return nil, nil, "key"
		}
	}
	dek, result = strangerOpen(kek, sealed, strangerBindingV2("sealed data key", mode, keyID, wrapped, bucket, key, pairs, head))
	if result != "valid" {
		return nil, nil, "key"
	}
	_, _, commitment := strangerMessage(dek, head[:24], strangerV2+"composite")
	if !bytes.Equal(commitment, head[24:]) {
		return nil, nil, "key"
	}
	return head, dek, "valid"
}

func strangerBindingV2(label string, mode byte, keyID, wrapped, bucket, key, pairs string, head []byte) string {
	return strangerV2 + label + "\x02" + string(mode) + strangerStr16(keyID) + strangerStr16(wrapped) +
		strangerStr16(bucket) + strangerStr16(key) + strangerStr16(pairs) + string(head)
}

// forge makes composite objects in mode 3, valid ones unless told otherwise.
type forge struct {
	kek, dek, uploadID []byte
	head               []byte
	entries            []strangerEntry
	stored             [][]byte
	filler             int

	editEntries  func(entries []strangerEntry) []strangerEntry
	editManifest func(plain []byte) []byte
	editFooter   func(footer []byte)
	sealLabel    string
	headLabel    string
	version      byte
	padding      []byte
	envelope     []byte // in place of the right one
}

func newForge(kek []byte) *forge {
	f := &forge{kek: kek, dek: strangerRandom(32), sealLabel: "sealed data key", headLabel: "composite", version: 2}
	return f.start()
}

func (f *forge) start() *forge {
	f.uploadID = strangerRandom(24)
	_, _, commitment := strangerMessage(f.dek, f.uploadID, strangerV2+f.headLabel)
	f.head = append(bytes.Clone(f.uploadID), commitment...)
	return f
}

// part adds a part.
func (f *forge) part(number uint64, plain []byte) *forge {
	message := strangerSeal(f.dek, plain, strangerPartContext(f.uploadID, number))
	e := strangerEntry{number, uint64(len(plain)), message[:24]}
	f.entries = append(f.entries, e)
	f.stored = append(f.stored, append(strangerHead(f.dek, f.uploadID, e), message[56:]...))
	return f
}

func (f *forge) object(bucket, key string) []byte {
	entries := f.entries
	if f.editEntries != nil {
		entries = f.editEntries(bytesClone(entries))
	}
	plain := binary.BigEndian.AppendUint32(nil, uint32(f.filler))
	plain = binary.BigEndian.AppendUint16(plain, uint16(len(entries)))
	sum := uint64(0)
	for _, e := range entries {
		plain = append(plain, e.bytes()...)
		sum += e.size
	}
	if f.editManifest != nil {
		plain = f.editManifest(plain)
	}
	manifest := strangerSeal(strangerManifestKey(f.dek, f.uploadID), plain, strangerV2+"manifest")
	envelope := f.envelope
	if envelope == nil {
		sealed := strangerSeal(f.kek, f.dek, strangerBindingV2(f.sealLabel, 3, "", "", bucket, key, "", f.head))
		envelope = layout{magic: []byte("\x89SSE\r\n\x1a\n"), version: f.version, mode: 3, sealed: sealed, padding: f.padding, head: f.head}.bytes()
	}
	object := bytes.Join(f.stored, nil)
	object = append(object, make([]byte, f.filler)...)
	object = withFooter(append(append(object, manifest...), envelope...), int64(sum), len(manifest), len(envelope))
	if f.editFooter != nil {
		f.editFooter(object[len(object)-32:])
	}
	return object
}

func bytesClone(entries []strangerEntry) []strangerEntry {
	return append([]strangerEntry(nil), entries...)
}
