// Soak runs a service of several processes, the replicas, which share one key ring
// and one key service in one database. They write, read and rotate while some of
// them are killed and one is cut off from the database. Then it reads back everything
// that was written, and fails if anything is not as it should be:
//
//	go run ./internal/e2e/soak
//	go run ./internal/e2e/soak -replicas 16 -seconds 3600 -dsn postgres://service@db.internal/blobs
//
// Without -dsn it starts a PostgreSQL server of its own if there is one on the
// machine, and takes a SQLite database otherwise, or if -dsn is file:PATH.
//
// replica.go has the replicas, database.go their connections to the database, and fleet.go
// the clients and the faults.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run() error {
	if text, ok := os.LookupEnv(replicaEnv); ok {
		var c config
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return err
		}
		return replicate(c)
	}
	replicas := flag.Int("replicas", 6, "number of processes, at least 2")
	seconds := flag.Int("seconds", 10, "how long they run, at least 2; longer if there is not enough to see")
	dsn := flag.String("dsn", "", "PostgreSQL, or file:PATH for SQLite; without it a database of our own")
	flag.Parse()
	if *replicas < 2 || *seconds < 2 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return soak(ctx, *replicas, time.Duration(*seconds)*time.Second, *dsn)
}

// soak runs a fleet for that long, in the database at dsn or in one of its own.
func soak(ctx context.Context, replicas int, d time.Duration, dsn string) error {
	dir, err := os.MkdirTemp("", "blobseal-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if dsn == "" {
		url, stop, err := startDatabase(ctx, dir)
		if err != nil {
			return err
		}
		defer stop()
		dsn = url
	}
	random := make([]byte, 40)
	rand.Read(random)
	if err := os.WriteFile(filepath.Join(dir, "root.key"), random[:32], 0o600); err != nil {
		return err
	}
	f := &fleet{
		config: config{Dir: dir, DSN: dsn, Table: "blobseal_fleet_" + hex.EncodeToString(random[32:])},
		counts: make(map[string]int),
	}
	return f.run(ctx, replicas, d)
}

// run makes the service, has it run for that long, and reports.
func (f *fleet) run(ctx context.Context, replicas int, d time.Duration) error {
	s, err := f.open(ctx, slog.New(slog.DiscardHandler), true)
	if err != nil {
		return err
	}
	defer s.db.close()
	defer s.db.Exec("DROP TABLE " + f.Table)

	// Each replica has a client.
	for i := range replicas {
		r := &replica{f: f, name: fmt.Sprintf("replica-%d", i)}
		if err := r.start(); err != nil {
			return err
		}
		defer r.kill()
		f.replicas = append(f.replicas, r)
	}
	for _, r := range f.replicas {
		r.do(request{Do: "status"}) // until it is there
	}
	began := time.Now()
	cut, err := f.work(ctx, d)
	if err != nil {
		return err
	}

	// Without being asked for, every replica learns of every version.
	learned, err := f.settle(ctx)
	if err != nil {
		return errors.Join(err, f.verdict())
	}
	for _, r := range f.replicas {
		r.stop()
	}
	// And a new one reads all objects.
	s, err = f.open(ctx, slog.Default(), false)
	if err != nil {
		return err
	}
	defer s.db.close()
	byKey, err := f.readBack(ctx, s.bucket)
	if err != nil {
		return err
	}
	f.report(s, began, cut, learned, byKey)
	if err := f.verdict(); err != nil {
		return err
	}
	fmt.Println("all as it should be")
	return nil
}

// work lets clients use the replicas for that long while they are killed, rotate, and
// one of them is cut off.
func (f *fleet) work(ctx context.Context, d time.Duration) (partition, error) {
	began := time.Now()
	running, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	for _, r := range f.replicas {
		wg.Go(func() { r.client(running) })
	}
	wg.Go(func() { f.runKiller(running, d/8) })
	wg.Go(func() { f.runRotator(running, d/12) })
	sleep(running, d/4)
	cut := f.partition(running, min(d/4, 20*time.Second)) // the key service goes on for a minute
	f.rotate(running, "rotate")                           // of which the one that was cut off hears like all others
	sleep(running, d-time.Since(began))
	f.awaitCounts(running, "kills", "reads")
	end()
	wg.Wait()
	return cut, ctx.Err()
}

// noteUnless notes that the run did not show what it should.
func (f *fleet) noteUnless(ok bool, what string) {
	if !ok {
		f.noteProblem("not proved: %s", what)
	}
}

// verdict returns all problems as one error, or nil.
func (f *fleet) verdict() error {
	if f.problems == nil {
		return nil
	}
	return fmt.Errorf("%d things are not as they should be:\n  %s", len(f.problems), strings.Join(f.problems[:min(20, len(f.problems))], "\n  "))
}

// settle returns when each replica learned of each version, once all know of all.
func (f *fleet) settle(ctx context.Context) ([]map[string]time.Time, error) {
	s, err := f.open(ctx, slog.Default(), false)
	if err != nil {
		return nil, err
	}
	defer s.db.close()
	var learned []map[string]time.Time
	for _, r := range f.replicas {
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			rep, err := r.do(request{Do: "status"})
			if err != nil {
				return nil, err
			}
			if len(rep.Learned) >= len(s.ring.Versions()) {
				learned = append(learned, rep.Learned)
				break
			}
			if time.Since(began) > patience {
				return nil, fmt.Errorf("%s has not learned of all versions", r.name)
			}
		}
	}
	return learned, nil
}

// readBack reads all objects, and returns how many there are under each key.
func (f *fleet) readBack(ctx context.Context, b *blob.Bucket) (map[jobs.KeyRef]int, error) {
	objects, byKey := make(map[string]bool), make(map[jobs.KeyRef]int)
	for entry, err := range jobs.Inventory(ctx, b, nil) {
		if err != nil {
			return nil, err
		}
		data, err := b.ReadAll(ctx, entry.Key)
		switch {
		case err != nil:
			f.noteProblem("read back %s: %v", entry.Key, err)
		case !bytes.Equal(data, content(entry.Key)):
			f.noteProblem("read back %s: it holds something else", entry.Key)
		default:
			objects[entry.Key] = true
			byKey[entry.Seal]++
		}
	}
	for _, object := range f.written {
		if !objects[object] {
			f.noteProblem("%s was written and is not there", object)
		}
	}
	return byKey, nil
}

// report prints the results, and checks that the run showed what it should.
func (f *fleet) report(s *service, began time.Time, cut partition, learned []map[string]time.Time, byKey map[jobs.KeyRef]int) {
	c, versions := f.counts, s.ring.Versions()
	fmt.Printf("%v, %d replicas\n\n", s.db.dialect, len(f.replicas))
	fmt.Printf("objects    %d written and all read back; %d more writes were not answered, since the replica was killed\n", len(f.written), c["writes that were not answered"])
	fmt.Printf("           %d reads meanwhile, by replicas at random\n", c["reads"])
	f.noteUnless(len(f.written) > 0 && c["reads"] > 0, "replicas write, and read")
	fmt.Printf("kills      %d replicas were killed and replaced\n", c["kills"])
	f.noteUnless(c["kills"] > 0, "replicas are killed")

	fmt.Printf("rotations  %d of the ring were asked for, two at a time, and made %d versions; %d of the key service's key\n", c["rotate"], len(versions)-1, c["rotate key"])
	f.noteUnless(len(versions)-1 <= c["rotate"], "a rotation makes one version at most")
	if delays := spread(versions, cut, learned); len(delays) > 0 {
		fmt.Printf("           a version was known to all replicas after %v at least, %v in the median, %v at most\n", delays[0], delays[len(delays)/2], delays[len(delays)-1])
	} else {
		f.noteUnless(false, "versions reach all replicas")
	}

	fmt.Printf("partition  %s was cut off from the database for %v\n", f.replicas[0].name, cut.mended.Sub(cut.at).Round(time.Millisecond))
	fmt.Printf("           it wrote %d objects and read %d, and met %d under keys that it did not know, such as\n", c["writes while cut off"], c["reads while cut off"], len(cut.refusals)+c[unknownKey]+c[unavailable])
	for _, text := range cut.refusals {
		fmt.Printf("           - %s\n", text)
	}
	fmt.Printf("           it read these %v after the network was mended\n", cut.recovery.Round(time.Millisecond))
	f.noteUnless(c["writes while cut off"] > 0 && c["reads while cut off"] > 0, "a replica goes on without the database")
	f.noteUnless(len(cut.refusals) == 2 && slices.ContainsFunc(versions, func(v keyring.Version) bool {
		return learned[0][v.ID].After(cut.mended) && strings.Contains(cut.refusals[0], v.ID)
	}), "a version that is not known is named")

	fmt.Printf("\n%-25s  made at  objects\n", "version")
	for _, v := range versions {
		key := jobs.KeyRef{Mode: sse.ModeManaged, KeyID: v.ID}
		fmt.Printf("%s  %6.2fs  %7d\n", v.ID, max(0, v.Created.Sub(began).Seconds()), byKey[key])
		delete(byKey, key)
	}
	for key, n := range byKey {
		fmt.Printf("%s  %d\n", key, n)
		f.noteUnless(key.Mode == sse.ModeKMS, "objects are under versions of the ring or under the key service's key")
	}
}

// spread returns, in order, how long it took from the making of a version until
// all replicas knew it: those that ran then, and were not cut off.
func spread(versions []keyring.Version, cut partition, learned []map[string]time.Time) []time.Duration {
	var delays []time.Duration
	for _, v := range versions[1:] {
		var slowest time.Duration
		for i, at := range learned {
			opened := slices.MinFunc(slices.Collect(maps.Values(at)), time.Time.Compare)
			wasCut := i == 0 && v.Created.Before(cut.mended) && at[v.ID].After(cut.at)
			if v.Created.After(opened) && !wasCut {
				slowest = max(slowest, at[v.ID].Sub(v.Created))
			}
		}
		if slowest > 0 {
			delays = append(delays, slowest.Round(time.Millisecond))
		}
	}
	slices.Sort(delays)
	return delays
}
