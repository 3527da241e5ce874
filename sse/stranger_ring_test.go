package sse_test

// A writer of ring documents, from SPEC.md alone: also of documents that
// package keyring would not write.

import (
	"encoding/binary"
	"fmt"
)

// strangerVersion is a version of a ring as a document has it.
type strangerVersion struct {
	id               uint32
	state            byte
	created, changed uint64
	master           []byte
}

// strangerRingParts is a ring document in parts, each of which a test may break.
type strangerRingParts struct {
	magic      string
	id         []byte
	generation uint64
	period     uint32
	primary    uint32
	versions   []strangerVersion
	root       func(keyset, associatedData string) string

	keysetPrimary uint32
	typeURL       string
	hash          uint64
	salt          string
	status        func(state byte) uint64
	keysetTail    string
	dropKey       bool // the first one

	sealed     string // the encrypted keyset, if it is fixed
	wrapSealed func(sealed string) string
	finish     func(doc []byte) []byte // instead of the checksum
}

func newStrangerRing(rootKey []byte) *strangerRingParts {
	r := &strangerRingParts{
		magic: strangerRingMagic + "\x01", id: strangerRandom(8), generation: 7, period: 86400, primary: 0xF00DCAFE,
		keysetPrimary: 0xF00DCAFE, typeURL: strangerTypeURL, hash: 3,
		status:     func(state byte) uint64 { return uint64(state) },
		wrapSealed: func(sealed string) string { return strangerText(2, sealed) },
		finish:     checksum,
	}
	for i, state := range []byte{1, 2, 3, 1} {
		r.versions = append(r.versions, strangerVersion{
			id: []uint32{1, 2, 0xFFFFFFFF, r.primary}[i], state: state,
			created: 1_790_000_000_000 + uint64(i), changed: 1_790_000_000_010 + uint64(i), master: strangerRandom(32),
		})
	}
	r.root = func(keyset, ad string) string {
		return string(strangerSeal(rootKey, []byte(keyset), strangerV1+"key root\x00"+ad))
	}
	return r
}

func (r *strangerRingParts) metadata() string {
	b := append([]byte(nil), r.id...)
	b = binary.BigEndian.AppendUint64(b, r.generation)
	b = binary.BigEndian.AppendUint32(b, r.period)
	b = binary.BigEndian.AppendUint32(b, r.primary)
	for _, v := range r.versions {
		b = append(binary.BigEndian.AppendUint32(b, v.id), v.state)
		b = binary.BigEndian.AppendUint64(b, v.created)
		b = binary.BigEndian.AppendUint64(b, v.changed)
	}
	return string(b)
}

func (r *strangerRingParts) keyset() string {
	var keys []string
	for _, v := range r.versions {
		if v.state == 3 {
			continue
		}
		params := strangerInt(1, r.hash)
		if r.salt != "" {
			params += strangerText(2, r.salt)
		}
		prf := strangerText(2, params) + strangerText(3, string(v.master))
		data := strangerText(1, r.typeURL) + strangerText(2, prf) + strangerInt(3, 1)
		keys = append(keys, strangerText(2, strangerText(1, data)+strangerInt(2, r.status(v.state))+strangerInt(3, uint64(v.id))+strangerInt(4, 3)))
	}
	if r.dropKey {
		keys = keys[1:]
	}
	keyset := strangerInt(1, uint64(r.keysetPrimary))
	for _, k := range keys {
		keyset += k
	}
	return keyset + r.keysetTail
}

func (r *strangerRingParts) document() []byte {
	sealed := r.sealed
	if sealed == "" {
		sealed = r.root(r.keyset(), strangerRingData(1, r.metadata()))
	}
	return r.finish([]byte(r.magic + u24(r.metadata()) + u24(r.wrapSealed(sealed))))
}

func (r *strangerRingParts) keyID(v strangerVersion) string {
	return fmt.Sprintf("%x.%08x", r.id, v.id)
}

func (r *strangerRingParts) keks() map[string]hexBytes {
	keks := map[string]hexBytes{}
	for _, v := range r.versions {
		if v.state == 1 {
			keks[r.keyID(v)] = strangerKEK(v.master)
		}
	}
	return keks
}

func (r *strangerRingParts) unusable() (ids []string) {
	for _, v := range r.versions {
		if v.state != 1 {
			ids = append(ids, r.keyID(v))
		}
	}
	return ids
}

// brokenRings are documents that break one sentence of SPEC.md each.
var brokenRings = map[string]struct {
	comment, result string
	edit            func(r *strangerRingParts)
}{
	"magic":      {"no magic bytes", "damaged", func(r *strangerRingParts) { r.magic = "\x89KRG\r\n\x1a\r\x01" }},
	"version":    {"another version, whose checksum does not match", "version", func(r *strangerRingParts) { r.magic = "\x89KRG\r\n\x1a\n\x63"; r.finish = finishWith("") }},
	"checksum":   {"the checksum does not match", "damaged", func(r *strangerRingParts) { r.finish = finishWith("") }},
	"cut":        {"the last byte is missing", "damaged", func(r *strangerRingParts) { r.finish = func(d []byte) []byte { d = checksum(d); return d[:len(d)-1] } }},
	"appended":   {"a byte before the checksum", "damaged", func(r *strangerRingParts) { r.finish = func(d []byte) []byte { return checksum(append(d, 0)) } }},
	"generation": {"generation 0", "damaged", func(r *strangerRingParts) { r.generation = 0 }},
	"period":     {"a period of 59 seconds", "damaged", func(r *strangerRingParts) { r.period = 59 }},
	"period-max": {"a period of more than ten years", "damaged", func(r *strangerRingParts) { r.period = 315_360_001 }},
	"primary":    {"the primary is no version", "damaged", func(r *strangerRingParts) { r.primary, r.keysetPrimary = 5, 5 }},
	"primary-disabled": {"the primary is disabled", "damaged", func(r *strangerRingParts) {
		r.primary, r.keysetPrimary = 2, 2
	}},
	"no-versions":  {"no versions", "damaged", func(r *strangerRingParts) { r.versions = nil }},
	"twice":        {"two versions have one id", "damaged", func(r *strangerRingParts) { r.versions[0].id = 2 }},
	"state":        {"a version in state 4", "damaged", func(r *strangerRingParts) { r.versions[0].state = 4 }},
	"time":         {"a time in the year 10000", "damaged", func(r *strangerRingParts) { r.versions[0].created = 253_402_300_800_000 }},
	"edited":       {"metadata that was edited, with a checksum that matches", "root", func(r *strangerRingParts) { r.finish = func(d []byte) []byte { d[27]++; return checksum(d) } }},
	"keyset-empty": {"no keyset", "damaged", func(r *strangerRingParts) { r.wrapSealed = func(string) string { return "" } }},
	"keyset-encoding": {"the encrypted keyset has another encoding", "damaged", func(r *strangerRingParts) {
		r.wrapSealed = func(s string) string { return strangerText(2, s) + strangerText(3, "") }
	}},
	"keyset-chunk": {"the last bit of the encrypted keyset is flipped", "damaged", func(r *strangerRingParts) {
		r.finish = func(d []byte) []byte { d[len(d)-1] ^= 1; return checksum(d) }
	}},
	"keyset-short":   {"the encrypted keyset is shorter than a head", "root", func(r *strangerRingParts) { r.sealed = "short" }},
	"keyset-primary": {"the keyset has another primary", "damaged", func(r *strangerRingParts) { r.keysetPrimary = 1 }},
	"keyset-missing": {"the keyset lacks a key", "damaged", func(r *strangerRingParts) { r.dropKey = true }},
	"keyset-status":  {"the keyset has a disabled version enabled", "damaged", func(r *strangerRingParts) { r.status = func(byte) uint64 { return 1 } }},
	"key-type":       {"keys of another type", "damaged", func(r *strangerRingParts) { r.typeURL = "type.googleapis.com/google.crypto.tink.HmacPrfKey" }},
	"key-hash":       {"keys of another hash", "damaged", func(r *strangerRingParts) { r.hash = 4 }},
	"key-salt":       {"keys with a salt", "damaged", func(r *strangerRingParts) { r.salt = "salt" }},
	"key-length":     {"a master key of 64 bytes", "damaged", func(r *strangerRingParts) { r.versions[0].master = strangerRandom(64) }},
}

func finishWith(sum string) func([]byte) []byte {
	return func(doc []byte) []byte { return append(doc, fmt.Sprintf("%-32s", sum)...) }
}
