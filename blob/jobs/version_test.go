package jobs_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestJobsOnCoarseReaders: jobs work on a store that tells times to the millisecond
// with attributes and to the second with content, as Google's does.
func TestJobsOnCoarseReaders(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	spy.Google = true
	target := ssetest.NewKMS(t, "new")
	old := ssetest.NewKMS(t, "old")
	b := blobtest.NewBucketWith(t, inner, old, &blob.Options{AllowPlain: true, Decrypters: sse.ByMode{sse.ModeKMS: eitherKey{old, target}}})
	require.NoError(t, inner.WriteAll(ctx, "plain", blobtest.Content(3000), nil))
	report, err := jobs.EncryptExisting(ctx, b, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done, "%v", report)

	report, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: target})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done, "%v", report)
}

// eitherKey opens objects under the keys of two ciphers.
type eitherKey [2]sse.Decrypter

func (e eitherKey) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	d, err := e[0].Decrypt(ctx, obj, env)
	if err != nil {
		return e[1].Decrypt(ctx, obj, env)
	}
	return d, nil
}

// TestTargetThatNobodyReads: a job does not move objects to a key under which the
// bucket cannot read them.
func TestTargetThatNobodyReads(t *testing.T) {
	b := blobtest.NewBucketWith(t, blobtest.NewMem(t), ssetest.NewKMS(t, "old"), &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
	require.NoError(t, b.WriteAll(ctx, "a", blobtest.Content(100), nil))
	for name, to := range map[string]sse.Cipher{"another key": ssetest.NewKMS(t, "new"), "another mode": sse.NewManaged(blobtest.NewRing(t))} {
		t.Run(name, func(t *testing.T) {
			_, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: to})
			require.ErrorIs(t, err, jobs.ErrTarget)
			require.ErrorContains(t, err, "Options.Decrypters")
			require.Equal(t, blobtest.Content(100), blobtest.ReadAll(t, b.Bucket, "a"))
		})
	}
	report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: ssetest.NewCustomer(t, 1)})
	require.NoError(t, err, "each caller brings a customer key")
	require.EqualValues(t, 1, report.Done)
}

// TestJobsAskThePolicyFirst: a job whose target the policy forbids does not call the key
// service.
func TestJobsAskThePolicyFirst(t *testing.T) {
	fake := kmstest.NewFake("k")
	target, err := sse.NewKMS(fake, "arn:k", nil)
	require.NoError(t, err)
	b := blobtest.NewBucket(t, blobtest.NewMem(t), &blob.Options{Policy: blob.Policy{Modes: []sse.Mode{sse.ModeManaged}}})
	fake.Forget()
	_, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: target})
	require.ErrorIs(t, err, blob.ErrPolicy)
	_, err = jobs.EncryptExisting(ctx, b, &jobs.EncryptOptions{To: target})
	require.ErrorIs(t, err, blob.ErrPolicy)
	require.Empty(t, fake.Calls())
}
