package stored

import "time"

// MaxTries is how often an operation is tried at an object that other writers replace
// meanwhile, before it fails with [ErrChanged].
const MaxTries = 4

// Version is what a store says of one version of a stored object. A store leaves
// out what it does not know, and a list, a HEAD and a GET may know different
// things.
type Version struct {
	ETag    string    // empty if unknown
	Size    int64     // bytes in the store; below zero if unknown
	ModTime time.Time // zero if unknown
}

// Same reports whether v and w may be one version: nothing that both know
// differs. It is the only place that compares what stores say.
//
// Stores round times differently: Google's store serves milliseconds with an
// object's attributes and whole seconds with its content. Same compares times as
// exactly as the coarser of the two allows. Two versions of one size that were
// written within a store's clock tick look the same, so a writer also compares
// envelopes, with [SameEnvelope], or adds the store's condition to its write.
func (v Version) Same(w Version) bool {
	if v.ETag != "" && w.ETag != "" && v.ETag != w.ETag {
		return false
	}
	if v.Size >= 0 && w.Size >= 0 && v.Size != w.Size {
		return false
	}
	if v.ModTime.IsZero() || w.ModTime.IsZero() {
		return true
	}
	difference := v.ModTime.Sub(w.ModTime).Abs()
	return difference < max(granularity(v.ModTime), granularity(w.ModTime))
}

// granularity returns the coarsest unit that holds t exactly, at most a second.
func granularity(t time.Time) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if t.Nanosecond()%int(unit) == 0 {
			return unit
		}
	}
	return time.Nanosecond
}
