package s3gateway_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/kms"
)

// longest bounds how long one answer may take, since every wait for a store or a key service
// has a bound.
const longest = await.Longest / 2

// outageSteps returns how many operations each client does.
func outageSteps(few int) int {
	if os.Getenv("BLOBSEAL_STRESS") != "" {
		return few * 50
	}
	return few
}

// act makes clients work in parallel, each on its own objects.
func act(t *testing.T, actors []*actor, do func(*actor)) {
	var all sync.WaitGroup
	for _, a := range actors {
		all.Go(func() { do(a) })
	}
	await.Value(t, waitFor(&all), "the clients")
}

// requireTruth checks the counts of a phase.
func requireTruth(t *testing.T, phase string, total *tally) {
	t.Helper()
	t.Logf("%s: %v", phase, total)
	require.Empty(t, total.wrong, "wrong answers: %s", phase)
}

// TestStoreOutages runs clients while another S3 server, the inner store, fails one request in
// seven, is slow, or is down. Each answer is a true success or an error of S3.
func TestStoreOutages(t *testing.T) {
	seeds.Run(t, 1, func(t *testing.T, seed uint64) {
		bare := startBare(t)
		store := startFaultyProxy(t, bare.url)
		s := newSetup(t)
		s.Inner = store.url
		_, c := s.startWithBucket(t)
		var actors []*actor
		for i := range 4 {
			actors = append(actors, newActor(t, c, fmt.Sprint("client", i), seed+uint64(i), nil, modes()[1:]))
		}
		for _, phase := range []struct {
			name  string
			state outage
			steps int
		}{{"one request in seven fails", oneInSeven, 40}, {"each request takes 300 ms more", slow, 3}, {"the store is down", down, 10}} {
			total := &tally{}
			store.set(phase.state)
			act(t, actors, func(a *actor) {
				a.tally = total
				for range outageSteps(phase.steps) {
					if phase.state == down {
						a.stepWhileDown()
					} else {
						a.step(longest)
					}
				}
			})
			store.set(healthy)
			requireTruth(t, phase.name, total)
			if phase.state == down {
				require.Zero(t, total.ok)
			}
		}
		total := &tally{}
		act(t, actors, func(a *actor) {
			a.tally = total
			a.readAll()
		})
		requireTruth(t, "all is well again", total)
		t.Logf("%d requests to the store, of which %d failed", store.requests.Load(), store.failed.Load())
		requireNoPlaintext(t, bare.setup)
	})
}

// stepWhileDown does anything that does not wait for a success.
func (a *actor) stepWhileDown() {
	m := a.modes[a.rng.IntN(len(a.modes))]
	switch a.rng.IntN(6) {
	case 0:
		a.put(m)
	case 1:
		a.get(m, a.rng.IntN(2) == 0)
	case 2:
		a.head(m)
	case 3:
		a.remove(m)
	case 4:
		a.copy(m)
	default:
		a.list()
	}
}

// TestKeyServiceOutages runs clients while the key service refuses, is down, is slow, or does
// not answer. Objects of other modes are not affected.
func TestKeyServiceOutages(t *testing.T) {
	seeds.Run(t, 1, func(t *testing.T, seed uint64) {
		s := newSetup(t)
		s.Faults = faults{Keys: true, KeyTimeout: 2 * time.Second}
		_, c := s.startWithBucket(t)
		kmsOnly := newActor(t, c, "kms", seed, nil, modes()[2:3])
		others := newActor(t, c, "others", seed+1, nil, []mode{modes()[1], modes()[3]})
		for _, phase := range []struct {
			state string
			code  string // of each operation that needs a key, or empty
			steps int
		}{{"is well", "", 6}, {"refuses", "AccessDenied", 10}, {"is down", "ServiceUnavailable", 10}, {"is slow", "", 4}, {"hangs", "ServiceUnavailable", 1}} {
			require.NoError(t, os.WriteFile(s.path("key-service"), []byte(phase.state), 0o600))
			needs, rest := &tally{may: []string{phase.code}}, &tally{}
			act(t, []*actor{kmsOnly, others}, func(a *actor) {
				if a == others {
					a.tally = rest
					for range outageSteps(phase.steps) {
						a.step(longest)
					}
					return
				}
				a.tally = needs
				m := a.modes[0]
				if phase.code == "" {
					a.upload(m)
				}
				for range outageSteps(phase.steps) {
					if phase.code == "" {
						a.put(m)
						a.get(m, false)
						continue
					}
					a.requireRefused(m, phase.code)
				}
			})
			requireTruth(t, "the key service "+phase.state+", SSE-KMS", needs)
			requireTruth(t, "the key service "+phase.state+", other modes", rest)
			for code := range rest.failures {
				require.Contains(t, []string{"NoSuchKey", "NotFound", "InvalidRange"}, code)
			}
		}
		require.NoError(t, os.Remove(s.path("key-service")))
		total := &tally{}
		kmsOnly.tally, others.tally = total, total
		kmsOnly.readAll()
		others.readAll()
		requireTruth(t, "all is well again", total)
		requireNoPlaintext(t, s)
	})
}

// requireRefused writes and reads an object and begins an upload, which the key service does
// not let it do. Nothing changes.
func (a *actor) requireRefused(m mode, want string) {
	before := a.may[a.key(m)]
	for what, do := range map[string]func() error{
		"put":    func() error { return a.put(m) },
		"get":    func() error { return a.get(m, a.rng.IntN(2) == 0) },
		"create": func() error { return newScript(m, a.key(m)).create(a.t, a.c) },
	} {
		if err := do(); code(err) != want {
			a.tally.addLie("%s: %v instead of %s", what, err, want)
		}
	}
	a.may[a.key(m)] = before
}

// keys returns the key service of a gateway.
func (f faults) keys(s setup, client kms.Client) kms.Client {
	if !f.Keys {
		return client
	}
	return &faultyKeys{client, s.path("key-service")}
}

// faultyKeys is a key service that fails as a file says.
type faultyKeys struct {
	kms.Client
	file string
}

func (k *faultyKeys) fault(ctx context.Context, op kms.Operation, keyID string) error {
	state, _ := os.ReadFile(k.file)
	err := kms.ErrUnavailable
	switch string(state) {
	case "refuses":
		err = kms.ErrDenied
	case "is slow":
		time.Sleep(300 * time.Millisecond)
		return nil
	case "hangs":
		<-ctx.Done()
		err = fmt.Errorf("%w: %w", kms.ErrUnavailable, ctx.Err())
	case "is down":
	default:
		return nil
	}
	return &kms.KeyError{Op: op, KeyID: keyID, Err: err}
}

func (k *faultyKeys) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	if err := k.fault(ctx, kms.OpGenerateDataKey, keyID); err != nil {
		return nil, err
	}
	return k.Client.GenerateDataKey(ctx, keyID, ec)
}

func (k *faultyKeys) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if err := k.fault(ctx, kms.OpDecrypt, keyID); err != nil {
		return nil, err
	}
	return k.Client.Decrypt(ctx, keyID, ciphertext, ec)
}
