package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrAudit: the operation's record could not be written, and so its result was
// withheld. What the sink said is wrapped beside it.
var ErrAudit = errors.New("kms: use of a key could not be recorded")

// Record is one use of a key, tried or done. Its names in JSON are those of AWS
// CloudTrail where it has one. It never holds a key, a plaintext or a
// ciphertext; the encryption context is in it, and so is no place for secrets.
//
// Text that is not UTF-8 is in it with a backslash doubled and any other byte as
// \x and two digits: JSON cannot hold it, and would make one name of several.
type Record struct {
	// Time is when the operation ended, in UTC, by the clock of this host. Clocks
	// move backwards: the order of records is the sink's.
	Time time.Time `json:"eventTime"`
	// EventID is unique to the record: a random UUID.
	EventID string `json:"eventID"`
	// RequestID is the key service's own name of the call; empty if there was none.
	RequestID string `json:"requestID,omitempty"`
	// Principal is who asked.
	Principal Principal `json:"userIdentity"`
	// Operation is what was asked.
	Operation Operation `json:"eventName"`
	// RequestedKeyID is the key as it was asked for: an id or an alias.
	RequestedKeyID string `json:"requestedKeyId,omitempty"`
	// KeyID is the id of the key that was used, if it became known.
	KeyID string `json:"keyId,omitempty"`
	// KeyVersion says which generation of the key's material was used.
	KeyVersion string `json:"keyMaterialId,omitempty"`
	// Context is the encryption context.
	Context Context `json:"encryptionContext,omitempty"`
	// Resource is what the key was used for, see [WithResource].
	Resource string `json:"resource,omitempty"`
	// Outcome is [OutcomeSuccess] or [OutcomeFailure].
	Outcome Outcome `json:"outcome"`
	// ErrorCode names the kind of a failure, see [ErrorCode].
	ErrorCode string `json:"errorCode,omitempty"`
	// ErrorMessage is the text of a failure's error, shortened.
	ErrorMessage string `json:"errorMessage,omitempty"`
	// Cached: a cache answered, without a call to the key service.
	Cached bool `json:"cached"`
	// Stale: it answered past its time limit, since the service was down.
	Stale bool `json:"stale,omitempty"`
}

// Outcome is how an operation ended.
type Outcome string

// How an operation can end.
const (
	OutcomeSuccess Outcome = "success"
	OutcomeFailure Outcome = "failure"
)

// Bounds of what a record takes over from elsewhere, in bytes.
const maxErrorMessage = 1024

// NewRecord returns the record of an operation that ended just now with err,
// or well if err is nil. It takes the principal, the resource and the report
// from ctx. Without a resource in ctx it is the pair "blobseal:object" of ec.
func NewRecord(ctx context.Context, op Operation, keyID string, ec Context, err error) Record {
	report, p := ReportFrom(ctx), PrincipalFrom(ctx)
	r := Record{
		Time:           time.Now().Round(0).UTC(),
		EventID:        newEventID(),
		RequestID:      visible(report.RequestID),
		Principal:      Principal{ID: visible(p.ID), Type: visible(p.Type)},
		Operation:      op,
		RequestedKeyID: visible(keyID),
		KeyID:          visible(report.KeyID),
		KeyVersion:     visible(report.KeyVersion),
		Context:        ec.Clone(), // sinks may keep it
		Resource:       visible(ResourceFrom(ctx)),
		Outcome:        OutcomeSuccess,
		Cached:         report.Cached,
		Stale:          report.Stale,
	}
	for name, value := range ec {
		if n, v := visible(name), visible(value); n != name || v != value {
			delete(r.Context, name)
			r.Context[n] = v
		}
	}
	if r.Resource == "" {
		r.Resource = visible(ec["blobseal:object"])
	}
	if err != nil {
		r.Outcome = OutcomeFailure
		r.ErrorCode = ErrorCode(err)
		r.ErrorMessage = err.Error()
		if len(r.ErrorMessage) > maxErrorMessage {
			r.ErrorMessage = strings.ToValidUTF8(r.ErrorMessage[:maxErrorMessage], "") + "…"
		}
	}
	return r
}

// visible returns s as a [Record] has it.
func visible(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case c == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// newEventID returns a random UUID, version 4.
func newEventID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// LogValue implements [slog.LogValuer].
func (r Record) LogValue() slog.Value { return slog.GroupValue(r.attrs()...) }

// attrs are the record's fields under their names in JSON, empty ones left out.
func (r Record) attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 16)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	attrs = append(attrs, slog.Time("eventTime", r.Time))
	text("eventID", r.EventID)
	text("requestID", r.RequestID)
	attrs = append(attrs, slog.Group("userIdentity", slog.String("id", r.Principal.ID), slog.String("type", r.Principal.Type)))
	text("eventName", string(r.Operation))
	text("requestedKeyId", r.RequestedKeyID)
	text("keyId", r.KeyID)
	text("keyMaterialId", r.KeyVersion)
	if len(r.Context) > 0 {
		pairs := make([]slog.Attr, 0, len(r.Context))
		for _, k := range r.Context.Keys() {
			pairs = append(pairs, slog.String(k, r.Context[k]))
		}
		attrs = append(attrs, slog.Attr{Key: "encryptionContext", Value: slog.GroupValue(pairs...)})
	}
	text("resource", r.Resource)
	text("outcome", string(r.Outcome))
	text("errorCode", r.ErrorCode)
	text("errorMessage", r.ErrorMessage)
	attrs = append(attrs, slog.Bool("cached", r.Cached))
	if r.Stale {
		attrs = append(attrs, slog.Bool("stale", true))
	}
	return attrs
}

// ErrorCode returns the stable name of err's kind, for records and metrics:
// NotFound, Disabled, PendingDeletion, Denied, InvalidCiphertext, Invalid,
// Unavailable, Canceled (ctx ended) or Internal (anything else); "" for nil.
func ErrorCode(err error) string {
	if err == nil {
		return ""
	}
	for _, kind := range []struct {
		err  error
		code string
	}{
		{ErrDenied, "Denied"},
		{ErrNotFound, "NotFound"},
		{ErrDisabled, "Disabled"},
		{ErrPendingDeletion, "PendingDeletion"},
		{ErrCiphertext, "InvalidCiphertext"},
		{ErrInvalid, "Invalid"},
		{ErrUnavailable, "Unavailable"},
		{context.Canceled, "Canceled"},
		{context.DeadlineExceeded, "Canceled"},
	} {
		if errors.Is(err, kind.err) {
			return kind.code
		}
	}
	return "Internal"
}

// Sink takes the records of an audit trail. It is safe for concurrent use.
//
// Write returns nil once the record is as safe as the sink makes records. ctx
// carries values; [NewAudited] passes one that does not end with the caller's,
// since a use that its caller gave up is recorded too: a sink that can hang
// bounds itself.
type Sink interface {
	Write(ctx context.Context, r Record) error
}

// AuditOptions are the options of [NewAudited].
type AuditOptions struct {
	// ContinueWithoutRecord lets an operation's result out although its record
	// could not be written. The record goes to Logger instead, as an error.
	ContinueWithoutRecord bool

	// Logger is where records go that the sink refused, if the operation goes on;
	// nil is [slog.Default].
	Logger *slog.Logger
}

// NewAudited returns a client that writes one record to sink for each use of a
// key through c: after the operation, and before its result is handed out. An
// operation whose record cannot be written fails with [ErrAudit], and its data
// key or plaintext is cleared; nil opts means so.
//
// To have every use recorded put it outermost, in front of the cache:
//
//	client := kms.NewAudited(kms.NewCache(service, nil), sink, nil)
//
// so that cached uses are recorded, as such. The other way around,
// NewCache(NewAudited(service)), the trail shows the calls to the key service,
// and of the uses from the cache only those that were refused.
//
// The client is an [Authorizer] if c has one. Asking it leaves a record when it
// refuses, since the operation then does not follow.
func NewAudited(c Client, sink Sink, opts *AuditOptions) Client {
	a := &audited{client: c, sink: sink}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.Logger == nil {
		a.opts.Logger = slog.Default()
	}
	if authorizer := authorizerOf(c); authorizer != nil {
		return &auditedAuthorizer{audited: a, authorizer: authorizer}
	}
	return a
}

type audited struct {
	client Client
	sink   Sink
	opts   AuditOptions
}

// Unwrap returns the client that is audited.
func (a *audited) Unwrap() Client { return a.client }

func (a *audited) GenerateDataKey(ctx context.Context, keyID string, ec Context) (*DataKey, error) {
	ctx, done := a.begin(ctx)
	key, err := a.client.GenerateDataKey(ctx, keyID, ec)
	if key != nil {
		ReportFrom(ctx).KeyID = key.KeyID
	}
	if err := done(OpGenerateDataKey, keyID, ec, err); err != nil {
		if key != nil {
			key.Clear()
		}
		return nil, err
	}
	return key, nil
}

func (a *audited) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec Context) ([]byte, error) {
	ctx, done := a.begin(ctx)
	plaintext, err := a.client.Decrypt(ctx, keyID, ciphertext, ec)
	if err := done(OpDecrypt, keyID, ec, err); err != nil {
		clear(plaintext)
		return nil, err
	}
	return plaintext, nil
}

// begin returns a ctx with a report of its own, and what ends the operation: it
// records it, tells the caller's report, and returns the error to hand out.
func (a *audited) begin(ctx context.Context) (context.Context, func(Operation, string, Context, error) error) {
	outer, report := reporting(ctx), new(Report)
	ctx = WithReport(ctx, report)
	return ctx, func(op Operation, keyID string, ec Context, err error) error {
		if outer != nil {
			*outer = *report
		}
		r := NewRecord(ctx, op, keyID, ec, err)
		failure := a.sink.Write(context.WithoutCancel(ctx), r)
		switch {
		case failure == nil:
			return err
		case a.opts.ContinueWithoutRecord:
			a.opts.Logger.LogAttrs(context.WithoutCancel(ctx), slog.LevelError, "kms: audit record could not be written",
				slog.Any("record", r), slog.Any("error", failure))
			return err
		case err != nil:
			return fmt.Errorf("%w: %w; the operation had failed: %w", ErrAudit, failure, err)
		default:
			return fmt.Errorf("%w: %w", ErrAudit, failure)
		}
	}
}

// auditedAuthorizer is an audited client whose service can be asked.
type auditedAuthorizer struct {
	*audited
	authorizer Authorizer
}

func (a *auditedAuthorizer) Authorize(ctx context.Context, op Operation, keyID string, ec Context) error {
	ctx, done := a.begin(ctx)
	if err := a.authorizer.Authorize(ctx, op, keyID, ec); err != nil {
		return done(op, keyID, ec, err)
	}
	return nil
}

// authorizerOf returns the Authorizer of c or of what it wraps, or nil.
func authorizerOf(c Client) Authorizer {
	for c != nil {
		if a, ok := c.(Authorizer); ok {
			return a
		}
		w, ok := c.(interface{ Unwrap() Client })
		if !ok {
			return nil
		}
		c = w.Unwrap()
	}
	return nil
}

// SlogSink writes records to a logger; see [NewSlogSink].
type SlogSink struct{ handler slog.Handler }

// NewSlogSink returns a sink that logs each record with the message "kms audit":
// successes as [slog.LevelInfo], failures as [slog.LevelWarn]. Write fails when
// the logger's handler does, and when the handler drops that level: a record is
// never lost in silence. What the handler does with a record, and how safe it
// is then, is the handler's affair; a log is no proof against edits.
func NewSlogSink(l *slog.Logger) *SlogSink { return &SlogSink{l.Handler()} }

// Write implements [Sink].
func (s *SlogSink) Write(ctx context.Context, r Record) error {
	level := slog.LevelInfo
	if r.Outcome != OutcomeSuccess {
		level = slog.LevelWarn
	}
	if !s.handler.Enabled(ctx, level) {
		return fmt.Errorf("kms: audit logger drops records of level %v", level)
	}
	entry := slog.NewRecord(r.Time, level, "kms audit", 0)
	entry.AddAttrs(r.attrs()...)
	return s.handler.Handle(ctx, entry)
}
