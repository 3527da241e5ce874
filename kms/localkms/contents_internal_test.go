package localkms

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

func TestContentsAreCanonical(t *testing.T) {
	store := keyring.NewMemStore()
	client := full(t, store)
	_, err := client.CreateGrant(t.Context(), "alias/0", &CreateGrantInput{Grantee: "h", Operations: []kms.Operation{kms.OpDecrypt}})
	require.NoError(t, err)
	text := plaintext(t, store)
	var c contents
	require.NoError(t, c.parse(text, documentVersion, nil))
	again, err := c.marshal(0)
	require.NoError(t, err)
	require.Equal(t, text, again)
	require.Equal(t, 1, strings.Count(string(text), "// 0\n// 1"))
	for i := range text { // every cut, and bytes behind
		require.Error(t, new(contents).parse(text[:i], documentVersion, nil))
	}
	require.Error(t, new(contents).parse(append(bytes.Clone(text), 0), documentVersion, nil))
	for i := range text { // every byte: refused, or still canonical
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(text)
			changed[i] ^= bit
			var c contents
			if c.parse(changed, documentVersion, nil) == nil {
				again, err := c.marshal(0)
				require.NoError(t, err)
				require.Equal(t, changed, again, "byte %d", i)
			}
		}
	}
}

// What a document could say and this service never does is refused, as it could only
// be a mistake: the document is authentic.
func TestContentsThatCannotBe(t *testing.T) {
	store := keyring.NewMemStore()
	whole := full(t, store).service.doc.State().contents
	var first *key
	for _, k := range whole.sortedKeys(nil) {
		if len(k.grants) > 0 && k.state == Enabled {
			first = k
			break
		}
	}
	granted := func(edit func(*grant)) func(*contents, *key) {
		return func(_ *contents, k *key) {
			g := *k.grants[0]
			edit(&g)
			k.grants = append(slices.Clone(k.grants), &g)
			k.grants[0], k.grants = k.grants[len(k.grants)-1], k.grants[:len(k.grants)-1]
		}
	}
	for name, edit := range map[string]func(*contents, *key){
		"a grant of no operations":        granted(func(g *grant) { g.operations = 0 }),
		"a grant of other operations":     granted(func(g *grant) { g.operations = 1 << len(grantable) }),
		"a grant of another constraint":   granted(func(g *grant) { g.constraint = contextSubset + 1 }),
		"a grant without its context":     granted(func(g *grant) { g.context = nil }),
		"a grant with a context too many": granted(func(g *grant) { g.constraint = unconstrained }),
		"a grant to nobody":               granted(func(g *grant) { g.grantee = "" }),
		"a grant to bytes":                granted(func(g *grant) { g.grantee = "\xff" }),
		"a grant of a strange name":       granted(func(g *grant) { g.name = "a b" }),
		"a grant twice":                   func(_ *contents, k *key) { k.grants = append(slices.Clone(k.grants), k.grants[0]) },
		"an unknown state":                func(_ *contents, k *key) { k.state = "none" },
		"a deadline of an enabled key":    func(_ *contents, k *key) { k.deadline = 1 },
		"a deletion without a deadline":   func(_ *contents, k *key) { k.deletions = []deletion{{}}; k.finish() },
		"a state without its mark":        func(_ *contents, k *key) { k.state = Disabled },
		"a mark without its state":        func(_ *contents, k *key) { k.disabled = []mark{{}} },
		"marks out of order":              func(_ *contents, k *key) { k.disabled = []mark{{1}, {}}; k.finish() },
		"a rival of no version": func(_ *contents, k *key) {
			k.rivals = []material{{number: 9, origin: OnDemandRotation, key: secret.Random()}}
		},
		"a rotation that is too fast":    func(_ *contents, k *key) { k.rotation.days = MinRotationDays - 1 },
		"a rotation without its date":    func(_ *contents, k *key) { k.rotation.next = 0 },
		"the date of no rotation":        func(_ *contents, k *key) { k.rotation.days = 0 },
		"a time beyond all":              func(_ *contents, k *key) { k.created = maxMillis + 1 },
		"no material":                    func(_ *contents, k *key) { k.versions = nil },
		"a first version of a rotation":  func(_ *contents, k *key) { k.versions = k.versions[1:] },
		"a second version of a creation": func(_ *contents, k *key) { k.versions = append(slices.Clone(k.versions[:1]), k.versions[0]) },
		"an account of no name":          func(_ *contents, k *key) { k.account = "a b" },
		"an alias of another region":     func(_ *contents, k *key) { k.region = "elsewhere" },
		"an alias of no name":            func(c *contents, k *key) { c.aliases[aliasName{k.scope, "alias/"}] = []alias{{key: k.id}} },
		"an alias without a key":         func(c *contents, k *key) { c.aliases[aliasName{k.scope, "alias/x"}] = []alias{{}} },
	} {
		c := contents{keys: maps.Clone(whole.keys), aliases: maps.Clone(whole.aliases), history: whole.history}
		k := *first
		edit(&c, &k)
		c.keys[k.id] = &k
		text, err := c.marshal(0)
		require.NoError(t, err, name)
		require.Error(t, new(contents).parse(text, documentVersion, nil), name)
	}
	text, err := whole.marshal(0)
	require.NoError(t, err)
	require.NoError(t, new(contents).parse(text, documentVersion, nil))
}

// Policies have one numbering: each text once, in the order in which keys first name them.
func TestPoliciesHaveOneNumbering(t *testing.T) {
	whole := full(t, keyring.NewMemStore()).service.doc.State().contents
	keys := whole.sortedKeys(nil)
	for name, number := range map[string]func(policies []*policy) []*policy{
		"":                  func(p []*policy) []*policy { return p },
		"in another order":  func(p []*policy) []*policy { p[0], p[1] = p[1], p[0]; return p },
		"one without a key": func(p []*policy) []*policy { return append(p, &policy{text: "permit (principal, action, resource);"}) },
		"one twice":         func(p []*policy) []*policy { return append(p, p[0]) },
	} {
		c := new(codec)
		c.policies, c.numbers = numberPolicies(keys)
		c.policies = number(c.policies)
		for i, p := range c.policies {
			c.numbers[p.text] = uint32(i + 1)
		}
		c.contents(&whole, keys, documentVersion)
		require.NoError(t, c.err)
		require.Equal(t, name == "", new(contents).parse(c.out, documentVersion, nil) == nil, name)
	}
}

// TestDraftsShareNothing: one that is given up leaves no trace in another.
func TestDraftsShareNothing(t *testing.T) {
	store := keyring.NewMemStore()
	c := full(t, store)
	snap := c.service.doc.State()
	for id, original := range snap.keys {
		k := original
		for range 5 { // whatever room there is behind a slice
			a, b := draftOf(c, 1), draftOf(c, 2)
			first := a.rotate(k, OnDemandRotation)
			want := first.current().key
			b.rotate(k, OnDemandRotation)
			require.True(t, want.Equal(first.current().key))
			b.remove(k)
			require.Contains(t, a.keys, id)
			require.True(t, snap.keys[id] == original)
			require.Equal(t, len(k.versions)+1, len(first.versions))
			k = first
		}
	}
	require.Len(t, snap.aliases, 4)
}

// TestFrozenFormats: what earlier releases stored is still read. Files are added
// to testdata, and never changed.
func TestFrozenFormats(t *testing.T) {
	for _, name := range []string{"document-v1", "document-v2"} {
		t.Run(name, func(t *testing.T) { checkFrozen(t, name) })
	}
}

func checkFrozen(t *testing.T, name string) {
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	ciphertext, err := os.ReadFile("testdata/ciphertext-v1")
	require.NoError(t, err)
	store := keyring.NewMemStore()
	_, err = store.Swap(t.Context(), "", data)
	require.NoError(t, err)
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	c := testClient(t, store, &now)
	state := c.service.doc.State()
	again, err := state.contents.marshal(0)
	require.NoError(t, err)
	if state.version == documentVersion {
		require.Equal(t, plaintext(t, store), again)
	} else { // another process derives the same marks
		other, err := testClient(t, store, &now).service.doc.State().contents.marshal(0)
		require.NoError(t, err)
		require.Equal(t, other, again)
	}
	k, err := c.DescribeKey(t.Context(), "alias/0")
	require.NoError(t, err)
	require.Equal(t, "key 0", k.Description)
	require.Equal(t, Rotation{Days: 90, Next: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), Versions: 2}, k.Rotation)
	require.Equal(t, map[string]string{"a": "b", "c": ""}, k.Tags)
	require.True(t, k.HasPolicy)
	grants, err := c.ListGrants(t.Context(), k.ID)
	require.NoError(t, err)
	require.Equal(t, kms.Context{"x": "y", "z": ""}, grants[0].ContextSubset)
	got, err := c.Decrypt(t.Context(), "alias/0", ciphertext, kms.Context{"a": "b", "": "c"})
	require.NoError(t, err)
	require.Equal(t, "frozen", string(got))
	pending, err := c.DescribeKey(t.Context(), "alias/1")
	require.NoError(t, err)
	require.Equal(t, PendingDeletion, pending.State)
	if name == "document-v2" {
		require.Len(t, state.removed, 3)
		require.Len(t, state.deleted, 1)
		rivals := 0
		for _, k := range state.keys {
			rivals += len(k.rivals)
		}
		require.Equal(t, 1, rivals)
	}
}

// sealed returns the document with those contents, whatever they are.
func sealed(t testing.TB, text []byte) []byte {
	h := newDraft().header
	h.version = documentVersion
	dek, err := h.newKey(t.Context(), testRoot(t, 1))
	require.NoError(t, err)
	h.generation = 1
	data, err := h.seal(dek, text)
	require.NoError(t, err)
	return data
}

// allocated runs f and returns how many bytes it allocated.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestCountsAreCheckedBeforeAllocating(t *testing.T) {
	for at := range 3 {
		text := make([]byte, 12)
		binary.BigEndian.PutUint32(text[4*at:], 0xffffffff)
		require.Less(t, allocated(func() { require.Error(t, new(contents).parse(text, documentVersion, nil)) }), uint64(1<<16))
	}
}

// FuzzContents: what parses marshals back to the same bytes, and takes memory in
// proportion.
func FuzzContents(f *testing.F) {
	store := keyring.NewMemStore()
	full(f, store)
	f.Add(plaintext(f, store))
	f.Add(make([]byte, 12))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c contents
		if c.parse(text, documentVersion, nil) != nil {
			return
		}
		again, err := c.marshal(0)
		require.NoError(t, err)
		require.Equal(t, text, again)
		opened, err := openDocument(t.Context(), testRoot(t, 1), sealed(t, text), nil)
		require.NoError(t, err)
		for _, k := range opened.keys { // whatever the policy is
			c := &Client{service: &Service{}, scope: k.scope}
			c.authorize(t.Context(), kms.OpDecrypt, k, nil)
			k.info()
		}
	})
}
