package localkms

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

var forkTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// put makes the store hold data, as a failover or an attacker does.
func put(t testing.TB, store keyring.Store, data []byte) {
	t.Helper()
	_, version, err := store.Load(t.Context())
	require.NoError(t, err)
	_, err = store.Swap(t.Context(), version, data)
	require.NoError(t, err)
}

// TestALostChangeIsHealed: the store loses a change, and other processes, which do
// not know it, write on. The process that made it finds out, and merges.
func TestALostChangeIsHealed(t *testing.T) {
	id, alias := "", "alias/x"
	var g *Grant
	for name, test := range map[string]struct {
		lose  func(c *Client) error
		holds func(c *Client) bool
	}{
		"DisableKey": {
			func(c *Client) error { return c.DisableKey(t.Context(), id) },
			func(c *Client) bool {
				k, err := c.DescribeKey(t.Context(), id)
				return err == nil && k.State == Disabled
			},
		},
		"ScheduleKeyDeletion": {
			func(c *Client) error { _, err := c.ScheduleKeyDeletion(t.Context(), id, 7); return err },
			func(c *Client) bool {
				k, err := c.DescribeKey(t.Context(), id)
				return err == nil && k.State == PendingDeletion && k.Deletion.Equal(forkTime.AddDate(0, 0, 7))
			},
		},
		"PutKeyPolicy": {
			func(c *Client) error {
				return c.PutKeyPolicy(t.Context(), id, "permit (principal, action, resource);", nil)
			},
			func(c *Client) bool { text, err := c.KeyPolicy(t.Context(), id); return err == nil && text != "" },
		},
		"RevokeGrant": {
			func(c *Client) error { return c.RevokeGrant(t.Context(), id, g.ID) },
			func(c *Client) bool { list, err := c.ListGrants(t.Context(), id); return err == nil && len(list) == 0 },
		},
		"DeleteAlias": {
			func(c *Client) error { return c.DeleteAlias(t.Context(), alias) },
			func(c *Client) bool { _, err := c.DescribeKey(t.Context(), alias); return err != nil },
		},
		"Tag": {
			func(c *Client) error { return c.Tag(t.Context(), id, map[string]string{"a": "b"}) },
			func(c *Client) bool {
				k, err := c.DescribeKey(t.Context(), id)
				return err == nil && k.Tags["a"] == "b"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := keyring.NewMemStore()
			now := forkTime
			c := testClient(t, store, &now)
			k, err := c.CreateKey(t.Context(), nil)
			require.NoError(t, err)
			id = k.ID
			require.NoError(t, c.CreateAlias(t.Context(), alias, id))
			g, err = c.CreateGrant(t.Context(), id, &CreateGrantInput{Grantee: "g", Operations: []kms.Operation{kms.OpDecrypt}})
			require.NoError(t, err)
			old, _, err := store.Load(t.Context())
			require.NoError(t, err)
			require.NoError(t, test.lose(c))
			require.True(t, test.holds(c))

			put(t, store, old)
			fork := testClient(t, store, &now)
			var made []string
			for range 3 {
				k, err := fork.CreateKey(t.Context(), nil)
				require.NoError(t, err)
				made = append(made, k.ID)
			}
			require.False(t, test.holds(fork))
			require.NoError(t, c.service.Refresh(t.Context()))
			for _, c := range []*Client{c, testClient(t, store, &now)} {
				require.True(t, test.holds(c))
				for _, id := range made {
					_, err := c.DescribeKey(t.Context(), id)
					require.NoError(t, err)
				}
			}
			require.NoError(t, fork.service.Refresh(t.Context()))
			require.True(t, test.holds(fork))
			healed := c.service.Stats().Generation
			for _, c := range []*Client{c, fork, c, fork} {
				require.NoError(t, c.service.Refresh(t.Context()))
			}
			require.Equal(t, healed, fork.service.Stats().Generation, "healing ends")
		})
	}
}

// TestVersionsOfAForkAllDecrypt: both camps rotate and encrypt while they do not
// know of each other.
func TestVersionsOfAForkAllDecrypt(t *testing.T) {
	store := keyring.NewMemStore()
	now := forkTime
	c := testClient(t, store, &now)
	k, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	old, _, err := store.Load(t.Context())
	require.NoError(t, err)
	var ciphertexts [][]byte
	camp := func(c *Client) {
		_, err := c.RotateKey(t.Context(), k.ID)
		require.NoError(t, err)
		text, err := c.Encrypt(t.Context(), k.ID, []byte("x"), nil)
		require.NoError(t, err)
		ciphertexts = append(ciphertexts, text)
	}
	camp(c)
	put(t, store, old)
	fork := testClient(t, store, &now)
	camp(fork)
	require.NoError(t, c.service.Refresh(t.Context()))
	require.NoError(t, fork.service.Refresh(t.Context()))
	for _, c := range []*Client{c, fork, testClient(t, store, &now)} {
		for _, text := range ciphertexts {
			plaintext, err := c.Decrypt(t.Context(), k.ID, text, nil)
			require.NoError(t, err)
			require.Equal(t, "x", string(plaintext))
		}
	}
}

// TestTwoPoliciesBothApply until an administrator decides, and the log says so.
func TestTwoPoliciesBothApply(t *testing.T) {
	store := keyring.NewMemStore()
	now := forkTime
	var said strings.Builder
	c := testClient(t, store, &now)
	c.service.format.log = slog.New(slog.NewTextHandler(&said, nil))
	k, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	old, _, err := store.Load(t.Context())
	require.NoError(t, err)
	permit := func(names ...string) string {
		text := `permit (principal == Principal::"", action, resource);`
		for _, name := range names {
			text += fmt.Sprintf("permit (principal == Principal::%q, action, resource);", name)
		}
		return text
	}
	require.NoError(t, c.PutKeyPolicy(t.Context(), k.ID, permit("a", "b"), nil))
	put(t, store, old)
	fork := testClient(t, store, &now)
	require.NoError(t, fork.PutKeyPolicy(t.Context(), k.ID, permit("b", "c"), nil))
	require.NoError(t, fork.UpdateDescription(t.Context(), k.ID, "x"))
	require.NoError(t, c.service.Refresh(t.Context()))
	require.Contains(t, said.String(), k.ARN)
	may := func(name string) bool {
		return c.Authorize(kms.WithPrincipal(t.Context(), kms.Principal{ID: name}), kms.OpDecrypt, k.ID, nil) == nil
	}
	require.Equal(t, []bool{false, true, false}, []bool{may("a"), may("b"), may("c")})
	text, err := c.KeyPolicy(t.Context(), k.ID)
	require.NoError(t, err)
	require.Contains(t, text, `"a"`)
	require.Contains(t, text, `"c"`)
	require.NoError(t, c.PutKeyPolicy(t.Context(), k.ID, permit("a", "c"), nil))
	require.Equal(t, []bool{true, false, true}, []bool{may("a"), may("b"), may("c")})
}

// randomEdit changes a draft in one of the ways that there are.
func randomEdit(r *rand.Rand, c *Client, d *draft) {
	d.now += r.Int64N(1000)
	keys := d.sortedKeys(nil)
	if len(keys) < 2 || r.IntN(12) == 0 {
		k, _ := c.newKey(&CreateKeyInput{RotationDays: 90})
		k.created, k.settled, k.versions[0].created, k.rotation.next = d.now, d.now, d.now, nextRotation(d.now, 90)
		d.put(k)
		return
	}
	k := keys[r.IntN(len(keys))]
	name := aliasName{k.scope, fmt.Sprint("alias/", r.IntN(3))}
	switch r.IntN(12) {
	case 0:
		d.edit(k, (*key).disable)
	case 1:
		takeBack(d, k.disabled...)
		d.edit(k, func(k *key) { k.disabled = nil })
	case 2:
		d.edit(k, func(k *key) { k.deletions = []deletion{{newMark(), d.now + day}} })
	case 3:
		takeBack(d, k.deletions...)
		d.edit(k, func(k *key) { k.deletions = nil })
	case 4:
		d.setPolicy(k, &policy{text: fmt.Sprintf("permit (principal, action, resource); // %d", r.IntN(3))})
	case 5:
		d.setPolicy(k, nil)
	case 6:
		g := &grant{created: d.now, grantee: "g", operations: 1, name: fmt.Sprint(r.IntN(2))}
		copy(g.id[:], bytes.Repeat(slices.Clone(newMarkBytes()), 2))
		d.edit(k, func(k *key) { k.grants = append(slices.Clip(k.grants), g) })
	case 7:
		if len(k.grants) > 0 {
			g := k.grants[r.IntN(len(k.grants))]
			takeBack(d, g)
			d.edit(k, func(k *key) {
				k.grants = slices.DeleteFunc(slices.Clone(k.grants), func(one *grant) bool { return one == g })
			})
		}
	case 8:
		d.rotate(k, OnDemandRotation)
	case 9:
		d.editSettings(k, func(k *key) { k.description = fmt.Sprint(r.IntN(5)) })
	case 10:
		d.putAlias(name, alias{key: k.id, created: d.now, updated: d.now})
	case 11:
		switch _, found := d.aliases[name]; {
		case found:
			d.removeAlias(name)
		case r.IntN(4) == 0:
			d.remove(k)
		}
	}
}

func newMarkBytes() []byte { m := newMark(); return m[:] }

// TestMergeIsASemilattice: merging is commutative, associative and idempotent; the
// result includes both sides, and can be read again.
func TestMergeIsASemilattice(t *testing.T) {
	c := &Client{service: &Service{}, scope: scope{defaultAccount, defaultRegion}}
	text := func(c *contents) string {
		b, err := c.marshal(0)
		require.NoError(t, err)
		var again contents
		require.NoError(t, again.parse(b, documentVersion, nil))
		return string(b)
	}
	// known is c without what is of no consequence: when marks were removed.
	known := func(c *contents) *contents {
		same := *c
		same.removed = make(map[mark]int64)
		for m, when := range c.removed {
			if when > c.watermark {
				same.removed[m] = 0
			}
		}
		return &same
	}
	for range 60 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		base := newDraft()
		base.now = 1000
		for range r.IntN(30) {
			randomEdit(r, c, base)
		}
		var camps [3]*contents
		for i := range camps {
			d := &draft{state: state{contents: base.contents}, now: base.now, past: base.now}
			for range r.IntN(15) {
				randomEdit(r, c, d)
			}
			if r.IntN(3) == 0 { // forgets what it removed
				d.past += removedFor.Milliseconds()
				d.prune()
			}
			camps[i] = &d.contents
		}
		x, y, z := camps[0], camps[1], camps[2]
		xy, yx, yz := x.merge(y), y.merge(x), y.merge(z)
		require.Equal(t, text(&xy), text(&yx), "commutative, seed %d", seed)
		left, right := xy.merge(z), x.merge(&yz)
		require.Equal(t, text(&left), text(&right), "associative, seed %d", seed)
		again := xy.merge(x)
		require.Equal(t, text(&xy), text(&again), "idempotent, seed %d", seed)
		require.NoError(t, x.includes(&xy), "seed %d", seed)
		require.NoError(t, y.includes(&xy), "seed %d", seed)
		if xy.includes(x) == nil { // so they differ in nothing that matters
			require.Equal(t, text(known(x)), text(known(&xy)), "seed %d", seed)
		}
	}
}

// TestIncludesRefusesWhatWasTakenBack: a document that forgot that an act was taken back
// does not include one that knows, if it holds the act.
func TestIncludesRefusesWhatWasTakenBack(t *testing.T) {
	id, m := keyID{1}, mark{1}
	name := aliasName{scope{defaultAccount, defaultRegion}, "alias/a"}
	base := func() (contents, *key) {
		c := newContents()
		k := &key{scope: name.scope, id: id, versions: []material{{number: 1, origin: Created, key: secret.Random()}}}
		c.keys[id] = k
		return c, k
	}
	for what, put := range map[string]func(c *contents, k *key){
		"nothing":     func(*contents, *key) {},
		"a disabling": func(_ *contents, k *key) { k.disabled = []mark{m} },
		"a deletion":  func(_ *contents, k *key) { k.deletions = []deletion{{m, 1}} },
		"a policy":    func(_ *contents, k *key) { k.policies = []keyPolicy{{m, &policy{}}} },
		"a grant": func(_ *contents, k *key) {
			k.grants = []*grant{{id: [16]byte(append(m[:], make([]byte, 8)...)), created: 9}}
		},
		"an alias": func(c *contents, _ *key) { c.aliases[name] = []alias{{mark: m, key: id, updated: 9}} },
	} {
		c, k := base()
		c.removed[m] = 5
		next, n := base()
		n.versions = k.versions
		next.watermark = 5
		put(&next, n)
		err := c.includes(&next)
		require.Equal(t, what == "nothing", err == nil, what)
		merged := c.merge(&next)
		require.NoError(t, c.includes(&merged), what)
		require.NoError(t, next.includes(&merged), what)
		require.Empty(t, merged.aliases, what)
		require.Equal(t, Enabled, merged.keys[id].state, what)
		require.Empty(t, merged.keys[id].policies, what)
		require.Empty(t, merged.keys[id].grants, what)
	}
}

// TestWriteFrozenDocument writes testdata/document-v2, once.
func TestWriteFrozenDocument(t *testing.T) {
	if os.Getenv("BLOBSEAL_WRITE_FROZEN") == "" {
		t.Skip("only to add a file to testdata")
	}
	data, err := os.ReadFile("testdata/document-v1")
	require.NoError(t, err)
	store := keyring.NewMemStore()
	_, err = store.Swap(t.Context(), "", data)
	require.NoError(t, err)
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	c := testClient(t, store, &now)
	k, err := c.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	old, _, err := store.Load(t.Context())
	require.NoError(t, err)
	_, err = c.RotateKey(t.Context(), k.ID)
	require.NoError(t, err)
	put(t, store, old)
	fork := testClient(t, store, &now)
	_, err = fork.RotateKey(t.Context(), k.ID)
	require.NoError(t, err)
	require.NoError(t, fork.DisableKey(t.Context(), k.ID))
	require.NoError(t, fork.EnableKey(t.Context(), k.ID))
	require.NoError(t, fork.DisableKey(t.Context(), k.ID))
	require.NoError(t, fork.CreateAlias(t.Context(), "alias/removed", k.ID))
	require.NoError(t, fork.DeleteAlias(t.Context(), "alias/removed"))
	require.NoError(t, fork.PutKeyPolicy(t.Context(), k.ID, "permit (principal, action, resource);", nil))
	require.NoError(t, fork.DeleteKeyPolicy(t.Context(), k.ID))
	require.NoError(t, fork.service.update(t.Context(), func(d *draft) error {
		gone, err := c.newKey(&CreateKeyInput{})
		d.put(gone)
		d.remove(gone)
		return err
	}, func() error { return nil }))
	require.NoError(t, c.service.Refresh(t.Context()))
	data, _, err = store.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("testdata/document-v2", data, 0o644))
}
