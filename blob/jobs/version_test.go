package jobs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestJobsOnCoarseReaders: jobs work on a store that tells times to the millisecond
// with attributes and to the second with content, as Google's does.
func TestJobsOnCoarseReaders(t *testing.T) {
	spy, inner := newSpy(t)
	spy.Google = true
	b := newBucketWith(t, inner, newKMS(t, "old"), &blob.Options{AllowPlain: true})
	require.NoError(t, inner.WriteAll(ctx, "plain", content(3000), nil))
	report, err := jobs.EncryptExisting(ctx, b, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done, "%v", report)

	target := newKMS(t, "new")
	report, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: target})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done, "%v", report)
}

// TestJobsAskThePolicyFirst: a job whose target the policy forbids does not call the key
// service.
func TestJobsAskThePolicyFirst(t *testing.T) {
	fake := kmstest.NewFake("k")
	target, err := sse.NewKMS(fake, "arn:k", nil)
	require.NoError(t, err)
	b := newBucket(t, newMem(t), &blob.Options{Policy: blob.Policy{Modes: []sse.Mode{sse.ModeManaged}}})
	fake.Forget()
	_, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: target})
	require.ErrorIs(t, err, blob.ErrPolicy)
	_, err = jobs.EncryptExisting(ctx, b, &jobs.EncryptOptions{To: target})
	require.ErrorIs(t, err, blob.ErrPolicy)
	require.Empty(t, fake.Calls())
}
