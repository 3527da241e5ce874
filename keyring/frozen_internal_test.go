package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"
)

func TestKeyIDs(t *testing.T) {
	ring := ringID{0, 1, 2, 3, 4, 5, 6, 0xff}
	for _, version := range []uint32{0, 7, 0xabcdef01, 0xffffffff} {
		id := keyID(ring, version)
		gotRing, gotVersion, err := parseKeyID(id)
		require.NoError(t, err)
		require.Equal(t, ring, gotRing)
		require.Equal(t, version, gotVersion)
	}
	require.Equal(t, "00010203040506ff.abcdef01", keyID(ring, 0xabcdef01))
	for _, id := range []string{
		"", ".", "00010203040506ff", "00010203040506ff.", ".abcdef01", "00010203040506ff.abcdef0", "00010203040506ff.abcdef012",
		"00010203040506ff.ABCDEF01", "00010203040506FF.abcdef01", "00010203040506ff-abcdef01", "00010203040506f.fabcdef01",
		"00010203040506fff.bcdef01", "00010203040506ff.abcdefg1", " 00010203040506ff.abcdef0", "00010203040506ff.abcdef01\n",
		"00010203.40506ff.abcdef01", "0001020304050..6ffabcdef0", strings.Repeat("0", 5000),
	} {
		_, _, err := parseKeyID(id)
		require.ErrorIs(t, err, ErrUnknownKey, "%.80q", id)
		require.Less(t, len(err.Error()), 150)
	}
}

func TestTimesStayInBounds(t *testing.T) {
	for _, c := range []struct {
		t    time.Time
		want uint64
	}{
		{time.Time{}, 0}, {time.Unix(-1, 0), 0}, {time.Unix(0, 0), 0},
		{time.Unix(1, 999_999), 1000}, {time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), maxMillis},
	} {
		require.Equal(t, c.want, millis(c.t), "%v", c.t)
	}
	text, err := time.UnixMilli(maxMillis).UTC().MarshalJSON()
	require.NoError(t, err)
	require.Equal(t, `"9999-12-31T23:59:59.999Z"`, string(text))
}

// Documents of old releases open for ever. See testdata/README.
func TestFrozenDocuments(t *testing.T) {
	passphrase, err := NewPassphraseRoot([]byte("correct horse battery staple"), nil)
	require.NoError(t, err)
	for name, root := range map[string]tink.AEADWithContext{
		"v1-key-root": testRoot(t), "v1-passphrase-root": passphrase, "v1-kms-root": testKMSRoot(t),
		"v2-key-root": testRoot(t), "v2-passphrase-root": passphrase, "v2-kms-root": testKMSRoot(t),
	} {
		t.Run(name, func(t *testing.T) {
			o, err := format{}.Open(t.Context(), root, frozen(t, name), nil)
			require.NoError(t, err)
			var got bytes.Buffer
			s := snapshotOf(t, o)
			for i := range s.versions {
				info := s.info(&s.versions[i])
				fmt.Fprintf(&got, "%s %v %v %d %d", info.ID, info.State, info.Primary, info.Created.UnixMilli(), info.Changed.UnixMilli())
				if key := s.keys[info.ID]; key != nil {
					fmt.Fprintf(&got, " %s", hex.EncodeToString(key.kek.Bytes()))
				}
				fmt.Fprintln(&got)
			}
			want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
			require.NoError(t, err)
			require.Equal(t, string(want), got.String())
		})
	}
}

// frozen returns a document of testdata.
func frozen(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".krg"))
	require.NoError(t, err)
	return data
}

func FuzzDocument(f *testing.F) {
	good := seal(f, testDraft(f))
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte{})
	f.Add([]byte(documentMagic + "\x01\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(documentMagic + "\x01\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte(documentMagic + "\x03"))
	f.Add(frozen(f, "v1-key-root"))
	root := testRoot(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, rechecksum(data)} {
			d, err := parseDocument(data)
			if err != nil {
				require.True(t, is(err, ErrDamaged) != is(err, ErrVersion), "%v", err)
				continue
			}
			if again, err := d.marshal(); !d.legacy {
				require.NoError(t, err)
				require.Equal(t, data, again)
			}
			if _, err := (format{}).Open(t.Context(), root, data, nil); err != nil {
				require.True(t, is(err, ErrDamaged) || is(err, ErrRoot), "%v", err)
			}
		}
	})
}

// rechecksum makes a fuzzer's input pass the checksum.
func rechecksum(data []byte) []byte {
	if len(data) < sha256.Size {
		data = append(bytes.Clone(data), make([]byte, sha256.Size)...)
	}
	return Rechecksum(data)
}
