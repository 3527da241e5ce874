package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

func (w *world) state(id string) keyring.State {
	for _, k := range w.ring.Versions() {
		if k.ID == id {
			return k.State
		}
	}
	return ""
}

func TestRetire(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	old := primary(t, w.ring)
	for i := range 25 {
		w.put(t, fmt.Sprintf("%02d", i), 10, nil)
	}
	w.putPlain(t, "plain", 3)

	_, err := jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
	require.ErrorIs(t, err, keyring.ErrPrimary)
	_, err = jobs.Retire(ctx, w.ring, "no.such", nil, w.Bucket)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	w.rotate(t)
	_, err = jobs.Retire(ctx, w.ring, old, nil)
	require.ErrorIs(t, err, sse.ErrInvalid, "nothing proves nothing")

	_, err = jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
	var inUse *jobs.InUseError
	require.ErrorAs(t, err, &inUse)
	require.ErrorIs(t, err, jobs.ErrInUse)
	require.EqualValues(t, 25, inUse.Objects)
	require.Len(t, inUse.Names, 20)
	require.Equal(t, jobs.ObjectName{Bucket: "photos", Key: "00"}, inUse.Names[0])
	require.ErrorContains(t, err, `"photos/00"`)
	require.Equal(t, keyring.Enabled, w.state(old))

	_, err = jobs.Rewrap(ctx, w.Bucket, nil)
	require.NoError(t, err)
	info, err := jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
	require.NoError(t, err)
	require.Equal(t, keyring.Disabled, info.State)
	for i := range 25 {
		w.requireUnchanged(t, fmt.Sprintf("%02d", i), 10)
	}
	info, err = jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
	require.NoError(t, err, "it is no change")
	require.Equal(t, keyring.Disabled, info.State)
	info, err = jobs.Retire(ctx, w.ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, w.Bucket)
	require.NoError(t, err)
	require.Equal(t, keyring.Destroyed, info.State)
	_, err = jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
	require.ErrorIs(t, err, keyring.ErrDestroyed)
	for i := range 25 {
		w.requireUnchanged(t, fmt.Sprintf("%02d", i), 10)
	}
}

// All buckets of a ring count.
func TestRetireLooksIntoEveryBucket(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	old := primary(t, w.ring)
	second, err := blob.NewBucket(blobtest.NewMem(t), "films", sse.NewManaged(w.ring), nil)
	require.NoError(t, err)
	defer second.Close()
	require.NoError(t, second.WriteAll(ctx, "a", nil, nil))
	w.rotate(t)
	_, err = jobs.Retire(ctx, w.ring, old, nil, w.Bucket, second)
	var inUse *jobs.InUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, []jobs.ObjectName{{Bucket: "films", Key: "a"}}, inUse.Names)
}

// What does not tell its key stands in the way.
func TestRetireWithoutProof(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, w *world, stored []byte){
		"later version": func(t *testing.T, w *world, _ []byte) {
			require.NoError(t, w.Inner().WriteAll(ctx, "x", []byte(later), nil))
		},
		"damaged": func(t *testing.T, w *world, stored []byte) {
			require.NoError(t, w.Inner().WriteAll(ctx, "x", stored[:200], nil))
		},
		"magic gone": func(t *testing.T, w *world, stored []byte) {
			md := map[string]string{"blobseal-mode": "SSE-S3"}
			require.NoError(t, w.Inner().WriteAll(ctx, "x", stored[8:], metadata(md)))
		},
		"unreadable": func(t *testing.T, w *world, stored []byte) {
			w.store.set(func(op, key string) error {
				if op == "open" && key == "x" {
					return errRigged
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			old := primary(t, w.ring)
			w.put(t, "x", 10, nil)
			stored := blobtest.ReadAll(t, w.Inner(), "x")
			w.rotate(t)
			w.put(t, "x", 10, nil)
			spoil(t, w, stored)
			_, err := jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
			var inUse *jobs.InUseError
			require.ErrorAs(t, err, &inUse)
			require.Zero(t, inUse.Objects)
			require.Equal(t, jobs.ObjectName{Bucket: "photos", Key: "x"}, inUse.UnclearObjects[0].ObjectName)
			require.Error(t, inUse.UnclearObjects[0].Err)
			require.Equal(t, keyring.Enabled, w.state(old))
		})
	}
	t.Run("listing fails", func(t *testing.T) {
		w := newWorld(t, blobtest.NewMem(t))
		old := primary(t, w.ring)
		w.rotate(t)
		w.store.set(func(op, _ string) error {
			if op == "list" {
				return errRigged
			}
			return nil
		})
		_, err := jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
		require.ErrorIs(t, err, errRigged)
		require.Equal(t, keyring.Enabled, w.state(old))
	})
}

// An upload that began under the version and is published between the inventory
// and the disabling: the version is enabled again, and the object named.
func TestRetireMeetsALateUpload(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	old := primary(t, w.ring)
	late := beginWrite(t, w.Bucket, "late")
	w.rotate(t)
	lists := 0
	w.store.set(func(op, _ string) error {
		if op == "list" {
			if lists++; lists == 2 { // of the second inventory
				require.Equal(t, keyring.Disabled, w.state(old))
				return late.Close()
			}
		}
		return nil
	})
	info, err := jobs.Retire(ctx, w.ring, old, nil, w.Bucket)
	var inUse *jobs.InUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, []jobs.ObjectName{{Bucket: "photos", Key: "late"}}, inUse.Names)
	require.Equal(t, keyring.Enabled, info.State)
	require.Equal(t, blobtest.Content(100_000), blobtest.ReadAll(t, w.Bucket.Bucket, "late"))

	// And one that ends in the quarantine loses nothing either.
	w.store.set(nil)
	_, err = jobs.Rewrap(ctx, w.Bucket, nil)
	require.NoError(t, err)
}

// beginWrite begins to write an object, which is not there until the writer is closed.
func beginWrite(t *testing.T, b *blob.Bucket, key string) *gcblob.Writer {
	t.Helper()
	w, err := b.NewWriter(ctx, key, nil)
	require.NoError(t, err)
	_, err = w.Write(blobtest.Content(100_000))
	require.NoError(t, err)
	return w
}

// An upload that ends during the quarantine keeps the version from being
// destroyed; after that, and a rewrap, its time comes.
func TestRetireQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, blobtest.NewMem(t))
		old := primary(t, w.ring)
		late := beginWrite(t, w.Bucket, "late")
		w.rotate(t)
		destroy := &jobs.RetireOptions{Destroy: true}
		info, err := jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
		require.ErrorIs(t, err, jobs.ErrQuarantine)
		require.Equal(t, keyring.Disabled, info.State)

		require.NoError(t, late.Close())
		_, err = w.ReadAll(ctx, "late")
		require.ErrorIs(t, err, keyring.ErrDisabled)
		time.Sleep(jobs.DefaultQuarantine)
		_, err = jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
		require.ErrorIs(t, err, jobs.ErrInUse)

		_, err = w.ring.SetState(ctx, old, keyring.Enabled)
		require.NoError(t, err)
		_, err = jobs.Rewrap(ctx, w.Bucket, nil)
		require.NoError(t, err)
		_, err = jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
		require.ErrorIs(t, err, jobs.ErrQuarantine, "it counts from the last disabling")
		time.Sleep(jobs.DefaultQuarantine - time.Second)
		_, err = jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
		require.ErrorIs(t, err, jobs.ErrQuarantine)
		time.Sleep(time.Second)
		info, err = jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
		require.NoError(t, err)
		require.Equal(t, keyring.Destroyed, info.State)
		require.Equal(t, blobtest.Content(100_000), blobtest.ReadAll(t, w.Bucket.Bucket, "late"))
	})
}

// An inventory that began in the quarantine may have gone by where an upload ended
// later, still in it: it does not destroy the version, however long it takes.
func TestRetireLooksAfterTheQuarantine(t *testing.T) {
	for _, quarantine := range []time.Duration{0, time.Nanosecond} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			old := primary(t, w.ring)
			late := beginWrite(t, w.Bucket, "a")
			w.rotate(t)
			w.put(t, "b", 10, nil)
			destroy := &jobs.RetireOptions{Destroy: true, Quarantine: quarantine}
			if quarantine == 0 {
				_, err := jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
				require.ErrorIs(t, err, jobs.ErrQuarantine)
				time.Sleep(jobs.DefaultQuarantine - time.Second)
			}
			var closed atomic.Bool
			w.store.set(func(op, key string) error {
				if op == "open" && key == "b" && w.state(old) == keyring.Disabled && closed.CompareAndSwap(false, true) {
					if err := late.Close(); err != nil { // where the inventory has been
						return err
					}
					time.Sleep(time.Hour)
				}
				return nil
			})
			info, err := jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
			require.True(t, closed.Load())
			require.ErrorIs(t, err, jobs.ErrQuarantine)
			require.Equal(t, keyring.Disabled, info.State)
			_, err = jobs.Retire(ctx, w.ring, old, destroy, w.Bucket)
			require.ErrorIs(t, err, jobs.ErrInUse)
			_, err = w.ring.SetState(ctx, old, keyring.Enabled)
			require.NoError(t, err)
			require.Equal(t, blobtest.Content(100_000), blobtest.ReadAll(t, w.Bucket.Bucket, "a"))
		})
	}
}

// Somebody enables the version, to read what it sealed, while Retire looks for what
// it may have sealed.
func TestRetireOfWhatIsEnabledMeanwhile(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	old := primary(t, w.ring)
	w.rotate(t)
	w.put(t, "a", 10, nil)
	_, err := w.ring.SetState(ctx, old, keyring.Disabled)
	require.NoError(t, err)
	for _, again := range []bool{false, true} { // disabled
		w.store.set(func(op, _ string) error {
			if op != "list" {
				return nil
			}
			time.Sleep(2 * time.Millisecond) // what Changed is counted in
			_, err := w.ring.SetState(ctx, old, keyring.Enabled)
			if again {
				_, err = w.ring.SetState(ctx, old, keyring.Disabled)
			}
			return err
		})
		info, err := jobs.Retire(ctx, w.ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: time.Nanosecond}, w.Bucket)
		require.ErrorIs(t, err, jobs.ErrQuarantine)
		require.Equal(t, w.state(old), info.State)
		require.NotEqual(t, keyring.Destroyed, info.State)
		w.store.set(nil)
		_, err = w.ring.SetState(ctx, old, keyring.Disabled)
		require.NoError(t, err)
	}
}

// A replica that has not heard of the rotation seals under a version that is
// retired already, and nobody can know. What it wrote is not lost: it keeps the
// version from being destroyed, and opens when that is enabled again.
func TestRetireAndAReplicaOfYesterday(t *testing.T) {
	store := keyring.NewMemStore()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	inner := blobtest.NewMem(t)
	replica := func() (*keyring.Ring, *blob.Bucket) {
		ring, err := keyring.Create(ctx, store, root, nil)
		if errors.Is(err, keyring.ErrExist) {
			ring, err = keyring.Open(ctx, store, root, nil)
		}
		require.NoError(t, err)
		return ring, blobtest.NewBucketWith(t, inner, sse.NewManaged(ring), nil)
	}
	ring, b := replica()
	stale, yesterday := replica()
	old := primary(t, ring)
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	info, err := jobs.Retire(ctx, ring, old, nil, b)
	require.NoError(t, err)
	require.Equal(t, keyring.Disabled, info.State)

	require.Equal(t, old, primary(t, stale))
	require.NoError(t, yesterday.WriteAll(ctx, "a", blobtest.Content(50_000), nil))
	_, err = b.ReadAll(ctx, "a")
	require.ErrorIs(t, err, keyring.ErrDisabled)
	_, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
	require.ErrorIs(t, err, jobs.ErrInUse)

	require.NoError(t, stale.Refresh(ctx))
	require.NoError(t, yesterday.WriteAll(ctx, "b", blobtest.Content(10), nil))
	_, err = ring.SetState(ctx, old, keyring.Enabled)
	require.NoError(t, err)
	_, err = jobs.Rewrap(ctx, b, nil)
	require.NoError(t, err)
	info, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
	require.NoError(t, err)
	require.Equal(t, keyring.Destroyed, info.State)
	require.Equal(t, blobtest.Content(50_000), blobtest.ReadAll(t, b.Bucket, "a"))
	require.Equal(t, blobtest.Content(10), blobtest.ReadAll(t, b.Bucket, "b"))
}

// enabler is a ring's store in which another process enables a version at the last
// moment: when the document without it is about to be written.
type enabler struct {
	keyring.Store
	before func()
}

func (e *enabler) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if before := e.before; before != nil {
		e.before = nil
		before()
	}
	return e.Store.Swap(ctx, version, data)
}

// TestRetireGivesWayToEnable: the last look at the version and its destruction are one
// compare-and-swap.
func TestRetireGivesWayToEnable(t *testing.T) {
	root, err := keyring.NewKeyRoot(blobtest.Content(32))
	require.NoError(t, err)
	store := &enabler{Store: keyring.NewMemStore()}
	ring, err := keyring.Create(ctx, store, root, nil)
	require.NoError(t, err)
	other, err := keyring.Open(ctx, store.Store, root, nil)
	require.NoError(t, err)
	b := blobtest.NewBucketWith(t, blobtest.NewMem(t), sse.NewManaged(ring), &blob.Options{})
	old := primary(t, ring)
	require.NoError(t, b.WriteAll(ctx, "a", nil, nil))
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	_, err = jobs.Rewrap(ctx, b, nil)
	require.NoError(t, err)
	_, err = jobs.Retire(ctx, ring, old, nil, b)
	require.NoError(t, err)

	store.before = func() {
		_, err := other.SetState(ctx, old, keyring.Enabled)
		require.NoError(t, err)
	}
	info, err := jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
	require.ErrorIs(t, err, jobs.ErrQuarantine)
	require.Nil(t, store.before)
	require.Equal(t, keyring.Enabled, info.State)
}

// TestRetireByAWrongClock: a process whose clock is days behind the ring's begins no
// quarantine, which would end at once for everybody else.
func TestRetireByAWrongClock(t *testing.T) {
	root, err := keyring.NewKeyRoot(blobtest.Content(32))
	require.NoError(t, err)
	store := keyring.NewMemStore()
	right := func() time.Time { return time.Now().Add(8 * 24 * time.Hour) }
	ring, err := keyring.Create(ctx, store, root, &keyring.Options{Now: right})
	require.NoError(t, err)
	old := primary(t, ring)
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	behind, err := keyring.Open(ctx, store, root, nil)
	require.NoError(t, err)
	b := blobtest.NewBucketWith(t, blobtest.NewMem(t), sse.NewManaged(ring), &blob.Options{})
	require.NoError(t, b.WriteAll(ctx, "a", nil, nil))
	info, err := jobs.Retire(ctx, behind, old, nil, b)
	require.ErrorIs(t, err, jobs.ErrQuarantine)
	require.ErrorContains(t, err, "check all clocks")
	require.Equal(t, keyring.Enabled, info.State)
}

// clockStore is a store whose clock is right.
type clockStore struct{ keyring.Store }

func (clockStore) Now(context.Context) (time.Time, error) { return time.Now(), nil }

// TestRetireByTheStoresClock: the ring was not changed for a long time, so it does not
// tell what time it is. If the store does, a process with a wrong clock neither shortens
// the quarantine of the others nor ends it early.
func TestRetireByTheStoresClock(t *testing.T) {
	root, err := keyring.NewKeyRoot(blobtest.Content(32))
	require.NoError(t, err)
	inner := keyring.NewMemStore()
	longAgo := func() time.Time { return time.Now().Add(-60 * 24 * time.Hour) }
	then, err := keyring.Create(ctx, inner, root, &keyring.Options{Now: longAgo})
	require.NoError(t, err)
	old := primary(t, then)
	_, err = then.Rotate(ctx)
	require.NoError(t, err)

	store := clockStore{inner}
	behind, err := keyring.Open(ctx, store, root, &keyring.Options{Now: func() time.Time { return time.Now().Add(-8 * 24 * time.Hour) }})
	require.NoError(t, err)
	b := blobtest.NewBucketWith(t, blobtest.NewMem(t), sse.NewManaged(then), &blob.Options{})
	info, err := jobs.Retire(ctx, behind, old, nil, b)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), info.Changed, time.Minute)

	ring, err := keyring.Open(ctx, store, root, nil)
	require.NoError(t, err)
	_, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true}, b)
	require.ErrorIs(t, err, jobs.ErrQuarantine)

	_, err = jobs.Retire(ctx, behind, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
	var differ *keyring.ClockError
	require.ErrorAs(t, err, &differ)
	require.ErrorContains(t, err, old)
	info, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
	require.NoError(t, err)
	require.Equal(t, keyring.Destroyed, info.State)
}
