package s3gateway_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/backend/meta"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/sse"
)

// damageBed is a store whose files a test damages, behind gateways.
type damageBed struct {
	*killBed
	rng   *rand.Rand
	plain *s3.Client // of a gateway that allows plain objects
	total tally
	whole map[*content][]byte // large contents are made once
}

func (d *damageBed) bytes(c *content) []byte {
	if d.whole[c] == nil {
		d.whole[c] = c.bytes()
	}
	return d.whole[c]
}

// damageBeds calls test over files, and with BLOBSEAL_STRESS=1m over another S3 server.
func damageBeds(t *testing.T, test func(*testing.T, *damageBed)) {
	beds := overFiles
	if os.Getenv("BLOBSEAL_STRESS") != "" {
		beds = killBeds
	}
	beds(t, func(t *testing.T, b *killBed) {
		b.start(t)
		allow := b.gateways
		allow.AllowPlain = true
		c := allow.start(t).client(t)
		seeds.Run(t, 1, func(t *testing.T, seed uint64) {
			d := &damageBed{killBed: b, plain: c, rng: rand.New(rand.NewPCG(seed, 2)), whole: map[*content][]byte{}}
			test(t, d)
			t.Logf("%v", &d.total)
			require.Empty(t, d.total.wrong)
		})
	})
}

// damageCount returns how many random positions of a region a test damages.
func damageCount(few int) int {
	if os.Getenv("BLOBSEAL_STRESS") != "" {
		return few * 20
	}
	return few
}

// modes returns the modes of the objects: all, or one of them in a short run.
func (d *damageBed) modes() []mode {
	if os.Getenv("BLOBSEAL_STRESS") != "" {
		return modes()[1:]
	}
	m := 1 + d.rng.IntN(3)
	return modes()[m : m+1]
}

// file returns the stored file of an object.
func (d *damageBed) file(key string) string { return d.store.path("data/" + bucket + "/" + key) }

// whileDamaged replaces the content of a file while do runs. The file keeps its attributes.
func whileDamaged(t *testing.T, file string, content []byte, do func()) {
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	write := func(content []byte) {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
		require.NoError(t, err)
		_, err = f.Write(content)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	write(content)
	do()
	write(good)
}

// whileFlipped replaces a byte of a file while do runs.
func (d *damageBed) whileFlipped(t *testing.T, file string, at int64, do func()) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	var was [1]byte
	_, err = f.ReadAt(was[:], at)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{was[0] ^ 1<<d.rng.IntN(8)}, at)
	require.NoError(t, err)
	do()
	_, err = f.WriteAt(was[:], at)
	require.NoError(t, err)
}

// read reads an object as a whole and in part, through both gateways. A response that ends
// cleanly must be the object, and HEAD must return its size.
func (d *damageBed) read(t *testing.T, m mode, key, what string, c *content) {
	d.readAs(t, m, key, what, c, true)
}

// readCut is read for an object whose stored size is wrong. HEAD computes the size from it,
// and proves nothing.
func (d *damageBed) readCut(t *testing.T, m mode, key, what string, c *content) {
	d.readAs(t, m, key, what, c, false)
}

func (d *damageBed) readAs(t *testing.T, m mode, key, what string, c *content, head bool) {
	for i, client := range []*s3.Client{d.client, d.plain} {
		name := fmt.Sprintf("%s (gateway %d)", what, i)
		a := &actor{t: t, c: client, rng: d.rng, tally: &tally{anyCode: true}, may: map[string][]*content{key: {c}}, bytes: d.bytes}
		a.getKey(m, key, false)
		a.getKey(m, key, true)
		if head {
			a.headKey(m, key)
		}
		for _, wrong := range a.tally.wrong {
			d.total.addLie("%s: %s", name, wrong)
		}
		d.total.add(a.tally)
	}
}

// put stores an object in a mode, at once.
func (d *damageBed) put(t *testing.T, m mode, key string, c *content) {
	in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(c.bytes())}
	m.put(in)
	_, err := d.client.PutObject(t.Context(), in)
	require.NoError(t, err)
}

// TestDamagedObjects flips bits in every region of stored objects, truncates and extends them,
// and damages their metadata. No response with other content ends cleanly.
func TestDamagedObjects(t *testing.T) {
	damageBeds(t, func(t *testing.T, d *damageBed) {
		const whole, tag = sse.ChunkSize + 16, 16
		for _, m := range d.modes() {
			c := &content{seed: 1, size: 2*sse.ChunkSize + 5000}
			d.put(t, m, m.name, c)
			d.read(t, m, m.name, "good", c)
			file := d.file(m.name)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			body := len(good) - c.size - 3*tag
			require.Equal(t, stored.DefaultEnvelopeSize, body)
			regions := []region{
				{"magic and version", 0, 10}, {"envelope", 10, body - 56}, {"head", body - 56, 56},
				{"chunk", body, sse.ChunkSize}, {"tag", body + sse.ChunkSize, tag}, {"chunk 2", body + whole, sse.ChunkSize},
				{"last chunk", body + 2*whole, 5000}, {"last tag", len(good) - tag, tag},
			}
			for _, r := range regions {
				for _, at := range r.positions(d.rng, damageCount(3)) {
					what := fmt.Sprintf("%s, %s, byte %d", m.name, r.name, at)
					d.whileFlipped(t, file, int64(at), func() { d.read(t, m, m.name, what, c) })
				}
			}
			for _, cut := range []int{0, 1, 8, 100, body - 1, body, body + 16, body + whole - 1, body + whole, body + 2*whole, len(good) - 1} {
				whileDamaged(t, file, good[:cut], func() { d.readCut(t, m, m.name, fmt.Sprintf("%s, cut at %d", m.name, cut), c) })
			}
			swapped := slices.Concat(good[:body], good[body+whole:body+2*whole], good[body:body+whole], good[body+2*whole:])
			whileDamaged(t, file, swapped, func() { d.read(t, m, m.name, m.name+", swapped chunks", c) })
			whileDamaged(t, file, append(bytes.Clone(good), 0), func() { d.readCut(t, m, m.name, m.name+", a byte more", c) })
			d.damageMetadata(t, m, c)
		}
	})
}

// region is a range of bytes with one meaning.
type region struct {
	name  string
	at, n int
}

// positions returns the region's first and last byte and some others.
func (r region) positions(rng *rand.Rand, n int) []int {
	all := []int{r.at, r.at + r.n - 1}
	for range n {
		all = append(all, r.at+rng.IntN(r.n))
	}
	return all
}

// damageMetadata deletes or changes the attributes of a stored object.
func (d *damageBed) damageMetadata(t *testing.T, m mode, c *content) {
	const name = "metadata"
	attributes, dir := meta.XattrMeta{}, d.store.path("data/"+bucket)
	good, err := attributes.RetrieveAttribute(nil, dir, m.name, name)
	require.NoError(t, err)
	// Only values change: if a damaged name cannot be the name of a header, clients take the
	// answer for a broken one.
	for _, bad := range []string{
		"{}", "no JSON", string(good[:len(good)-1]), strings.ReplaceAll(string(good), `:"`, `:"1`), strings.ReplaceAll(string(good), `:"`, `:"x`),
		strings.ReplaceAll(string(good), "SSE-", "SSX-"), strings.ReplaceAll(string(good), "1024", "1023"), strings.ReplaceAll(string(good), "1024", "-1"),
	} {
		require.NoError(t, attributes.StoreAttribute(nil, dir, m.name, name, []byte(bad)))
		d.read(t, m, m.name, fmt.Sprintf("%s, metadata %q", m.name, bad), c)
	}
	require.NoError(t, attributes.DeleteAttribute(dir, m.name, name))
	d.read(t, m, m.name, m.name+", no metadata", c)
	require.NoError(t, attributes.StoreAttribute(nil, dir, m.name, name, good))
}

// TestDamagedComposites does so with objects that were uploaded in parts: bits of each
// region, and parts that are swapped, dropped, repeated or those of another object.
func TestDamagedComposites(t *testing.T) {
	damageBeds(t, func(t *testing.T, d *damageBed) {
		m := modes()[1+d.rng.IntN(3)]
		c := &content{seed: 1, size: 2*partSize + 1000}
		for _, key := range []string{"big", "other"} {
			u := d.begin(t, m, key, c)
			require.NoError(t, u.parts(t, d.client))
			require.NoError(t, u.finish(t, d.client))
		}
		d.read(t, m, "big", "good", c)
		file := d.file("big")
		good, err := os.ReadFile(file)
		require.NoError(t, err)
		other, err := os.ReadFile(d.file("other"))
		require.NoError(t, err)
		const part = 12 + 56 + partSize + 16*(partSize/sse.ChunkSize+1)
		const chunk = sse.ChunkSize + 16
		last := 2 * part
		end := len(good)
		for _, r := range []region{
			{"prefix", 0, 12}, {"part's head", 12, 56}, {"chunk", 68, sse.ChunkSize}, {"tag", 68 + sse.ChunkSize, 16},
			{"part's last chunk", part - 16, 16}, {"second prefix", part, 12}, {"second part", part + 68, partSize},
			{"last part", last, 12 + 56 + 1000 + 16}, {"filler", last + 1084, 100_000},
			{"manifest", end - 32 - stored.DefaultEnvelopeSize - 100, 100}, {"envelope", end - 32 - stored.DefaultEnvelopeSize, stored.DefaultEnvelopeSize},
			{"footer", end - 32, 32},
		} {
			for _, at := range r.positions(d.rng, damageCount(1)) {
				d.whileFlipped(t, file, int64(at), func() { d.read(t, m, "big", fmt.Sprintf("%s, %s, byte %d", m.name, r.name, at), c) })
			}
		}
		one, two, rest := good[:part], good[part:2*part], good[2*part:]
		for what, bad := range map[string][]byte{
			"swapped parts": slices.Concat(two, one, rest), "a dropped part": slices.Concat(one, rest), "a repeated part": slices.Concat(one, one, rest),
			"one part more": slices.Concat(one, two, two, rest), "another object's part": slices.Concat(one, other[part:2*part], rest),
			"another object": other, "another object's trailer": slices.Concat(good[:end-1500], other[len(other)-1500:]),
			"a dropped chunk": slices.Concat(good[:68], good[68+chunk:]), "cut at a part": one, "cut in the trailer": good[:end-1],
			"cut in the filler": good[:last+100_000], "a byte more": append(bytes.Clone(good), 0),
		} {
			whileDamaged(t, file, bad, func() { d.readCut(t, m, "big", what, c) })
		}
	})
}

// begin begins an upload of a content in three parts.
func (d *damageBed) begin(t *testing.T, m mode, key string, c *content) *script {
	u := newScript(m, key)
	p := d.bytes(c)
	u.contents, u.plain = [][]byte{p[:partSize], p[partSize : 2*partSize], p[2*partSize:]}, true
	require.NoError(t, u.create(t, d.client))
	return u
}

// glob returns the only file of a pattern below the store's directory.
func (d *damageBed) glob(t *testing.T, pattern string) string {
	found, err := filepath.Glob(d.store.path(pattern))
	require.NoError(t, err)
	require.Len(t, found, 1, pattern)
	return found[0]
}
