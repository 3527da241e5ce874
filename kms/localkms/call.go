package localkms

import (
	"context"
	"errors"

	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// call is one operation, from begin to finish. It collects what the caller's report and
// the audit record say.
//
// A use of a key takes a fresh snapshot, finds the key (lookup), asks policies and grants
// (authorize) and the key's state (checkUsable), and encrypts or decrypts. A change does
// the same in the draft of the next document (changeIf), edits the draft, checks quotas
// and the document's size, and is recorded (recordChange) before the engine stores the
// document.
type call struct {
	service   *Service
	ctx       context.Context // carries report
	op        kms.Operation
	requested string // the key, as the caller named it
	context   kms.Context

	report       kms.Report
	callerReport *kms.Report
	recorded     *kms.Report // the report in the record of the change, once that is written
	unchanged    bool        // the edit found nothing to change, so it needs no record
}

// begin begins an operation on the key that the caller named.
func (s *Service) begin(ctx context.Context, op kms.Operation, requested string, ec kms.Context) *call {
	o := &call{service: s, op: op, requested: requested, context: ec, callerReport: kms.ReportFrom(ctx)}
	o.report.RequestID = uuid.New().String()
	o.ctx = kms.WithReport(ctx, &o.report)
	return o
}

// finish records the operation, unless its change was recorded and succeeded, and
// returns the error for the caller.
func (o *call) finish(err error) error {
	*o.callerReport = o.report
	switch {
	case err == nil && o.recorded != nil: // the change is stored
	case errors.Is(err, audit.ErrNotRecorded):
	default:
		r := o.record(err)
		r.Retracts = o.recorded != nil
		err = o.service.record(o.ctx, r, err)
	}
	return keyError(o.op, o.requested, err)
}

// update changes the store by edit, after it has recorded the operation.
// Maintenance that is due follows in edits of its own.
func (o *call) update(edit func(*draft) error) error {
	err := o.service.update(o.ctx, func(d *draft) error {
		before := d.contents
		if err := edit(d); err != nil || d.touched == nil {
			return err
		}
		return o.service.checkQuota(&before, &d.contents, d.touched.account)
	}, o.recordChange)
	if err == nil {
		o.service.maintainAfterEdit(o.ctx)
	}
	return err
}

// recordChange records the operation before its change is stored. It is called
// again when another process changed the store first. If the operation is about
// another key by then, one more record says that the first change did not happen.
func (o *call) recordChange() error {
	if o.unchanged || o.recorded != nil && *o.recorded == o.report {
		return nil
	}
	if o.recorded != nil {
		first := *o
		first.report, first.ctx = *o.recorded, kms.WithReport(o.ctx, &first.report)
		o.recorded = nil
		if err := first.retract(errSuperseded); err != nil {
			return err
		}
	}
	if err := o.service.record(o.ctx, o.record(nil), nil); err != nil {
		return err
	}
	report := o.report
	o.recorded = &report
	return nil
}

// retract records why the change that was recorded does not happen.
func (o *call) retract(reason error) error {
	r := o.record(reason)
	r.Retracts = true
	return o.service.record(o.ctx, r, nil)
}

// record returns the record of the operation, which ended with err. It shortens
// names, and leaves out contexts, that are too long to be right.
func (o *call) record(err error) audit.Record {
	ec := o.context
	if checkContext(ec) != nil {
		ec = nil
	}
	r := audit.NewRecord(o.ctx, o.op, cut(o.requested, maxName), ec, err)
	r.Time = date(o.service.now())
	return r
}

// record writes a record of an operation that ended with err, and returns the
// error for the caller.
func (s *Service) record(ctx context.Context, r audit.Record, err error) error {
	if s.opts.Audit == nil {
		return err
	}
	if failure := s.opts.Audit.Write(context.WithoutCancel(ctx), r); failure != nil {
		return audit.NotRecorded(failure, err)
	}
	return err
}

// change performs an operation that changes the key that name names, if policies and
// grants permit it. edit may change the rest of the draft, too.
func (c *Client) change(ctx context.Context, op kms.Operation, name string, edit func(*draft, *key) error) error {
	allow := func(k *key) error { return c.authorize(ctx, op, k, nil) }
	return c.changeIf(ctx, op, name, allow, edit)
}

// changeIf is change with allow in place of policies and grants.
func (c *Client) changeIf(ctx context.Context, op kms.Operation, name string, allow func(*key) error, edit func(*draft, *key) error) error {
	o := c.service.begin(ctx, op, name, nil)
	t, err := c.target(name)
	if err != nil {
		return o.finish(err)
	}
	return o.finish(o.update(func(d *draft) error {
		k := c.service.find(&d.contents, t)
		if k == nil {
			return c.notFound(ctx, t)
		}
		o.report.KeyID = k.arn
		d.takesAway = takesAway[op]
		if err := allow(k); err != nil {
			return err
		}
		if k.state == PendingDeletion && !duringDeletion[op] {
			return k.checkUsable()
		}
		if err := edit(d, k); err != nil {
			return err
		}
		if next := d.keys[k.id]; len(next.versions) > len(k.versions) {
			o.report.KeyVersion = next.current().name() // a rotation made it
		}
		return nil
	}))
}

// view performs an operation that looks at the key that name names. DescribeKey makes
// the default key.
func view[T any](ctx context.Context, c *Client, op kms.Operation, name string, look func(*key) T) (seen T, err error) {
	o := c.service.begin(ctx, op, name, nil)
	k, err := c.lookupPermitted(o.ctx, op, name, nil, op == OpDescribeKey)
	if err := o.finish(err); err != nil {
		return seen, err
	}
	return look(k), nil
}
