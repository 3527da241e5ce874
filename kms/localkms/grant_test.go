package localkms_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// locked makes a key that only its administrator may do something with.
func (s *service) locked() string {
	s.t.Helper()
	info, err := s.CreateKey(as(s.t, "admin"), &localkms.CreateKeyInput{
		Policy: `permit (principal == Principal::"admin", action, resource);`})
	require.NoError(s.t, err)
	return info.ID
}

func (s *service) grant(id string, in localkms.CreateGrantInput) *localkms.Grant {
	s.t.Helper()
	g, err := s.CreateGrant(as(s.t, "admin"), id, &in)
	require.NoError(s.t, err)
	return g
}

func TestGrantsPermitTheirOperationsToTheirGrantee(t *testing.T) {
	ops := []kms.Operation{
		kms.OpGenerateDataKey, localkms.OpGenerateDataKeyWithoutPlaintext, localkms.OpEncrypt, kms.OpDecrypt,
		localkms.OpReEncryptFrom, localkms.OpReEncryptTo, localkms.OpDescribeKey,
	}
	s := open(t, nil, nil)
	for _, granted := range ops {
		id := s.locked()
		g := s.grant(id, localkms.CreateGrantInput{Grantee: "app", Operations: []kms.Operation{granted, granted}})
		require.Equal(t, []kms.Operation{granted}, g.Operations)
		for range 2 {
			for _, op := range ops {
				err := s.Authorize(as(t, "app"), op, id, nil)
				if op == granted {
					require.NoError(t, err)
				} else {
					isKind(t, kms.ErrDenied, err)
				}
				isKind(t, kms.ErrDenied, s.Authorize(as(t, "App"), op, id, nil))
				isKind(t, kms.ErrDenied, s.Authorize(t.Context(), op, id, nil))
			}
			s.restart()
		}
		require.NoError(t, s.RevokeGrant(as(t, "admin"), id, g.ID))
		isKind(t, kms.ErrDenied, s.Authorize(as(t, "app"), granted, id, nil))
		isKind(t, kms.ErrNotFound, s.RevokeGrant(as(t, "admin"), id, g.ID))
	}
}

func TestAnExplicitForbidBeatsGrants(t *testing.T) {
	s := open(t, nil, nil)
	id := s.locked()
	s.grant(id, localkms.CreateGrantInput{Grantee: "app", Operations: []kms.Operation{kms.OpDecrypt}})
	require.NoError(t, s.Authorize(as(t, "app"), kms.OpDecrypt, id, nil))
	require.NoError(t, s.PutKeyPolicy(as(t, "admin"), id, `permit (principal == Principal::"admin", action, resource);
		forbid (principal == Principal::"app", action, resource);`, nil))
	isKind(t, kms.ErrDenied, s.Authorize(as(t, "app"), kms.OpDecrypt, id, nil))
}

func TestGrantConstraintsIgnoreTheCaseOfNamesAndNotOfValues(t *testing.T) {
	constraint := kms.Context{"Team": "Red", "Stage": "x"}
	for _, test := range []struct {
		ec             kms.Context
		equals, subset bool
	}{
		{kms.Context{"Team": "Red", "Stage": "x"}, true, true},
		{kms.Context{"tEAM": "Red", "stage": "x"}, true, true},
		{kms.Context{"team": "red", "stage": "x"}, false, false},
		{kms.Context{"team": "Red", "stage": "X"}, false, false},
		{kms.Context{"team": "Red"}, false, false},
		{kms.Context{"team": "Red", "stage": "x", "more": ""}, false, true},
		{kms.Context{"team": "Red", "TEAM": "Red"}, false, false},
		{kms.Context{"team": "Red", "TEAM": "Blue", "stage": "x"}, false, true},
		{kms.Context{}, false, false},
		{nil, false, false},
	} {
		s := open(t, nil, nil)
		ops := []kms.Operation{kms.OpDecrypt, localkms.OpDescribeKey}
		for _, c := range []struct {
			in   localkms.CreateGrantInput
			want bool
		}{
			{localkms.CreateGrantInput{Grantee: "app", Operations: ops, ContextEquals: constraint}, test.equals},
			{localkms.CreateGrantInput{Grantee: "app", Operations: ops, ContextSubset: constraint}, test.subset},
		} {
			id := s.locked()
			g := s.grant(id, c.in)
			require.Equal(t, c.in.ContextEquals, g.ContextEquals)
			require.Equal(t, c.in.ContextSubset, g.ContextSubset)
			err := s.Authorize(as(t, "app"), kms.OpDecrypt, id, test.ec)
			require.Equal(t, c.want, err == nil, "%v: %v", test.ec, err)
			require.NoError(t, s.Authorize(as(t, "app"), localkms.OpDescribeKey, id, nil), "an operation without a context")
		}
	}
}

// Names that are not UTF-8 are compared as they are: with regard to case they would
// be one with all that differ in such bytes.
func TestGrantConstraintsOfOtherBytes(t *testing.T) {
	s := open(t, nil, nil)
	for name, in := range map[string]localkms.CreateGrantInput{
		"equals": {ContextEquals: kms.Context{"team\xff": "red"}},
		"subset": {ContextSubset: kms.Context{"team\xff": "red"}},
	} {
		in.Grantee, in.Operations = "app", []kms.Operation{kms.OpDecrypt}
		id := s.locked()
		s.grant(id, in)
		for range 2 {
			require.NoError(t, s.Authorize(as(t, "app"), kms.OpDecrypt, id, kms.Context{"team\xff": "red"}), name)
			isKind(t, kms.ErrDenied, s.Authorize(as(t, "app"), kms.OpDecrypt, id, kms.Context{"team\xfe": "red"}))
			s.restart()
		}
	}
}

func TestGrantsMayBeAsLongAsTheySay(t *testing.T) {
	s := open(t, nil, nil)
	id := s.locked()
	want := s.grant(id, localkms.CreateGrantInput{
		Name: strings.Repeat("n", maxGrantName), Grantee: strings.Repeat("g", maxPrincipal),
		RetiringPrincipal: strings.Repeat("r", maxPrincipal), Operations: []kms.Operation{kms.OpDecrypt},
		ContextEquals: kms.Context{"a": strings.Repeat("x", 4096-8-1)},
	})
	s.restart()
	grants, err := s.ListGrants(as(t, "admin"), id)
	require.NoError(t, err)
	require.Equal(t, []*localkms.Grant{want}, grants)
	_, err = s.CreateGrant(as(t, "admin"), id, &localkms.CreateGrantInput{
		Grantee: "app", Operations: []kms.Operation{kms.OpDecrypt}, ContextEquals: kms.Context{"a": strings.Repeat("x", 4096-8)}})
	isKind(t, kms.ErrInvalid, err)
}

func TestGrantsAreCheckedWhenCreated(t *testing.T) {
	s := open(t, nil, nil)
	id := s.locked()
	ops := []kms.Operation{kms.OpDecrypt}
	for name, in := range map[string]*localkms.CreateGrantInput{
		"nothing": nil, "nobody": {Operations: ops}, "no operation": {Grantee: "a"},
		"an operation that administers": {Grantee: "a", Operations: []kms.Operation{kms.Operation("PutKeyPolicy")}},
		"an unknown operation":          {Grantee: "a", Operations: []kms.Operation{"Everything"}},
		"two constraints":               {Grantee: "a", Operations: ops, ContextEquals: kms.Context{"a": ""}, ContextSubset: kms.Context{"a": ""}},
		"names that differ in case":     {Grantee: "a", Operations: ops, ContextEquals: kms.Context{"a": "", "A": ""}},
		"a long constraint":             {Grantee: "a", Operations: ops, ContextEquals: kms.Context{"a": strings.Repeat("x", 5000)}},
		"a long name":                   {Grantee: "a", Operations: ops, Name: strings.Repeat("x", 256)},
		"a name of other characters":    {Grantee: "a", Operations: ops, Name: "a b"},
		"a long principal":              {Grantee: strings.Repeat("x", 2049), Operations: ops},
	} {
		_, err := s.CreateGrant(as(t, "admin"), id, in)
		isKind(t, kms.ErrInvalid, err)
		_ = name
	}
	grants, err := s.ListGrants(as(t, "admin"), id)
	require.NoError(t, err)
	require.Empty(t, grants)
}

func TestAGrantsNameMakesRepetitionHarmless(t *testing.T) {
	s := open(t, nil, nil)
	id := s.locked()
	in := localkms.CreateGrantInput{Grantee: "app", Operations: []kms.Operation{kms.OpDecrypt}, Name: "n", ContextSubset: kms.Context{"a": "b"}}
	first := s.grant(id, in)
	s.restart()
	require.Equal(t, first, s.grant(id, in))
	in.Grantee = "other"
	_, err := s.CreateGrant(as(t, "admin"), id, &in)
	isKind(t, kms.ErrInvalid, err)
	require.ErrorIs(t, err, localkms.ErrAlreadyExists)
	in.Name = ""
	require.NotEqual(t, s.grant(id, in).ID, s.grant(id, in).ID)
	grants, err := s.ListGrants(as(t, "admin"), id)
	require.NoError(t, err)
	require.Len(t, grants, 3)
	require.Equal(t, first, grants[0])
}

func TestRetiringAGrant(t *testing.T) {
	s := open(t, nil, nil)
	for who, test := range map[string]struct {
		ops []kms.Operation
		ok  bool
	}{
		"retirer": {[]kms.Operation{kms.OpDecrypt}, true},
		"app":     {[]kms.Operation{kms.OpDecrypt, localkms.OpRetireGrant}, true},
		"app ":    {[]kms.Operation{kms.OpDecrypt, localkms.OpRetireGrant}, false},
		"admin":   {[]kms.Operation{kms.OpDecrypt, localkms.OpRetireGrant}, false},
		"":        {[]kms.Operation{kms.OpDecrypt, localkms.OpRetireGrant}, false},
	} {
		id := s.locked()
		g := s.grant(id, localkms.CreateGrantInput{Grantee: "app", RetiringPrincipal: "retirer", Operations: test.ops})
		err := s.RetireGrant(as(t, who), id, g.ID)
		grants, listErr := s.ListGrants(as(t, "admin"), id)
		require.NoError(t, listErr)
		if test.ok {
			require.NoError(t, err)
			require.Empty(t, grants)
			isKind(t, kms.ErrDenied, s.RetireGrant(as(t, who), id, g.ID))
		} else {
			isKind(t, kms.ErrDenied, err)
			require.Len(t, grants, 1)
		}
	}
	id := s.locked()
	g := s.grant(id, localkms.CreateGrantInput{Grantee: "app", Operations: []kms.Operation{kms.OpDecrypt}})
	isKind(t, kms.ErrDenied, s.RetireGrant(as(t, "app"), id, g.ID)) // not granted
	isKind(t, kms.ErrDenied, s.RetireGrant(t.Context(), id, g.ID))  // an empty retiring principal is nobody
	g = s.grant(id, localkms.CreateGrantInput{Grantee: "app", RetiringPrincipal: "bad", Operations: []kms.Operation{kms.OpDecrypt}})
	require.NoError(t, s.PutKeyPolicy(as(t, "admin"), id, permitAll+`forbid (principal == Principal::"bad", action, resource);`, nil))
	isKind(t, kms.ErrDenied, s.RetireGrant(as(t, "bad"), id, g.ID))
}

func TestGrantsAreLimited(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand writes")
	}
	s := open(t, nil, nil)
	id := s.locked()
	for i := range maxGrants {
		s.grant(id, localkms.CreateGrantInput{Grantee: fmt.Sprint(i), Operations: []kms.Operation{kms.OpDecrypt}})
	}
	_, err := s.CreateGrant(as(t, "admin"), id, &localkms.CreateGrantInput{Grantee: "x", Operations: []kms.Operation{kms.OpDecrypt}})
	isKind(t, kms.ErrInvalid, err)
	require.ErrorIs(t, err, localkms.ErrLimit)
	s.restart()
	require.NoError(t, s.Authorize(as(t, "999"), kms.OpDecrypt, id, nil))
}

// crowd makes a key with a hundred grants to one principal, and a context of as
// many names as fit. No grant matches the context.
func crowd(t testing.TB) (refused func() error) {
	s := open(t, nil, nil)
	id := s.locked()
	ec, constraint := make(kms.Context), make(kms.Context)
	for i := range 680 {
		ec[fmt.Sprintf("N%03d", i)] = ""
		if i < 330 {
			constraint[fmt.Sprintf("N%03d", i)] = ""
		}
	}
	constraint["absent"] = ""
	for range 100 {
		s.grant(id, localkms.CreateGrantInput{Grantee: "app", Operations: []kms.Operation{kms.OpDecrypt}, ContextSubset: constraint})
	}
	ctx := as(t, "app")
	return func() error { return s.Authorize(ctx, kms.OpDecrypt, id, ec) }
}

// TestManyGrantsAreRefusedCheaply: each name is folded once, not for each grant
// and each name of the grant.
func TestManyGrantsAreRefusedCheaply(t *testing.T) {
	refused := crowd(t)
	isKind(t, kms.ErrDenied, refused())
	require.Less(t, testing.AllocsPerRun(3, func() { refused() }), 50_000.0)
}

func BenchmarkRefusedByGrants(b *testing.B) {
	refused := crowd(b)
	b.ReportAllocs()
	for b.Loop() {
		refused()
	}
}
