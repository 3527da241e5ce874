package localkms_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// tenants are keys of two accounts that have to be stopped while the document
// is full.
type tenants struct {
	*service
	victim           *localkms.Client
	disable, destroy string
	revoke           *localkms.Grant
	retire           *localkms.Grant
	policy           string
	rotating         []string
	greedy           []string
}

func newTenants(t *testing.T, store keyring.Store) *tenants {
	s := &tenants{service: open(t, store, func(o *localkms.Options) { o.Quota.Grants = 100000 })}
	s.victim = s.client("victim", "")
	key := func(in *localkms.CreateKeyInput) string {
		info, err := s.victim.CreateKey(t.Context(), in)
		require.NoError(t, err)
		return info.ID
	}
	s.disable, s.destroy = key(nil), key(nil)
	s.policy = key(&localkms.CreateKeyInput{Policy: permitAll})
	for _, g := range []**localkms.Grant{&s.revoke, &s.retire} {
		var err error
		*g, err = s.victim.CreateGrant(t.Context(), s.disable, &localkms.CreateGrantInput{
			Grantee: "thief", RetiringPrincipal: "thief", Operations: []kms.Operation{kms.OpDecrypt},
		})
		require.NoError(t, err)
	}
	for range 8 {
		s.rotating = append(s.rotating, key(&localkms.CreateKeyInput{RotationDays: 90}))
	}
	return s
}

// fill creates grants of another account until one is refused, and then smaller
// ones until not even the smallest fits.
func (s *tenants) fill(t *testing.T) (count int, err error) {
	greedy := s.client("greedy", "")
	var id string
	for _, size := range []int{maxPrincipal, 100, 1} {
		for i := 0; ; i++ {
			if i%maxGrants == 0 {
				info, err := greedy.CreateKey(t.Context(), nil)
				if err != nil {
					return count, err
				}
				id = info.ID
				s.greedy = append(s.greedy, id)
			}
			_, err = greedy.CreateGrant(t.Context(), id, &localkms.CreateGrantInput{
				Grantee: strings.Repeat("g", size), RetiringPrincipal: strings.Repeat("r", size),
				Operations: []kms.Operation{kms.OpDecrypt}, ContextSubset: kms.Context{"a": strings.Repeat("x", size)},
			})
			if err != nil {
				break
			}
			count++
		}
	}
	return count, err
}

// stop takes power away in each way that there is.
func (s *tenants) stop(t *testing.T) {
	require.NoError(t, s.victim.RevokeGrant(t.Context(), s.disable, s.revoke.ID))
	require.NoError(t, s.victim.RetireGrant(as(t, "thief"), s.disable, s.retire.ID))
	require.NoError(t, s.victim.DisableKey(t.Context(), s.disable))
	_, err := s.victim.ScheduleKeyDeletion(t.Context(), s.destroy, 7)
	require.NoError(t, err)
	require.NoError(t, s.victim.DeleteKeyPolicy(t.Context(), s.policy))
}

// TestAFullDocumentDoesNotProtectAKey: one account fills the document, rotations
// are due that do not fit, and the other account can still stop its keys.
func TestAFullDocumentDoesNotProtectAKey(t *testing.T) {
	s := newTenants(t, &bounded{keyring.NewMemStore()})
	count, err := s.fill(t)
	t.Logf("%d grants", count)
	require.ErrorIs(t, err, localkms.ErrFull)
	isKind(t, kms.ErrInvalid, err)
	s.clock.Advance(90 * day)
	s.stop(t)
	s.clock.Advance(7 * day)
	_, err = s.victim.DescribeKey(t.Context(), s.destroy)
	isKind(t, kms.ErrNotFound, err)
	s.restart()
	s.victim = s.client("victim", "")
	rotated := func() (count int) {
		for _, id := range s.rotating {
			info, err := s.victim.DescribeKey(t.Context(), id)
			require.NoError(t, err)
			count += info.Rotation.Versions - 1
		}
		return count
	}
	require.NotZero(t, rotated(), "what was taken away made room for some")
	require.Less(t, rotated(), 8, "the reserve is not for rotations")
	for _, id := range s.greedy[:1] {
		_, err := s.client("greedy", "").ScheduleKeyDeletion(t.Context(), id, 7)
		require.NoError(t, err)
	}
	s.clock.Advance(7 * day)
	s.restart()
	s.victim = s.client("victim", "")
	require.Equal(t, 8, rotated())
}

// TestAFullStoreDoesNotProtectAKey: the document is as large as the store allows,
// without a reserve, as one of an earlier release or of a larger store can be.
func TestAFullStoreDoesNotProtectAKey(t *testing.T) {
	larger := keyring.NewMemStore()
	s := newTenants(t, larger)
	greedy := s.client("greedy", "")
	size := func() int {
		data, _, err := larger.Load(t.Context())
		require.NoError(t, err)
		return len(data)
	}
	large := ""
	for size() < keyring.MaxDocumentSize-2*maxDescription {
		info, err := greedy.CreateKey(t.Context(), &localkms.CreateKeyInput{Description: strings.Repeat("x", maxDescription)})
		require.NoError(t, err)
		large = info.ID
	}
	for size() < keyring.MaxDocumentSize-300 {
		_, err := greedy.CreateKey(t.Context(), nil)
		require.NoError(t, err)
	}
	s.store = &bounded{larger}
	s.clock.Advance(90 * day)
	s.restart()
	s.victim = s.client("victim", "")
	_, err := s.victim.GenerateDataKey(t.Context(), s.rotating[0], nil)
	require.NoError(t, err, "goes on with the version that it has")
	_, err = s.victim.CreateKey(t.Context(), nil)
	require.ErrorIs(t, err, localkms.ErrFull)
	require.NoError(t, s.client("greedy", "").UpdateDescription(t.Context(), large, ""), "what makes the document smaller passes")
	s.stop(t)
}

// TestAStoreThatRefusesADocumentAsTooLarge: the error is not one to retry.
func TestAStoreThatRefusesADocumentAsTooLarge(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	s.store = &tooLarge{s.store}
	s.restart()
	err := s.DisableKey(t.Context(), id)
	require.ErrorIs(t, err, localkms.ErrFull)
	isKind(t, kms.ErrInvalid, err)
}

type tooLarge struct{ keyring.Store }

func (s *tooLarge) Swap(context.Context, string, []byte) (string, error) {
	return "", fmt.Errorf("%w: %w", keyring.ErrFull, errors.New("request is too large"))
}

func TestQuotasPerAccount(t *testing.T) {
	s := open(t, nil, func(o *localkms.Options) { o.Quota = localkms.Quota{Keys: 3, Grants: 2, Policies: 2} })
	limited := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, localkms.ErrLimit)
		isKind(t, kms.ErrInvalid, err)
	}
	a, b, other := s.client("a", ""), s.client("a", "elsewhere"), s.client("b", "")
	var ids []string
	for _, c := range []*localkms.Client{a, a, b} {
		info, err := c.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		ids = append(ids, info.ARN)
	}
	_, err := b.CreateKey(t.Context(), nil)
	limited(err)
	_, err = a.Encrypt(t.Context(), localkms.DefaultAlias, []byte("x"), nil)
	limited(err)

	in := &localkms.CreateGrantInput{Grantee: "g", Operations: []kms.Operation{kms.OpDecrypt}}
	for i := range 2 {
		_, err := a.CreateGrant(t.Context(), ids[i], in)
		require.NoError(t, err)
	}
	_, err = a.CreateGrant(t.Context(), ids[2], in)
	limited(err)

	put := func(i int, policy string) error { return a.PutKeyPolicy(t.Context(), ids[i], policy, nil) }
	require.NoError(t, put(0, permitAll))
	require.NoError(t, put(1, permitAll+" "))
	require.NoError(t, put(2, permitAll), "a policy counts once, however many keys have it")
	limited(put(2, permitAll+"  "))
	require.NoError(t, put(1, permitAll+"  "), "one in place of another")
	require.NoError(t, a.DeleteKeyPolicy(t.Context(), ids[1]))
	require.NoError(t, put(2, permitAll+" "))
	_, err = other.CreateKey(t.Context(), &localkms.CreateKeyInput{Policy: permitAll})
	require.NoError(t, err, "each account has its own quota")

	_, err = localkms.Open(t.Context(), s.store, keyRoot(t, 1), &localkms.Options{Quota: localkms.Quota{Keys: -1}})
	isKind(t, kms.ErrInvalid, err)
}
