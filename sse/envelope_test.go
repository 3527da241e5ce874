package sse_test

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

var _ interface {
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
	encoding.TextMarshaler
	encoding.TextUnmarshaler
} = (*sse.Envelope)(nil)

func envelope(t testing.TB, enc sse.Encrypter, obj sse.Object) *sse.Envelope {
	t.Helper()
	e, err := enc.Encrypt(t.Context(), obj)
	require.NoError(t, err)
	return e.Envelope()
}

func marshal(t testing.TB, e *sse.Envelope) []byte {
	t.Helper()
	data, err := e.MarshalBinary()
	require.NoError(t, err)
	require.Len(t, data, e.Size())
	return data
}

// TestEnvelopeEncoding: what was written reads back, in both forms, from streams
// of any manners, and nothing behind it is read. SPEC ENV-1 ENV-5 ENV-6
func TestEnvelopeEncoding(t *testing.T) {
	for mode, cs := range ciphers(t) {
		for _, obj := range []sse.Object{
			{}, object, {Context: kms.Context{"z": "", "a": "1", "ä": "ö"}},
			{Context: kms.Context{"k": strings.Repeat("v", 8000)}},
		} {
			short := envelope(t, cs[0], obj)
			for _, size := range []int{short.Size(), short.Size() + 1, 9000, sse.MaxEnvelopeSize} {
				env, err := short.WithSize(size)
				require.NoError(t, err)
				data := marshal(t, env)
				require.Len(t, data, size)
				require.Equal(t, "\x89SSE\r\n\x1a\n\x01"+string(rune(mode)), string(data[:10]))
				require.EqualValues(t, size, binary.BigEndian.Uint32(data[10:]))

				var parsed sse.Envelope
				require.NoError(t, parsed.UnmarshalBinary(data))
				require.Equal(t, data, marshal(t, &parsed))
				require.Equal(t, env.KeyID(), parsed.KeyID())
				require.Equal(t, env.Context(), parsed.Context())

				text, err := env.MarshalText()
				require.NoError(t, err)
				require.NotContains(t, string(text), "=")
				parsed = sse.Envelope{}
				require.NoError(t, parsed.UnmarshalText(text))
				require.Equal(t, data, marshal(t, &parsed))

				src := bytes.NewReader(append(bytes.Clone(data), "body"...))
				for name, r := range map[string]io.Reader{
					"all at once":  bytes.NewReader(data),
					"one by one":   iotest.OneByteReader(bytes.NewReader(data)),
					"data and EOF": iotest.DataErrReader(bytes.NewReader(data)),
					"more behind":  src,
				} {
					read, err := sse.ReadEnvelope(r)
					require.NoError(t, err, name)
					require.Equal(t, data, marshal(t, read), name)
				}
				rest, err := io.ReadAll(src)
				require.NoError(t, err)
				require.Equal(t, "body", string(rest))
			}
		}
	}
}

// TestTextFitsMetadata: the text form of an ordinary envelope fits S3's 2 KiB.
func TestTextFitsMetadata(t *testing.T) {
	for mode, cs := range ciphers(t) {
		text, err := envelope(t, cs[0], object).MarshalText()
		require.NoError(t, err)
		require.Less(t, len(text), 800, mode)
	}
}

func TestEnvelopeIsAValue(t *testing.T) {
	given := kms.Context{"k": "v"}
	env := envelope(t, newCustomer(t, customerKey), sse.Object{Context: given})
	given["k"] = "changed"
	env.Context()["k"] = "changed"
	require.Equal(t, kms.Context{"k": "v"}, env.Context())
	before := marshal(t, env)
	padded, err := env.WithSize(1000)
	require.NoError(t, err)
	require.Equal(t, before, marshal(t, env))
	again, err := padded.WithSize(len(before))
	require.NoError(t, err)
	require.Equal(t, before, marshal(t, again))
	for _, size := range []int{-1, 0, len(before) - 1, sse.MaxEnvelopeSize + 1} {
		_, err := env.WithSize(size)
		require.ErrorIs(t, err, sse.ErrTooLarge, size)
	}
	require.NotNil(t, envelope(t, newCustomer(t, customerKey), sse.Object{}).Context())
	require.Equal(t, "SSE-C envelope of 186 bytes", env.String())
	_, err = new(sse.Envelope).MarshalBinary()
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = new(sse.Envelope).MarshalText()
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// layout builds envelopes that are wrong in one place.
type layout struct {
	magic, keyID, wrapped, sealed, context, padding, head []byte
	version, mode                                         byte
	size                                                  int // added to the true one
}

func customerLayout() layout {
	return layout{
		magic: []byte("\x89SSE\r\n\x1a\n"), version: 1, mode: 3,
		sealed: make([]byte, 104), head: bytes.Repeat([]byte{7}, 56),
	}
}

func str16(p []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...)
}

func pairs(kv ...string) (p []byte) {
	for _, s := range kv {
		p = append(p, str16([]byte(s))...)
	}
	return p
}

func (l layout) bytes() []byte {
	rest := bytes.Join([][]byte{str16(l.keyID), str16(l.wrapped), l.sealed, str16(l.context), l.padding, l.head}, nil)
	b := append(bytes.Clone(l.magic), l.version, l.mode)
	b = binary.BigEndian.AppendUint32(b, uint32(len(b)+4+len(rest)+l.size))
	return append(b, rest...)
}

// TestMalformedEnvelopes. SPEC ENV-2 ENV-3 ENV-4 ENV-7 ENV-8
func TestMalformedEnvelopes(t *testing.T) {
	parse := func(data []byte) error {
		_, err := sse.ReadEnvelope(bytes.NewReader(data))
		direct := new(sse.Envelope).UnmarshalBinary(data)
		require.Equal(t, err == nil, direct == nil, "%v, %v", err, direct)
		return err
	}
	require.NoError(t, parse(customerLayout().bytes()))
	for name, tc := range map[string]struct {
		edit func(l *layout)
		want error
	}{
		"magic":                  {func(l *layout) { l.magic[0] = 'x' }, sse.ErrFormat},
		"text mode damage":       {func(l *layout) { l.magic = []byte("\x89SSE\n\x1a\n") }, sse.ErrFormat},
		"version 0":              {func(l *layout) { l.version = 0 }, sse.ErrVersion},
		"version 2, odd mode":    {func(l *layout) { l.version, l.mode = 2, 9 }, sse.ErrVersion},
		"version 2, huge":        {func(l *layout) { l.version, l.size = 2, 1<<24 }, sse.ErrVersion},
		"mode 0":                 {func(l *layout) { l.mode = 0 }, sse.ErrFormat},
		"mode 4":                 {func(l *layout) { l.mode = 4 }, sse.ErrFormat},
		"size too large":         {func(l *layout) { l.size = 1 << 20 }, sse.ErrFormat},
		"size too small":         {func(l *layout) { l.size = -1 }, sse.ErrFormat},
		"size beyond the end":    {func(l *layout) { l.size = 1 }, sse.ErrFormat},
		"no size at all":         {func(l *layout) { l.size = -len(customerLayout().bytes()) }, sse.ErrFormat},
		"key id in SSE-C":        {func(l *layout) { l.keyID = []byte("k") }, sse.ErrFormat},
		"wrapped in SSE-C":       {func(l *layout) { l.wrapped = []byte("w") }, sse.ErrFormat},
		"no key id in SSE-S3":    {func(l *layout) { l.mode = 1 }, sse.ErrFormat},
		"wrapped in SSE-S3":      {func(l *layout) { l.mode, l.keyID, l.wrapped = 1, []byte("k"), []byte("w") }, sse.ErrFormat},
		"nothing wrapped in KMS": {func(l *layout) { l.mode, l.keyID = 2, []byte("k") }, sse.ErrFormat},
		"no key id in KMS":       {func(l *layout) { l.mode, l.wrapped = 2, []byte("w") }, sse.ErrFormat},
		"long key id":            {func(l *layout) { l.mode, l.keyID = 1, bytes.Repeat([]byte("k"), 2049) }, sse.ErrFormat},
		"key id not UTF-8":       {func(l *layout) { l.mode, l.keyID = 1, []byte("\xff") }, sse.ErrFormat},
		"long wrapped": {func(l *layout) {
			l.mode, l.keyID, l.wrapped = 2, []byte("k"), make([]byte, 6145)
		}, sse.ErrFormat},
		"long context":        {func(l *layout) { l.context = pairs("k", strings.Repeat("v", 8188)) }, sse.ErrFormat},
		"names out of order":  {func(l *layout) { l.context = pairs("b", "1", "a", "2") }, sse.ErrFormat},
		"name twice":          {func(l *layout) { l.context = pairs("a", "1", "a", "2") }, sse.ErrFormat},
		"empty name":          {func(l *layout) { l.context = pairs("", "1") }, sse.ErrFormat},
		"half a pair":         {func(l *layout) { l.context = pairs("a") }, sse.ErrFormat},
		"pair too long":       {func(l *layout) { l.context = []byte{0, 9, 'a'} }, sse.ErrFormat},
		"context not UTF-8":   {func(l *layout) { l.context = pairs("a", "\xff") }, sse.ErrFormat},
		"reserved name":       {func(l *layout) { l.context = pairs("blobseal:object", "x") }, sse.ErrFormat},
		"bucket key in SSE-C": {func(l *layout) { l.context = pairs("blobseal:bucket-key", "true") }, sse.ErrFormat},
		"bucket key is false": {func(l *layout) {
			l.mode, l.keyID, l.wrapped, l.context = 2, []byte("k"), []byte("w"), pairs("blobseal:bucket-key", "false")
		}, sse.ErrFormat},
		"padding not zero":   {func(l *layout) { l.padding = []byte{0, 0, 1} }, sse.ErrFormat},
		"first pad not zero": {func(l *layout) { l.padding = []byte{1, 0, 0} }, sse.ErrFormat},
		"padding too long":   {func(l *layout) { l.padding = make([]byte, sse.MaxEnvelopeSize) }, sse.ErrFormat},
		"sealed too short":   {func(l *layout) { l.sealed = l.sealed[:50]; l.head = nil }, sse.ErrFormat},
		"no head":            {func(l *layout) { l.head = nil }, sse.ErrFormat},
		"half a head":        {func(l *layout) { l.head = l.head[:55] }, sse.ErrFormat},
		"empty":              {func(l *layout) { *l = layout{} }, sse.ErrFormat},
	} {
		l := customerLayout()
		tc.edit(&l)
		require.ErrorIs(t, parse(l.bytes()), tc.want, name)
	}
	_, err := sse.ReadEnvelope(strings.NewReader("\x89SSE\r\n\x1a\n\x02"))
	require.ErrorIs(t, err, sse.ErrVersion, "the version comes before all that is behind it")
	data := customerLayout().bytes()
	require.ErrorIs(t, new(sse.Envelope).UnmarshalBinary(append(data, 0)), sse.ErrFormat)
	for n := range len(data) {
		_, err := sse.ReadEnvelope(bytes.NewReader(data[:n]))
		require.ErrorIs(t, err, sse.ErrFormat)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, n)
		err = new(sse.Envelope).UnmarshalBinary(data[:n])
		require.ErrorIs(t, err, sse.ErrFormat)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, n)
	}
	for _, mode := range []byte{1, 2} { // which are well formed otherwise
		l := customerLayout()
		l.mode, l.keyID = mode, bytes.Repeat([]byte("k"), 2048)
		if mode == 2 {
			l.wrapped = make([]byte, 6144)
		}
		l.context = pairs("a", "", "b", strings.Repeat("v", 8192-4-2-5+1))
		require.NoError(t, parse(l.bytes()), mode)
	}
}

// TestTextSpellings: an envelope has one text. SPEC ENV-6
func TestTextSpellings(t *testing.T) {
	env := envelope(t, newCustomer(t, customerKey), sse.Object{Context: kms.Context{"k": "vv"}})
	data := marshal(t, env)
	require.NotZero(t, len(data)%3, "the last character has spare bits")
	good := base64.RawURLEncoding.EncodeToString(data)
	require.NoError(t, new(sse.Envelope).UnmarshalText([]byte(good)))
	last := good[len(good)-1]
	for name, text := range map[string]string{
		"empty":        "",
		"padding":      base64.URLEncoding.EncodeToString(data),
		"std alphabet": base64.RawStdEncoding.EncodeToString(data[:len(data)-56]) + strings.Repeat("+/", 37),
		"line break":   good[:10] + "\n" + good[10:],
		"space":        " " + good,
		"spare bits":   good[:len(good)-1] + string(last+1),
		"cut":          good[:len(good)-4],
		"too long":     strings.Repeat("A", 100_000),
	} {
		err := new(sse.Envelope).UnmarshalText([]byte(text))
		require.ErrorIs(t, err, sse.ErrFormat, name)
	}
}

// TestParsingAllocatesWithItsInput: a few bytes that announce many cost little.
// SPEC ENV-5
func TestParsingAllocatesWithItsInput(t *testing.T) {
	data := customerLayout().bytes()[:14]
	binary.BigEndian.PutUint32(data[10:], sse.MaxEnvelopeSize)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		_, err := sse.ReadEnvelope(bytes.NewReader(data))
		require.ErrorIs(t, err, sse.ErrFormat)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, (after.TotalAlloc-before.TotalAlloc)/100, uint64(8<<10))

	// A size beyond the bound is refused for what it says. SPEC ENV-5
	binary.BigEndian.PutUint32(data[10:], sse.MaxEnvelopeSize+1)
	src := bytes.NewReader(append(data, make([]byte, 2*sse.MaxEnvelopeSize)...))
	_, err := sse.ReadEnvelope(src)
	require.ErrorIs(t, err, sse.ErrFormat)
	require.Equal(t, 2*sse.MaxEnvelopeSize, src.Len())
}

func TestModeNames(t *testing.T) {
	for mode, name := range map[sse.Mode]string{
		sse.ModeManaged: "SSE-S3", sse.ModeKMS: "SSE-KMS", sse.ModeCustomer: "SSE-C",
	} {
		require.Equal(t, name, mode.String())
		text, err := mode.MarshalText()
		require.NoError(t, err)
		require.Equal(t, name, string(text))
		var parsed sse.Mode
		require.NoError(t, parsed.UnmarshalText(text))
		require.Equal(t, mode, parsed)
	}
	require.Equal(t, "Mode(9)", sse.Mode(9).String())
	_, err := sse.Mode(0).MarshalText()
	require.ErrorIs(t, err, sse.ErrInvalid)
	require.ErrorIs(t, new(sse.Mode).UnmarshalText([]byte("AES256")), sse.ErrInvalid)
}

func TestIsEnvelope(t *testing.T) {
	data := seal(t, newCustomer(t, customerKey), object, nil, nil)
	require.True(t, sse.IsEnvelope(data))
	require.True(t, sse.IsEnvelope(data[:8]))
	require.True(t, sse.IsEnvelope([]byte("\x89SSE\r\n\x1a\n\x02")), "a later version")
	require.False(t, sse.IsEnvelope(data[:7]))
	require.False(t, sse.IsEnvelope([]byte("\x89PNG\r\n\x1a\n")))
	require.False(t, sse.IsEnvelope(nil))
}

func TestEnvelopeEqual(t *testing.T) {
	cipher := newCustomer(t, customerKey)
	env := envelope(t, cipher, object)
	same := new(sse.Envelope)
	require.NoError(t, same.UnmarshalBinary(marshal(t, env)))
	require.True(t, env.Equal(same))
	padded, err := env.WithSize(1000)
	require.NoError(t, err)
	require.False(t, env.Equal(padded))
	require.False(t, env.Equal(envelope(t, cipher, object)))
	require.False(t, env.Equal(nil))
	require.False(t, (*sse.Envelope)(nil).Equal(env))
	require.True(t, (*sse.Envelope)(nil).Equal(nil))
}
