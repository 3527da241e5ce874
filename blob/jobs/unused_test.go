package jobs_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestKeyRefsThatNameNothing: a key that no envelope can name never counts as unused,
// and is neither shredded nor a filter.
func TestKeyRefsThatNameNothing(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.kms)
	for name, key := range map[string]jobs.KeyRef{
		"no mode":             {KeyID: "k1"},
		"nothing":             {},
		"no id":               {Mode: sse.ModeKMS},
		"customer with id":    {Mode: sse.ModeCustomer, KeyID: "k1"},
		"alias":               {Mode: sse.ModeKMS, KeyID: "alias/photos"},
		"ARN of an alias":     {Mode: sse.ModeKMS, KeyID: "arn:aws:kms:eu-west-1:1:alias/photos"},
		"not a ring's":        {Mode: sse.ModeManaged, KeyID: "k1"},
		"ring without number": {Mode: sse.ModeManaged, KeyID: "0123456789abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jobs.CheckUnused(ctx, key, nil, w.Bucket)
			require.ErrorIs(t, err, sse.ErrInvalid)
			destroyer := new(countingDestroyer)
			_, err = jobs.ShredKey(ctx, key, destroyer, io.Discard, nil, w.Bucket)
			require.ErrorIs(t, err, sse.ErrInvalid)
			require.Zero(t, *destroyer)
			if strings.Contains(key.KeyID, "alias/") {
				filter := jobs.Filter{KeyIDs: []string{key.KeyID}}
				_, err = jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Filter: filter})
				require.ErrorIs(t, err, sse.ErrInvalid)
				for _, err := range jobs.Inventory(ctx, w.Bucket, &jobs.InventoryOptions{Filter: filter}) {
					require.ErrorIs(t, err, sse.ErrInvalid)
				}
				for _, err := range jobs.Check(ctx, w.Bucket, &jobs.CheckOptions{Filter: filter}) {
					require.ErrorIs(t, err, sse.ErrInvalid)
				}
			}
		})
	}
	_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Filter: jobs.Filter{Modes: []sse.Mode{9}}})
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestKeyByUUID: a UUID names the key whose ARN ends in it.
func TestKeyByUUID(t *testing.T) {
	const uuid = "1234abcd-12ab-34cd-56ef-1234567890ab"
	const arn = "arn:aws:kms:eu-west-1:111122223333:key/" + uuid
	cipher, err := sse.NewKMS(kmstest.NewFake(arn), arn, nil)
	require.NoError(t, err)
	b := blobtest.NewBucketWith(t, blobtest.NewMem(t), cipher, &blob.Options{})
	require.NoError(t, b.WriteAll(ctx, "a", nil, nil))

	seen, err := jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: uuid}, nil, b)
	require.ErrorIs(t, err, jobs.ErrInUse)
	require.EqualValues(t, 1, seen.Objects)
	for _, other := range []string{uuid[1:], "key/" + uuid, "x" + uuid} {
		seen, err = jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: other}, nil, b)
		require.NoError(t, err)
		require.EqualValues(t, 1, seen.Sealed[jobs.KeyRef{Mode: sse.ModeKMS, KeyID: arn}].Objects, "the caller sees what is there instead")
	}
	report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Filter: jobs.Filter{KeyIDs: []string{uuid}}, Force: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done)

	key, err := jobs.KeyOf(ctx, cipher)
	require.NoError(t, err)
	require.Equal(t, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: arn}, key)
}

// countingDestroyer counts calls.
type countingDestroyer struct{ disabled, destroyed int }

func (d *countingDestroyer) Disable(context.Context) error { d.disabled++; return nil }
func (d *countingDestroyer) Destroy(context.Context) error { d.destroyed++; return nil }

// TestShredNothing: a key that no object is under, as one with a typo, is not touched.
func TestShredNothing(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.kms)
	destroyer := new(countingDestroyer)
	var record strings.Builder
	_, err := jobs.ShredKey(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "k11"}, destroyer, &record, nil, w.Bucket)
	require.ErrorIs(t, err, jobs.ErrNothingToShred)
	require.ErrorContains(t, err, "k11")
	require.Zero(t, *destroyer)
	require.Empty(t, record.String())
}

// TestRetireDoesNotBelieveEnvelopes: an envelope that was damaged so that it hides its
// need of the version stops Retire. Once it is repaired, the object opens.
func TestRetireDoesNotBelieveEnvelopes(t *testing.T) {
	const keyIDAt = 8 + 1 + 1 + 4 + 2 // magic, version, mode, size, length of key_id
	for name, c := range map[string]struct {
		flip     int
		metadata bool // whether the store kept it
		why      string
	}{
		"version of the ring":              {keyIDAt + 17, true, "metadata says"},
		"version of the ring, no metadata": {keyIDAt + 17, false, ""},
		"another ring's, no metadata":      {keyIDAt, false, ""},
		"magic, no metadata":               {3, false, "without AllowPlain"},
	} {
		t.Run(name, func(t *testing.T) {
			inner := blobtest.NewMem(t)
			ring := blobtest.NewRing(t)
			b := blobtest.NewBucketWith(t, inner, sse.NewManaged(ring), &blob.Options{})
			old := primary(t, ring)
			require.NoError(t, b.WriteAll(ctx, "precious", blobtest.Content(5000), nil))
			_, err := ring.Rotate(ctx)
			require.NoError(t, err)

			attrs, err := inner.Attributes(ctx, "precious")
			require.NoError(t, err)
			md := attrs.Metadata
			if !c.metadata {
				md = nil
			}
			stored := blobtest.ReadAll(t, inner, "precious")
			flip := func() {
				stored[c.flip] ^= 1
				require.NoError(t, inner.WriteAll(ctx, "precious", stored, metadata(md)))
			}
			flip()
			_, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
			var inUse *jobs.InUseError
			require.ErrorAs(t, err, &inUse)
			require.ErrorContains(t, err, `"photos/precious"`)
			require.ErrorContains(t, err, c.why)
			require.EqualValues(t, 1, inUse.Unclear)
			require.Equal(t, keyring.Enabled, (&world{ring: ring}).state(old))
			flip()
			require.Equal(t, blobtest.Content(5000), blobtest.ReadAll(t, b.Bucket, "precious"))
		})
	}
}

// TestKeyNames: objects of every version of a key are objects of the key, by whatever
// name of the service the caller asks.
func TestKeyNames(t *testing.T) {
	const (
		azure  = "https://v.vault.azure.net/keys/photos"
		google = "projects/p/locations/l/keyRings/r/cryptoKeys/photos"
		vault  = "transit/keys/photos"
	)
	for _, c := range []struct {
		id    string // in the envelope
		named []string
		not   []string
	}{
		{azure + "/v1", []string{azure, azure + "/v1", azure + "/v2", "photos"}, []string{"v1", azure + "2", "https://w.vault.azure.net/keys/photos", "hotos"}},
		{google, []string{google, google + "/cryptoKeyVersions/7", "photos"}, []string{google + "2", "r"}},
		{google + "/cryptoKeyVersions/1", []string{google, google + "/cryptoKeyVersions/7", "photos"}, []string{"1", google + "/x"}},
		{vault, []string{vault, "photos"}, []string{"keys", "other/keys/photos"}},
	} {
		t.Run(c.id, func(t *testing.T) {
			cipher, err := sse.NewKMS(namedKey{c.id}, c.id, nil)
			require.NoError(t, err)
			b := blobtest.NewBucketWith(t, blobtest.NewMem(t), cipher, &blob.Options{})
			require.NoError(t, b.WriteAll(ctx, "a", nil, nil))
			for _, name := range c.named {
				_, err := jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: name}, nil, b)
				require.ErrorIs(t, err, jobs.ErrInUse, name)
			}
			for _, name := range c.not {
				_, err := jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: name}, nil, b)
				require.NoError(t, err, name)
			}
		})
	}
}

// namedKey is a key service with one key, by a name of any form.
type namedKey struct{ id string }

func (n namedKey) GenerateDataKey(context.Context, string, kms.Context) (*kms.DataKey, error) {
	return kms.NewDataKey(n.id, blobtest.Content(32), []byte("ciphertext"))
}

func (n namedKey) Decrypt(context.Context, string, []byte, kms.Context) ([]byte, error) {
	return blobtest.Content(32), nil
}

// TestShredWithoutRecord: what would not be recorded is not shredded.
func TestShredWithoutRecord(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, w.kms)
	key := jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "k1"}
	destroyer := new(countingDestroyer)
	require.ErrorIs(t, jobs.ShredObject(ctx, w.Bucket, "a", nil), sse.ErrInvalid)
	_, err := jobs.ShredPrefix(ctx, w.Bucket, "a", nil, nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = jobs.ShredKey(ctx, key, destroyer, nil, nil, w.Bucket)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = jobs.ShredKey(ctx, key, nil, new(strings.Builder), nil, w.Bucket)
	require.ErrorIs(t, err, sse.ErrInvalid)
	require.Zero(t, *destroyer)
	require.Len(t, blobtest.ReadAll(t, w.Bucket.Bucket, "a"), 10)
}
