// Package keyringtest tests implementations of [keyring.Store], and services that
// use a ring.
//
// [NewRing] makes a ring in one line. A [Store] fails when a test asks for it, and a
// [Clock] makes rings age.
//
// [Run] tests a store, with one subtest for each sentence of the contract:
//
//	func TestStore(t *testing.T) {
//		keyringtest.Run(t, func(t *testing.T) keyring.Store { return newStore(t) }, keyringtest.Capabilities{})
//	}
//
// A suite cannot prove durability against power failure, nor every race. Run it
// with -race, against the real server.
package keyringtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// Capabilities are what the suite can do with a store besides calling its methods. The
// suite skips the subtests of a nil field.
type Capabilities struct {
	// Another returns a second handle on the document of s, as another process would
	// have: with its own connection, cache and locks.
	Another func(t *testing.T, s keyring.Store) keyring.Store

	// Reopen closes s, as far as that is possible, and returns a new handle on its
	// document.
	Reopen func(t *testing.T, s keyring.Store) keyring.Store

	// Break makes the document of s unreadable, but not absent: it removes
	// permissions, stops the server, or replaces the document by something else.
	Break func(t *testing.T, s keyring.Store)

	// Watches means that the stores are [keyring.Watcher]s that can watch. If it is
	// false, Watch of such a store must return [errors.ErrUnsupported].
	Watches bool

	// BreakWatch breaks the running watches of s, as the end of a server does. New
	// watches can begin afterwards.
	BreakWatch func(t *testing.T, s keyring.Store)

	patience time.Duration // of waits for a watch; zero means ten seconds
}

// timeout ends the test of a store that hangs.
const timeout = 30 * time.Second

// Run tests the stores that newStore returns. Each must be empty and share nothing with
// the others.
func Run(t *testing.T, newStore func(t *testing.T) keyring.Store, caps Capabilities) {
	if caps.patience == 0 {
		caps.patience = 10 * time.Second
	}
	c := contract{newStore: newStore, caps: caps}
	for _, sentence := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"Load of an empty store is ErrNotExist", c.loadEmpty},
		{"Swap with no version creates the document", c.create},
		{"Swap with no version is a conflict if there is a document", c.createTwice},
		{"Swap with the current version replaces the document", c.replace},
		{"Swap with any other version is a conflict and changes nothing", c.conflict},
		{"Swap with a version is a conflict if there is no document", c.conflictEmpty},
		{"A version is never empty and never names two documents", c.versions},
		{"A version stays the same as long as the document does", c.versionStays},
		{"Documents are arbitrary bytes of up to MaxDocumentSize", c.bytes},
		{"A store keeps no reference to what it was given", c.keepsNoInput},
		{"A caller may change what it got", c.sharesNoOutput},
		{"Of several Swaps at once one succeeds", c.race},
		{"No update is lost", c.counter},
		{"Load returns whole documents while Swaps go on", c.loadWhileSwapping},
		{"After the end of ctx both fail with its error and do nothing", c.canceled},
		{"Another handle sees the latest document", c.another},
		{"Handles of one store exclude each other", c.anotherRace},
		{"The document outlives the handle", c.reopen},
		{"A document that cannot be read is not absent", c.unreadable},
		{"A store that cannot watch says so", c.cannotWatch},
		{"A watch begins, and ends with its ctx", c.watchEnds},
		{"A watch hears of every change, through whichever handle", c.watchHears},
		{"A watch that breaks says why, and another may follow", c.watchBreaks},
		{"A clock goes on, is the same through each handle, and heeds ctx", c.clock},
	} {
		t.Run(sentence.name, sentence.test)
	}
	if !t.Failed() { // a ring would fail for the same reasons, which it shows less clearly
		t.Run("A ring lives in it", c.ring)
		t.Run("A ring hears of a rotation", c.ringWatches)
	}
}

type contract struct {
	newStore func(t *testing.T) keyring.Store
	caps     Capabilities
}

// start returns an empty store and a context that ends if the store hangs.
func (c *contract) start(t *testing.T) (context.Context, keyring.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx, c.newStore(t)
}

// put creates the document.
func put(ctx context.Context, t *testing.T, s keyring.Store, data string) (version string) {
	t.Helper()
	version, err := s.Swap(ctx, "", []byte(data))
	require.NoError(t, err)
	return version
}

// requireDocument fails the test unless the store requireDocument data under version.
func requireDocument(ctx context.Context, t *testing.T, s keyring.Store, data, version string) {
	t.Helper()
	got, gotVersion, err := s.Load(ctx)
	require.NoError(t, err)
	if string(got) != data {
		require.Fail(t, "wrong document", "store holds %.40q (%d bytes), want %.40q (%d bytes)", got, len(got), data, len(data))
	}
	require.Equal(t, version, gotVersion, "version of the document")
}

func (c *contract) loadEmpty(t *testing.T) {
	ctx, s := c.start(t)
	_, _, err := s.Load(ctx)
	require.ErrorIs(t, err, keyring.ErrNotExist)
}

func (c *contract) create(t *testing.T) {
	ctx, s := c.start(t)
	requireDocument(ctx, t, s, "one", put(ctx, t, s, "one"))
}

func (c *contract) createTwice(t *testing.T) {
	ctx, s := c.start(t)
	v1 := put(ctx, t, s, "one")
	_, err := s.Swap(ctx, "", []byte("two"))
	require.ErrorIs(t, err, keyring.ErrConflict)
	requireDocument(ctx, t, s, "one", v1)
}

func (c *contract) replace(t *testing.T) {
	ctx, s := c.start(t)
	version := put(ctx, t, s, "one")
	for _, data := range []string{"a longer one", "two", "x"} {
		var err error
		version, err = s.Swap(ctx, version, []byte(data))
		require.NoError(t, err)
		requireDocument(ctx, t, s, data, version)
	}
}

func (c *contract) conflict(t *testing.T) {
	ctx, s := c.start(t)
	v1 := put(ctx, t, s, "one")
	v2, err := s.Swap(ctx, v1, []byte("two"))
	require.NoError(t, err)
	for _, version := range []string{v1, "", v2 + "0", "no such version", "0", "\x00", "*"} {
		_, err := s.Swap(ctx, version, []byte("three"))
		require.ErrorIs(t, err, keyring.ErrConflict, "version %q", version)
		requireDocument(ctx, t, s, "two", v2)
	}
}

func (c *contract) conflictEmpty(t *testing.T) {
	ctx, other := c.start(t)
	version := put(ctx, t, other, "one")
	s := c.newStore(t)
	for _, version := range []string{version, "1", "0", "no such version"} {
		_, err := s.Swap(ctx, version, []byte("two"))
		require.ErrorIs(t, err, keyring.ErrConflict, "version %q", version)
		_, _, err = s.Load(ctx)
		require.ErrorIs(t, err, keyring.ErrNotExist)
	}
}

func (c *contract) versions(t *testing.T) {
	ctx, s := c.start(t)
	seen := make(map[string]string)
	version := ""
	for i := range 20 {
		data := fmt.Sprintf("document %d", i)
		var err error
		version, err = s.Swap(ctx, version, []byte(data))
		require.NoError(t, err)
		require.NotEmpty(t, version)
		require.NotContains(t, seen, version, "of %s", data)
		seen[version] = data
	}
}

func (c *contract) versionStays(t *testing.T) {
	ctx, s := c.start(t)
	v1 := put(ctx, t, s, "one")
	for range 3 {
		requireDocument(ctx, t, s, "one", v1)
	}
	_, err := s.Swap(ctx, "no such version", []byte("two"))
	require.ErrorIs(t, err, keyring.ErrConflict)
	requireDocument(ctx, t, s, "one", v1)
}

func (c *contract) bytes(t *testing.T) {
	ctx, s := c.start(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	version := ""
	for _, data := range []string{
		"\x00", "\n", "\r\n\r\n", "\xff\xfe\x00", "\x89KRG\r\n\x1a\n", " padded ", string(all),
		string(bytes.Repeat(all, keyring.MaxDocumentSize/len(all))),
		string(all[1:]),
	} {
		var err error
		version, err = s.Swap(ctx, version, []byte(data))
		require.NoError(t, err, "%d bytes", len(data))
		requireDocument(ctx, t, s, data, version)
	}
}

func (c *contract) keepsNoInput(t *testing.T) {
	ctx, s := c.start(t)
	data := []byte("one")
	v1, err := s.Swap(ctx, "", data)
	require.NoError(t, err)
	clear(data)
	requireDocument(ctx, t, s, "one", v1)
}

func (c *contract) sharesNoOutput(t *testing.T) {
	ctx, s := c.start(t)
	v1 := put(ctx, t, s, "one")
	data, _, err := s.Load(ctx)
	require.NoError(t, err)
	clear(data)
	_ = append(data[:0], "xxx"...)
	requireDocument(ctx, t, s, "one", v1)
}

func (c *contract) loadWhileSwapping(t *testing.T) {
	ctx, s := c.start(t)
	document := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1000+i*997) }
	version, err := s.Swap(ctx, "", document(0))
	require.NoError(t, err)
	done := make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, 3)
	var loads, reading atomic.Int64
	for r := range errs {
		reading.Add(1)
		wg.Go(func() {
			defer reading.Add(-1)
			last := -1
			for {
				select {
				case <-done:
					return
				default:
				}
				data, _, err := s.Load(ctx)
				loads.Add(1)
				switch {
				case err != nil:
					errs[r] = err
				case len(data) == 0 || !bytes.Equal(data, document(int(data[0]))):
					errs[r] = fmt.Errorf("load returned a part of a document: %d bytes", len(data))
				case int(data[0]) < last:
					errs[r] = fmt.Errorf("load returned document %d after %d", data[0], last)
				default:
					last = int(data[0])
					continue
				}
				return
			}
		})
	}
	for i := 1; i <= 30 && err == nil; i++ {
		version, err = s.Swap(ctx, version, document(i))
		for loads.Load() < int64(i) && reading.Load() > 0 { // let readers and the writer take turns
			time.Sleep(100 * time.Microsecond)
		}
	}
	close(done)
	wg.Wait()
	require.NoError(t, errors.Join(append(errs, err)...))
}

func (c *contract) canceled(t *testing.T) {
	ctx, s := c.start(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	expired, cancel := context.WithDeadline(ctx, time.Unix(1, 0))
	defer cancel()
	for _, end := range []struct {
		ctx context.Context
		err error
	}{{ended, context.Canceled}, {expired, context.DeadlineExceeded}} {
		_, err := s.Swap(end.ctx, "", []byte("one"))
		require.ErrorIs(t, err, end.err, "Swap that creates")
	}
	_, _, err := s.Load(ctx)
	require.ErrorIs(t, err, keyring.ErrNotExist)
	v1 := put(ctx, t, s, "one")
	for _, end := range []struct {
		ctx context.Context
		err error
	}{{ended, context.Canceled}, {expired, context.DeadlineExceeded}} {
		_, _, err := s.Load(end.ctx)
		require.ErrorIs(t, err, end.err, "Load")
		_, err = s.Swap(end.ctx, v1, []byte("two"))
		require.ErrorIs(t, err, end.err, "Swap that replaces")
	}
	requireDocument(ctx, t, s, "one", v1)
}
