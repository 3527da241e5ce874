package keyring

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

var is = errors.Is

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)

func testRoot(t testing.TB) tink.AEADWithContext {
	root, err := NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	return root
}

// testDraft is a ring with a version in each state and the primary last.
func testDraft(t testing.TB) *draft {
	d, err := newDraft(defaultPeriod, testTime)
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, d.rotate(testTime.Add(time.Duration(i)*time.Hour)))
		d.generation++
	}
	for i, state := range []State{Disabled, Destroyed} {
		_, err := d.setState(d.versions[i].id, state, d.dateOfChange(testTime.Add(100*time.Hour), false))
		require.NoError(t, err)
	}
	return d
}

func seal(t testing.TB, d *draft) []byte {
	data, _, err := format{}.Seal(t.Context(), testRoot(t), d, d.generation)
	require.NoError(t, err)
	return data
}

func snapshotOf(t testing.TB, d *draft) *snapshot {
	s, err := newSnapshot(d)
	require.NoError(t, err)
	return s
}

func TestDocumentRoundTrip(t *testing.T) {
	d := testDraft(t)
	data := seal(t, d)
	parsed, err := parseDocument(data)
	require.NoError(t, err)
	d.generation = 4
	require.Equal(t, d.metadata, parsed.metadata)
	again, err := parsed.marshal()
	require.NoError(t, err)
	require.Equal(t, data, again)

	o, err := format{}.Open(t.Context(), testRoot(t), data, nil)
	require.NoError(t, err)
	handle, err := o.handle()
	require.NoError(t, err)
	require.Equal(t, 3, handle.Len(), "the destroyed version is not in the keyset")
	s := snapshotOf(t, o)
	require.Len(t, s.keys, 2)
	require.Len(t, s.versions, 4)
}

// The layout, written out by hand.
func TestDocumentLayout(t *testing.T) {
	d := testDraft(t)
	d.watermark, d.changes = 0, 7
	data := seal(t, d)
	parsed, err := parseDocument(data)
	require.NoError(t, err)

	var meta []byte
	meta = append(meta, d.ring[:]...)
	meta = binary.BigEndian.AppendUint64(meta, 4)
	meta = binary.BigEndian.AppendUint64(meta, 0)
	meta = binary.BigEndian.AppendUint32(meta, 90*24*60*60)
	meta = binary.BigEndian.AppendUint64(meta, 7)
	for i, v := range d.versions {
		meta = binary.BigEndian.AppendUint64(meta, uint64(i+1))
		meta = binary.BigEndian.AppendUint32(meta, v.id)
		meta = append(meta, []byte{2, 3, 1, 1}[i])
		created := testTime.UnixMilli() + []int64{0, 0, 3_600_000, 7_200_000}[i]
		changed := created
		if i < 2 {
			changed = testTime.UnixMilli() + 360_000_000
		}
		meta = binary.BigEndian.AppendUint64(meta, uint64(created))
		meta = binary.BigEndian.AppendUint64(meta, uint64(changed))
		for _, marks := range [][]mark{v.disabled, v.enabled} {
			meta = binary.BigEndian.AppendUint16(meta, uint16(8*len(marks)))
			for _, m := range marks {
				meta = append(meta, m[:]...)
			}
		}
	}
	require.Len(t, d.versions[0].disabled, 1)
	want := append([]byte("\x89KRG\r\n\x1a\n\x02\x00\x00"), byte(len(meta)))
	want = append(want, meta...)
	headSum := sha256.Sum256(want)
	head, err := d.head()
	require.NoError(t, err)
	require.Equal(t, append([]byte("github.com/blobseal/blobseal/v1 keyring document\x00"), headSum[:]...), associatedData(head))
	want = append(want, 0, byte(len(parsed.keyset)>>8), byte(len(parsed.keyset)))
	want = append(want, parsed.keyset...)
	sum := sha256.Sum256(want)
	want = append(want, sum[:]...)
	require.Equal(t, want, data)
}

func TestKEKIsHKDFOfMasterKey(t *testing.T) {
	data := seal(t, testDraft(t))
	o, err := format{}.Open(t.Context(), testRoot(t), data, nil)
	require.NoError(t, err)
	masters, err := MasterKeys(t.Context(), testRoot(t), data)
	require.NoError(t, err)
	require.Len(t, masters, 3)
	for id, key := range snapshotOf(t, o).keys {
		want, err := hkdf.Key(sha256.New, masters[id], nil, "github.com/blobseal/blobseal/v1 managed key-encryption key", 32)
		require.NoError(t, err)
		require.Equal(t, want, key.kek.Bytes())
	}
}

func TestDocumentCutShort(t *testing.T) {
	data := seal(t, testDraft(t))
	for n := range data {
		_, err := format{}.Open(t.Context(), testRoot(t), data[:n], nil)
		require.ErrorIs(t, err, ErrDamaged, "%d bytes", n)
		if n > 41 {
			_, err = format{}.Open(t.Context(), testRoot(t), Rechecksum(data[:n]), nil)
			require.ErrorIs(t, err, ErrDamaged, "%d bytes", n)
		}
	}
	for _, more := range [][]byte{{0}, {'\n'}, data} {
		_, err := format{}.Open(t.Context(), testRoot(t), append(bytes.Clone(data), more...), nil)
		require.ErrorIs(t, err, ErrDamaged)
	}
	_, err := format{}.Open(t.Context(), testRoot(t), make([]byte, MaxDocumentSize+1), nil)
	require.ErrorIs(t, err, ErrDamaged)
}

func TestDocumentFlippedBits(t *testing.T) {
	data := seal(t, testDraft(t))
	count := map[error]int{}
	for i := range 8 * len(data) {
		flipped := bytes.Clone(data)
		flipped[i/8] ^= 1 << (i % 8)
		want := ErrDamaged
		if i/8 == 8 {
			want = ErrVersion
		}
		_, err := format{}.Open(t.Context(), testRoot(t), flipped, nil)
		require.ErrorIs(t, err, want, "bit %d", i)
		require.NotErrorIs(t, err, ErrRoot, "bit %d", i)

		if i/8 >= len(data)-sha256.Size {
			continue // the checksum itself
		}
		// With a matching checksum, as an attacker would: only the root can tell.
		_, err = format{}.Open(t.Context(), testRoot(t), Rechecksum(flipped), nil)
		require.Error(t, err, "bit %d", i)
		for _, sentinel := range []error{ErrDamaged, ErrVersion, ErrRoot} {
			if isOnly(err, sentinel) {
				count[sentinel]++
			}
		}
	}
	require.Equal(t, 8*(len(data)-sha256.Size), count[ErrDamaged]+count[ErrVersion]+count[ErrRoot])
	require.Positive(t, count[ErrRoot])
}

func isOnly(err, sentinel error) bool {
	for _, s := range []error{ErrDamaged, ErrVersion, ErrRoot} {
		if (s == sentinel) != is(err, s) {
			return false
		}
	}
	return true
}

// A document that is authentic but contradicts itself. Only a broken program that has the
// root could write it.
func TestDocumentThatContradictsItself(t *testing.T) {
	other := testDraft(t)
	for name, edit := range map[string]func(m *metadata, ks *tinkpb.Keyset){
		"version only in metadata": func(m *metadata, _ *tinkpb.Keyset) {
			m.versions = slices.Insert(m.versions, 0, version{number: 1, state: Enabled})
		},
		"version only in keyset":      func(m *metadata, _ *tinkpb.Keyset) { m.versions = m.versions[1:] },
		"last version only in keyset": func(m *metadata, _ *tinkpb.Keyset) { m.versions = m.versions[:3] },
		"one more in keyset": func(_ *metadata, ks *tinkpb.Keyset) {
			ks.Key = append(ks.Key, otherKey(t, prf.HKDFSHA256PRFKeyTemplate(), 99))
		},
		"wrong primary":        func(_ *metadata, ks *tinkpb.Keyset) { ks.PrimaryKeyId = ks.Key[1].KeyId },
		"wrong id":             func(m *metadata, _ *tinkpb.Keyset) { m.versions[0].id ^= 1 },
		"wrong order":          func(_ *metadata, ks *tinkpb.Keyset) { slices.Reverse(ks.Key) },
		"enabled but disabled": func(m *metadata, _ *tinkpb.Keyset) { m.versions[0].state, m.versions[0].disabled = Enabled, nil },
		"disabled but enabled": func(m *metadata, _ *tinkpb.Keyset) {
			m.versions[2].state, m.versions[2].disabled = Disabled, []mark{{1}}
		},
		"destroyed but there": func(m *metadata, _ *tinkpb.Keyset) { m.versions[0].state, m.versions[0].disabled = Destroyed, nil },
		"there but destroyed": func(m *metadata, _ *tinkpb.Keyset) { m.versions[1].state = Enabled },
		"wrong keyset": func(_ *metadata, ks *tinkpb.Keyset) {
			handle, err := other.handle()
			require.NoError(t, err)
			wrong := insecurecleartextkeyset.KeysetMaterial(handle)
			ks.Key, ks.PrimaryKeyId = wrong.Key, wrong.PrimaryKeyId
		},
		"key of another kind": func(m *metadata, ks *tinkpb.Keyset) {
			ks.Key[2] = otherKey(t, prf.HMACSHA256PRFKeyTemplate(), m.primary().id)
		},
		"key of another hash": func(m *metadata, ks *tinkpb.Keyset) {
			ks.Key[2] = otherKey(t, prf.HMACSHA512PRFKeyTemplate(), m.primary().id)
		},
		"not even a PRF key": func(m *metadata, ks *tinkpb.Keyset) {
			ks.Key[2] = otherKey(t, aead.AES256GCMKeyTemplate(), m.primary().id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := testDraft(t)
			handle, err := d.handle()
			require.NoError(t, err)
			ks := insecurecleartextkeyset.KeysetMaterial(handle)
			edit(&d.metadata, ks)
			handle, err = handleOf(ks)
			require.NoError(t, err)
			var encrypted bytes.Buffer
			head, err := d.head()
			require.NoError(t, err)
			require.NoError(t, handle.WriteWithContext(t.Context(), keyset.NewBinaryWriter(&encrypted), testRoot(t), associatedData(head)))
			data, err := (&ringDocument{metadata: d.metadata, keyset: encrypted.Bytes()}).marshal()
			require.NoError(t, err)
			_, err = format{}.Open(t.Context(), testRoot(t), data, nil)
			require.ErrorIs(t, err, ErrDamaged)
			require.NotErrorIs(t, err, ErrRoot)
		})
	}
}

// otherKey is a key of a keyset, from a template.
func otherKey(t *testing.T, template *tinkpb.KeyTemplate, id uint32) *masterKey {
	handle, err := keyset.NewHandle(template)
	require.NoError(t, err)
	key := insecurecleartextkeyset.KeysetMaterial(handle).Key[0]
	key.KeyId = id
	return key
}

func TestMetadataOutOfBounds(t *testing.T) {
	for name, edit := range map[string]func(m *metadata){
		"generation zero":      func(m *metadata) { m.generation = 0 },
		"period zero":          func(m *metadata) { m.period = 0 },
		"period too short":     func(m *metadata) { m.period = minPeriod - time.Second },
		"period too long":      func(m *metadata) { m.period = maxPeriod + time.Second },
		"no versions":          func(m *metadata) { m.versions = nil },
		"state zero":           func(m *metadata) { m.versions[0].state = stateOf(0) },
		"number zero":          func(m *metadata) { m.versions[0].number = 0 },
		"out of order":         func(m *metadata) { m.versions[0].number = 3 },
		"watermark":            func(m *metadata) { m.watermark = 4 },
		"disabled, no mark":    func(m *metadata) { m.versions[0].disabled = nil },
		"enabled, with a mark": func(m *metadata) { m.versions[2].disabled = []mark{{1}} },
		"mark in both":         func(m *metadata) { m.versions[0].enabled = m.versions[0].disabled },
		"mark twice":           func(m *metadata) { m.versions[2].enabled = []mark{{1}, {1}} },
		"marks descend":        func(m *metadata) { m.versions[2].enabled = []mark{{2}, {1}} },
		"mark on a tombstone":  func(m *metadata) { m.versions[1].enabled = []mark{{1}} },
		"state four":           func(m *metadata) { m.versions[0].state = stateOf(4) },
		"created in year 1e4":  func(m *metadata) { m.versions[0].created = maxMillis + 1 },
		"changed in year 1e4":  func(m *metadata) { m.versions[0].changed = 1 << 63 },
		"id twice":             func(m *metadata) { m.versions[0].id = m.versions[2].id },
		"id of destroyed anew": func(m *metadata) { m.versions[1].id = m.versions[2].id },
		"disabled primary":     func(m *metadata) { m.versions = m.versions[:1] },
		"destroyed primary":    func(m *metadata) { m.versions = m.versions[:2] },
	} {
		t.Run(name, func(t *testing.T) {
			d := testDraft(t)
			edit(&d.metadata)
			_, err := (&ringDocument{metadata: d.metadata, keyset: []byte{0x12, 1, 1}}).marshal()
			require.ErrorIs(t, err, ErrDamaged)
			require.NotErrorIs(t, err, ErrInvalid)
		})
	}
	for _, encrypted := range []string{
		"\x01", "\x12\x81\x00\x01", "\x12\x01\x01\x12\x01\x01", "\x12\x01\x01\x1a\x00", "\x12\x01\x01\x7a\x01x", "\x1a\x00\x12\x01\x01",
	} {
		_, err := (&ringDocument{metadata: testDraft(t).metadata, keyset: []byte(encrypted)}).marshal()
		require.ErrorIs(t, err, ErrDamaged, "encrypted keyset %x", encrypted)
	}
	_, err := (&ringDocument{metadata: testDraft(t).metadata, keyset: []byte{0x12, 1, 1}}).marshal()
	require.NoError(t, err)
	_, err = (&ringDocument{metadata: testDraft(t).metadata}).marshal()
	require.ErrorIs(t, err, ErrDamaged, "no keyset")
	_, err = (&ringDocument{metadata: testDraft(t).metadata, keyset: make([]byte, MaxDocumentSize-100)}).marshal()
	require.ErrorIs(t, err, ErrFull)
	_, err = (&ringDocument{metadata: testDraft(t).metadata, keyset: make([]byte, 1<<24)}).marshal()
	require.ErrorIs(t, err, ErrFull)
}

func TestFullRing(t *testing.T) {
	d := testDraft(t)
	for len(d.versions) < maxVersions {
		require.NoError(t, d.rotate(testTime))
	}
	data := seal(t, d)
	t.Logf("a full ring is %d bytes", len(data))
	require.Less(t, len(data), MaxDocumentSize/2+MaxDocumentSize/8, "room for a root that adds to it")
	o, err := format{}.Open(t.Context(), testRoot(t), data, nil)
	require.NoError(t, err)
	require.Len(t, snapshotOf(t, o).keys, maxVersions-2)
	require.NoError(t, o.rotate(testTime), "a tombstone makes room")
	require.ErrorIs(t, o.rotate(testTime), ErrFull)
}

// The claim of Root's documentation about key services that encrypt at most 4 KiB.
func TestVersionsInFourKiB(t *testing.T) {
	d, err := newDraft(defaultPeriod, testTime)
	require.NoError(t, err)
	size := &sizeRoot{testRoot(t), 0}
	n := 0
	for ; size.plaintext <= 4096; n++ {
		_, _, err := format{}.Seal(t.Context(), size, d, d.generation)
		require.NoError(t, err)
		require.NoError(t, d.rotate(testTime))
	}
	require.GreaterOrEqual(t, n-1, 35)
	require.Less(t, n-1, 45)
	t.Logf("%d versions", n-1)
}

type sizeRoot struct {
	tink.AEADWithContext
	plaintext int
}

func (r *sizeRoot) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	r.plaintext = len(plaintext)
	return r.AEADWithContext.EncryptWithContext(ctx, plaintext, ad)
}

// A new version never gets the id of a destroyed one, which the keyset no longer holds.
func TestIDsAreNotTakenAgain(t *testing.T) {
	d := testDraft(t)
	next := func() uint32 {
		c := *d
		c.keys = maps.Clone(d.keys)
		cryptotest.SetGlobalRandom(t, 7)
		require.NoError(t, c.rotate(testTime))
		return c.primary().id
	}
	id := next()
	require.Equal(t, id, next(), "the same random numbers")
	d.versions[1].id = id // which is destroyed
	require.NotEqual(t, id, next())
}
