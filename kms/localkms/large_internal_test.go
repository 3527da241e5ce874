package localkms

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

// large is a document of n keys, every tenth with a policy of its own and with
// a grant, all with an alias.
func large(t testing.TB, store keyring.Store, n int) (*Client, []string) {
	c := testClient(t, store, new(time.Time))
	c.service.opts.Now = time.Now
	var ids []string
	require.NoError(t, c.service.update(t.Context(), func(d *draft) error {
		for i := range n {
			k, err := c.newKey(&CreateKeyInput{Description: fmt.Sprintf("the key of tenant %d", i), Tags: map[string]string{"tenant": fmt.Sprint(i)}, RotationDays: 365})
			require.NoError(t, err)
			k.created, k.versions[0].created, k.rotation.next = d.now, d.now, nextRotation(d.now, 365)
			if i%10 == 0 {
				k.policies = []keyPolicy{{newMark(), &policy{text: fmt.Sprintf(`permit (principal == Principal::"tenant-%d", action in Action::"Use", resource) when { context.encryptionContext has tenant && context.encryptionContext.tenant == "%d" };
				permit (principal == Principal::"admin", action in Action::"Administer", resource);
				forbid (principal, action == Action::"ScheduleKeyDeletion", resource);`, i, i)}}}
				k.grants = []*grant{{id: k.id, grantee: "backup", operations: 8}}
			}
			d.put(k)
			d.putAlias(aliasName{c.scope, fmt.Sprintf("alias/tenant-%d", i)}, alias{key: k.id})
			ids = append(ids, k.id.String())
		}
		return nil
	}, func() error { return nil }))
	return c, ids
}

// TestOpeningIsLinear: ten times the keys cost ten times the work, counted in
// allocations, which do not depend on the machine. BenchmarkTenThousandKeys/Open
// measures the time, which is a fraction of a second.
func TestOpeningIsLinear(t *testing.T) {
	allocations := func(keys int) float64 {
		store := keyring.NewMemStore()
		large(t, store, keys)
		root := testRoot(t, 1)
		return testing.AllocsPerRun(1, func() {
			s, err := Open(t.Context(), store, root, nil)
			require.NoError(t, err)
			require.Len(t, s.doc.State().keys, keys)
		})
	}
	few, many := allocations(1000), allocations(10000)
	t.Logf("allocations to open: %.0f for 1,000 keys, %.0f for 10,000", few, many)
	require.Less(t, many, 15*few)
	require.Less(t, many/10000, 60., "allocations per key: 27 when this was written")
}

func BenchmarkTenThousandKeys(b *testing.B) {
	store, err := keyring.NewFileStore(b.TempDir() + "/kms")
	require.NoError(b, err)
	c, ids := large(b, store, 10000)
	ctx := kms.WithPrincipal(b.Context(), kms.Principal{ID: "tenant-0"})
	ec := kms.Context{"tenant": "0", "blobseal:object": "bucket/key"}
	dk, err := c.GenerateDataKey(ctx, ids[0], ec)
	require.NoError(b, err)
	run := func(name string, f func(i int) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := f(i); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("GenerateDataKey", func(i int) error {
		_, err := c.GenerateDataKey(ctx, ids[1+i%9], ec)
		return err
	})
	run("GenerateDataKey/alias", func(i int) error {
		_, err := c.GenerateDataKey(ctx, "alias/tenant-1", ec)
		return err
	})
	run("GenerateDataKey/policy", func(int) error { _, err := c.GenerateDataKey(ctx, ids[0], ec); return err })
	run("Decrypt/policy", func(int) error { _, err := c.Decrypt(ctx, ids[0], dk.Ciphertext, ec); return err })
	run("Authorize/policy", func(int) error { return c.Authorize(ctx, kms.OpDecrypt, ids[0], ec) })
	run("Open", func(int) error { _, err := Open(ctx, store, testRoot(b, 1), nil); return err })
	run("Refresh/unchanged", func(int) error { return c.service.Refresh(ctx) })
	run("UpdateDescription", func(i int) error {
		return c.UpdateDescription(ctx, ids[1+rand.IntN(9)], fmt.Sprint(i))
	})
}
