package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/settings"
	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// noGC turns the garbage collector off in processes that are commands. They are short, and
// it would take a quarter of their time, mostly for the dictionaries of package zxcvbn.
const noGC = "off"

// TestMain lets the test binary be the command, for scripts and for tests of processes.
func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		beCommand()
	}
	commands := map[string]func(){"blobseal": main}
	if commands[filepath.Base(os.Args[0])] == nil { // not a command of a script, which has its own environment
		flags := settings.AllFlags(newParser().Model.Node)
		for _, entry := range os.Environ() {
			name, _, _ := strings.Cut(entry, "=")
			_, isFlag := flags[strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "BLOBSEAL_")), "_", "-")]
			if isFlag || strings.HasPrefix(name, "BLOBSEAL_") && strings.HasSuffix(name, "PASSPHRASE") {
				os.Unsetenv(name) // the caller's own
			}
		}
		os.Setenv("XDG_CONFIG_HOME", "/nonexistent") // no config file of the caller's
		os.Setenv("GOGC", noGC)                      // of the processes that tests start
	}
	testscript.Main(m, commands)
}

// TestScripts runs the sessions in testdata/script, as a person would type them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"random":  randomFile,
			"flip":    flipByte,
			"capture": capture,
			"mode":    checkMode,
			"exit":    exit,
			"hint":    hint,
			"port":    port,
			"fetch":   fetch,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			env.Setenv("GOGC", noGC)
			return nil
		},
	})
}

// randomFile is the command: random FILE SIZE.
func randomFile(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), random(n), 0o644))
}

// flipByte is the command: flip FILE OFFSET.
func flipByte(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	name := ts.MkAbs(args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	data[n] ^= 1
	ts.Check(os.WriteFile(name, data, 0o644))
}

// capture is the command: capture VARIABLE PATTERN. It sets the variable to what the
// pattern's first group matches in the output of the last command.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	match := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if match == nil {
		ts.Fatalf("no match for %q", args[1])
	}
	ts.Setenv(args[0], match[1])
}

// checkMode is the command: mode FILE OCTAL.
func checkMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// exit is the command: exit CODE COMMAND ARG... It runs a command that must end with an
// exit code.
func exit(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if failed, ok := errors.AsType[*exec.ExitError](ts.Exec(args[1], args[2:]...)); ok {
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// hint is the command: hint. It pastes the command that the last error suggests into a
// shell.
func hint(ts *testscript.TestScript, _ bool, _ []string) {
	match := regexp.MustCompile(`(?s) with: (blobseal .*)\)`).FindStringSubmatch(ts.ReadFile("stderr"))
	if match == nil {
		ts.Fatalf("no hint")
	}
	ts.Check(ts.Exec("sh", "-c", match[1]))
}

// port is the command: port VARIABLE. It sets the variable to a free port.
func port(ts *testscript.TestScript, _ bool, args []string) {
	n, err := freeport.Find()
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(n))
}

// fetch is the command: fetch METHOD URL STATUS FILE [BODY]. It sends a request, as curl
// does, to a server that may not listen yet, and writes the response's body to a file.
func fetch(ts *testscript.TestScript, _ bool, args []string) {
	var body []byte
	if len(args) > 4 {
		body = []byte(ts.ReadFile(args[4]))
	}
	for end := time.Now().Add(await.Longest); ; time.Sleep(10 * time.Millisecond) {
		request, err := http.NewRequest(args[0], args[1], bytes.NewReader(body))
		ts.Check(err)
		response, err := http.DefaultClient.Do(request)
		if err != nil && time.Now().Before(end) {
			continue
		}
		ts.Check(err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		ts.Check(err)
		if strconv.Itoa(response.StatusCode) != args[2] {
			ts.Fatalf("status %s, want %s: %s", response.Status, args[2], text)
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), text, 0o644))
		return
	}
}

// TestEveryCommandHasASession looks in the sessions for each command of the tree.
func TestEveryCommandHasASession(t *testing.T) {
	var sessions strings.Builder
	names, err := filepath.Glob("testdata/script/*.txtar")
	require.NoError(t, err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		sessions.Write(text)
	}
	found := 0
	for _, command := range newParser().Model.Leaves(false) {
		name := commandName(command)
		typed := regexp.MustCompile(`(?m)^(\[\S+\] )?(! )?(exec|exit \d+) blobseal ` + regexp.QuoteMeta(name) + `( |$)`)
		require.Regexp(t, typed, sessions.String(), "no session has blobseal %s", name)
		found++
	}
	require.Greater(t, found, 50)
}
