package keyring

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clone returns a draft that shares nothing with d that an edit writes to.
func (d *draft) clone() *draft {
	c := *d
	c.versions, c.keys = slices.Clone(d.versions), maps.Clone(d.keys)
	return &c
}

// content is the part of a document that merge changes.
func (d *draft) content() string {
	var b bytes.Buffer
	fmt.Fprintln(&b, d.ring, d.watermark, d.period, d.changes)
	for _, v := range d.versions {
		fmt.Fprintln(&b, v.number, v.id, v.state, v.created, v.changed, v.disabled, v.enabled)
		if key := d.keys[v.id]; key != nil {
			fmt.Fprintf(&b, "%x\n", key.KeyData.Value)
		}
	}
	return b.String()
}

// wander makes random changes to a draft, as a process would.
func wander(t *testing.T, rng *rand.Rand, d *draft, steps int) {
	t.Helper()
	now := testTime.Add(time.Duration(rng.IntN(3000)) * 24 * time.Hour)
	for range steps {
		now = now.Add(time.Duration(rng.IntN(200)) * 24 * time.Hour)
		d.generation++
		switch rng.IntN(5) {
		case 0:
			d.period, d.changes = minPeriod*time.Duration(1+rng.IntN(3)), d.changes+1
		case 1:
			require.NoError(t, d.rotate(now))
		default:
			v := d.versions[rng.IntN(len(d.versions))]
			if v.state == Destroyed || v.id == d.primary().id {
				continue
			}
			state := stateCodes[1+rng.IntN(3)]
			if state == Destroyed && rng.IntN(3) > 0 {
				state = Disabled
			}
			_, err := d.setState(v.id, state, d.dateOfChange(now, false))
			require.NoError(t, err)
		}
	}
}

func merged(t *testing.T, a, b *draft) *draft {
	t.Helper()
	c := a.clone()
	require.NoError(t, c.merge(b))
	return c
}

// Merging is commutative, associative and idempotent. The result includes both documents,
// can be sealed, and never revives a version that one of them disabled or destroyed.
//
// SPEC RING-5
func TestMergeProperties(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for range rounds {
		base, err := newDraft(defaultPeriod, testTime)
		require.NoError(t, err)
		wander(t, rng, base, rng.IntN(20))
		camps := make([]*draft, 3)
		for i := range camps {
			camps[i] = base.clone()
			wander(t, rng, camps[i], rng.IntN(20))
			if i > 0 && rng.IntN(2) == 0 { // they met before
				camps[i] = merged(t, camps[i], camps[i-1])
				wander(t, rng, camps[i], rng.IntN(10))
			}
		}
		a, b, c := camps[0], camps[1], camps[2]
		ab := merged(t, a, b)
		require.Equal(t, ab.content(), merged(t, b, a).content(), "commutative")
		require.Equal(t, merged(t, ab, c).content(), merged(t, a, merged(t, b, c)).content(), "associative")
		require.Equal(t, a.content(), merged(t, a, a).content(), "idempotent")
		require.Equal(t, ab.content(), merged(t, ab, b).content(), "idempotent")
		for _, d := range []*draft{a, b} {
			require.NoError(t, d.includedIn(&ab.metadata))
			requireNothingRevived(t, d, ab)
			if ab.includedIn(&d.metadata) == nil {
				require.Equal(t, d.versions[len(d.versions)-1].id, ab.primary().id)
			} else {
				require.NotEqual(t, d.content(), ab.content())
			}
		}
		parsed, err := format{}.Open(t.Context(), testRoot(t), seal(t, ab), nil)
		require.NoError(t, err)
		require.Equal(t, ab.content(), parsed.content())
	}
}

func requireNothingRevived(t *testing.T, before, after *draft) {
	t.Helper()
	for _, v := range before.versions {
		w := after.lookup(v)
		if v.state == Destroyed {
			require.True(t, w == nil || w.state == Destroyed)
			require.NotContains(t, after.keys, v.id)
			continue
		}
		if w == nil || w.state == Destroyed {
			continue
		}
		for _, m := range v.disabled {
			require.True(t, w.state == Disabled || hasMark(w.enabled, m))
		}
	}
	for _, w := range after.versions {
		require.True(t, before.lookup(w) != nil || w.number > before.watermark, "pruned and back")
	}
}

// Two documents that grew from one of version 1 have the same numbers and marks.
//
// SPEC RING-5
func TestMergeOfVersion1(t *testing.T) {
	open := func() *draft {
		d, err := format{}.Open(t.Context(), testRoot(t), frozen(t, "v1-key-root"), nil)
		require.NoError(t, err)
		require.True(t, d.legacy)
		return d
	}
	a, b := open(), open()
	require.Equal(t, a.content(), merged(t, a, b).content())
	_, err := a.setState(a.versions[0].id, Enabled, a.dateOfChange(testTime, false))
	require.NoError(t, err)
	require.NoError(t, b.rotate(testTime))
	m := merged(t, a, b)
	require.Equal(t, m.content(), merged(t, b, a).content())
	require.Equal(t, Enabled, m.versions[0].state, "a enabled what b still has as disabled")
	require.Equal(t, b.primary().id, m.primary().id)
	again, err := format{}.Open(t.Context(), testRoot(t), seal(t, m), nil)
	require.NoError(t, err)
	require.False(t, again.legacy)
	require.Equal(t, m.content(), again.content())
}

// Any enabled version may be the primary of a document of version 1.
func TestVersion1WithAnEarlierPrimary(t *testing.T) {
	data := frozen(t, "v1-key-root")
	d, err := parseDocument(data)
	require.NoError(t, err)
	earlier := d.versions[2].id
	data = bytes.Clone(data)
	for i := range 4 { // the primary's id, behind magic, version, length, ring, generation and period
		data[8+1+3+8+8+4+i] = byte(earlier >> (24 - 8*i))
	}
	d, err = parseDocument(Rechecksum(data))
	require.NoError(t, err)
	require.Equal(t, earlier, d.primary().id)
}

func TestMergeRefuses(t *testing.T) {
	a, b := testDraft(t), testDraft(t)
	require.ErrorIs(t, a.merge(b), ErrOtherRing)
	b = a.clone()
	b.keys[a.primary().id] = &masterKey{KeyData: b.keys[a.versions[2].id].KeyData}
	require.ErrorContains(t, a.clone().merge(b), "two keys")
	b = a.clone()
	b.versions[2].created++
	require.ErrorContains(t, a.clone().merge(b), "two versions")
}
