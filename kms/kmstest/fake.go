package kmstest

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// Fake is a key service in memory, for unit tests. Its cryptography is real, its
// faults are programmable, and it remembers its calls. It is safe for concurrent
// use. Faults take effect with the next call. [NewFake] makes one.
//
// As real services do, it accepts short names and answers with full ones: the key
// "photos" has the id ARN("photos"). Its methods accept either, or an alias.
//
// Like remote services, a Fake is not a [kms.Authorizer]. [Authorizing] makes it
// one.
type Fake struct {
	mu       sync.Mutex
	keys     map[string]*fakeKey
	aliases  map[string]string
	denied   map[denial]bool
	faults   []*fault
	hook     func(ctx context.Context, c Call) error
	onKey    func(*kms.DataKey) *kms.DataKey
	onPlain  func([]byte) []byte
	latency  time.Duration
	calls    []Call
	requests int
}

type fakeKey struct {
	key   secret.Key
	state error // nil if enabled
}

type denial struct {
	principal kms.Principal
	op        kms.Operation
}

type fault struct {
	err error
	n   int // negative means always
	ops []kms.Operation
}

// Call is a call of a [Fake] and its error.
type Call struct {
	Operation kms.Operation
	KeyID     string // as the caller named the key
	Principal kms.Principal
	Context   kms.Context
	Resource  string
	Err       error // nil in hooks
}

var (
	_ kms.Client      = (*Fake)(nil)
	_ kms.KeyComparer = (*Fake)(nil)
)

// arnPrefix begins the ids of a Fake's keys.
const arnPrefix = "arn:kmstest:kms:test:111122223333:key/"

// ARN returns the id of a [Fake]'s key, by which results and records name it.
func ARN(name string) string {
	if name == "" || strings.HasPrefix(name, "arn:") {
		return name
	}
	return arnPrefix + name
}

// NewFake returns a service with enabled keys of these names.
func NewFake(names ...string) *Fake {
	f := &Fake{keys: make(map[string]*fakeKey), aliases: make(map[string]string), denied: make(map[denial]bool)}
	for _, name := range names {
		f.AddKey(name)
	}
	return f
}

// Subject returns f as a subject for [Run], and adds the keys that the suite needs. To test
// a client in front of f, set Subject.Client.
func (f *Fake) Subject() Subject {
	f.AddKey("key-1")
	f.AddKey("key-2")
	f.SetAlias("alias/one", "key-1")
	return Subject{
		Client: f, KeyID: ARN("key-1"), Alias: "alias/one", OtherKeyID: ARN("key-2"), UnknownKeyID: ARN("key-3"),
		Disable:          func(*testing.T) { f.Disable("key-1") },
		ScheduleDeletion: func(*testing.T) { f.ScheduleDeletion("key-1") },
		Enable:           func(*testing.T) { f.Enable("key-1") },
		Deny:             func(_ *testing.T, p kms.Principal, op kms.Operation) { f.Deny(p, op) },
		Break:            func(*testing.T) { f.Fail(kms.ErrUnavailable, -1) },
		Repair:           func(*testing.T) { f.Recover() },
		Stall:            func(*testing.T) { f.SetLatency(10 * time.Second) },
	}
}

// AddKey makes a key of this name. It replaces a key that has the name already.
func (f *Fake) AddKey(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[ARN(name)] = &fakeKey{key: secret.Random()}
}

// RemoveKey deletes a key: its uses fail with [kms.ErrNotFound].
func (f *Fake) RemoveKey(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, f.resolve(name))
}

// SetAlias makes alias another name of a key.
func (f *Fake) SetAlias(alias, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.aliases[alias] = ARN(name)
}

// resolve returns the id of the key that name or an alias means. f.mu is held.
func (f *Fake) resolve(name string) string {
	if id, ok := f.aliases[name]; ok {
		return id
	}
	return ARN(name)
}

// Enable makes a key usable again.
func (f *Fake) Enable(name string) { f.setState(name, nil) }

// Disable makes the uses of a key fail with [kms.ErrDisabled].
func (f *Fake) Disable(name string) { f.setState(name, kms.ErrDisabled) }

// ScheduleDeletion makes the uses of a key fail with [kms.ErrPendingDeletion].
func (f *Fake) ScheduleDeletion(name string) { f.setState(name, kms.ErrPendingDeletion) }

func (f *Fake) setState(name string, state error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.keys[f.resolve(name)]
	if k == nil {
		panic(fmt.Sprintf("kmstest: the fake has no key %q", name)) // a mistake in the test
	}
	k.state = state
}

// Deny makes operations by p fail with [kms.ErrDenied]: all of them if ops is
// empty. p must match ID and Type. The zero Principal denies calls without one.
func (f *Fake) Deny(p kms.Principal, ops ...kms.Operation) { f.setDenied(p, ops, true) }

// Allow undoes [Fake.Deny].
func (f *Fake) Allow(p kms.Principal, ops ...kms.Operation) { f.setDenied(p, ops, false) }

func (f *Fake) setDenied(p kms.Principal, ops []kms.Operation, denied bool) {
	if len(ops) == 0 {
		ops = []kms.Operation{kms.OpGenerateDataKey, kms.OpDecrypt}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, op := range ops {
		f.denied[denial{p, op}] = denied
	}
}

// Fail makes the next n calls of ops fail with err: all later calls if n is
// negative, calls of all operations if ops is empty. Faults apply in the order in
// which they were set. err should be of a kind such as [kms.ErrUnavailable].
func (f *Fake) Fail(err error, n int, ops ...kms.Operation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault{err, n, ops})
}

// Recover ends all faults: Fail, Hook, AnswerKey, AnswerPlaintext and SetLatency.
// It does not change keys or permissions.
func (f *Fake) Recover() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.hook, f.onKey, f.onPlain, f.latency = nil, nil, nil, nil, 0
}

// Hook calls h, without locks, before it answers a call, also one of [Authorizing].
// The call returns h's error. To make the service hang, let h wait for its ctx.
func (f *Fake) Hook(h func(ctx context.Context, c Call) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = h
}

// AnswerKey replaces each data key before it is returned, for example by nil or by
// another key's.
func (f *Fake) AnswerKey(answer func(*kms.DataKey) *kms.DataKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onKey = answer
}

// AnswerPlaintext replaces each result of Decrypt before it is returned.
func (f *Fake) AnswerPlaintext(answer func([]byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onPlain = answer
}

// SetLatency makes each call take d, or until its ctx ends.
func (f *Fake) SetLatency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

// Calls returns the calls so far, in the order in which they ended, without those
// of [Authorizing.Authorize].
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Count returns the number of calls so far: of all operations if ops is empty.
func (f *Fake) Count(ops ...kms.Operation) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if len(ops) == 0 || slices.Contains(ops, c.Operation) {
			n++
		}
	}
	return n
}

// Forget clears the list of calls.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = nil
}

// GenerateDataKey implements [kms.Client].
func (f *Fake) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (key *kms.DataKey, err error) {
	defer func() {
		err = keyError(kms.OpGenerateDataKey, keyID, err)
		f.record(ctx, kms.OpGenerateDataKey, keyID, ec, err)
	}()
	id, k, err := f.use(ctx, kms.OpGenerateDataKey, keyID, ec)
	if err != nil {
		return nil, err
	}
	plaintext := secret.Random()
	ciphertext, err := chunked.Seal(k.Bytes(), ec.AssociatedData(), plaintext.Bytes())
	if err != nil {
		return nil, err
	}
	if key, err = kms.NewDataKey(id, plaintext.Bytes(), ciphertext); err != nil {
		return nil, err
	}
	f.mu.Lock()
	answer := f.onKey
	f.mu.Unlock()
	if answer != nil {
		return answer(key), nil
	}
	return key, nil
}

// Decrypt implements [kms.Client].
func (f *Fake) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) (plaintext []byte, err error) {
	defer func() {
		err = keyError(kms.OpDecrypt, keyID, err)
		f.record(ctx, kms.OpDecrypt, keyID, ec, err)
	}()
	_, k, err := f.use(ctx, kms.OpDecrypt, keyID, ec)
	if err != nil {
		return nil, err
	}
	plaintext, err = chunked.OpenMessage(k.Bytes(), ec.AssociatedData(), ciphertext)
	if err != nil {
		return nil, kms.ErrCiphertext
	}
	f.mu.Lock()
	answer := f.onPlain
	f.mu.Unlock()
	if answer != nil {
		return answer(plaintext), nil
	}
	return plaintext, nil
}

// SameKey implements [kms.KeyComparer]. An alias of [Fake.SetAlias], and any other
// name that begins with "alias/", is resolved when it is used.
func (f *Fake) SameKey(name, id string) (same, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, alias := f.aliases[name]; alias || strings.HasPrefix(name, "alias/") {
		return false, false
	}
	return name != "" && ARN(name) == ARN(id), true
}

// use begins both operations.
func (f *Fake) use(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) (string, secret.Key, error) {
	f.mu.Lock()
	hook, latency := f.hook, f.latency
	f.requests++
	request := f.requests
	f.mu.Unlock()
	report := kms.ReportFrom(ctx)
	*report = kms.Report{RequestID: fmt.Sprintf("fake-%d", request)}
	if err := ctx.Err(); err != nil {
		return "", secret.Key{}, err
	}
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return "", secret.Key{}, ctx.Err()
		}
	}
	if hook != nil {
		if err := hook(ctx, newCall(ctx, op, keyID, ec, nil)); err != nil {
			return "", secret.Key{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.faults {
		if len(fault.ops) > 0 && !slices.Contains(fault.ops, op) || fault.n == 0 {
			continue
		}
		if fault.n--; fault.n == 0 {
			f.faults = slices.Delete(f.faults, i, i+1)
		}
		return "", secret.Key{}, fault.err
	}
	return f.authorize(ctx, op, keyID)
}

// authorize returns the key that keyID names if the principal of ctx may use it now.
func (f *Fake) authorize(ctx context.Context, op kms.Operation, keyID string) (string, secret.Key, error) {
	id := f.resolve(keyID)
	k := f.keys[id]
	if k == nil {
		return "", secret.Key{}, kms.ErrNotFound
	}
	report := kms.ReportFrom(ctx)
	report.KeyID, report.KeyVersion = id, "1"
	if p := kms.PrincipalFrom(ctx); f.denied[denial{p, op}] {
		return "", secret.Key{}, fmt.Errorf("%w to %q", kms.ErrDenied, p.ID)
	}
	if k.state != nil {
		return "", secret.Key{}, k.state
	}
	return id, k.key, nil
}

func newCall(ctx context.Context, op kms.Operation, keyID string, ec kms.Context, err error) Call {
	return Call{op, keyID, kms.PrincipalFrom(ctx), maps.Clone(ec), kms.ResourceFrom(ctx), err}
}

func (f *Fake) record(ctx context.Context, op kms.Operation, keyID string, ec kms.Context, err error) {
	c := newCall(ctx, op, keyID, ec, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
}

// Authorizing is a [Fake] that is also a [kms.Authorizer], like the embedded key
// service. A cache in front of it asks before it answers.
type Authorizing struct{ *Fake }

var _ kms.Authorizer = Authorizing{}

// Authorize implements [kms.Authorizer]. It applies states of keys, denials and the
// hook, but no faults and no latency.
func (a Authorizing) Authorize(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) (err error) {
	defer func() { err = keyError(op, keyID, err) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	a.mu.Lock()
	hook := a.hook
	a.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, newCall(ctx, op, keyID, ec, nil)); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _, err = a.authorize(ctx, op, keyID)
	return err
}

// keyError returns err as a *kms.KeyError, nil if it is nil.
func keyError(op kms.Operation, keyID string, err error) error {
	if err == nil {
		return nil
	}
	return &kms.KeyError{Op: op, KeyID: keyID, Err: err}
}

// NewDataKey returns a data key that the key did not make, for [Fake.AnswerKey].
func NewDataKey(name string) *kms.DataKey {
	plaintext, ciphertext := secret.Random(), make([]byte, 104)
	rand.Read(ciphertext)
	k, err := kms.NewDataKey(ARN(name), plaintext.Bytes(), ciphertext)
	if err != nil {
		panic(err) // a key of our own is long enough
	}
	return k
}
