package localkms_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

const permitAll = "permit (principal, action, resource);"

// TestPolicies asks a key's policy about a matrix of requests.
func TestPolicies(t *testing.T) {
	type request struct {
		who     string
		op      kms.Operation
		ec      kms.Context
		allowed bool
	}
	for name, test := range map[string]struct {
		policy   string
		requests []request
	}{
		"a policy denies what nobody permits": {
			`permit (principal == Principal::"a", action == Action::"Decrypt", resource);`,
			[]request{
				{"a", kms.OpDecrypt, nil, true}, {"a", kms.OpGenerateDataKey, nil, false},
				{"b", kms.OpDecrypt, nil, false}, {"", kms.OpDecrypt, nil, false},
			},
		},
		"forbid beats permit, in whichever order": {
			`forbid (principal == Principal::"a", action, resource);` + permitAll +
				`forbid (principal == Principal::"b", action, resource);`,
			[]request{{"a", kms.OpDecrypt, nil, false}, {"b", kms.OpDecrypt, nil, false}, {"c", kms.OpDecrypt, nil, true}},
		},
		"groups of actions": {
			`permit (principal == Principal::"user", action in Action::"Use", resource);
			 permit (principal == Principal::"looker", action in [Action::"View", Action::"Encrypt"], resource);`,
			[]request{
				{"user", kms.OpDecrypt, nil, true}, {"user", localkms.OpReEncryptTo, nil, true}, {"user", localkms.OpDescribeKey, nil, false},
				{"looker", localkms.OpDescribeKey, nil, true}, {"looker", localkms.OpEncrypt, nil, true}, {"looker", kms.OpDecrypt, nil, false},
			},
		},
		"conditions on the encryption context": {
			`permit (principal, action, resource) when { context.encryptionContext has team && context.encryptionContext.team == "red" };
			 forbid (principal, action, resource) when { context.encryptionContext has "secret level" };`,
			[]request{
				{"a", kms.OpDecrypt, kms.Context{"team": "red"}, true}, {"a", kms.OpDecrypt, kms.Context{"team": "Red"}, false},
				{"a", kms.OpDecrypt, kms.Context{"Team": "red"}, false}, {"a", kms.OpDecrypt, nil, false},
				{"a", kms.OpDecrypt, kms.Context{"team": "red", "x": "y"}, true},
				{"a", kms.OpDecrypt, kms.Context{"team": "red", "secret level": ""}, false},
			},
		},
		"a permit that cannot be evaluated permits nothing": {
			`permit (principal, action, resource) when { context.encryptionContext.team == "red" };`,
			[]request{{"a", kms.OpDecrypt, nil, false}, {"a", kms.OpDecrypt, kms.Context{"team": "red"}, true}},
		},
		"a permit that cannot be evaluated forbids nothing": {
			`permit (principal, action, resource) when { context.encryptionContext.team == "red" };` + permitAll,
			[]request{{"a", kms.OpDecrypt, nil, true}},
		},
		"a forbid that cannot be evaluated forbids": {
			permitAll + `forbid (principal, action, resource) unless { context.encryptionContext.team == "red" };`,
			[]request{{"a", kms.OpDecrypt, nil, false}, {"a", kms.OpDecrypt, kms.Context{"team": "red"}, true}, {"a", kms.OpDecrypt, kms.Context{"team": "x"}, false}},
		},
		"attributes": {
			`permit (principal, action, resource in Account::"000000000000")
			 when { principal.id like "arn:*:role/w*" && principal.type == "Role" && resource.region == "local"
			     && resource.account == context.account && resource.tags.stage == "test" && !resource.default
			     && resource.arn like "arn:blobseal:kms:local:000000000000:key/*" && context.region == "local" };`,
			[]request{{"arn:x:role/writer", kms.OpDecrypt, nil, true}, {"arn:x:role/reader", kms.OpDecrypt, nil, false}, {"writer", kms.OpDecrypt, nil, false}},
		},
		"a policy of comments alone permits nothing": {"// nothing", []request{{"a", kms.OpDecrypt, nil, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil, nil)
			info, err := s.CreateKey(as(t, "admin"), &localkms.CreateKeyInput{
				Policy: test.policy, BypassLockoutCheck: true, Tags: map[string]string{"stage": "test"},
			})
			require.NoError(t, err)
			require.True(t, info.HasPolicy)
			for range 2 {
				for _, r := range test.requests {
					err := s.Authorize(as(t, r.who), r.op, info.ID, r.ec)
					if r.allowed {
						require.NoError(t, err, "%+v", r)
					} else {
						isKind(t, kms.ErrDenied, err)
					}
				}
				s.restart()
			}
		})
	}
}

func TestAPolicyThatDoesNotParseIsRefusedWithItsPosition(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	for text, at := range map[string]string{
		"nonsense": "1:9",
		permitAll + "\npermit (principal, action, resource)\nwhen { true }\n permit (principal, action, resource);": "4:",
		permitAll + "\npermit (principal, äction, resource);":                                                       "2:2",
		permitAll + "\n  permit (principal, action, resource":                                                       "2:38",
		permitAll + "\n\n" + `permit (principal == User::"a", action, resource);`:                                   "3:1: no such principal",
		`permit (principal, action == Action::"Decrpyt", resource);`:                                                "1:1: no such action",
		`permit (principal, action == Action::"kms:Decrypt", resource);`:                                            "1:1: no such action",
		`permit (principal, action in Action::"Everything", resource);`:                                             "1:1: no such action",
		`permit (principal is User, action, resource);`:                                                             "1:1: no such type of principal",
		permitAll + "\n" + `forbid (principal is Principal in Group::"g", action, resource);`:                       "2:1: no such principal",
		permitAll + "\n" + `forbid (principal, action, resource in Bucket::"b");`:                                   "2:1: no such resource",
		permitAll + "\n" + `forbid (principal, action in [Action::"Decrypt", Action::"Read"], resource);`:           "2:1: no such action",
		permitAll + "\n\n // ä\n" + strings.Repeat("[", 65):                                                         "4:65: brackets",
		`permit (principal, action, resource == Bucket::"b");`:                                                      "1:1: no such resource",
		permitAll + strings.Repeat(" ", localkms.MaxPolicy):                                                         "at most 32768",
		permitAll + "// \xff": "1:41: not UTF-8",
		permitAll + "\n" + `permit (principal, action, resource) when { 1 < 9223372036854775808 };`:                             "9223372036854775808",
		"// ä\n" + `permit (principal, action, resource) when { "ä" == "a\q" && "b\q" == "" };`:                                 "2:52",
		"permit (principal, action, resource) when { " + strings.Repeat("(", 2000) + "true" + strings.Repeat(")", 2000) + " };": "1:108: brackets",
	} {
		for _, err := range []error{
			s.PutKeyPolicy(t.Context(), id, text, nil),
			s.PutKeyPolicy(t.Context(), id, text, &localkms.PutKeyPolicyOptions{BypassLockoutCheck: true}),
			func() error {
				_, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{Policy: text})
				return err
			}(),
		} {
			isKind(t, kms.ErrInvalid, err)
			require.ErrorIs(t, err, localkms.ErrPolicy, text)
			require.ErrorContains(t, err, at)
		}
	}
	require.False(t, s.describe(id).HasPolicy)
	_, err := localkms.Open(t.Context(), s.store, keyRoot(t, 1), &localkms.Options{Policy: "permit"})
	require.ErrorIs(t, err, localkms.ErrPolicy)
}

func TestAPolicyThatLocksItsAuthorOutIsRefusedUnlessForced(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	force := &localkms.PutKeyPolicyOptions{BypassLockoutCheck: true}
	lockouts := []string{
		"", "// nothing",
		`permit (principal, action == Action::"Decrypt", resource);`,
		`permit (principal == Principal::"other", action, resource);`,
		permitAll + `forbid (principal, action == Action::"PutKeyPolicy", resource);`,
		permitAll + `forbid (principal, action, resource) when { context.encryptionContext.a == "b" };`, // fails to evaluate
		`permit (principal, action, resource) when { context.encryptionContext has a };`,
	}
	for _, text := range lockouts {
		err := s.PutKeyPolicy(as(t, "admin"), id, text, nil)
		isKind(t, kms.ErrInvalid, err)
		require.ErrorIs(t, err, localkms.ErrLockout)
	}
	_, err := s.CreateKey(as(t, "admin"), &localkms.CreateKeyInput{Policy: lockouts[2]})
	require.ErrorIs(t, err, localkms.ErrLockout)

	own := `permit (principal == Principal::"admin", action, resource);`
	require.NoError(t, s.PutKeyPolicy(as(t, "admin"), id, own, nil))
	text, err := s.KeyPolicy(as(t, "admin"), id)
	require.NoError(t, err)
	require.Equal(t, own, text)
	isKind(t, kms.ErrDenied, s.PutKeyPolicy(as(t, "other"), id, permitAll, force))
	isKind(t, kms.ErrDenied, s.DeleteKeyPolicy(as(t, "other"), id))
	require.NoError(t, s.DeleteKeyPolicy(as(t, "admin"), id))
	require.NoError(t, s.PutKeyPolicy(as(t, "other"), id, permitAll, nil))

	require.NoError(t, s.PutKeyPolicy(as(t, "admin"), id, lockouts[2], force))
	for _, err := range []error{
		s.PutKeyPolicy(as(t, "admin"), id, permitAll, force), s.DeleteKeyPolicy(as(t, "admin"), id), s.DisableKey(as(t, "admin"), id),
	} {
		isKind(t, kms.ErrDenied, err)
	}
	require.NoError(t, s.Authorize(as(t, "anyone"), kms.OpDecrypt, id, nil))
}

func TestAKeyWithoutAPolicyIsOpenWithinItsAccountAlone(t *testing.T) {
	s := open(t, nil, nil)
	arn := s.describe(s.key()).ARN
	other := s.client("other", "")
	sameAccount := s.client("", "elsewhere")
	dk, err := s.GenerateDataKey(as(t, "anyone"), arn, nil)
	require.NoError(t, err)
	_, err = sameAccount.Decrypt(t.Context(), arn, dk.Ciphertext, nil)
	require.NoError(t, err)
	_, err = other.Decrypt(t.Context(), arn, dk.Ciphertext, nil)
	isKind(t, kms.ErrDenied, err)
	_, err = other.DescribeKey(t.Context(), arn)
	isKind(t, kms.ErrDenied, err)
	isKind(t, kms.ErrDenied, other.DisableKey(t.Context(), arn))
	require.NoError(t, s.PutKeyPolicy(t.Context(), arn, `permit (principal, action, resource) when { context.account == "000000000000" };
		permit (principal == Principal::"guest", action == Action::"Decrypt", resource) when { context.account == "other" };`, nil))
	_, err = other.Decrypt(as(t, "guest"), arn, dk.Ciphertext, nil)
	require.NoError(t, err)
	isKind(t, kms.ErrDenied, other.Authorize(as(t, "host"), kms.OpDecrypt, arn, nil))
	id := strings.SplitAfter(arn, "key/")[1]
	isKind(t, kms.ErrNotFound, other.Authorize(as(t, "guest"), kms.OpDecrypt, id, nil)) // short names are one's own
}

// TestTheServicesPolicyGovernsAccountsAndKeysWithoutOne is long because all of it is
// about one policy.
func TestTheServicesPolicyGovernsAccountsAndKeysWithoutOne(t *testing.T) {
	s := open(t, nil, func(o *localkms.Options) {
		o.Policy = `
			permit (principal == Principal::"admin", action, resource in Account::"000000000000");
			permit (principal == Principal::"app", action in Action::"Use", resource);
			forbid (principal == Principal::"fired", action, resource);
			forbid (principal, action == Action::"ScheduleKeyDeletion", resource) when { resource.tags has keep };`
	})
	_, err := s.CreateKey(as(t, "app"), nil)
	isKind(t, kms.ErrDenied, err)
	_, err = s.CreateKey(t.Context(), nil)
	isKind(t, kms.ErrDenied, err)
	_, err = s.client("other", "").CreateKey(as(t, "admin"), nil)
	isKind(t, kms.ErrDenied, err)
	info, err := s.CreateKey(as(t, "admin"), nil)
	require.NoError(t, err)
	_, err = collect(s.ListKeys(as(t, "app")))
	isKind(t, kms.ErrDenied, err)
	_, err = collect(s.ListKeys(as(t, "admin")))
	require.NoError(t, err)
	for _, keyID := range []string{"", info.ID} {
		_, err = collect(s.ListAliases(as(t, "app"), keyID))
		isKind(t, kms.ErrDenied, err)
		_, err = collect(s.ListAliases(as(t, "admin"), keyID))
		require.NoError(t, err)
	}

	require.NoError(t, s.Authorize(as(t, "app"), kms.OpDecrypt, info.ID, nil))
	isKind(t, kms.ErrDenied, s.Authorize(as(t, "other"), kms.OpDecrypt, info.ID, nil))
	isKind(t, kms.ErrDenied, s.DisableKey(as(t, "app"), info.ID))

	// A key's own policy permits instead, and the service's still forbids.
	require.NoError(t, s.PutKeyPolicy(as(t, "admin"), info.ID, `
		permit (principal == Principal::"admin", action in Action::"Administer", resource);
		permit (principal == Principal::"fired", action, resource);
		permit (principal == Principal::"other", action, resource);`, nil))
	isKind(t, kms.ErrDenied, s.Authorize(as(t, "app"), kms.OpDecrypt, info.ID, nil))
	isKind(t, kms.ErrDenied, s.Authorize(as(t, "fired"), kms.OpDecrypt, info.ID, nil))
	require.NoError(t, s.Authorize(as(t, "other"), kms.OpDecrypt, info.ID, nil))
	require.NoError(t, s.Tag(as(t, "admin"), info.ID, map[string]string{"keep": ""}))
	_, err = s.ScheduleKeyDeletion(as(t, "admin"), info.ID, 7)
	isKind(t, kms.ErrDenied, err)
	require.NoError(t, s.Untag(as(t, "admin"), info.ID, "keep", "other"))
	_, err = s.ScheduleKeyDeletion(as(t, "admin"), info.ID, 7)
	require.NoError(t, err)

	// The default key is made for whoever may use it, and for no one else.
	_, err = s.GenerateDataKey(as(t, "other"), localkms.DefaultAlias, nil)
	isKind(t, kms.ErrDenied, err)
	_, err = s.DescribeKey(as(t, "admin"), localkms.DefaultAlias)
	require.NoError(t, err)
	_, err = s.GenerateDataKey(as(t, "app"), localkms.DefaultAlias, nil)
	require.NoError(t, err)
	generation := s.Stats().Generation
	_, err = s.client("fresh", "").GenerateDataKey(as(t, "other"), localkms.DefaultAlias, nil)
	isKind(t, kms.ErrDenied, err)
	require.Equal(t, generation, s.Stats().Generation)
	aliases, err := collect(s.client("", "").ListAliases(as(t, "admin"), ""))
	require.NoError(t, err)
	require.Len(t, aliases, 1)
}

func TestTheServicesPolicyLetsNoAccountAtTheKeysOfAnother(t *testing.T) {
	s := open(t, nil, func(o *localkms.Options) {
		o.Policy = permitAll + `forbid (principal == Principal::"fired", action, resource);`
	})
	other := s.client("other", "")
	info, err := s.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	for _, op := range []kms.Operation{kms.OpGenerateDataKey, kms.OpDecrypt, localkms.OpDescribeKey} {
		require.NoError(t, s.Authorize(as(t, "app"), op, info.ID, nil))
		isKind(t, kms.ErrDenied, other.Authorize(as(t, "app"), op, info.ARN, nil))
	}
	isKind(t, kms.ErrDenied, other.DisableKey(as(t, "app"), info.ARN))
	isKind(t, kms.ErrDenied, other.PutKeyPolicy(as(t, "app"), info.ARN, permitAll, nil))

	// The key's own policy and its grants do, and the service's still forbids.
	for _, who := range []string{"app", "fired"} {
		_, err = s.CreateGrant(t.Context(), info.ID, &localkms.CreateGrantInput{Grantee: who, Operations: []kms.Operation{kms.OpDecrypt}})
		require.NoError(t, err)
	}
	require.NoError(t, other.Authorize(as(t, "app"), kms.OpDecrypt, info.ARN, nil))
	isKind(t, kms.ErrDenied, other.Authorize(as(t, "app"), kms.OpGenerateDataKey, info.ARN, nil))
	isKind(t, kms.ErrDenied, other.Authorize(as(t, "fired"), kms.OpDecrypt, info.ARN, nil))
	require.NoError(t, s.PutKeyPolicy(t.Context(), info.ID, permitAll, nil))
	require.NoError(t, other.Authorize(as(t, "app"), kms.OpGenerateDataKey, info.ARN, nil))
	isKind(t, kms.ErrDenied, other.Authorize(as(t, "fired"), kms.OpDecrypt, info.ARN, nil))
}

// administration are all operations that change or show a key.
func administration(t *testing.T, s *service, id string) map[kms.Operation]func(who string) error {
	return map[kms.Operation]func(string) error{
		kms.Operation("EnableKey"):            func(who string) error { return s.EnableKey(as(t, who), id) },
		kms.Operation("DisableKey"):           func(who string) error { return s.DisableKey(as(t, who), id) },
		kms.Operation("ScheduleKeyDeletion"):  func(who string) error { _, err := s.ScheduleKeyDeletion(as(t, who), id, 0); return err },
		kms.Operation("CancelKeyDeletion"):    func(who string) error { return s.CancelKeyDeletion(as(t, who), id) },
		kms.Operation("UpdateKeyDescription"): func(who string) error { return s.UpdateDescription(as(t, who), id, "d") },
		kms.Operation("TagResource"):          func(who string) error { return s.Tag(as(t, who), id, map[string]string{"a": "b"}) },
		kms.Operation("UntagResource"):        func(who string) error { return s.Untag(as(t, who), id, "a") },
		kms.Operation("EnableKeyRotation"):    func(who string) error { return s.EnableKeyRotation(as(t, who), id, 0) },
		kms.Operation("DisableKeyRotation"):   func(who string) error { return s.DisableKeyRotation(as(t, who), id) },
		kms.Operation("RotateKeyOnDemand"):    func(who string) error { _, err := s.RotateKey(as(t, who), id); return err },
		kms.Operation("PutKeyPolicy"): func(who string) error {
			return s.PutKeyPolicy(as(t, who), id, permitAll, &localkms.PutKeyPolicyOptions{BypassLockoutCheck: true})
		},
		kms.Operation("DeleteKeyPolicy"):  func(who string) error { return s.DeleteKeyPolicy(as(t, who), id) },
		kms.Operation("CreateAlias"):      func(who string) error { return s.CreateAlias(as(t, who), "alias/new", id) },
		localkms.OpUpdateAlias:            func(who string) error { return s.UpdateAlias(as(t, who), "alias/old", id) },
		kms.Operation("DeleteAlias"):      func(who string) error { return s.DeleteAlias(as(t, who), "alias/old") },
		localkms.OpRevokeGrant:            func(who string) error { return s.RevokeGrant(as(t, who), id, "none") },
		localkms.OpDescribeKey:            func(who string) error { _, err := s.DescribeKey(as(t, who), id); return err },
		kms.Operation("GetKeyPolicy"):     func(who string) error { _, err := s.KeyPolicy(as(t, who), id); return err },
		kms.Operation("ListGrants"):       func(who string) error { _, err := s.ListGrants(as(t, who), id); return err },
		kms.Operation("ListKeyRotations"): func(who string) error { _, err := s.ListKeyRotations(as(t, who), id); return err },
		kms.Operation("CreateGrant"): func(who string) error {
			_, err := s.CreateGrant(as(t, who), id, &localkms.CreateGrantInput{Grantee: "x", Operations: []kms.Operation{kms.OpDecrypt}})
			return err
		},
	}
}

func TestAdministrationIsGovernedOperationByOperation(t *testing.T) {
	// outcomes beside success, for the state that each key is in
	expected := map[kms.Operation]error{kms.Operation("CancelKeyDeletion"): kms.ErrInvalid, localkms.OpRevokeGrant: kms.ErrNotFound}
	s := open(t, nil, nil)
	for op := range administration(t, s, "") {
		s := open(t, nil, nil)
		policy := fmt.Sprintf(`permit (principal == Principal::"one", action == Action::%q, resource);
			permit (principal == Principal::"rest", action, resource) unless { action == Action::%q };`, op, op)
		info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{Policy: policy, BypassLockoutCheck: true})
		require.NoError(t, err)
		open, err := s.CreateKey(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, s.CreateAlias(t.Context(), "alias/old", open.ID))
		if op == kms.Operation("DeleteAlias") {
			s.Client.UpdateAlias(as(t, "rest"), "alias/old", info.ID)
		}
		do := administration(t, s, info.ID)
		generation := s.Stats().Generation
		isKind(t, kms.ErrDenied, do[op]("rest"))
		isKind(t, kms.ErrDenied, do[op]("nobody"))
		require.Equal(t, generation, s.Stats().Generation, op)
		err = do[op]("one")
		if kind := expected[op]; kind != nil {
			isKind(t, kind, err)
		} else {
			require.NoError(t, err, op)
		}
	}
}

func TestAdministrationOfWhatIsNotThere(t *testing.T) {
	s := open(t, nil, nil)
	require.NoError(t, s.CreateAlias(t.Context(), "alias/old", s.key()))
	generation := s.Stats().Generation
	for name, kind := range map[string]error{
		"00000000-0000-4000-8000-000000000000": kms.ErrNotFound, "alias/none": kms.ErrNotFound,
		"": kms.ErrInvalid, "arn:blobseal:kms:local:000000000000:x": kms.ErrInvalid,
	} {
		for op, do := range administration(t, s, name) {
			if op == kms.Operation("DeleteAlias") { // of a name of its own
				continue
			}
			isKind(t, kind, do("anyone"))
		}
		isKind(t, kind, s.RetireGrant(as(t, "anyone"), name, "x"))
	}
	isKind(t, kms.ErrNotFound, s.DeleteAlias(t.Context(), "alias/none"))
	require.Equal(t, generation, s.Stats().Generation)
}
