package audit

import (
	"slices"
	"time"

	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/kms"
)

// maxFoldKinds bounds how many kinds of failures a folder tells apart. Failures of
// further kinds are told apart by their error codes alone.
const maxFoldKinds = 64

// folder folds repeated failures of one kind, so that an attacker who can provoke
// failures cannot fill the disk with records of them. It keeps a bounded state.
// It is not safe for concurrent use.
type folder struct {
	window time.Duration // not positive: fold nothing
	kinds  map[foldKind]*folded
}

// foldKind is what failures have in common that are folded into one record.
type foldKind struct {
	principal kms.Principal
	operation kms.Operation
	keyID     string
	errorCode string
}

// kindOf returns the kind of a failure, or of the record of folded ones.
func kindOf(r Record) foldKind { return foldKind{r.Principal, r.Operation, r.KeyID, r.ErrorCode} }

// folded are the failures of one kind since the first, which has its own record.
type folded struct {
	began time.Time
	count int
	first time.Time // Time of the first that was folded
	last  Record
}

// add returns the records to write now, oldest first: those of folded failures
// whose window has ended, and r itself, unless it was folded.
func (f *folder) add(r Record, now time.Time) []Record {
	if f.window <= 0 {
		return []Record{r}
	}
	records := f.expire(now)
	if r.Outcome != outcomeFailure || r.Retracts {
		return append(records, r)
	}
	kind := kindOf(r)
	if f.kinds[kind] == nil && len(f.kinds) >= maxFoldKinds {
		kind = foldKind{errorCode: r.ErrorCode}
	}
	one := f.kinds[kind]
	if one == nil {
		f.kinds[kind] = &folded{began: now}
		return append(records, r)
	}
	if one.count++; one.count == 1 {
		one.first = r.Time
	}
	one.last = r
	if kind.operation == "" { // of several principals, operations and keys
		one.last.Principal, one.last.Operation, one.last.KeyID = kms.Principal{}, "", ""
		one.last.RequestedKeyID, one.last.KeyVersion, one.last.Context, one.last.Resource = "", "", nil, ""
		one.last.ErrorMessage = "failures of several principals, operations or keys"
	}
	return records
}

// restore takes records back that could not be written.
func (f *folder) restore(records []Record, now time.Time) {
	for _, r := range records {
		kind := kindOf(r)
		one := f.kinds[kind]
		if r.Count == 0 {
			if one != nil && one.count == 0 {
				delete(f.kinds, kind) // the next one is the first to be recorded
			}
			continue
		}
		if one == nil {
			one = &folded{began: now}
			f.kinds[kind] = one
		}
		if one.count == 0 {
			one.last = r
		}
		one.count, one.first = one.count+r.Count, r.FirstTime
	}
}

// due returns how long it is until the first window ends, in which more failures may be
// folded by then. ok is false if nothing was folded.
func (f *folder) due(now time.Time) (wait time.Duration, ok bool) {
	wait = f.window
	for _, one := range f.kinds {
		wait, ok = min(wait, f.window-now.Sub(one.began)), ok || one.count > 0
	}
	return wait, ok
}

// expire returns the records of folded failures whose window has ended.
func (f *folder) expire(now time.Time) []Record {
	return f.take(func(one *folded) bool { return now.Sub(one.began) >= f.window })
}

// flush returns the records of all folded failures.
func (f *folder) flush() []Record { return f.take(func(*folded) bool { return true }) }

// take removes the kinds that are over, and returns the records of their failures,
// oldest first.
func (f *folder) take(over func(*folded) bool) (records []Record) {
	for kind, one := range f.kinds {
		if !over(one) {
			continue
		}
		delete(f.kinds, kind)
		if one.count > 0 {
			r := one.last
			r.EventID = uuid.New().String()
			r.Count, r.FirstTime = one.count, one.first
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b Record) int { return a.Time.Compare(b.Time) })
	return records
}

// scheduleUnfold starts the timer that writes folded failures, if there are any. s.mu
// is held.
func (s *FileSink) scheduleUnfold() {
	if s.unfold != nil || s.closed {
		return
	}
	if wait, ok := s.folder.due(time.Now()); ok {
		s.unfold = time.AfterFunc(wait, s.unfoldInBackground)
	}
}

// unfoldInBackground writes the folded failures whose window has ended. If that fails,
// they go back to the folder for another window.
func (s *FileSink) unfoldInBackground() {
	s.mu.Lock()
	s.unfold = nil
	s.mu.Unlock()
	_, _ = s.enqueue(s.folder.expire) // fails if the sink was closed, which has written them
}
