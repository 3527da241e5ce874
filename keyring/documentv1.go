package keyring

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// Documents of version 1 are read for ever and no longer written. Their metadata is
//
//	ring        [8]byte
//	generation  uint64
//	period      uint32
//	primary     uint32   Tink id of the primary, which is enabled
//	versions    1 to 4096 times, up to the end of metadata, oldest first:
//	  id          uint32
//	  state       uint8
//	  created     uint64
//	  changed     uint64
//
// and the rest is as in version 2.
//
// A version's number is its place in the list. A disabled version gets a mark that is
// derived from its id and time. So two documents that grew from the same document of
// version 1 have the same numbers and marks.
const (
	versionSizeV1 = 4 + 1 + 8 + 8
	markLabelV1   = "github.com/blobseal/blobseal/v1 keyring mark\x00"
)

func (m *metadata) parseV1(s cryptobyte.String) error {
	var seconds, primary uint32
	if !s.CopyBytes(m.ring[:]) || !s.ReadUint64(&m.generation) || !s.ReadUint32(&seconds) || !s.ReadUint32(&primary) {
		return errors.New("metadata is cut short")
	}
	m.legacy = true
	m.period = time.Duration(seconds) * time.Second
	if len(s)%versionSizeV1 != 0 || len(s) == 0 || len(s)/versionSizeV1 > maxVersions {
		return fmt.Errorf("%d bytes of versions", len(s))
	}
	m.versions = make([]version, len(s)/versionSizeV1)
	for i := range m.versions {
		var state uint8
		v := &m.versions[i]
		v.number = uint64(i + 1)
		s.ReadUint32(&v.id) // the length was checked
		s.ReadUint8(&state)
		v.state = stateOf(state)
		s.ReadUint64(&v.created)
		s.ReadUint64(&v.changed)
		if v.state == Disabled {
			v.disabled = []mark{m.markV1(*v)}
		}
	}
	// Every release made the newest version the primary, but the format allows any.
	if p := m.find(primary); p != nil && p != m.primary() {
		p.number = uint64(len(m.versions) + 1)
		slices.SortFunc(m.versions, version.compare)
	}
	if m.primary().id != primary {
		return fmt.Errorf("primary %08x is not listed", primary)
	}
	return m.validate()
}

func (m *metadata) markV1(v version) (out mark) {
	b := append([]byte(markLabelV1), m.ring[:]...)
	b = binary.BigEndian.AppendUint32(b, v.id)
	b = binary.BigEndian.AppendUint64(b, v.changed)
	sum := sha256.Sum256(b)
	copy(out[:], sum[:])
	return out
}
