package s3gateway_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// underway are the files of an upload: its parts, and the records of the gateways.
type underway struct {
	t       *testing.T
	d       *damageBed
	id      string
	another *underway // an upload of the same object, that nobody completes
	old     string    // a copy of an attempt at part 2 that was superseded
}

func (u *underway) part(number int) string {
	return u.d.glob(u.t, fmt.Sprintf("data/%s/.sgwtmp/multipart/*/%s/%d", bucket, u.id, number))
}

func (u *underway) receipt(number int) string {
	return u.d.glob(u.t, fmt.Sprintf("data/blobseal-gateway-state/uploads/%s/%s/part-%05d-*", bucket, u.id, number))
}

func (u *underway) state() string {
	return u.d.glob(u.t, fmt.Sprintf("data/blobseal-gateway-state/uploads/%s/%s/state", bucket, u.id))
}

// swap exchanges two files, with their attributes.
func (u *underway) swap(a, b string) {
	require.NoError(u.t, os.Rename(a, a+"+"))
	require.NoError(u.t, os.Rename(b, a))
	require.NoError(u.t, os.Rename(a+"+", b))
}

// copy replaces a file by another one, with its attributes.
func (u *underway) copy(from, to string) {
	require.NoError(u.t, os.Remove(to))
	require.NoError(u.t, exec.Command("cp", "-a", from, to).Run())
}

// fill replaces the content of a file, which keeps its attributes.
func (u *underway) fill(file string, content []byte) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	require.NoError(u.t, err)
	_, err = f.Write(content)
	require.NoError(u.t, err)
	require.NoError(u.t, f.Close())
}

func (u *underway) content(file string) []byte {
	content, err := os.ReadFile(file)
	require.NoError(u.t, err)
	return content
}

// swapContents swaps the contents of two files.
func (u *underway) swapContents(one, two string) {
	c := u.content(one)
	u.fill(one, u.content(two))
	u.fill(two, c)
}

// flip flips a bit of a file.
func (u *underway) flip(file string) {
	content := u.content(file)
	content[u.d.rng.IntN(len(content))] ^= 1 << u.d.rng.IntN(8)
	u.fill(file, content)
}

// uploadDamages are ways to damage an upload in the store.
var uploadDamages = map[string]func(u *underway){
	"swapped parts":            func(u *underway) { u.swap(u.part(1), u.part(2)) },
	"swapped contents":         func(u *underway) { u.swapContents(u.part(1), u.part(2)) },
	"a dropped part":           func(u *underway) { require.NoError(u.t, os.Remove(u.part(2))) },
	"a repeated part":          func(u *underway) { u.copy(u.part(1), u.part(2)) },
	"a repeated content":       func(u *underway) { u.fill(u.part(2), u.content(u.part(1))) },
	"a superseded part":        func(u *underway) { u.copy(u.old, u.part(2)) },
	"a superseded content":     func(u *underway) { u.fill(u.part(2), u.content(u.old)) },
	"another upload's part":    func(u *underway) { u.copy(u.another.part(2), u.part(2)) },
	"another upload's content": func(u *underway) { u.fill(u.part(2), u.content(u.another.part(2))) },
	"a flipped bit":            func(u *underway) { u.flip(u.part(2)) },
	"a flipped bit of a head":  func(u *underway) { c := u.content(u.part(1)); c[u.d.rng.IntN(68)] ^= 1; u.fill(u.part(1), c) },
	"a part cut short":         func(u *underway) { c := u.content(u.part(1)); u.fill(u.part(1), c[:len(c)-1]) },
	"the last part cut short":  func(u *underway) { c := u.content(u.part(3)); u.fill(u.part(3), c[:500]) },
	"a longer part":            func(u *underway) { u.fill(u.part(2), append(u.content(u.part(2)), 0)) },
	"swapped receipts":         func(u *underway) { u.swapContents(u.receipt(1), u.receipt(2)) },
	"a dropped receipt":        func(u *underway) { require.NoError(u.t, os.Remove(u.receipt(2))) },
	"another upload's receipt": func(u *underway) { u.fill(u.receipt(2), u.content(u.another.receipt(2))) },
	"a flipped receipt":        func(u *underway) { u.flip(u.receipt(1)) },
	"an empty receipt":         func(u *underway) { u.fill(u.receipt(3), nil) },
	"another upload's state":   func(u *underway) { u.fill(u.state(), u.content(u.another.state())) },
	"a dropped state":          func(u *underway) { require.NoError(u.t, os.Remove(u.state())) },
	"a flipped state":          func(u *underway) { u.flip(u.state()) },
	"nothing":                  func(*underway) {},
}

// TestDamagedUploads damages uploads before they are completed. Either completing fails, or
// the object cannot be read, or it is what the client uploaded.
func TestDamagedUploads(t *testing.T) {
	damageBeds(t, func(t *testing.T, d *damageBed) {
		names := []string{}
		for name := range uploadDamages {
			names = append(names, name)
		}
		slices.Sort(names)
		m := modes()[1+d.rng.IntN(3)]
		c := &content{seed: 1, size: 2*partSize + 1000}
		files := func(t *testing.T, u *script) *underway { return &underway{t: t, d: d, id: *u.id} }
		another := d.begin(t, m, "k/another", c)
		require.NoError(t, another.parts(t, d.client))
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				u := d.begin(t, m, "k/"+name, c)
				right := u.contents[1]
				u.contents[1] = bytes.Repeat([]byte("old "), partSize/4)
				require.NoError(t, u.parts(t, d.client))
				f := files(t, u)
				f.another = files(t, another)
				f.old = d.store.path("old-attempt")
				require.NoError(t, os.RemoveAll(f.old))
				require.NoError(t, exec.Command("cp", "-a", f.part(2), f.old).Run())
				oldReceipt := f.receipt(2)
				u.contents[1] = right
				delete(u.acked, 2)
				require.NoError(t, u.parts(t, d.client))
				require.NoError(t, os.Remove(oldReceipt))

				uploadDamages[name](f)
				err := u.finish(t, d.client)
				d.total.anyCode = true
				d.total.answer("complete, "+name, err)
				if name == "nothing" {
					require.NoError(t, err)
				}
				if err == nil {
					d.read(t, m, u.key, name, c)
					return
				}
				require.False(t, u.exists(t, d.client))
				if err := u.abort(t, d.client); err != nil {
					d.total.answer("abort, "+name, err)
				}
				require.False(t, u.exists(t, d.client))
			})
		}
	})
}
