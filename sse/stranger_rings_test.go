package sse_test

// A reader of ring documents, from SPEC.md alone, and the tests of it.

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

const (
	strangerRingMagic = "\x89KRG\r\n\x1a\n"
	strangerTypeURL   = "type.googleapis.com/google.crypto.tink.HkdfPrfKey"
)

// strangerProto reads a protocol buffer: the values of each field, in order.
func strangerProto(data []byte) (ints map[int]uint64, texts map[int][][]byte) {
	ints, texts = map[int]uint64{}, map[int][][]byte{}
	uvarint := func() uint64 {
		v, n := binary.Uvarint(data)
		data = data[max(n, 0):]
		return v
	}
	for len(data) > 0 {
		tag := uvarint()
		switch field := int(tag >> 3); tag & 7 {
		case 0:
			ints[field] = uvarint()
		case 2:
			n := int(min(uvarint(), uint64(len(data))))
			texts[field] = append(texts[field], data[:n])
			data = data[n:]
		default:
			return nil, nil
		}
	}
	return ints, texts
}

func strangerInt(field byte, v uint64) string {
	return string(binary.AppendUvarint([]byte{field << 3}, v))
}

func strangerText(field byte, text string) string {
	return string(binary.AppendUvarint([]byte{field<<3 | 2}, uint64(len(text)))) + text
}

func strangerRingData(version byte, metadata string) string { // the associated data
	sum := sha256.Sum256([]byte(strangerRingMagic + string([]byte{version}) + u24(metadata)))
	return strangerV1 + "keyring document\x00" + string(sum[:])
}

func u24(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))[1:]) + s }

// strangerRing returns the KEKs of a ring document's versions by their ids, empty for
// versions that are not enabled: section 6, RING-1 to RING-4. root is a root's
// decryption. It is long because it follows the specification from top to bottom.
func strangerRing(doc []byte, root func(ciphertext []byte, associatedData string) []byte) (map[string][]byte, error) {
	f := strangerFields{data: doc}
	magic, version, metadata := string(f.take(8)), byte(f.uint(1)), string(f.take(int(f.uint(3))))
	keyset, sum := f.take(int(f.uint(3))), f.take(32)
	if f.bad || len(f.data) > 0 || len(doc) > 1<<20 || magic != strangerRingMagic || version < 1 || version > 2 ||
		sha256.Sum256(doc[:len(doc)-32]) != [32]byte(sum) {
		return nil, fmt.Errorf("not a ring document, or a damaged one")
	}
	_, encrypted := strangerProto(keyset)
	if len(encrypted[2]) != 1 {
		return nil, fmt.Errorf("not an encrypted keyset")
	}
	ints, texts := strangerProto(root(encrypted[2][0], strangerRingData(version, metadata)))
	primary, keys := ints[1], texts[2]

	f = strangerFields{data: []byte(metadata)}
	ring, generation := f.take(8), f.uint(8)
	if version == 2 {
		f.uint(8) // watermark
	}
	period := f.uint(4)
	if version == 2 {
		f.uint(8) // changes
	} else if f.uint(4) != primary {
		return nil, fmt.Errorf("wrong primary")
	}
	if generation < 1 || period < 60 || period > 315360000 {
		return nil, fmt.Errorf("metadata out of bounds")
	}
	last := uint64(0)
	keks := map[string][]byte{}
	for len(f.data) > 0 {
		if version == 2 {
			f.uint(8) // number
		}
		id, state := f.uint(4), f.uint(1)
		f.take(16)
		if version == 2 {
			f.take(int(f.uint(2)))
			f.take(int(f.uint(2)))
		}
		last = id
		keks[fmt.Sprintf("%x.%08x", ring, id)] = []byte{}
		if state == 3 {
			continue
		}
		if f.bad || len(keys) == 0 {
			return nil, fmt.Errorf("versions without keys")
		}
		keyInts, keyTexts := strangerProto(keys[0])
		keys = keys[1:]
		_, data := strangerProto(keyTexts[1][0])
		_, prf := strangerProto(data[2][0])
		if keyInts[3] != id || keyInts[2] != state ||
			string(data[1][0]) != strangerTypeURL || len(prf[3][0]) != 32 {
			return nil, fmt.Errorf("version %08x: metadata and keyset contradict each other", id)
		}
		if state == 1 {
			keks[fmt.Sprintf("%x.%08x", ring, id)] = strangerKEK(prf[3][0])
		}
	}
	if len(keys) > 0 {
		return nil, fmt.Errorf("keys without versions")
	}
	if version == 2 && last != primary {
		return nil, fmt.Errorf("wrong primary")
	}
	return keks, nil
}

func strangerKEK(master []byte) []byte {
	return must(hkdf.Key(sha256.New, master, nil, strangerV1+"managed key-encryption key", 32))
}

// strangerPassphrase is the key and the context of a passphrase root.
func strangerPassphrase(passphrase, header []byte, associatedData string) ([]byte, string) {
	f := strangerFields{data: header[1:]}
	passes, memory, threads, salt := f.uint(4), f.uint(4), f.uint(1), f.take(16)
	return argon2.IDKey(passphrase, salt, uint32(passes), uint32(memory), uint8(threads), 32),
		strangerV1 + "passphrase root\x00" + string(header) + associatedData
}

// SPEC RING-1 RING-2 RING-3 RING-4 ROOT-4 KEK-1 KEK-2
func TestStrangerReadsAKMSRing(t *testing.T) {
	ctx, service := t.Context(), kmstest.NewFake("root/1", "attacker/1")
	service.SetAlias("root", "root/1")
	root, err := keyring.NewKMSRoot(service, "root", &keyring.KMSRootOptions{Context: kms.Context{"service": "photos"}})
	require.NoError(t, err)
	context := kms.Context{"blobseal:purpose": "keyring root", "service": "photos"}
	store := keyring.NewMemStore()
	ring, err := keyring.Create(ctx, store, root, nil)
	require.NoError(t, err)
	doc, _, err := store.Load(ctx)
	require.NoError(t, err)
	primary := ring.Versions()[0].ID

	var header, associated string
	keks, err := strangerRing(doc, func(ciphertext []byte, associatedData string) []byte {
		f := strangerFields{data: ciphertext}
		kind, keyID, wrapped := f.uint(1), f.str16(), f.str16()
		require.EqualValues(t, 2, kind)
		require.Equal(t, kmstest.ARN("root/1"), keyID)
		dk, err := service.Decrypt(ctx, "root", []byte(wrapped), context)
		require.NoError(t, err)
		header, associated = "\x02"+strangerStr16(keyID)+strangerStr16(wrapped), associatedData
		keyset, result := strangerOpen(dk, f.data, strangerV1+"KMS root\x00"+header+associatedData)
		require.Equal(t, "valid", result)
		return keyset
	})
	require.NoError(t, err)
	require.Len(t, keks, 1)
	key, err := ring.Primary(ctx)
	require.NoError(t, err)
	sealed, err := key.Seal([]byte("data key"), []byte("context"))
	require.NoError(t, err)
	dek, result := strangerOpen(keks[primary], sealed, "context")
	require.Equal(t, "valid", result)
	require.Equal(t, "data key", string(dek))

	// Who may write to the store, and has a key of their own in the service, cannot
	// put a ring of theirs under it in place of this one.
	dk, err := service.GenerateDataKey(ctx, "attacker/1", context)
	require.NoError(t, err)
	theirs := "\x02" + strangerStr16(dk.KeyID) + strangerStr16(string(dk.Ciphertext))
	message := strangerSeal(dk.Plaintext(), []byte("their keyset"), strangerV1+"KMS root\x00"+theirs+associated)
	service.Forget()
	_, err = root.DecryptWithContext(ctx, append([]byte(theirs), message...), []byte(associated))
	require.ErrorIs(t, err, keyring.ErrRoot)
	require.Equal(t, "root", service.Calls()[0].KeyID)
}

// SPEC RING-1 RING-2 RING-3 RING-4 ROOT-2 ROOT-3 KEK-1 KEK-2 SEAL-1 BODY-1
func TestStrangerReadsAPassphraseRing(t *testing.T) {
	ctx, passphrase := t.Context(), []byte("written down on paper")
	root, err := keyring.NewPassphraseRoot(passphrase, &keyring.PassphraseParams{Time: 2, Memory: 19 << 10, Threads: 1})
	require.NoError(t, err)
	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}
	plain := bytes.Repeat([]byte("stranger"), 5000)

	t.Run("of keyring's", func(t *testing.T) { // one version disabled, one destroyed, two enabled
		store := keyring.NewMemStore()
		ring, err := keyring.Create(ctx, store, root, nil)
		require.NoError(t, err)
		var object bytes.Buffer
		for range 3 {
			_, err = ring.Rotate(ctx)
			require.NoError(t, err)
		}
		w, err := sse.NewWriter(ctx, &object, sse.NewManaged(ring), obj, nil)
		require.NoError(t, err)
		_, err = w.Write(plain)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, err = ring.SetState(ctx, ring.Versions()[0].ID, keyring.Disabled)
		require.NoError(t, err)
		_, err = ring.SetState(ctx, ring.Versions()[1].ID, keyring.Destroyed)
		require.NoError(t, err)
		doc, _, err := store.Load(ctx)
		require.NoError(t, err)

		keks, err := strangerRing(doc, func(ciphertext []byte, associatedData string) []byte {
			require.Equal(t, []byte{1, 0, 0, 0, 2, 0, 0, 0x4C, 0, 1}, ciphertext[:10])
			key, context := strangerPassphrase(passphrase, ciphertext[:26], associatedData)
			keyset, result := strangerOpen(key, ciphertext[26:], context)
			require.Equal(t, "valid", result)
			return keyset
		})
		require.NoError(t, err)
		require.Len(t, keks, 4)
		got, result := stranger{1, func(id string) []byte { return keks[id] }}.open(object.Bytes(), obj.Bucket, obj.Key, nil)
		require.Equal(t, "valid", result)
		require.Equal(t, plain, got)
	})

	ring, master, now := strangerRandom(8), strangerRandom(32), uint64(time.Now().UnixMilli())
	document := func(primary uint64, header []byte, edit func(doc []byte)) []byte {
		const id = 0xF00DCAFE
		b := binary.BigEndian.AppendUint64(ring, 1)               // generation
		b = binary.BigEndian.AppendUint32(b, 86400)               // period
		b = binary.BigEndian.AppendUint32(b, id)                  // primary
		b = append(binary.BigEndian.AppendUint32(b, id), 1)       // version, enabled,
		b = binary.BigEndian.AppendUint64(b, now)                 // created
		metadata := string(binary.BigEndian.AppendUint64(b, now)) // and changed

		// Three fields are Tink's, and not in SPEC.md, which is for readers:
		// the hash (3 is SHA-256), the type of key material (1 is symmetric)
		// and the prefix of outputs (3 is none, "raw").
		prf := strangerText(2, strangerInt(1, 3)) + strangerText(3, string(master))
		data := strangerText(1, strangerTypeURL) + strangerText(2, prf) + strangerInt(3, 1)
		key1 := strangerText(1, data) + strangerInt(2, 1) + strangerInt(3, id) + strangerInt(4, 3)
		keyset := strangerInt(1, primary) + strangerText(2, key1)
		key, context := strangerPassphrase(passphrase, header, strangerRingData(1, metadata))
		ciphertext := string(header) + string(strangerSeal(key, []byte(keyset), context))
		doc := []byte(strangerRingMagic + "\x01" + u24(metadata) + u24(strangerText(2, ciphertext)))
		edit(doc)
		sum := sha256.Sum256(doc)
		return append(doc, sum[:]...)
	}
	open := func(t *testing.T, doc []byte) (*keyring.Ring, error) {
		store := keyring.NewMemStore()
		_, err := store.Swap(ctx, "", doc)
		require.NoError(t, err)
		return keyring.Open(ctx, store, root, nil)
	}
	header := func(passes, memory uint32, threads byte) []byte {
		h := binary.BigEndian.AppendUint32([]byte{1}, passes)
		h = append(binary.BigEndian.AppendUint32(h, memory), threads)
		return append(h, strangerRandom(16)...)
	}
	same := func([]byte) {}

	t.Run("of the stranger's", func(t *testing.T) {
		opened, err := open(t, document(0xF00DCAFE, header(2, 19<<10, 2), same))
		require.NoError(t, err)
		id := fmt.Sprintf("%x.f00dcafe", ring)
		primary, err := opened.Primary(ctx)
		require.NoError(t, err)
		require.Equal(t, id, primary.ID())

		object := strangerObject(strangerKEK(master), id, obj.Bucket, obj.Key, plain)
		r, err := sse.NewReader(ctx, bytes.NewReader(object), sse.NewManaged(opened), anyContext(obj))
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, plain, got)
	})

	t.Run("refused", func(t *testing.T) {
		for name, doc := range map[string][]byte{
			"another primary in the keyset": document(0xF00DCAFF, header(2, 19<<10, 1), same),
			"too few passes":                document(0xF00DCAFE, header(1, 19<<10, 1), same),
			"too little memory":             document(0xF00DCAFE, header(2, 19<<10-1, 1), same),
			"too many threads":              document(0xF00DCAFE, header(2, 19<<10, 17), same),
			"an edited period":              document(0xF00DCAFE, header(2, 19<<10, 1), func(doc []byte) { doc[31]++ }),
		} {
			_, err := open(t, doc)
			require.Error(t, err, name)
		}
		doc := document(0xF00DCAFE, header(2, 19<<10, 1), same)
		doc[len(doc)-1] ^= 1
		_, err := open(t, doc)
		require.ErrorIs(t, err, keyring.ErrDamaged)
	})
}
