//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests run this test binary again, as other processes of a service.
const (
	childEnv  = "BLOBSEAL_E2E_CHILD" // what the process does
	configEnv = "BLOBSEAL_E2E_CONFIG"
)

// children are the functions that such processes run, by kind.
var children = map[string]func(config []byte) error{
	"fleet":    child(runFleetProcess),
	"localkms": child(serveKMS),
	"reader":   child(readAll),
}

// child returns a function that parses the configuration of a process and runs it. The
// process ends with the test, or after ten minutes.
func child[Config any](run func(context.Context, Config) error) func(config []byte) error {
	return func(config []byte) error {
		var c Config
		if err := json.Unmarshal(config, &c); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		return run(ctx, c)
	}
}

func TestMain(m *testing.M) {
	kind, isChild := os.LookupEnv(childEnv)
	if !isChild {
		os.Exit(runTests(m))
	}
	if err := children[kind]([]byte(os.Getenv(configEnv))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0) // not by m, which would print
}

// runTests runs the tests. Tests that mostly wait for servers and deadlines run in parallel,
// by default more of them than there are processors.
func runTests(m *testing.M) int {
	flag.Set("test.parallel", "6")
	code := m.Run()
	if emptyPostgres != nil {
		emptyPostgres.Remove()
	}
	return code
}

// childCommand returns a command for a process of a kind, which ends with this process.
func childCommand(kind string, config any) *exec.Cmd {
	c, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+kind, configEnv+"="+string(c))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// fleetProcess is a process with several replicas.
type fleetProcess struct {
	Fleet    *fleet
	Replicas []string
}

func runFleetProcess(_ context.Context, p fleetProcess) error {
	runReplicas(p.Fleet, p.Replicas)
	return nil
}

// runReplicas runs replicas as goroutines.
func runReplicas(f *fleet, names []string) {
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() { runReplica(f, name) })
	}
	wg.Wait()
}
