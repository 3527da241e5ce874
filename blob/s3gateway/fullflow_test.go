package s3gateway_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// explained names the tests of the engine's suite that pass against the engine and
// need not pass against a gateway, each with the rule of S3 that the gateway follows
// instead.
var explained = map[string]string{}

// TestFullFlow runs the engine's own suite against the engine and against a gateway,
// with object versions and without. What passes against the engine passes against the
// gateway.
func TestFullFlow(t *testing.T) {
	program, err := exec.LookPath("versitygw")
	if err != nil {
		t.Skip("no versitygw: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	}
	for _, c := range []struct {
		name  string
		flags []string
	}{
		{"without versions", nil},
		{"with versions", []string{"--versioning-enabled"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the suite mostly waits
			s := suite{program: program, flags: c.flags}
			engine, gateway := s.start(t, true), s.start(t, false)
			var bare, encrypted results
			var runs sync.WaitGroup
			runs.Go(func() { bare = s.run(t, engine) })
			runs.Go(func() { encrypted = s.run(t, gateway) })
			runs.Wait()
			if t.Failed() {
				return
			}
			passes, lost := bare.compare(encrypted)
			require.GreaterOrEqual(t, passes, leastPasses, "the engine itself failed:\n%s", strings.Join(bare.failures(), "\n"))
			s.rerun(t, lost)
			t.Logf("%d tests pass against the engine, and %d of them fail against the gateway", passes, len(lost))
			for name, why := range lost {
				if explained[name] == "" {
					t.Errorf("%s passes against the engine, but against the gateway: %s", name, why)
				}
			}
			for name, rule := range explained {
				if encrypted[name] == passed {
					t.Errorf("%s passes: remove it from the explained ones (%s)", name, rule)
				}
			}
		})
	}
}

const (
	// leastPasses is the minimum of tests that pass against the engine. It proves that the
	// suite has run. On an idle machine, all tests pass: 683 and 761.
	leastPasses = 650
	// mostRepeats is how many tests may fail among others, but not alone.
	mostRepeats = 5
	// longestSuite bounds one run of the suite, which takes about four minutes.
	longestSuite = 20 * time.Minute
)

// suite is the engine's suite, which is a command of its program.
type suite struct {
	program string
	flags   []string
}

// start starts a server: the engine, or a gateway.
func (s suite) start(t *testing.T, bare bool) *server {
	setup := newSetup(t)
	setup.Bare, setup.Plain, setup.Unversioned = bare, true, s.flags == nil
	return setup.start(t)
}

// run runs the suite against a server.
func (s suite) run(t *testing.T, g *server) results {
	// The program exits with 1 if a test fails. Without its last line, it did not end.
	output, err := s.command(t, g, append([]string{"full-flow"}, s.flags...)...)
	if !summary.MatchString(output) {
		t.Errorf("the suite did not end, %s: %v\n%s", g.url, err, output[max(0, len(output)-1000):])
	}
	return parseResults(output)
}

// rerun runs lost tests against gateways of their own, and removes those that pass
// from lost. The suite's requests give up after 30 s, and a slow machine is no failure
// of the gateway.
func (s suite) rerun(t *testing.T, lost map[string]string) {
	repeats := 0
	for name, why := range lost {
		if explained[name] != "" {
			continue
		}
		if repeats++; repeats > mostRepeats {
			return
		}
		output, _ := s.command(t, s.start(t, false), name)
		t.Logf("%s failed among other tests: %s", name, why)
		if parseResults(output)[name] == passed {
			delete(lost, name)
		}
	}
}

func (s suite) command(t *testing.T, g *server, args ...string) (output string, err error) {
	// The suite runs its program from the working directory.
	dir := t.TempDir()
	if err := os.Symlink(s.program, filepath.Join(dir, "versitygw")); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(t.Context(), longestSuite)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, append([]string{"test", "--access", rootUser, "--secret", rootSecret, "--endpoint", g.url}, args...)...)
	cmd.Dir = dir
	for _, variable := range os.Environ() { // without settings of the AWS SDK
		if !strings.HasPrefix(variable, "AWS_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.WaitDelay = time.Second
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// results has PASS, SKIP, or what the suite says of a failure, by the tests' names.
type results map[string]string

const passed = "PASS"

var (
	color   = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	result  = regexp.MustCompile(`(?m)^(PASS|FAIL|SKIP) +([A-Za-z0-9_]+)(.*)$`)
	started = regexp.MustCompile(`(?m)^RUN +([A-Za-z0-9_]+)$`)
	summary = regexp.MustCompile(`(?m)^RAN: \d+ PASS: \d+ FAIL: \d+ SKIP: \d+$`)
)

// parseResults parses the output of the suite. Of the results of one name, a failure
// counts.
func parseResults(output string) results {
	output = string(bytes.TrimSpace(color.ReplaceAll([]byte(output), nil)))
	r := results{}
	for _, m := range result.FindAllStringSubmatch(output, -1) {
		text := m[1] + m[3]
		if before := r[m[2]]; before == "" || before == passed {
			r[m[2]] = text
		}
	}
	for _, m := range started.FindAllStringSubmatch(output, -1) {
		if r[m[1]] == "" {
			r[m[1]] = "no result"
		}
	}
	return r
}

// compare returns how many tests passed, and those of them that other lost.
func (r results) compare(other results) (passes int, lost map[string]string) {
	lost = map[string]string{}
	for name, text := range r {
		if text != passed {
			continue
		}
		passes++
		switch got := other[name]; got {
		case passed:
		case "":
			lost[name] = "did not run"
		default:
			lost[name] = got
		}
	}
	return passes, lost
}

func (r results) failures() (lines []string) {
	for name, text := range r {
		if text != passed {
			lines = append(lines, name+": "+text)
		}
	}
	return lines
}

func TestFullFlowResults(t *testing.T) {
	const output = "\x1b[36mRUN  \x1b[0mA\n\x1b[32mPASS \x1b[0mA\n\x1b[36mRUN  \x1b[0mB_b\n\x1b[36mRUN  \x1b[0mC\n" +
		"\x1b[31mFAIL \x1b[0mB_b: expected 1, got 2\n\x1b[32mPASS \x1b[0mB_b\n\x1b[32mPASS \x1b[0mA\n\x1b[33mSKIP \x1b[0mD\n"
	got := parseResults(output)
	require.Equal(t, results{"A": "PASS", "B_b": "FAIL: expected 1, got 2", "C": "no result", "D": "SKIP"}, got)
	passes, lost := results{"A": "PASS", "B_b": "PASS", "C": "PASS", "D": "FAIL: x", "E": "PASS"}.compare(got)
	require.Equal(t, 4, passes)
	require.Equal(t, map[string]string{"B_b": "FAIL: expected 1, got 2", "C": "no result", "E": "did not run"}, lost)
}
