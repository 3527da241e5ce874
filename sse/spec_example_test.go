package sse_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

// specExamples returns the values of SPEC.md's section 15 by their names, in one
// map for each example.
func specExamples(t *testing.T) []map[string][][]byte {
	spec, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(spec), "\n## 15. ")
	require.True(t, found)
	section, _, found = strings.Cut(section, "\n## 16. ")
	require.True(t, found)
	var examples []map[string][][]byte
	line := regexp.MustCompile(`^(\S.{13} |\s{15})([0-9a-f]+)$`)
	inside, name := false, ""
	for text := range strings.Lines(section) {
		text = strings.TrimSuffix(text, "\n")
		switch {
		case strings.HasPrefix(text, "### "):
			examples = append(examples, map[string][][]byte{})
		case text == "```":
			inside = !inside
		case inside:
			m := line.FindStringSubmatch(text)
			require.NotNil(t, m, text)
			value, err := hex.DecodeString(m[2])
			require.NoError(t, err)
			values := examples[len(examples)-1]
			if n := strings.TrimSpace(m[1]); n != "" {
				name = n
				values[name] = append(values[name], nil)
			}
			last := &values[name][len(values[name])-1]
			*last = append(*last, value...)
		}
	}
	return examples
}

// TestSpecExamples computes the worked examples again, from SPEC.md alone.
// SPEC MSG-1 MSG-3 BODY-1 ENV-1 SEAL-1 KEK-3 SVC-1 LKMS-4
func TestSpecExamples(t *testing.T) {
	examples := specExamples(t)
	require.Len(t, examples, 2)
	one, two := examples[0], examples[1]
	value := func(example map[string][][]byte, name string, i int) []byte {
		require.Greater(t, len(example[name]), i, name)
		return example[name][i]
	}
	pairs := strangerStr16("team") + strangerStr16("blue")

	// The messages of the first example.
	head := append(bytes.Clone(value(one, "body salt", 0)), value(one, "commitment", 0)...)
	for i, m := range []struct {
		key, salt, context, plain, chunk []byte
	}{
		{value(one, "data key", 0), value(one, "body salt", 0), []byte(strangerV1 + "body"), value(one, "plaintext", 0), value(one, "chunk 0", 0)},
		{
			value(one, "KEK", 0), value(one, "sealing salt", 0),
			[]byte(strangerBinding(3, "", "", "photos", "cat.jpg", pairs, head)), value(one, "data key", 0), value(one, "sealed", 0)[56:],
		},
	} {
		aead, nonce, commitment := strangerMessage(m.key, m.salt, string(m.context))
		require.Equal(t, value(one, "base_nonce", i), nonce)
		require.Equal(t, value(one, "commitment", i), commitment)
		require.Equal(t, m.chunk, aead.Seal(nil, nonce, m.plain, nil))
	}
	require.Equal(t, strangerBinding(3, "", "", "photos", "cat.jpg", pairs, head), string(value(one, "context", 0)))
	require.Equal(t, "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"+string(value(one, "body salt", 0))+strangerV1+"body", string(value(one, "info", 0)))

	// The key service's ciphertext in the second one.
	ec := kms.Context{"blobseal:object": "photos/cat.jpg", "team": "blue"}
	require.Equal(t, ec.AssociatedData(), value(two, "AD", 0))
	wrapped, context := value(two, "wrapped", 0), value(two, "context", 0)
	bound := strangerV1 + "localkms ciphertext\x00" + string(wrapped[:21])
	for _, text := range []string{"blobseal:object", "photos/cat.jpg", "team", "blue"} {
		bound += string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
	}
	require.Equal(t, bound, string(context))
	kek, result := strangerOpen(value(two, "material", 0), wrapped[21:], bound)
	require.Equal(t, "valid", result)
	require.Equal(t, value(two, "KEK", 0), kek)

	// Both objects are vectors, which this package opens.
	for i, name := range []string{"customer", "kms"} {
		text, err := os.ReadFile("testdata/v1/example-" + name + ".json")
		require.NoError(t, err)
		var v vector
		require.NoError(t, json.Unmarshal(text, &v))
		require.Equal(t, append(value(examples[i], "envelope", 0), value(one, "chunk 0", 0)...), v.Object)
		require.Equal(t, value(examples[i], "KEK", 0), []byte(v.KEK))
	}
}
