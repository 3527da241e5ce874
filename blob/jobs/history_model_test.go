package jobs_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// locked returns the keys whose locks the operation that makes this request may hold.
// An operation that ran within it and wanted one of them would wait for ever. A job
// holds none when it begins to write and while it writes.
func (h *history) locked(op, key string) []string {
	if len(h.outer) == 0 && (op == "create" || op == "write") {
		return nil
	}
	return append([]string{key}, h.outer...)
}

// mustBeWhole checks that a job which left objects undone says so.
func (h *history) mustBeWhole(report *jobs.Report, err error) {
	if err == nil && report.Failed > 0 {
		h.fail("the job left %d objects undone and returned nil", report.Failed)
	}
}

// outcome notes what a write of text to key made possible. err is nil if it was
// acknowledged.
func (h *history) outcome(key, text string, before []string, err error) {
	if err == nil {
		h.model[key] = []string{text}
		return
	}
	h.model[key] = append(slices.Clone(before), text)
}

func (h *history) holds(key string) []string {
	if may := h.model[key]; may != nil {
		return may
	}
	return []string{absent}
}

func short(text string) string {
	return strings.SplitN(text+"  ", " ", 3)[0] + strings.SplitN(text+"  ", " ", 3)[1]
}

// enter notes the keys of the outermost operation.
func (h *history) enter(keys ...string) {
	if h.depth == 1 {
		h.outer = keys
	}
}

// check holds a read against the model. A failure that was injected proves nothing.
func (h *history) check(key string, may []string, got []byte, err error) {
	switch {
	case errors.Is(err, errRigged), errors.Is(err, errDead), errors.Is(err, blob.ErrChanged), errors.Is(err, keyring.ErrDisabled),
		errors.Is(err, kms.ErrUnavailable), errors.Is(err, kms.ErrDisabled):
		return
	case gcerrors.Code(err) == gcerrors.NotFound:
		if !slices.Contains(may, absent) {
			h.fail("%s is not found", key)
		}
	case err != nil:
		h.fail("%s: %v", key, err)
	case !slices.ContainsFunc(may, func(text string) bool { return text != absent && text == string(got) }):
		h.fail("%s holds %q", key, short(string(got)))
	}
}

// verify reads everything in a new process, to which nothing happens any more.
func (h *history) verify() {
	h.note("verify")
	h.clock = h.latest // a clock that is right
	h.start(false)
	h.settle(func() error { return h.proc.service.EnableKey(ctx, h.kmsID) })
	for _, v := range h.proc.ring.Versions() {
		if v.State == keyring.Disabled {
			h.settle(func() error { _, err := h.proc.ring.SetState(ctx, v.ID, keyring.Enabled); return err })
		}
	}
	for _, key := range keys {
		got, err := h.proc.b.ReadAll(ctx, key)
		h.check(key, h.holds(key), got, err)
	}
	for f, err := range jobs.Check(ctx, h.proc.b, nil) {
		require.NoError(h, err)
		if f.Verdict != jobs.VerdictGood && f.Verdict != jobs.VerdictPlain {
			h.fail("%s is %v: %v", f.Key, f.Verdict, f.Err)
		}
		stored, err := h.inner.ReadAll(ctx, f.Key)
		require.NoError(h, err)
		if f.Verdict == jobs.VerdictGood && bytes.Contains(stored, []byte("content ")) {
			h.fail("%s is in the store in plain text", f.Key)
		}
	}
	// With nothing in its way, a job does all that is asked.
	if _, err := jobs.EncryptExisting(ctx, h.proc.b, nil); err != nil {
		h.fail("encrypt existing: %v", err)
	}
	if _, err := jobs.Rewrap(ctx, h.proc.b, &jobs.RewrapOptions{To: sse.NewManaged(h.proc.ring)}); err != nil {
		h.fail("rewrap: %v", err)
	}
	newest := primary(h, h.proc.ring)
	for e, err := range jobs.Inventory(ctx, h.proc.b, nil) {
		require.NoError(h, err)
		if want := (jobs.KeyRef{Mode: sse.ModeManaged, KeyID: newest}); e.Seal != want {
			h.fail("%s is under %v after a rewrap to %v", e.Key, e.Seal, want)
		}
	}
}

// settle repeats what the ring's store makes fail at random.
func (h *history) settle(do func() error) {
	for range 100 {
		if do() == nil {
			return
		}
	}
	h.fail("the ring's store never succeeds")
}
