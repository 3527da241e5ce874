package localkms_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// modelKey is what the model knows of a key.
type modelKey struct {
	id          string
	state       localkms.State
	deadline    time.Time
	cancelled   []time.Time         // deadlines that were
	locked      bool                // by a policy that permits the administrator alone
	grants      map[string]struct{} // ids of grants to the guest
	versions    int
	ciphertexts [][]byte
	usableUntil time.Time // when the guest last lost it; zero while the guest may use it
}

func (k *modelKey) clone() *modelKey {
	c := *k
	c.grants, c.ciphertexts = maps.Clone(k.grants), slices.Clone(k.ciphertexts)
	return &c
}

func (k *modelKey) permitsGuest() bool { return !k.locked || len(k.grants) > 0 }

// apply compares how a change ended with what the model expects, and changes the
// model. k may have changed meanwhile, so refused was computed before; it is what
// the state at that time says.
func (h *history) apply(what string, k *modelKey, err error, refused bool, change func(*modelKey)) {
	h.note("%s %.8s: %v", what, k.id, err)
	after := k.clone()
	change(after)
	switch {
	case errors.Is(err, kms.ErrUnavailable), err == nil && h.nestedChange(): // which came first is not known
		h.resolve(k, after)
	case err == nil:
		h.replace(k, after)
	case errors.Is(err, kms.ErrNotFound):
		require.True(h.t, h.mayBeGone(k) || h.nestedChange(), "%s: %v", what, err)
	default:
		require.True(h.t, refused || h.nestedChange(), "%s: %v", what, err)
	}
}

// nestedChange tolerates refusals of a change during which another one happened.
func (h *history) nestedChange() bool {
	n := len(h.log)
	return slices.Contains(h.log[max(0, n-3):], "meanwhile:")
}

// mayBeGone reports whether a process may have deleted the key. A process that
// opens a document from before a deletion was cancelled may, once its deadline has
// passed: nothing tells it better.
func (h *history) mayBeGone(k *modelKey) bool {
	due := func(deadline time.Time) bool { return !h.latest.Before(deadline) }
	return k.state == localkms.PendingDeletion && due(k.deadline) || h.failedOver && slices.ContainsFunc(k.cancelled, due)
}

// replace puts a key's next state into the model.
func (h *history) replace(k, after *modelKey) {
	usable := func(k *modelKey) bool { return k.state == localkms.Enabled && k.permitsGuest() }
	switch {
	case usable(after):
		after.usableUntil = time.Time{}
	case usable(k):
		after.usableUntil = time.Now()
	}
	*k = *after
}

// resolve finds out whether a change happened whose caller was told that nobody knows.
func (h *history) resolve(k, after *modelKey) {
	c := h.observer()
	if h.compare(c, k) != nil {
		h.replace(k, after)
		require.NoError(h.t, h.compare(c, k), "after a change that failed, neither the old nor the new state")
	}
}

// adoptUnknown takes keys into the model whose creation nobody confirmed.
func (h *history) adoptUnknown() {
	for info, err := range h.observer().ListKeys(h.ctx("admin")) {
		require.NoError(h.t, err)
		if !slices.ContainsFunc(h.keys, func(k *modelKey) bool { return k.id == info.ID }) {
			h.keys = append(h.keys, &modelKey{id: info.ID, state: info.State, grants: map[string]struct{}{}, versions: 1})
		}
	}
}

// compare compares a key with the model, and completes the model by what it cannot know.
func (h *history) compare(c *localkms.Client, k *modelKey) error {
	info, err := c.DescribeKey(h.ctx("admin"), k.id)
	if errors.Is(err, kms.ErrNotFound) && h.mayBeGone(k) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.State == k.state && k.state == localkms.PendingDeletion && k.deadline.IsZero() {
		k.deadline = info.Deletion // nobody was told
	}
	if info.State != k.state || k.state == localkms.PendingDeletion && !info.Deletion.Equal(k.deadline) {
		return fmt.Errorf("%.8s is %v until %v, want %v until %v", k.id, info.State, info.Deletion, k.state, k.deadline)
	}
	if info.HasPolicy != k.locked {
		return fmt.Errorf("%.8s has a policy: %v, want %v", k.id, info.HasPolicy, k.locked)
	}
	if info.Rotation.Versions < k.versions {
		return fmt.Errorf("%.8s has %d versions, had %d", k.id, info.Rotation.Versions, k.versions)
	}
	grants := make(map[string]struct{})
	list, err := c.ListGrants(h.ctx("admin"), k.id)
	if err != nil {
		return err
	}
	for _, g := range list {
		grants[g.ID] = struct{}{}
	}
	if _, unknown := k.grants["?"]; unknown && len(grants) == len(k.grants) {
		k.grants = grants
	}
	if !maps.Equal(grants, k.grants) {
		return fmt.Errorf("%.8s has %d grants, want %d", k.id, len(grants), len(k.grants))
	}
	k.versions = info.Rotation.Versions
	return nil
}

// wantUse returns how a use of a key ends at a process that knows the store.
func (h *history) wantUse(p *historyProcess, k *modelKey) error {
	switch {
	case k.state == localkms.PendingDeletion && !time.Now().Add(p.skew).Before(k.deadline):
		return kms.ErrNotFound
	case h.mayBeGone(k):
		if _, err := p.DescribeKey(h.ctx("admin"), k.id); errors.Is(err, kms.ErrNotFound) {
			return kms.ErrNotFound
		}
	}
	switch {
	case !k.permitsGuest():
		return kms.ErrDenied
	case k.state == localkms.Disabled:
		return kms.ErrDisabled
	case k.state == localkms.PendingDeletion:
		return kms.ErrPendingDeletion
	default:
		return nil
	}
}
