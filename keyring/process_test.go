package keyring_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/testbed/program"
	"github.com/blobseal/blobseal/keyring"
)

// The tests of this file run this test binary again, as processes that share one store in
// a file. TestMain sends them to runChild.

// children are what such a process may do.
var children = map[string]func(context.Context, keyring.Store) error{
	"share": share,
	"churn": churn,
	"full":  rotateOnFullDisk,
}

// runChild is the main function of such a process: the first argument says what it does,
// the second where the ring is.
func runChild() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := keyring.NewFileStore(os.Args[2])
	if err == nil {
		err = children[os.Args[1]](ctx, store)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func childRoot(b byte) tink.AEADWithContext {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		panic(err)
	}
	return root
}

// openOrCreate opens the ring under childRoot 1, or makes it.
func openOrCreate(ctx context.Context, store keyring.Store) (*keyring.Ring, error) {
	quiet := &keyring.Options{Logger: slog.New(slog.DiscardHandler)}
	ring, err := keyring.Create(ctx, store, childRoot(1), quiet)
	if errors.Is(err, keyring.ErrExist) {
		return keyring.Open(ctx, store, childRoot(1), quiet)
	}
	return ring, err
}

// countedStore counts writes.
type countedStore struct {
	keyring.Store
	writes int
}

func (s *countedStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	newVersion, err := s.Store.Swap(ctx, version, data)
	if err == nil {
		s.writes++
	}
	return newVersion, err
}

// share rotates and seals while other processes do the same.
func share(ctx context.Context, file keyring.Store) error {
	store := &countedStore{Store: file}
	io.Copy(io.Discard, os.Stdin) // until the test lets all processes begin
	ring, err := openOrCreate(ctx, store)
	if err != nil {
		return err
	}
	for i := range 4 {
		if i == rand.IntN(4) || i == 1 {
			info, err := ring.Rotate(ctx)
			if err != nil {
				return err
			}
			fmt.Println("made", info.ID)
		}
		key, err := ring.Primary(ctx)
		if err != nil {
			return err
		}
		sealed, err := key.Seal([]byte("data key"), []byte("context"))
		if err != nil {
			return err
		}
		fmt.Println("sealed", key.ID(), hex.EncodeToString(sealed))
	}
	fmt.Println("ring", ring.ID())
	fmt.Println("writes", store.writes)
	return nil
}

// TestManyProcessesShareARing is long because it runs the processes and then checks
// all they said.
func TestManyProcessesShareARing(t *testing.T) {
	processes := 50
	if testing.Short() {
		processes = 8
	}
	begin := time.Now()
	path := filepath.Join(t.TempDir(), "ring")
	type line struct{ what, id, rest string }
	var mu sync.Mutex
	var lines []line
	var wg sync.WaitGroup
	var gates []io.Closer
	for range processes {
		child := program.Start(t, "share", path)
		gates = append(gates, child.Stdin)
		wg.Go(func() {
			for child.Stdout.Scan() {
				f := append(strings.Fields(child.Stdout.Text()), "", "")
				mu.Lock()
				lines = append(lines, line{f[0], f[1], f[2]})
				mu.Unlock()
			}
			if err := child.Wait(); err != nil {
				t.Errorf("child: %v: %s", err, child.Stderr)
			}
		})
	}
	for _, gate := range gates {
		gate.Close()
	}
	wg.Wait()

	ring := reopen(t, fileStore(t, path))
	made := map[string]bool{}
	writes, rings, sealed := 0, 0, 0
	for _, l := range lines {
		switch l.what {
		case "ring":
			rings++
			require.Equal(t, ring.ID(), l.id, "all agree")
		case "writes":
			var n int
			_, err := fmt.Sscan(l.id, &n)
			require.NoError(t, err)
			writes += n
		case "made":
			made[l.id] = true
		case "sealed":
			sealed++
			key, err := ring.Key(t.Context(), l.id)
			require.NoError(t, err)
			message, err := hex.DecodeString(l.rest)
			require.NoError(t, err)
			dek, err := key.Open(message, []byte("context"))
			require.NoError(t, err)
			require.Equal(t, "data key", string(dek))
		}
	}
	require.Equal(t, processes, rings)
	require.Equal(t, 4*processes, sealed)
	require.EqualValues(t, writes, ring.Stats().Generation, "each write is one generation: none was lost")
	require.Len(t, ring.Versions(), len(made)+1, "each version was told of, and each that was told of is there")
	t.Logf("%d processes made %d versions and %d seals in %v", processes, len(made), sealed, time.Since(begin).Round(time.Millisecond))
}

// lifecycle is the order in which churn changes the state of a version.
var lifecycle = []keyring.State{keyring.Enabled, keyring.Disabled, keyring.Destroyed}

// churn keeps changing a ring, and prints what it has done.
func churn(ctx context.Context, store keyring.Store) error {
	root := byte(1)
	ring, err := openOrCreate(ctx, store)
	if errors.Is(err, keyring.ErrRoot) {
		root = 2
		ring, err = keyring.Open(ctx, store, childRoot(root), nil)
	}
	if err != nil {
		return err
	}
	fmt.Println("ring", ring.ID())
	for _, info := range ring.Versions() {
		fmt.Println("state", info.ID, info.State)
	}
	for {
		keys := ring.Versions()
		info := keys[rand.IntN(len(keys))]
		switch rand.IntN(3) {
		case 0:
			info, err := ring.Rotate(ctx)
			if err != nil {
				return err
			}
			fmt.Println("state", info.ID, info.State)
		case 1:
			if info.Primary || info.State == keyring.Destroyed {
				continue
			}
			info, err := ring.SetState(ctx, info.ID, lifecycle[slices.Index(lifecycle, info.State)+1])
			if err != nil {
				return err
			}
			fmt.Println("state", info.ID, info.State)
		case 2:
			root = 3 - root
			if err := ring.ChangeRoot(ctx, childRoot(root)); err != nil {
				return err
			}
			fmt.Println("root", root)
		}
	}
}

// TestKilledProcesses is long because each round kills one process and then checks
// the ring.
func TestKilledProcesses(t *testing.T) {
	kills, perRing := 100, 10
	if testing.Short() {
		kills = 20
	}
	begin := time.Now()
	operations, leftOver := 0, 0
	var path string
	var id string              // of the ring
	states := map[string]int{} // the least that each version has reached
	for kill := range kills {
		if kill%perRing == 0 {
			path = filepath.Join(t.TempDir(), "ring")
			id = ""
			clear(states)
		}
		child := program.Start(t, "churn", path)
		// Kill the first process of a ring at a random moment, perhaps while it creates the
		// ring, and the others after some operations, in the middle of the next.
		timer := time.AfterFunc(time.Minute, func() { child.Process.Kill() })
		after := rand.IntN(20)
		if kill%perRing == 0 {
			timer.Reset(rand.N(60 * time.Millisecond))
			after = -1
		}
		for ; child.Stdout.Scan(); after-- {
			if after == 0 {
				timer.Reset(rand.N(5 * time.Millisecond))
			}
			var what, arg, state string
			fmt.Sscan(child.Stdout.Text(), &what, &arg, &state)
			switch what {
			case "ring":
				require.True(t, id == "" || id == arg, "another ring")
				id = arg
			case "state":
				n := slices.Index(lifecycle, keyring.State(state))
				require.GreaterOrEqual(t, n, states[arg])
				states[arg] = n
			}
			operations++
		}
		child.Wait()
		timer.Stop()
		require.Empty(t, child.Stderr.String())

		for _, name := range names(t, filepath.Dir(path)) {
			if strings.HasSuffix(name, ".tmp") {
				leftOver++
			}
		}
		store := fileStore(t, path)
		ring, err := keyring.Open(t.Context(), store, childRoot(1), nil)
		if errors.Is(err, keyring.ErrRoot) {
			ring, err = keyring.Open(t.Context(), store, childRoot(2), nil)
		}
		if errors.Is(err, keyring.ErrNotExist) && id == "" {
			continue // killed before the ring was created
		}
		require.NoError(t, err)
		if id != "" {
			require.Equal(t, id, ring.ID())
		}
		got := map[string]int{}
		for _, info := range ring.Versions() {
			got[info.ID] = slices.Index(lifecycle, info.State)
			if info.State == keyring.Enabled {
				_, err := ring.Key(t.Context(), info.ID)
				require.NoError(t, err)
			}
		}
		for id, state := range states {
			require.GreaterOrEqual(t, got[id], state, "version %s was acknowledged", id)
		}
		rotate(t, ring)
		require.ElementsMatch(t, []string{"ring", "ring.lock"}, names(t, filepath.Dir(path)), "nothing is left behind")
	}
	require.Greater(t, operations, kills, "some were done")
	t.Logf("%d kills among %d operations, %d of them with a temporary file, in %v", kills, operations, leftOver, time.Since(begin).Round(time.Millisecond))
}
