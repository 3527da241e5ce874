package kmstest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// subject returns a Fake behind wrap, with everything that the suite can use.
func subject(wrap func(*kmstest.Fake) kms.Client) kmstest.Subject {
	f := kmstest.NewFake()
	s := f.Subject()
	s.Client = wrap(f)
	return s
}

func TestFake(t *testing.T) {
	kmstest.Run(t, func(*testing.T) kmstest.Subject {
		return subject(func(f *kmstest.Fake) kms.Client { return f })
	})
}

func TestAuthorizing(t *testing.T) {
	kmstest.Run(t, func(*testing.T) kmstest.Subject {
		return subject(func(f *kmstest.Fake) kms.Client { return kmstest.Authorizing{Fake: f} })
	})
}

// client is a Fake with some parts replaced.
type client struct {
	*kmstest.Fake
	generate func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error)
	decrypt  func(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error)
}

func (c *client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	if c.generate != nil {
		return c.generate(ctx, keyID, ec)
	}
	return c.Fake.GenerateDataKey(ctx, keyID, ec)
}

func (c *client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if c.decrypt != nil {
		return c.decrypt(ctx, keyID, ciphertext, ec)
	}
	return c.Fake.Decrypt(ctx, keyID, ciphertext, ec)
}

// contexts returns a client that binds change(context) instead of the context.
func contexts(change func(kms.Context) kms.Context) func(*kmstest.Fake) kms.Client {
	return func(f *kmstest.Fake) kms.Client {
		return &client{
			Fake: f,
			generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
				return f.GenerateDataKey(ctx, keyID, change(ec))
			},
			decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
				return f.Decrypt(ctx, keyID, c, change(ec))
			},
		}
	}
}

// failing returns a client whose errors are changed.
func failing(change func(error) error) func(*kmstest.Fake) kms.Client {
	return func(f *kmstest.Fake) kms.Client {
		return &client{
			Fake: f,
			generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
				k, err := f.GenerateDataKey(ctx, keyID, ec)
				if err != nil {
					err = change(err)
				}
				return k, err
			},
			decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
				p, err := f.Decrypt(ctx, keyID, c, ec)
				if err != nil {
					err = change(err)
				}
				return p, err
			},
		}
	}
}

// instead returns a client that replaces one kind of error by another.
func instead(kind, other error) func(*kmstest.Fake) kms.Client {
	return failing(func(err error) error {
		if errors.Is(err, kind) {
			return other
		}
		return err
	})
}

func generating(change func(f *kmstest.Fake, k *kms.DataKey) *kms.DataKey) func(*kmstest.Fake) kms.Client {
	return func(f *kmstest.Fake) kms.Client {
		f.AnswerKey(func(k *kms.DataKey) *kms.DataKey { return change(f, k) })
		return f
	}
}

func must(k *kms.DataKey, err error) *kms.DataKey {
	if err != nil {
		panic(err)
	}
	return k
}

func join(ec kms.Context, sep string) kms.Context {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(ec)) {
		parts = append(parts, k+sep+ec[k])
	}
	return kms.Context{"joined": strings.Join(parts, sep)}
}

// allowing is an Authorizer that never refuses.
type allowing struct{ *kmstest.Fake }

func (allowing) Authorize(context.Context, kms.Operation, string, kms.Context) error { return nil }

// sameKeys is a KeyComparer for which every name means every key.
type sameKeys struct{ *kmstest.Fake }

func (sameKeys) SameKey(string, string) (same, known bool) { return true, true }

// broken are clients that break the contract, each with the subtest that must fail.
// Other subtests may fail, too.
var broken = map[string]struct {
	client func(f *kmstest.Fake) kms.Client
	fails  string // empty: nothing is wrong
}{
	"nothing wrong": {func(f *kmstest.Fake) kms.Client { return &client{Fake: f} }, ""},
	"Decrypt returns another key": {func(f *kmstest.Fake) kms.Client {
		f.AnswerPlaintext(func(p []byte) []byte { return kmstest.NewDataKey("x").Plaintext() })
		return f
	}, "Decrypt returns the plaintext of a data key"},
	"zero data key": {generating(func(_ *kmstest.Fake, k *kms.DataKey) *kms.DataKey {
		return must(kms.NewDataKey(k.KeyID, make([]byte, 32), k.Ciphertext))
	}), "A data key is 32 random bytes"},
	"no plaintext": {generating(func(_ *kmstest.Fake, k *kms.DataKey) *kms.DataKey {
		return &kms.DataKey{KeyID: k.KeyID, Ciphertext: k.Ciphertext}
	}), "A data key is 32 random bytes"},
	"half of the data key is fixed": {generating(func(_ *kmstest.Fake, k *kms.DataKey) *kms.DataKey {
		copy(k.Plaintext()[16:], "0123456789abcdef")
		return k
	}), "A data key is 32 random bytes"},
	"nil without an error": {generating(func(*kmstest.Fake, *kms.DataKey) *kms.DataKey { return nil }), "A data key is 32 random bytes"},
	"one data key for all": {func(f *kmstest.Fake) kms.Client {
		var mu sync.Mutex
		kept := make(map[string]*kms.DataKey)
		return &client{Fake: f, generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
			mu.Lock()
			defer mu.Unlock()
			name := fmt.Sprint(keyID, ec)
			if k := kept[name]; k != nil {
				return must(kms.NewDataKey(k.KeyID, k.Plaintext(), slices.Clone(k.Ciphertext))), nil
			}
			k, err := f.GenerateDataKey(ctx, keyID, ec)
			if err == nil {
				kept[name] = must(kms.NewDataKey(k.KeyID, k.Plaintext(), slices.Clone(k.Ciphertext)))
			}
			return k, err
		}}
	}, "Every data key is new"},
	"names the alias": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
			k, err := f.GenerateDataKey(ctx, keyID, ec)
			if k != nil {
				k.KeyID = keyID
			}
			return k, err
		}}
	}, "An alias stands for its key"},
	"names another key": {generating(func(_ *kmstest.Fake, k *kms.DataKey) *kms.DataKey {
		k.KeyID = "key-2"
		return k
	}), "A data key names its key by id"},
	"no alias": {func(f *kmstest.Fake) kms.Client {
		f.SetAlias("alias/one", "key-2")
		return f
	}, "An alias stands for its key"},
	"drops the context": {contexts(func(kms.Context) kms.Context { return nil }), "Another context is ErrCiphertext"},
	"folds the case of names": {contexts(func(ec kms.Context) kms.Context {
		out := kms.Context{}
		for k, v := range ec {
			out[strings.ToLower(k)] = v
		}
		return out
	}), "Another context is ErrCiphertext"},
	"folds the case of values": {contexts(func(ec kms.Context) kms.Context {
		out := kms.Context{}
		for k, v := range ec {
			out[k] = strings.ToLower(v)
		}
		return out
	}), "Another context is ErrCiphertext"},
	"trims values": {contexts(func(ec kms.Context) kms.Context {
		out := kms.Context{}
		for k, v := range ec {
			out[k] = strings.TrimSpace(v)
		}
		return out
	}), "Another context is ErrCiphertext"},
	"joins the context without framing": {contexts(func(ec kms.Context) kms.Context { return join(ec, "") }), "Another context is ErrCiphertext"},
	"joins the context with zeros":      {contexts(func(ec kms.Context) kms.Context { return join(ec, "\x00") }), "Another context is ErrCiphertext"},
	"drops empty pairs": {contexts(func(ec kms.Context) kms.Context {
		out := maps.Clone(ec)
		delete(out, "")
		return out
	}), "Another context is ErrCiphertext"},
	"context in the order of the map": {contexts(func(ec kms.Context) kms.Context {
		var all string
		for k, v := range ec {
			all += fmt.Sprintf("%q%q", k, v)
		}
		return kms.Context{"all": all}
	}), "A context is compared without regard to order"},
	"nil context differs from an empty one": {contexts(func(ec kms.Context) kms.Context {
		if ec == nil {
			return kms.Context{"nil": ""}
		}
		return ec
	}), "No context is the empty context"},
	"no empty names": {contexts(func(ec kms.Context) kms.Context {
		if _, ok := ec[""]; ok {
			return kms.Context{"random": kmstest.NewDataKey("x").KeyID + fmt.Sprint(time.Now().UnixNano())}
		}
		return ec
	}), "A context may be any text"},
	"ignores what follows": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			return f.Decrypt(ctx, keyID, c[:min(len(c), 104)], ec)
		}}
	}, "A ciphertext of another length is ErrCiphertext"},
	"damage is unavailability": {instead(kms.ErrCiphertext, kms.ErrUnavailable), "A changed ciphertext is ErrCiphertext"},
	"damage is no kind":        {instead(kms.ErrCiphertext, errors.New("cipher: message authentication failed")), "Garbage is ErrCiphertext"},
	"damage returns bytes": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			p, err := f.Decrypt(ctx, keyID, c, ec)
			if err != nil {
				p = make([]byte, 32)
			}
			return p, err
		}}
	}, "A changed ciphertext is ErrCiphertext"},
	"panics on short ciphertexts": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			return f.Decrypt(ctx, keyID, append(c[:56:56], c[56:]...), ec)
		}}
	}, "A ciphertext of another length is ErrCiphertext"},
	"one key for all": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			p, err := f.Decrypt(ctx, keyID, c, ec)
			if errors.Is(err, kms.ErrCiphertext) {
				return f.Decrypt(ctx, "key-1", c, ec)
			}
			return p, err
		}}
	}, "Another key's ciphertext is ErrCiphertext"},
	"unknown is denied":     {instead(kms.ErrNotFound, kms.ErrDenied), "An unknown key is ErrNotFound"},
	"unknown makes the key": {func(f *kmstest.Fake) kms.Client { f.AddKey("key-3"); return f }, "An unknown key is ErrNotFound"},
	"empty key id is the first key": {func(f *kmstest.Fake) kms.Client {
		f.SetAlias("", "key-1")
		return f
	}, "An empty key id is an error"},
	"disabled is denied":              {instead(kms.ErrDisabled, kms.ErrDenied), "A disabled key is ErrDisabled until it is enabled"},
	"pending deletion is disabled":    {instead(kms.ErrPendingDeletion, kms.ErrDisabled), "A key pending deletion is ErrPendingDeletion"},
	"pending deletion is two kinds":   {instead(kms.ErrPendingDeletion, errors.Join(kms.ErrPendingDeletion, kms.ErrUnavailable)), "A key pending deletion is ErrPendingDeletion"},
	"denied is not found":             {instead(kms.ErrDenied, kms.ErrNotFound), "A denied principal is ErrDenied, and no other"},
	"down is no kind":                 {instead(kms.ErrUnavailable, errors.New("EOF")), "A service that is down is ErrUnavailable until it is back"},
	"down is denied":                  {instead(kms.ErrUnavailable, kms.ErrDenied), "A service that is down is ErrUnavailable until it is back"},
	"hides the error of ctx":          {instead(context.Canceled, kms.ErrUnavailable), "After the end of ctx a call returns its error"},
	"deadline is unavailability":      {instead(context.DeadlineExceeded, kms.ErrUnavailable), "After the end of ctx a call returns its error"},
	"forgets the principal":           {withoutPrincipal, "A denied principal is ErrDenied, and no other"},
	"does not see the end of ctx":     {detached, "A call returns soon after the end of ctx"},
	"keeps disabled keys":             {keepsKeys, "A disabled key is ErrDisabled until it is enabled"},
	"returns what it cached":          {sharesPlaintext, "A caller may change what it got"},
	"changes the context":             {changesContext, "A client keeps nothing that it was given"},
	"clears the ciphertext":           {clearsCiphertext, "Decrypt returns the plaintext of a data key"},
	"one at a time, or another's key": {confused, "Calls may be concurrent"},
	"key in the error": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			p, err := f.Decrypt(ctx, keyID, c, ec)
			if err != nil {
				err = fmt.Errorf("%w: %x", err, c)
			}
			return p, err
		}}
	}, "An error holds no key"},
	"reports the alias": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
			k, err := f.GenerateDataKey(ctx, keyID, ec)
			kms.ReportFrom(ctx).KeyID = "alias/one"
			return k, err
		}}
	}, "A report names the key"},
	"forgets the key": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			p, err := f.Decrypt(ctx, keyID, c, ec)
			return p, errors.Unwrap(err)
		}}
	}, "An error names the operation and the key"},
	"one key has all names": {func(f *kmstest.Fake) kms.Client { return sameKeys{f} }, "SameKey knows the names of a key"},
	"an alias is any key": {func(f *kmstest.Fake) kms.Client {
		return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
			p, err := f.Decrypt(ctx, keyID, c, ec)
			if errors.Is(err, kms.ErrCiphertext) && strings.HasPrefix(keyID, "alias/") {
				return f.Decrypt(ctx, "key-2", c, ec)
			}
			return p, err
		}}
	}, "An alias opens only ciphertexts of its key"},
	"authorizes everything": {func(f *kmstest.Fake) kms.Client { return allowing{f} }, "An Authorizer says what the operation would"},
}

func withoutPrincipal(f *kmstest.Fake) kms.Client {
	return &client{Fake: f, decrypt: func(ctx context.Context, keyID string, c []byte, ec kms.Context) ([]byte, error) {
		return f.Decrypt(kms.WithPrincipal(ctx, kms.Principal{}), keyID, c, ec)
	}}
}

func detached(f *kmstest.Fake) kms.Client {
	return &client{Fake: f, generate: func(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		k, err := f.GenerateDataKey(ctx, keyID, ec)
		if err != nil && time.Since(start) > 10*time.Millisecond {
			time.Sleep(1500 * time.Millisecond) // the call would continue
		}
		return k, err
	}}
}

// TestBroken runs the suite against each broken client, in a process of its own because
// the suite fails there.
func TestBroken(t *testing.T) {
	if os.Getenv("KMSTEST_BROKEN") != "" {
		for name, b := range broken {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				kmstest.Run(t, func(*testing.T) kmstest.Subject { return subject(b.client) })
			})
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestBroken$", "-test.v", "-test.timeout=60s", "-test.parallel=8")
	cmd.Env = append(os.Environ(), "KMSTEST_BROKEN=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "the suite passed broken clients")
	require.NotContains(t, string(out), "panic: ", string(out[max(0, len(out)-3000):]))
	sentence := func(s string) string { return strings.ReplaceAll(s, " ", "_") }
	told := make(map[string]bool)
	for name, b := range broken {
		prefix := "--- FAIL: TestBroken/" + sentence(name) + "/"
		if b.fails == "" {
			require.NotContains(t, string(out), prefix)
			require.Contains(t, string(out), "--- PASS: TestBroken/"+sentence(name)+"/")
			continue
		}
		require.Contains(t, string(out), prefix+sentence(b.fails)+" ", "%q was not caught", name)
		told[sentence(b.fails)] = true
	}
	// Every sentence catches something: each is named for one of the clients.
	for _, m := range regexp.MustCompile(`--- PASS: TestBroken/nothing_wrong/(\S+)`).FindAllStringSubmatch(string(out), -1) {
		if m[1] == "A_data_key_does_not_print" {
			continue // tested in package kms
		}
		require.True(t, told[m[1]], "no broken client is named for %q", m[1])
	}
}
