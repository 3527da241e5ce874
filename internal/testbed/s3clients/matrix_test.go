package s3clients

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// task is what a client is to do. Clients that are programs of ours read its JSON.
type task struct {
	Do       string `json:"do"` // put, get, range, copy, list, sync, presign-get or presign-put
	Key      string `json:"key"`
	File     string `json:"file"` // that put reads, and get and range write; sync reads a directory
	Mode     mode   `json:"mode"` // of the object of Key
	From     string `json:"from"` // the source of a copy
	FromMode mode   `json:"fromMode"`
	Parts    bool   `json:"parts"` // put and copy in parts
	Offset   int64  `json:"offset"`
	Length   int64  `json:"length"`
}

// answer is what a client says.
type answer struct {
	Error   string            `json:"error"`
	Code    string            `json:"code"`    // S3's code of the error, if the client says it
	Sizes   map[string]int64  `json:"sizes"`   // of a list: of all objects whose keys begin with Key
	Moved   int               `json:"moved"`   // objects that a sync has stored
	URL     string            `json:"url"`     // that the client signed
	Headers map[string]string `json:"headers"` // that the client signed with it
}

// client is a client of S3.
type client struct {
	name string

	// start prepares a client of a gateway, or skips and says what to install.
	start func(t *testing.T, b *bed) doer

	// isCommand says that each task starts a process, which takes much of its time.
	isCommand bool

	// cannot says what the client cannot do, and why: patterns of path.Match for
	// names of cells.
	cannot map[string]string
}

// seldom are cells that commands do over S3 only if BLOBSEAL_STRESS is set: what they
// send does not depend on the inner store, and libraries do all cells there.
var seldom = []string{"put and get, default", "range, *", "copy, SSE-S3 to SSE-S3", "copy, SSE-KMS to SSE-KMS", "copy, SSE-C to SSE-C",
	"copy, SSE-S3 to SSE-C", "copy, SSE-KMS to SSE-S3", "copy, SSE-C to SSE-KMS", "copy onto itself, *", "sync twice, SSE-KMS", "sync twice, SSE-C"}

func (r *run) isSeldom(cell string) bool {
	return r.client.isCommand && r.over == onS3 && os.Getenv("BLOBSEAL_STRESS") == "" &&
		slices.ContainsFunc(seldom, func(pattern string) bool { return matches(pattern, cell) })
}

// matches reports whether a pattern matches the name of a cell.
func matches(pattern, cell string) bool {
	ok, err := path.Match(pattern, cell)
	if err != nil {
		panic(err)
	}
	return ok
}

// doer does tasks.
type doer func(ctx context.Context, do task) (answer, error)

// clients are those of the matrix.
var clients = []client{awsCLI, boto3, javaScript, minioGo, rclone, s3cmd, mc}

const (
	partSize  = 5 << 20
	smallSize = 100_000
	bigSize   = partSize + smallSize // two parts
)

// run is the run of a client over a store.
type run struct {
	*bed
	client *client
	do     doer
	secret *secrets
	modes  []mode
	small  []byte
	big    []byte

	all      []string        // names of cells
	done     []string        // those that the client did
	left     []string        // those left to BLOBSEAL_STRESS
	patterns map[string]bool // of cannot, that were used
	searched int64           // bytes
}

// TestClients has each client do each cell of the matrix over each store: put and get
// objects in each mode, at once and in parts, in ranges, copy them from each mode to
// each mode, sign URLs, list sizes, and be refused. Then it searches for secrets.
func TestClients(t *testing.T) {
	var mu sync.Mutex
	var runs []*run
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		t.Log(table(runs))
	})
	for i := range clients {
		for _, over := range []store{onFiles, onS3} {
			c := &clients[i]
			t.Run(c.name+"/"+string(over), func(t *testing.T) {
				t.Parallel()
				r := newRun(t, c, over)
				for _, cell := range r.cells() {
					r.all = append(r.all, cell.name)
					if r.whyNot(cell.name) != "" {
						continue
					}
					if r.isSeldom(cell.name) {
						r.left = append(r.left, cell.name)
						continue
					}
					if t.Run(cell.name, cell.test) {
						r.done = append(r.done, cell.name)
					}
				}
				require.Equal(t, slices.Sorted(maps.Keys(c.cannot)), slices.Sorted(maps.Keys(r.patterns)), "a pattern of what %s cannot do names no cell", c.name)
				r.stop()
				found, size, err := r.secret.search(r.dir)
				require.NoError(t, err)
				require.Empty(t, found)
				r.searched = size
				mu.Lock()
				defer mu.Unlock()
				runs = append(runs, r)
			})
		}
	}
}

func newRun(t *testing.T, c *client, over store) *run {
	r := &run{client: c, secret: newSecrets(), patterns: map[string]bool{}}
	r.bed = newBed(t, over)
	r.do = c.start(t, r.bed)
	r.modes = r.bed.modes()
	for _, m := range r.modes {
		r.addSecrets(m)
	}
	r.small, r.big = r.secret.plaintext(smallSize), r.secret.plaintext(bigSize)
	r.write(t, "small", r.small)
	r.write(t, "big", r.big)
	return r
}

func (r *run) addSecrets(m mode) {
	if m.Customer != nil {
		r.secret.addCustomer(m.Customer)
	}
}

// whyNot returns why the client cannot do a cell, or "".
func (r *run) whyNot(cell string) string {
	for pattern, reason := range r.client.cannot {
		if matches(pattern, cell) {
			r.patterns[pattern] = true
			return reason
		}
	}
	return ""
}

// cell is a cell of the matrix: a column, and the modes.
type cell struct {
	name string // "copy, SSE-C to SSE-S3"
	test func(t *testing.T)
}

// columns are those of the table, in the order of their cells.
var columns = []string{"put and get", "parts", "range", "copy", "copy in parts", "copy onto itself", "presigned GET", "presigned PUT", "refusal", "list", "sync twice"}

func (r *run) cells() (cells []cell) {
	each := func(column string, test func(t *testing.T, m mode)) {
		for _, m := range r.modes {
			cells = append(cells, cell{column + ", " + m.Name, func(t *testing.T) { test(t, m) }})
		}
	}
	cells = append(cells, cell{"put and get, " + bucketDefault, func(t *testing.T) { r.putAndGet(t, "small", r.small, mode{Name: bucketDefault}, false) }})
	each("put and get", func(t *testing.T, m mode) { r.putAndGet(t, "small", r.small, m, false) })
	each("parts", func(t *testing.T, m mode) { r.putAndGet(t, "big", r.big, m, true) })
	each("range", r.getRange)
	for _, from := range r.modes {
		for _, to := range r.modes {
			cells = append(cells, cell{fmt.Sprintf("copy, %s to %s", from.Name, to.Name), func(t *testing.T) { r.copyTo(t, from, to) }})
		}
	}
	for i, from := range r.modes {
		to := r.modes[(i+1)%len(r.modes)]
		cells = append(cells, cell{fmt.Sprintf("copy in parts, %s to %s", from.Name, to.Name), func(t *testing.T) { r.copyInParts(t, from, to) }})
	}
	cells = append(cells, r.selfCopies()...)
	each("presigned GET", r.presignedGet)
	each("presigned PUT", r.presignedPut)
	cells = append(cells,
		cell{"refusal, no key", func(t *testing.T) { r.refused(t, mode{Name: "SSE-S3"}, "InvalidRequest") }},
		cell{"refusal, wrong key", func(t *testing.T) {
			wrong := mode{Name: "SSE-C", Customer: newCustomer()}
			r.addSecrets(wrong)
			r.refused(t, wrong, "AccessDenied")
		}},
		cell{"list", r.list})
	each("sync twice", r.syncTwice)
	return cells
}

// must has the client do a task.
func (r *run) must(t *testing.T, do task) answer {
	got, err := r.do(t.Context(), do)
	require.NoError(t, err)
	require.Empty(t, got.Error, "%s of %s", do.Do, do.Key)
	return got
}

func (r *run) write(t *testing.T, name string, content []byte) {
	require.NoError(t, os.WriteFile(filepath.Join(r.work, name), content, 0o600))
}

// gets checks that a file of the client has a content, and removes it.
func (r *run) gets(t *testing.T, name string, content []byte) {
	got, err := os.ReadFile(filepath.Join(r.work, name))
	require.NoError(t, err)
	require.Equal(t, len(content), len(got))
	require.Equal(t, string(content[:16]), string(got[:16]))
	require.True(t, string(content) == string(got))
	require.NoError(t, os.Remove(filepath.Join(r.work, name)))
}

// ensure uploads an object if it does not exist. The test uploads it, and not the client,
// so that a client that cannot write in a mode is still tested for reading.
func (r *run) ensure(t *testing.T, file string, m mode) (key string, content []byte) {
	key, content = m.Name+"/"+file, r.small
	if file == "big" {
		content = r.big
	}
	if r.send(t, http.MethodHead, "/"+bucket+"/"+key, "", m.readHeaders()).StatusCode == http.StatusOK {
		return key, content
	}
	put := r.send(t, http.MethodPut, "/"+bucket+"/"+key, string(content), m.writeHeaders())
	require.Equal(t, http.StatusOK, put.StatusCode, "%s", put.body)
	return key, content
}

func (r *run) putAndGet(t *testing.T, file string, content []byte, m mode, parts bool) {
	key := m.Name + "/" + file
	r.must(t, task{Do: "put", Key: key, File: file, Mode: m, Parts: parts})
	r.verify(t, key, m, content)
	r.must(t, task{Do: "get", Key: key, File: "got", Mode: m, Parts: parts})
	r.gets(t, "got", content)
	if parts {
		head := r.send(t, http.MethodHead, "/"+bucket+"/"+key, "", m.readHeaders())
		require.Regexp(t, inParts, head.Header.Get("ETag"), "the client did not upload in parts")
	}
}

// inParts matches the ETag of an object of two parts. Over another S3 server, the
// trailer is a part more, and an object that was stored at once has "-1".
const inParts = `-[23]"$`

// getRange gets a range that crosses the border of two parts.
func (r *run) getRange(t *testing.T, m mode) {
	key, content := r.ensure(t, "big", m)
	off, n := int64(partSize-100), int64(300)
	r.must(t, task{Do: "range", Key: key, File: "got", Mode: m, Offset: off, Length: n})
	r.gets(t, "got", content[off:off+n])
}

func (r *run) copyTo(t *testing.T, from, to mode) {
	key, content := r.ensure(t, "small", from)
	copied := "copy/" + from.Name + "/" + to.Name
	r.must(t, task{Do: "copy", Key: copied, Mode: to, From: key, FromMode: from})
	r.verify(t, copied, to, content)
}

func (r *run) copyInParts(t *testing.T, from, to mode) {
	key, content := r.ensure(t, "big", from)
	copied := "copy-in-parts/" + from.Name
	r.must(t, task{Do: "copy", Key: copied, Mode: to, From: key, FromMode: from, Parts: true})
	r.verify(t, copied, to, content)
	head := r.send(t, http.MethodHead, "/"+bucket+"/"+copied, "", to.readHeaders())
	require.Regexp(t, inParts, head.Header.Get("ETag"), "the client did not copy in parts")
}

// selfCopies copy an object onto itself: from each mode to the next, and to another
// customer's key.
func (r *run) selfCopies() (cells []cell) {
	rotated := mode{Name: "SSE-C", Customer: newCustomer()}
	r.addSecrets(rotated)
	for _, step := range [][2]mode{{r.modes[0], r.modes[1]}, {r.modes[1], r.modes[2]}, {r.modes[2], rotated}, {r.modes[2], r.modes[0]}} {
		from, to := step[0], step[1]
		cells = append(cells, cell{fmt.Sprintf("copy onto itself, %s to %s", from.Name, to.Name), func(t *testing.T) {
			key := "self/" + from.Name + "/" + to.Name
			put := r.send(t, http.MethodPut, "/"+bucket+"/"+key, string(r.small), from.writeHeaders())
			require.Equal(t, http.StatusOK, put.StatusCode, "%s", put.body)
			r.must(t, task{Do: "copy", Key: key, Mode: to, From: key, FromMode: from})
			r.verify(t, key, to, r.small)
		}})
	}
	return cells
}

func (r *run) presignedGet(t *testing.T, m mode) {
	key, content := r.ensure(t, "small", m)
	signed := r.must(t, task{Do: "presign-get", Key: key, Mode: m})
	got, err := r.sendPresigned(t.Context(), http.MethodGet, signed.URL, signed.Headers, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, got.StatusCode, "%s", got.body)
	require.True(t, string(content) == string(got.body))
	r.urlIsSecret(t, m, signed.URL)
}

func (r *run) presignedPut(t *testing.T, m mode) {
	key := "presigned/" + m.Name
	signed := r.must(t, task{Do: "presign-put", Key: key, Mode: m})
	put, err := r.sendPresigned(t.Context(), http.MethodPut, signed.URL, signed.Headers, r.small)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, put.StatusCode, "%s", put.body)
	r.verify(t, key, m, r.small)
	// The signature covers the mode: who has the URL cannot store in another one.
	without, err := r.sendPresigned(t.Context(), http.MethodPut, signed.URL, nil, r.small)
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, without.StatusCode, "%s", without.body)
	r.urlIsSecret(t, m, signed.URL)
}

// urlIsSecret checks that a URL does not tell the customer's key.
func (r *run) urlIsSecret(t *testing.T, m mode, url string) {
	if m.Customer != nil {
		require.Empty(t, r.secret.find([]byte(url)))
	}
}

// refused has the client get a range of a customer's object without its key. Many
// clients look before they get a whole object, and the answer to HEAD has no code.
func (r *run) refused(t *testing.T, m mode, code string) {
	key, _ := r.ensure(t, "small", r.modes[2])
	got, err := r.do(t.Context(), task{Do: "range", Key: key, File: "refused", Mode: m, Length: 10})
	require.NoError(t, err)
	require.NotEmpty(t, got.Error)
	if got.Code != "" {
		require.Equal(t, code, got.Code)
	}
	if content, err := os.ReadFile(filepath.Join(r.work, "refused")); err == nil {
		require.Empty(t, content)
	}
}

// list checks the sizes of objects of each mode, uploaded at once and in parts.
func (r *run) list(t *testing.T) {
	want := map[string]int64{}
	for _, m := range r.modes {
		for _, file := range []string{"small", "big"} {
			key, content := r.ensure(t, file, m)
			want[key] = int64(len(content))
		}
	}
	require.Equal(t, want, r.must(t, task{Do: "list", Key: "SSE-"}).Sizes)
}

// syncTwice synchronizes a directory twice. The sizes, times and ETags that the client
// sees must not make it store anything again.
func (r *run) syncTwice(t *testing.T, m mode) {
	long := time.Now().Add(-time.Hour) // lists count whole seconds, and a newer file is copied
	for name, content := range map[string][]byte{"a": r.small, "deep/b": r.small[:1], "deep/empty": {}, "big": r.big} {
		require.NoError(t, os.MkdirAll(filepath.Join(r.work, "tree/deep"), 0o700))
		r.write(t, "tree/"+name, content)
		require.NoError(t, os.Chtimes(filepath.Join(r.work, "tree", name), long, long))
	}
	sync := task{Do: "sync", Key: "sync/" + m.Name, File: "tree", Mode: m}
	require.Equal(t, 4, r.must(t, sync).Moved)
	require.Equal(t, 0, r.must(t, sync).Moved, "the second sync stores objects again")
	r.verify(t, "sync/"+m.Name+"/a", m, r.small)
}

// table prints what each client did.
func table(runs []*run) string {
	slices.SortFunc(runs, func(a, b *run) int {
		return cmp.Or(strings.Compare(a.client.name, b.client.name), -strings.Compare(string(a.over), string(b.over)))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "\n| client | store | %s | searched |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)+3))
	for _, r := range runs {
		fmt.Fprintf(&b, "| %s | %s", r.client.name, r.over)
		for _, column := range columns {
			in := func(cell string) bool { return cell == column || strings.HasPrefix(cell, column+", ") }
			fmt.Fprintf(&b, " | %d of %d", count(r.done, in), count(r.all, in))
			if left := count(r.left, in); left > 0 {
				fmt.Fprintf(&b, ", %d with BLOBSEAL_STRESS", left)
			}
		}
		fmt.Fprintf(&b, " | %d MiB: no secret |\n", r.searched>>20)
	}
	for i, r := range runs {
		if i > 0 && runs[i-1].client == r.client {
			continue
		}
		for _, pattern := range slices.Sorted(maps.Keys(r.client.cannot)) {
			fmt.Fprintf(&b, "%s cannot: %s: %s\n", r.client.name, pattern, r.client.cannot[pattern])
		}
	}
	return b.String()
}

func count(names []string, in func(string) bool) (n int) {
	for _, name := range names {
		if in(name) {
			n++
		}
	}
	return n
}
