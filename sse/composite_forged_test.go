package sse_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/blobseal/blobseal/sse"
)

// forgedObject is a composite object with one fault.
type forgedObject struct {
	comment, result string
	object          []byte
	released        []byte // plaintext of the chunks that verify before the error
}

// forgedObjects are the attacks and the faults that SPEC.md lists, on objects under
// kek. It is long because it is a list.
func forgedObjects(kek []byte, bucket, key string) map[string]forgedObject {
	a, b := bytes.Repeat([]byte{'a'}, 300), bytes.Repeat([]byte{'b'}, 300)
	valid := func() *forge { return newForge(kek).part(1, a).part(2, b) }
	f := valid()
	object := f.object(bucket, key)
	partSize := 68 + 300 + 16
	first, second, trailer := object[:partSize], object[partSize:][:partSize], object[2*partSize:]
	edit := func(edit func(o []byte)) []byte {
		o := bytes.Clone(object)
		edit(o)
		return o
	}
	forged := map[string]forgedObject{}
	add := func(name, comment, result string, object, released []byte) {
		forged[name] = forgedObject{comment, result, object, released}
	}
	byForge := func(name, comment, result string, change func(f *forge)) {
		f := valid()
		change(f)
		add(name, comment, result, f.object(bucket, key), nil)
	}

	// What a store can do.
	add("forge-valid", "an object of the forger, with nothing wrong", "valid", object, slices.Concat(a, b))
	add("dropped", "the first part is missing", "truncated", slices.Concat(second, trailer), nil)
	add("dropped-last", "the last part is missing", "truncated", slices.Concat(first, trailer), nil)
	add("duplicated", "the first part is there twice", "corrupt", slices.Concat(first, first, second, trailer), nil)
	add("reordered", "two parts of one size are swapped", "corrupt", slices.Concat(second, first, trailer), nil)
	add("repeated", "the first part in place of the second", "corrupt", slices.Concat(first, first, trailer), a)
	again := *f
	again.part(2, a)
	add("superseded", "an earlier attempt at the second part", "corrupt", slices.Concat(first, again.stored[2], trailer), a)
	add("superseded-chunk", "the chunk of an earlier attempt under the right head", "corrupt",
		slices.Concat(first, second[:68], again.stored[2][68:], trailer), a)
	other := valid()
	theirs := other.object(bucket, key)
	add("other-upload", "the second part of another upload", "corrupt", slices.Concat(first, other.stored[1], trailer), a)
	add("other-trailer", "the trailer of another upload", "corrupt", slices.Concat(first, second, theirs[2*partSize:]), nil)
	manifest := 56 + 6 + 2*34 + 16
	add("other-manifest", "the manifest of another upload", "corrupt",
		slices.Concat(first, second, theirs[2*partSize:][:manifest], trailer[manifest:]), nil)
	add("other-envelope", "the envelope of another upload", "corrupt",
		slices.Concat(first, second, trailer[:manifest], theirs[2*partSize+manifest:]), nil)
	add("appended", "a byte is appended", "format", append(bytes.Clone(object), 0), nil)
	add("inserted", "a byte before the trailer", "corrupt", slices.Concat(first, second, []byte{0}, trailer), nil)
	add("cut", "a byte before the trailer is missing", "truncated", slices.Concat(first, second[:partSize-1], trailer), nil)
	add("cut-at-part", "cut behind the first part", "format", first, nil)
	add("cut-end", "the last byte is missing", "format", object[:len(object)-1], nil)
	add("prefix-number", "the number in the second part's prefix is wrong", "corrupt", edit(func(o []byte) { o[partSize+11] = 3 }), a)
	add("part-salt", "a bit of the second part's salt is flipped", "corrupt", edit(func(o []byte) { o[partSize+12] ^= 1 }), a)
	add("part-commitment", "a bit of the second part's commitment is flipped", "corrupt", edit(func(o []byte) { o[partSize+67] ^= 1 }), a)
	add("part-tag", "the last bit of the second part is flipped", "corrupt", edit(func(o []byte) { o[2*partSize-1] ^= 1 }), a)
	add("manifest-edited", "a bit of the manifest is flipped", "corrupt", edit(func(o []byte) { o[2*partSize+60] ^= 1 }), nil)
	add("envelope-head", "a bit of the envelope's head is flipped", "key", edit(func(o []byte) { o[len(o)-33] ^= 1 }), nil)
	empty := newForge(kek).part(1, bytes.Repeat(a, 100)[:chunk]).part(2, nil)
	emptyObject := empty.object(bucket, key)
	emptyObject[68+chunk+32+68+15] ^= 1
	add("empty-last-tag", "the tag of the empty last part is wrong", "corrupt", emptyObject, bytes.Repeat(a, 100)[:chunk])

	// What the head says.
	add("head-version-3", "the object begins with version 3", "version", edit(func(o []byte) { o[8] = 3 }), nil)
	add("head-mode", "the object begins with version 2 and a mode", "version", edit(func(o []byte) { o[9] = 1 }), nil)
	add("head-version-1", "the object begins with version 1", "format", edit(func(o []byte) { o[8] = 1 }), nil)
	add("head-magic", "the object begins without magic bytes", "format", edit(func(o []byte) { o[0] = 0 }), nil)

	forgedManifests(add, byForge, kek, bucket, key)
	forgedFooters(add, object)
	forgedEnvelopes(add, byForge, valid, kek, bucket, key)
	return forged
}

// addForged adds an object, and byForge one that a valid forge makes after a change.
type (
	addForged func(name, comment, result string, object, released []byte)
	byForge   func(name, comment, result string, change func(f *forge))
)

// forgedManifests breaks each rule of manifests, which takes the keys.
func forgedManifests(add addForged, byForge byForge, kek []byte, bucket, key string) {
	a, b := bytes.Repeat([]byte{'a'}, 300), bytes.Repeat([]byte{'b'}, 300)
	byForge("no-parts", "n is 0", "format", func(f *forge) {
		f.editEntries = func([]strangerEntry) []strangerEntry { return nil }
	})
	for name, numbers := range map[string][2]uint64{
		"number-0": {0, 2}, "number-10001": {1, 10_001}, "numbers-repeated": {2, 2}, "numbers-descending": {2, 1},
	} {
		add(name, name, "corrupt", newForge(kek).part(numbers[0], a).part(numbers[1], b).object(bucket, key), nil)
	}
	add("empty-first", "an empty part that is not the last", "corrupt", newForge(kek).part(1, nil).part(2, b).object(bucket, key), nil)
	byForge("filler-wrong", "the manifest says a byte of filler that is missing", "truncated", func(f *forge) {
		f.editManifest = func(p []byte) []byte { p[3] = 1; return p }
	})
	byForge("filler-large", "the manifest says 5 MiB of filler", "corrupt", func(f *forge) {
		f.editManifest = func(p []byte) []byte { p[1] = 0x50; return p }
	})
	byForge("manifest-longer", "the manifest has a byte left over", "corrupt", func(f *forge) {
		f.editManifest = func(p []byte) []byte { return append(p, 0) }
	})
	byForge("manifest-counts-more", "the manifest has one entry less than it says", "corrupt", func(f *forge) {
		f.editManifest = func(p []byte) []byte { p[5]++; return p }
	})
	byForge("size-2^52", "a part of 2^52 bytes", "corrupt", func(f *forge) {
		f.editManifest = func(p []byte) []byte { binary.BigEndian.PutUint64(p[8:], 1<<52); return p }
	})
	byForge("size-2^63", "a part of 2^63 bytes", "corrupt", func(f *forge) {
		f.editManifest = func(p []byte) []byte { binary.BigEndian.PutUint64(p[8:], 1<<63); return p }
	})
	byForge("sum-2^52", "parts of 2^52 bytes in total", "corrupt", func(f *forge) {
		f.editManifest = func(p []byte) []byte {
			binary.BigEndian.PutUint64(p[8:], 1<<51)
			binary.BigEndian.PutUint64(p[8+34:], 1<<51)
			return p
		}
	})
	byForge("entry-swapped", "the manifest names the salts in the wrong order", "corrupt", func(f *forge) {
		f.editEntries = func(e []strangerEntry) []strangerEntry {
			e[0].salt, e[1].salt = e[1].salt, e[0].salt
			return e
		}
	})
}

// forgedFooters breaks each field of the footer.
func forgedFooters(add addForged, object []byte) {
	footer := func(name, comment, result string, edit func(f []byte)) {
		o := bytes.Clone(object)
		edit(o[len(o)-32:])
		add("footer-"+name, comment, result, o, nil)
	}
	put := binary.BigEndian.PutUint32
	footer("size", "the plaintext size is wrong", "corrupt", func(f []byte) { f[7] ^= 1 })
	footer("size-2^52", "the plaintext size is 2^52", "format", func(f []byte) { f[1] |= 0x10 })
	footer("manifest-size", "the manifest begins a byte early", "corrupt", func(f []byte) { f[11]++ })
	footer("manifest-small", "the manifest has 111 bytes", "format", func(f []byte) { put(f[8:], 111) })
	footer("manifest-large", "the manifest has 340,399 bytes", "format", func(f []byte) { put(f[8:], 340_399) })
	footer("manifest-room", "the manifest leaves no room for a part", "format", func(f []byte) { put(f[8:], 2000) })
	footer("envelope-size", "the envelope begins a byte early", "format", func(f []byte) { f[15]++ })
	footer("envelope-large", "the envelope has 65,537 bytes", "format", func(f []byte) { put(f[12:], 65_537) })
	footer("envelope-none", "the envelope has no bytes", "format", func(f []byte) { put(f[12:], 0) })
	footer("version-1", "the footer has version 1", "format", func(f []byte) { f[16] = 1 })
	footer("version-3", "the footer has version 3", "format", func(f []byte) { f[16] = 3 })
	footer("zeros", "a reserved byte is not zero", "format", func(f []byte) { f[23] = 1 })
	footer("magic", "the magic bytes are wrong", "format", func(f []byte) { f[31] = 0 })
}

// forgedEnvelopes puts wrong envelopes into the trailer.
func forgedEnvelopes(add addForged, byForge byForge, valid func() *forge, kek []byte, bucket, key string) {
	byForge("envelope-version-1", "the envelope has version 1", "version", func(f *forge) { f.version = 1 })
	byForge("envelope-version-3", "the envelope has version 3", "version", func(f *forge) { f.version = 3 })
	byForge("padding", "the padding is not zero", "format", func(f *forge) { f.padding = []byte{0, 1, 0} })
	byForge("padded", "the padding is zero", "valid", func(f *forge) { f.padding = make([]byte, 3) })
	byForge("keeper-as-object", "the sealed key has the label of a keeper", "key", func(f *forge) { f.sealLabel = "sealed manifest key" })
	byForge("head-label", "the head has the context of something else", "key", func(f *forge) {
		f.headLabel = "part"
		f.start()
	})
	byForge("v1-seal", "the data key is sealed as in version 1", "key", func(f *forge) {
		sealed := strangerSeal(kek, f.dek, strangerBinding(3, "", "", bucket, key, "", f.head))
		f.envelope = layout{magic: []byte("\x89SSE\r\n\x1a\n"), version: 2, mode: 3, sealed: sealed, head: f.head}.bytes()
	})
	byForge("part-prefix-as-envelope", "an envelope of mode 0", "format", func(f *forge) {
		f.envelope = layout{magic: []byte("\x89SSE\r\n\x1a\n"), version: 2, mode: 0, sealed: make([]byte, 104), head: f.head}.bytes()
	})
	add("renamed", "an object of another name", "key", valid().object(bucket, key+"2"), nil)
	add("other-key", "under another KEK", "key", newForge(strangerRandom(32)).part(1, []byte("x")).object(bucket, key), nil)
}

// generateInvalidComposites makes vectors of forged objects.
func generateInvalidComposites(t *testing.T) {
	kek := randomBytes(32)
	for name, f := range forgedObjects(kek, "photos", "2026/cat.jpg") {
		v := compositeVector{vector: vector{Comment: f.comment, Mode: sse.ModeCustomer, Bucket: "photos", Key: "2026/cat.jpg", KEK: kek, Object: f.object}}
		released := f.released
		if f.result == "valid" {
			v.Parts = [][2]int{{1, 300}, {2, 300}}
			released = slices.Concat(bytes.Repeat([]byte{'a'}, 300), bytes.Repeat([]byte{'b'}, 300))
		}
		v.vector = withPlaintext(v.vector, f.result, released)
		saveV2(t, "forged-"+name, v)
	}
	u, object := compositeOf(t, newCustomer(t, kek), sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}, 5)
	v := compositeVector{vector: vector{Comment: "opened by a decrypter of SSE-KMS", Mode: sse.ModeKMS, Bucket: "photos", Key: "2026/cat.jpg", KEK: kek, Object: object}}
	v.vector = withPlaintext(v.vector, "mode", nil)
	saveV2(t, "customer-mode", v)
	_ = u
}
