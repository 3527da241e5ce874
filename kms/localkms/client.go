package localkms

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// Client is a [Service] as one account sees it in one region. It is a
// [kms.Client] and a [kms.Authorizer]. All methods are safe for concurrent use.
//
// Methods take a key as its id, its ARN, an alias or an alias's ARN; ids and
// aliases are those of the client's own account and region, ARNs of any. The
// principal that asks is the one in ctx, see [kms.WithPrincipal]. Changes are in
// the store when a method returns, and hold at once for every call of this
// Service that begins after; for those of other processes see
// Options.RefreshInterval.
//
// The errors of all methods are of the kinds of package kms: for what the
// service does not know kms.ErrNotFound, for what the principal may not do
// kms.ErrDenied, for a store that fails kms.ErrUnavailable, after which a change
// may have happened or not. A key's permissions are looked at before its state.
type Client struct {
	service *Service
	scope
}

var (
	_ kms.Client     = (*Client)(nil)
	_ kms.Authorizer = (*Client)(nil)
)

// Account returns the client's account.
func (c *Client) Account() string { return c.account }

// Region returns the client's region.
func (c *Client) Region() string { return c.region }

// find returns the key that t names, or nil.
func (c *contents) find(t target) *key {
	id := t.id
	if t.alias != "" {
		a, found := c.aliases[aliasName{scope: t.scope, name: t.alias}]
		if !found {
			return nil
		}
		id = a.key
	}
	if k := c.keys[id]; k != nil && k.scope == t.scope {
		return k
	}
	return nil
}

// find is contents.find, but for keys whose deadline has passed. That is
// remembered, so that a clock that goes back does not bring one back.
func (s *Service) find(c *contents, t target) *key {
	k := c.find(t)
	if k == nil || k.state != PendingDeletion {
		return k
	}
	if s.isLost(k) {
		return nil
	}
	if k.gone(s.now()) {
		s.lost.Store(k.id, k.deadline)
		return nil
	}
	return k
}

// findAlias returns the key that an alias names, or nil if there is no such alias
// or its key is past its deadline: then the name is free.
func (s *Service) findAlias(c *contents, name aliasName) *key {
	return s.find(c, target{scope: name.scope, alias: name.name})
}

// isLost reports whether k was seen past its deadline.
func (s *Service) isLost(k *key) bool {
	deadline, found := s.lost.Load(k.id)
	return found && k.state == PendingDeletion && deadline.(int64) == k.deadline
}

// notFound is the error of a name without a key.
func notFound(name string) error { return fmt.Errorf("%w: %q", kms.ErrNotFound, shorten(name)) }

// lookup returns the key that name names, from a snapshot that is fresh; one
// that is not known may be in the store.
func (c *Client) lookup(ctx context.Context, name string) (*key, error) {
	snap, err := c.service.fresh(ctx)
	if err != nil {
		return nil, err
	}
	t, err := c.target(name)
	if err != nil {
		return nil, err
	}
	if k := c.service.find(&snap.contents, t); k != nil {
		return k, nil
	}
	if err := c.service.reloadAfterMiss(ctx); err != nil {
		return nil, err
	}
	if k := c.service.find(&c.service.current.Load().contents, t); k != nil {
		return k, nil
	}
	return nil, notFound(name)
}

func (c *Client) target(name string) (target, error) {
	if name == "" {
		return target{}, invalid("no key is named")
	}
	return parseTarget(c.scope, name)
}

// call is one operation, for its report and its record.
type call struct {
	*Client
	ctx       context.Context // with report
	outer     *kms.Report
	report    kms.Report
	op        kms.Operation
	requested string
	context   kms.Context
	skip      bool        // the edit turned out to change nothing, so commit records nothing
	recorded  *kms.Report // what the record says that was written before the change; nil if none was
}

// begin begins an operation. Its ctx has a report of its own, which end passes on.
func (c *Client) begin(ctx context.Context, op kms.Operation, requested string, ec kms.Context) *call {
	o := &call{Client: c, outer: kms.ReportFrom(ctx), op: op, requested: requested, context: ec}
	o.report.RequestID = newKeyID().String()
	o.ctx = kms.WithReport(ctx, &o.report)
	return o
}

// on notes which key the operation turned out to be about.
func (o *call) on(k *key) { o.report.KeyID = k.arn }

// end records an operation that is over, and returns the error to hand out.
func (o *call) end(err error) error {
	*o.outer = o.report
	if o.recorded != nil && err == nil || errors.Is(err, audit.ErrNotRecorded) {
		return err
	}
	return o.service.record(o.ctx, o.record(err), err)
}

// commit records an operation that is about to change the store. It may be called
// again, after another process changed the store first. If the operation is about
// another key by then, a second record says that the first change did not happen.
func (o *call) commit() error {
	if o.skip || o.recorded != nil && *o.recorded == o.report {
		return nil
	}
	if o.recorded != nil {
		first := *o
		first.report = *o.recorded
		first.ctx = kms.WithReport(o.ctx, &first.report)
		o.recorded = nil
		if err := o.service.record(first.ctx, first.record(errSuperseded), nil); err != nil {
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

// update changes the store by edit, and records the operation first. What is due
// happens afterwards, in edits of its own.
func (o *call) update(edit func(*draft) error) error {
	err := o.service.update(o.ctx, func(d *draft) error {
		before := d.contents
		if err := edit(d); err != nil || d.touched == nil {
			return err
		}
		return o.service.checkQuota(&before, &d.contents, d.touched.account)
	}, o.commit)
	if err == nil {
		o.service.maintainAfterEdit(o.ctx)
	}
	return err
}

// record is the operation's, within what a sink takes: a name or a context that
// is longer than any can be was refused, and shows in part or in the error alone.
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
// error to hand out.
func (s *Service) record(ctx context.Context, r audit.Record, err error) error {
	if s.opts.Audit == nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	failure := s.opts.Audit.Write(ctx, r)
	switch {
	case failure == nil:
		return err
	case s.opts.ContinueWithoutRecord:
		s.log.LogAttrs(ctx, slog.LevelError, "localkms: audit record could not be written",
			slog.Any("record", r), slog.Any("error", failure))
		return err
	case err != nil:
		return fmt.Errorf("%w: %w; the operation had failed: %w", audit.ErrNotRecorded, failure, err)
	default:
		return fmt.Errorf("%w: %w", audit.ErrNotRecorded, failure)
	}
}

// change is an operation that changes the key that name names. edit may also
// change the rest of the draft. The principal needs op's permission.
func (c *Client) change(ctx context.Context, op kms.Operation, name string, edit func(*draft, *key) error) error {
	o := c.begin(ctx, op, name, nil)
	t, err := c.target(name)
	if err != nil {
		return o.end(err)
	}
	return o.end(o.update(func(d *draft) error {
		k := c.service.find(&d.contents, t)
		if k == nil {
			return notFound(name)
		}
		o.on(k)
		d.takesAway = takesAway[op]
		if err := c.authorize(o.ctx, op, k, nil); err != nil {
			return err
		}
		if err := edit(d, k); err != nil {
			return err
		}
		if next := d.keys[k.id]; len(next.versions) > len(k.versions) {
			o.report.KeyVersion = next.current().name() // that a rotation made
		}
		return nil
	}))
}

// view is an operation that looks at the key that name names.
func (c *Client) view(ctx context.Context, op kms.Operation, name string, look func(*key) error) error {
	o := c.begin(ctx, op, name, nil)
	return o.end(func() error {
		k, err := c.lookup(o.ctx, name)
		if err != nil {
			return err
		}
		o.on(k)
		if err := c.authorize(o.ctx, op, k, nil); err != nil {
			return err
		}
		return look(k)
	}())
}

func sumOf(data []byte) [sha256.Size]byte { return sha256.Sum256(data) }
