package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/kms"
)

// Record describes one use of a key, whether it succeeded or failed. Its JSON
// names are those of AWS CloudTrail where CloudTrail has one. A record never
// holds a key, a plaintext or a ciphertext. It does hold the encryption context,
// so keep secrets out of that.
//
// JSON cannot hold text that is not UTF-8. In such text, a record doubles each
// backslash and writes each invalid byte as \x and two hexadecimal digits, so
// that different names stay different.
type Record struct {
	// Time is when the operation ended, in UTC, by this host's clock. Clocks can
	// go backwards: the sink defines the order of records.
	Time time.Time `json:"eventTime"`
	// EventID is a random UUID, unique to the record.
	EventID string `json:"eventID"`
	// RequestID is the key service's id for the call, if it gave one.
	RequestID string `json:"requestID,omitempty"`
	// Principal is the caller.
	Principal kms.Principal `json:"userIdentity"`
	// Operation is what the caller asked for.
	Operation kms.Operation `json:"eventName"`
	// RequestedKeyID is the key id or alias that the caller named.
	RequestedKeyID string `json:"requestedKeyId,omitempty"`
	// KeyID is the id of the key that was used, if known.
	KeyID string `json:"keyId,omitempty"`
	// KeyVersion is the version of the key's material that was used.
	KeyVersion string `json:"keyMaterialId,omitempty"`
	// Context is the encryption context.
	Context kms.Context `json:"encryptionContext,omitempty"`
	// Resource is what the key was used for; see [kms.WithResource].
	Resource string `json:"resource,omitempty"`
	// Outcome is "success" or "failure".
	Outcome string `json:"outcome"`
	// ErrorCode names the kind of a failure; see [ErrorCode]. After a success it is
	// empty.
	ErrorCode string `json:"errorCode,omitempty"`
	// ErrorMessage is the failure's error text, possibly shortened.
	ErrorMessage string `json:"errorMessage,omitempty"`
	// Retracts reports that the change in an earlier, successful record with the
	// same RequestID did not happen.
	Retracts bool `json:"retracts,omitempty"`
	// Count is the number of failures of one kind that the record stands for; zero
	// means one. See [OpenFileSink].
	Count int `json:"count,omitempty"`
	// FirstTime is when the first of Count failures happened. Time is the last.
	FirstTime time.Time `json:"firstEventTime,omitzero"`
	// Cached reports that a cache answered without calling the key service.
	Cached bool `json:"cached"`
	// Stale reports that the cache answered past its time limit because the key
	// service was down.
	Stale bool `json:"stale,omitempty"`
}

// The outcomes of an operation.
const (
	outcomeSuccess = "success"
	outcomeFailure = "failure"
)

// maxErrorMessage bounds [Record.ErrorMessage], in bytes.
const maxErrorMessage = 1024

// NewRecord returns the record of an operation that just ended with err, or
// succeeded if err is nil. The principal, the resource and the report come from
// ctx. If ctx has no resource, the record uses the pair "blobseal:object" of ec.
func NewRecord(ctx context.Context, op kms.Operation, keyID string, ec kms.Context, err error) Record {
	report, p := kms.ReportFrom(ctx), kms.PrincipalFrom(ctx)
	r := Record{
		Time:           time.Now().Round(0).UTC(),
		EventID:        uuid.New().String(),
		RequestID:      escapeInvalid(report.RequestID),
		Principal:      kms.Principal{ID: escapeInvalid(p.ID), Type: escapeInvalid(p.Type)},
		Operation:      op,
		RequestedKeyID: escapeInvalid(keyID),
		KeyID:          escapeInvalid(report.KeyID),
		KeyVersion:     escapeInvalid(report.KeyVersion),
		Context:        escapeContext(ec),
		Resource:       escapeInvalid(kms.ResourceFrom(ctx)),
		Outcome:        outcomeSuccess,
		Cached:         report.Cached,
		Stale:          report.Stale,
	}
	if r.Resource == "" {
		r.Resource = escapeInvalid(ec["blobseal:object"])
	}
	if err != nil {
		r.Outcome = outcomeFailure
		r.ErrorCode = ErrorCode(err)
		if failed, ok := err.(*kms.KeyError); ok { // whose operation and key the record has
			err = failed.Err
		}
		r.ErrorMessage = err.Error()
		if len(r.ErrorMessage) > maxErrorMessage {
			r.ErrorMessage = strings.ToValidUTF8(r.ErrorMessage[:maxErrorMessage], "") + "…"
		}
	}
	return r
}

// escapeContext returns a copy of ec that JSON can hold.
func escapeContext(ec kms.Context) kms.Context {
	if ec == nil {
		return nil
	}
	escaped := make(kms.Context, len(ec))
	for name, value := range ec {
		escaped[escapeInvalid(name)] = escapeInvalid(value)
	}
	return escaped
}

// escapeInvalid returns s as [Record] documents for text that is not UTF-8.
func escapeInvalid(s string) string {
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

// ErrorCode returns the stable name of err's kind, for records and metrics:
// NotFound, Disabled, PendingDeletion, Denied, InvalidCiphertext, Invalid,
// Unavailable, Canceled (ctx ended), Internal (anything else), or "" for nil.
func ErrorCode(err error) string {
	if err == nil {
		return ""
	}
	for _, kind := range []struct {
		err  error
		code string
	}{
		{kms.ErrDenied, "Denied"},
		{kms.ErrNotFound, "NotFound"},
		{kms.ErrDisabled, "Disabled"},
		{kms.ErrPendingDeletion, "PendingDeletion"},
		{kms.ErrCiphertext, "InvalidCiphertext"},
		{kms.ErrInvalid, "Invalid"},
		{kms.ErrUnavailable, "Unavailable"},
		{context.Canceled, "Canceled"},
		{context.DeadlineExceeded, "Canceled"},
	} {
		if errors.Is(err, kind.err) {
			return kind.code
		}
	}
	return "Internal"
}

// Sink stores the records of an audit trail. It is safe for concurrent use.
//
// Write returns nil once the record is as durable as the sink can make it. ctx
// carries values only: [NewClient] passes a ctx without the caller's deadline,
// because an operation that its caller abandoned is recorded too. A sink that
// can hang needs a timeout of its own.
type Sink interface {
	Write(ctx context.Context, r Record) error
}

type slogSink struct{ handler slog.Handler }

// NewSlogSink returns a sink that logs each record with the message "kms audit":
// successes at [slog.LevelInfo], failures at [slog.LevelWarn]. Write fails if
// the logger's handler fails or drops that level, so no record is lost silently.
// A log does not detect edits; use a [FileSink] for that.
func NewSlogSink(l *slog.Logger) Sink { return &slogSink{l.Handler()} }

func (s *slogSink) Write(ctx context.Context, r Record) error {
	level := slog.LevelInfo
	if r.Outcome != outcomeSuccess {
		level = slog.LevelWarn
	}
	if !s.handler.Enabled(ctx, level) {
		return fmt.Errorf("audit: logger drops records of level %v (lower its level)", level)
	}
	entry := slog.NewRecord(r.Time, level, "kms audit", 0)
	entry.AddAttrs(logAttrs(r)...)
	return s.handler.Handle(ctx, entry)
}

// logAttrs returns the record's fields under their JSON names, without empty ones.
func logAttrs(r Record) []slog.Attr {
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
		for _, k := range slices.Sorted(maps.Keys(r.Context)) {
			pairs = append(pairs, slog.String(k, r.Context[k]))
		}
		attrs = append(attrs, slog.Attr{Key: "encryptionContext", Value: slog.GroupValue(pairs...)})
	}
	text("resource", r.Resource)
	text("outcome", r.Outcome)
	text("errorCode", r.ErrorCode)
	text("errorMessage", r.ErrorMessage)
	if r.Retracts {
		attrs = append(attrs, slog.Bool("retracts", true))
	}
	if r.Count != 0 {
		attrs = append(attrs, slog.Int("count", r.Count), slog.Time("firstEventTime", r.FirstTime))
	}
	attrs = append(attrs, slog.Bool("cached", r.Cached))
	if r.Stale {
		attrs = append(attrs, slog.Bool("stale", true))
	}
	return attrs
}

// shorten returns r without what exceeds limit bytes in each text and in the
// names and values of the context together. What it cuts, it describes by size
// and hash, so that a copy kept elsewhere can be matched.
func shorten(r Record, limit int) Record {
	r.EventID = shortenText(r.EventID, limit)
	r.RequestID = shortenText(r.RequestID, limit)
	r.Principal = kms.Principal{ID: shortenText(r.Principal.ID, limit), Type: shortenText(r.Principal.Type, limit)}
	r.Operation = kms.Operation(shortenText(string(r.Operation), limit))
	r.RequestedKeyID = shortenText(r.RequestedKeyID, limit)
	r.KeyID = shortenText(r.KeyID, limit)
	r.KeyVersion = shortenText(r.KeyVersion, limit)
	r.Resource = shortenText(r.Resource, limit)
	r.Outcome = shortenText(r.Outcome, limit)
	r.ErrorCode = shortenText(r.ErrorCode, limit)
	r.ErrorMessage = shortenText(r.ErrorMessage, limit)

	full, room := r.Context, limit
	r.Context = make(kms.Context)
	for i, name := range slices.Sorted(maps.Keys(full)) {
		short, value := shortenText(name, limit/4), shortenText(full[name], limit/4)
		if room -= len(short) + len(value); room < 0 {
			sum := sha256.Sum256(full.AssociatedData())
			r.Context["…"] = fmt.Sprintf("%d of %d pairs omitted, sha256 of all %x", len(full)-i, len(full), sum)
			break
		}
		r.Context[short] = value
	}
	return r
}

// shortenText returns s, or its first limit bytes and a description of the rest.
func shortenText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes, sha256 %x)", strings.ToValidUTF8(s[:limit], ""), len(s), sha256.Sum256([]byte(s)))
}
