package localkms_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/program"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// The tests of this file run this test binary again, as processes that share one store in
// a file. Such a process gets two arguments: what it does, and where the file is.
func TestMain(m *testing.M) {
	program.Main(m, func() {
		if err := runChild(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	})
}

func runChild(kind, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // or else the test's end
	defer cancel()
	store, err := keyring.NewFileStore(path)
	if err != nil {
		return err
	}
	if kind == "share" {
		io.Copy(io.Discard, os.Stdin) // until all begin at once
	}
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		return err
	}
	s, err := openOrCreate(ctx, store, root, nil)
	if err != nil {
		return err
	}
	c, err := s.Client("", "")
	if err != nil {
		return err
	}
	if kind == "share" {
		return share(ctx, c)
	}
	return churn(ctx, c)
}

// share changes keys among others who do.
func share(ctx context.Context, c *localkms.Client) error {
	dk, err := c.GenerateDataKey(ctx, localkms.DefaultAlias, nil)
	if err != nil {
		return err
	}
	fmt.Println("default", dk.KeyID, hex.EncodeToString(dk.Ciphertext))
	for range 3 {
		k, err := c.CreateKey(ctx, nil)
		if err != nil {
			return err
		}
		if err := c.CreateAlias(ctx, "alias/"+k.ID, k.ID); err != nil {
			return err
		}
		v, err := c.RotateKey(ctx, localkms.DefaultAlias)
		if err != nil {
			return err
		}
		fmt.Println("rotated", v.Number)
		ciphertext, err := c.Encrypt(ctx, localkms.DefaultAlias, []byte("x"), nil)
		if err != nil {
			return err
		}
		fmt.Println("created", k.ID, hex.EncodeToString(ciphertext))
	}
	return nil
}

// churn changes keys until it is killed, and says what it did after it did it.
func churn(ctx context.Context, c *localkms.Client) error {
	for {
		k, err := c.CreateKey(ctx, nil)
		if err != nil {
			return err
		}
		fmt.Println("created", k.ID)
		ciphertext, err := c.Encrypt(ctx, k.ID, []byte("x"), nil)
		if err != nil {
			return err
		}
		fmt.Println("encrypted", k.ID, hex.EncodeToString(ciphertext))
		if _, err := c.RotateKey(ctx, k.ID); err != nil {
			return err
		}
		fmt.Println("rotated", k.ID)
		if err := c.CreateAlias(ctx, "alias/"+k.ID, k.ID); err != nil {
			return err
		}
		fmt.Println("aliased", k.ID)
		if err := c.DisableKey(ctx, k.ID); err != nil {
			return err
		}
		fmt.Println("disabled", k.ID)
	}
}

func fileService(t *testing.T, path string) *service {
	t.Helper()
	store, err := keyring.NewFileStore(path)
	require.NoError(t, err)
	return open(t, store, func(o *localkms.Options) { o.Now = time.Now })
}

func TestProcessesShareOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms")
	const processes = 4
	var starts []io.Closer
	outputs := make([][]string, processes)
	var wg sync.WaitGroup
	for i := range processes {
		child := program.Start(t, "share", path)
		starts = append(starts, child.Stdin)
		wg.Go(func() {
			for child.Stdout.Scan() {
				outputs[i] = append(outputs[i], child.Stdout.Text())
			}
			if err := child.Wait(); err != nil {
				t.Errorf("%v: %s", err, child.Stderr)
			}
		})
	}
	for _, start := range starts {
		start.Close()
	}
	wg.Wait()
	s := fileService(t, path)
	defaults, versions := map[string]bool{}, map[string]bool{}
	keys := 0
	for _, line := range slices.Concat(outputs...) {
		f := strings.Fields(line)
		switch f[0] {
		case "default":
			defaults[f[1]] = true
			_, err := s.Decrypt(t.Context(), f[1], unhex(t, f[2]), nil)
			require.NoError(t, err)
		case "rotated":
			require.False(t, versions[f[1]], "version %s is there twice", f[1])
			versions[f[1]] = true
		case "created":
			keys++
			require.Equal(t, f[1], s.describe("alias/"+f[1]).ID)
			_, err := s.Decrypt(t.Context(), localkms.DefaultAlias, unhex(t, f[2]), nil)
			require.NoError(t, err)
		}
	}
	require.Len(t, defaults, 1, "one default key")
	require.Len(t, versions, 3*processes)
	require.Equal(t, 3*processes, keys)
	require.Equal(t, 1+3*processes, s.describe(localkms.DefaultAlias).Rotation.Versions)
	list, err := collect(s.ListKeys(t.Context()))
	require.NoError(t, err)
	require.Len(t, list, keys+1)
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	require.NoError(t, err)
	return b
}

func TestKilledProcessesLoseNothingThatTheySaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms")
	fileService(t, path)
	kills, operations := 50, 0
	if testing.Short() {
		kills = 5
	}
	said := map[string]map[string]string{} // key id -> word -> rest
	for range kills {
		child := program.Start(t, "churn", path)
		left := 1 + rand.IntN(12) // lines, and a little later it is killed
		for child.Stdout.Scan() {
			if left--; left == 0 {
				time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, func() { child.Process.Kill() })
			}
			f := strings.Fields(child.Stdout.Text())
			if len(f) < 2 || len(f[1]) != 36 || f[0] == "encrypted" && (len(f) < 3 || len(f[2]) != 188) {
				continue // cut off
			}
			if said[f[1]] == nil {
				said[f[1]] = map[string]string{}
			}
			said[f[1]][f[0]] = strings.Join(f[2:], "")
			operations++
		}
		require.Error(t, child.Wait(), "it was killed")
		require.Empty(t, child.Stderr.String())

		s := fileService(t, path)
		for id, words := range said {
			info := s.describe(id)
			_, rotated := words["rotated"]
			require.True(t, !rotated || info.Rotation.Versions == 2)
			if _, aliased := words["aliased"]; aliased {
				require.Equal(t, id, s.describe("alias/"+id).ID)
			}
			_, disabled := words["disabled"]
			require.True(t, !disabled || info.State == localkms.Disabled)
			if ciphertext := words["encrypted"]; ciphertext != "" && info.State == localkms.Enabled {
				s.decrypts(unhex(t, ciphertext), "x", nil)
			}
		}
	}
	t.Logf("%d kills, %d operations, %d keys", kills, operations, len(said))
	require.GreaterOrEqual(t, operations, kills)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.LessOrEqual(t, len(entries), 3, "the file, its lock and at most one temporary file")
}

func TestTwoServicesRacingMakeOneDefaultKey(t *testing.T) {
	for range 20 {
		a := open(t, nil, nil)
		b := open(t, a.store, nil)
		ids := make(chan string)
		for _, s := range []*service{a, b, a, b} {
			go func() {
				dk, err := s.GenerateDataKey(t.Context(), localkms.DefaultAlias, nil)
				if err != nil {
					ids <- err.Error()
					return
				}
				ids <- dk.KeyID
			}()
		}
		first := await.Value(t, ids, "a first data key")
		for range 3 {
			require.Equal(t, first, await.Value(t, ids, "the other data keys"))
		}
		require.Equal(t, first, a.describe(localkms.DefaultAlias).ARN)
	}
}

func TestServicesSharingAStoreLoseNoChange(t *testing.T) {
	a := open(t, nil, nil)
	id := a.key()
	var wg sync.WaitGroup
	for i := range 4 {
		s := open(t, a.store, nil)
		wg.Go(func() {
			for j := range 5 {
				if err := s.Tag(t.Context(), id, map[string]string{fmt.Sprint(i, j): ""}); err != nil {
					t.Error(err)
				}
				if _, err := s.GenerateDataKey(t.Context(), id, kms.Context{"a": "b"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, a.Refresh(t.Context()))
	require.Len(t, a.describe(id).Tags, 20)
}
