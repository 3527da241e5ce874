package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// patience is what a slow machine may need: whatever works takes less.
const patience = time.Minute

// fleet holds the replicas, and what their clients know.
type fleet struct {
	config
	replicas []*replica

	mu       sync.Mutex
	written  []string // objects whose write was acknowledged
	counts   map[string]int
	problems []string
}

func (f *fleet) count(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[what]++
}

// awaitCounts waits until all of these were counted, on a machine that is slow, but not
// for ever.
func (f *fleet) awaitCounts(ctx context.Context, all ...string) {
	seen := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !slices.ContainsFunc(all, func(what string) bool { return f.counts[what] == 0 })
	}
	for began := time.Now(); !seen() && time.Since(began) < patience && sleep(ctx, 10*time.Millisecond); {
	}
}

// noteProblem notes what must not happen.
func (f *fleet) noteProblem(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// pickObject returns an object to read. Half of the time, it is one of the latest.
func (f *fleet) pickObject() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.written)
	if n == 0 {
		return ""
	}
	if latest := min(n, 10); rand.N(2) == 0 {
		return f.written[n-latest+rand.N(latest)]
	}
	return f.written[rand.N(n)]
}

// replica controls a process.
type replica struct {
	f       *fleet
	name    string
	killed  atomic.Bool // and not replaced yet
	isCut   atomic.Bool // off from the database
	excused atomic.Bool // that is so, or was a second ago

	mu    sync.Mutex
	cmd   *exec.Cmd
	input io.Closer
	in    *json.Encoder
	out   *json.Decoder
}

const replicaEnv = "BLOBSEAL_FLEET_REPLICA"

// start starts this program again, as a replica.
func (r *replica) start() error {
	conf, err := json.Marshal(r.f.config)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	// New files are made in TMPDIR and renamed to their place.
	cmd.Env = append(os.Environ(), replicaEnv+"="+string(conf), "TMPDIR="+r.f.Dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.cmd, r.input, r.in, r.out = cmd, in, json.NewEncoder(in), json.NewDecoder(out)
	return nil
}

var errKilled = errors.New("replica was killed")

// do makes the replica serve a request.
func (r *replica) do(req request) (rep reply, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err = r.in.Encode(req); err == nil {
		err = r.out.Decode(&rep)
	}
	if err != nil && !r.killed.Load() {
		r.f.noteProblem("%s ended at %q %s: %v", r.name, req.Do, req.Object, err)
	}
	if err != nil {
		return reply{}, errKilled
	}
	return rep, nil
}

// replace kills the replica at any time, and starts it again.
func (r *replica) replace() error {
	r.killed.Store(true)
	r.cmd.Process.Kill()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd.Wait()
	if err := r.start(); err != nil {
		return err
	}
	r.killed.Store(false)
	return nil
}

// stop ends the replica in order.
func (r *replica) stop() {
	r.input.Close()
	if err := r.cmd.Wait(); err != nil {
		r.f.noteProblem("%s: %v", r.name, err)
	}
}

// kill ends the replica, if it has not ended.
func (r *replica) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// put writes an object and returns whether that was acknowledged.
func (r *replica) put(object string, kms bool) bool {
	rep, err := r.do(request{Do: "put", Object: object, Data: content(object), KMS: kms})
	switch {
	case err != nil:
		r.f.count("writes that were not answered")
		return false
	case rep.Kind != "":
		r.f.noteProblem("%s does not write %s: %s", r.name, object, rep.Err)
		return false
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.written = append(r.f.written, object)
	return true
}

// get reads an object. It returns only the error that a replica without the database may
// return. Any other error is a problem.
func (r *replica) get(object string) (kind, text string) {
	excused := r.excused.Load()
	rep, err := r.do(request{Do: "get", Object: object})
	switch {
	case err != nil:
	case (excused || r.excused.Load()) && (rep.Kind == unknownKey || rep.Kind == unavailable):
		return rep.Kind, rep.Err
	case rep.Kind != "":
		r.f.noteProblem("%s does not read %s: %s", r.name, object, rep.Err)
	case !bytes.Equal(rep.Data, content(object)):
		r.f.noteProblem("%s reads something else in %s", r.name, object)
	default:
		r.f.count("reads")
		if r.isCut.Load() {
			r.f.count("reads while cut off")
		}
	}
	return "", ""
}

// client uses the replica until ctx ends.
func (r *replica) client(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if object := r.f.pickObject(); n%3 > 0 && object != "" {
			if kind, _ := r.get(object); kind != "" {
				r.f.count(kind)
			}
		} else if r.put(fmt.Sprintf("%s/%d", r.name, n), n%2 == 0) && r.isCut.Load() {
			r.f.count("writes while cut off")
		}
		sleep(ctx, rand.N(20*time.Millisecond))
	}
}

// runKiller kills replicas one after the other, all but the first.
func (f *fleet) runKiller(ctx context.Context, every time.Duration) {
	for sleep(ctx, every/2+rand.N(every)) {
		if err := f.pickReplica().replace(); err != nil {
			f.noteProblem("restart: %v", err)
			return
		}
		f.count("kills")
	}
}

// runRotator makes two replicas rotate the ring at once, and one rotate the key of the key
// service.
func (f *fleet) runRotator(ctx context.Context, every time.Duration) {
	for sleep(ctx, every) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { f.rotate(ctx, "rotate") })
		}
		wg.Wait()
		f.rotate(ctx, "rotate key")
	}
}

// rotate makes a replica rotate. If it is killed, another one rotates.
func (f *fleet) rotate(ctx context.Context, what string) {
	for ctx.Err() == nil && !f.pickReplica().rotate(what) {
	}
}

func (r *replica) rotate(what string) bool {
	rep, err := r.do(request{Do: what})
	if err != nil {
		return false
	}
	if rep.Kind != "" {
		r.f.noteProblem("%s does not %s: %s", r.name, what, rep.Err)
	}
	r.f.count(what)
	return true
}

// pickReplica returns one of the replicas, but not the first, which is cut off at times.
func (f *fleet) pickReplica() *replica { return f.replicas[1+rand.N(len(f.replicas)-1)] }

// partition records what the first replica did without the database.
type partition struct {
	at, mended time.Time
	refusals   []string      // of objects under versions that it did not know
	recovery   time.Duration // until it read them
}

// partition cuts the first replica off for that long.
func (f *fleet) partition(ctx context.Context, d time.Duration) partition {
	far := f.replicas[0]
	far.excused.Store(true)
	far.do(request{Do: "cut"})
	p := partition{at: time.Now()}
	far.isCut.Store(true)

	// Others rotate, and write under the new versions, which the first does not know.
	// They do so twice, since the first time may yield a version that one of them
	// made before, and this one had not heard of.
	var unknown []string
	for n := 0; len(unknown) < 2 && ctx.Err() == nil; n++ {
		what, kms := "rotate", len(unknown) > 0
		if kms {
			what = "rotate key"
		}
		other, object := f.pickReplica(), fmt.Sprintf("meanwhile/%d", n)
		other.rotate(what)
		if other.rotate(what) && other.put(object, kms) {
			unknown = append(unknown, object)
		}
	}
	for i, object := range unknown {
		kind, text := far.get(object)
		if want := []string{unknownKey, unavailable}[i]; kind != want {
			f.noteProblem("%s, cut off, reads %s: %q, want %q", far.name, object, kind, want)
		}
		p.refusals = append(p.refusals, text)
	}

	sleep(ctx, d-time.Since(p.at))
	f.awaitCounts(ctx, "writes while cut off", "reads while cut off")
	far.isCut.Store(false)
	p.mended = time.Now()
	far.do(request{Do: "mend"})
	for _, object := range unknown {
		for {
			kind, text := far.get(object)
			if kind == "" {
				break
			}
			if time.Since(p.mended) > patience {
				f.noteProblem("%s does not recover: %s", far.name, text)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	p.recovery = time.Since(p.mended)
	time.Sleep(time.Second) // for so long it says of other keys, without asking, what it said last
	far.excused.Store(false)
	return p
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
