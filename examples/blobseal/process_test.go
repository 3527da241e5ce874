//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/captured"
)

// beCommand makes the test binary the command, in the way that asCommand says.
func beCommand() {
	how := os.Getenv(asCommand)
	// Whatever signals the tests' own parent ignores, as nohup and shells do:
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if how == "nohup" {
		signal.Ignore(syscall.SIGHUP)
	}
	if limit, found := strings.CutPrefix(how, "fsize="); found {
		n, _ := strconv.ParseUint(limit, 10, 64)
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
	if how == "nobody" && os.Geteuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			panic(err)
		}
	}
	if how == "rewraps" {
		fmt.Println("ready")
		for {
			for _, args := range [][]string{
				args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed"),
				args("rewrap", other, "--to-customer-key-file", "my.key", "sealed"),
			} {
				run(context.Background(), args, strings.NewReader(""), io.Discard, io.Discard)
			}
		}
	}
	main()
}

func command(t *testing.T, how string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"="+how)
	return cmd
}

// process is a command that runs in a process of its own.
type process struct {
	*exec.Cmd
	stdin    io.WriteCloser
	stdout   *bufio.Reader
	hangUp   func() error // closes stdout
	errout   captured.Buffer
	watchdog *time.Timer
	late     atomic.Bool
}

// start starts a command. If it does not end within await.Longest, it is killed, so that
// whatever waits for it fails.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd}
	var err error
	if cmd.Stdin == nil {
		p.stdin, err = cmd.StdinPipe()
		require.NoError(t, err)
	}
	if cmd.Stdout == nil {
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		p.stdout, p.hangUp = bufio.NewReader(stdout), stdout.Close
	}
	cmd.Stderr = &p.errout
	require.NoError(t, cmd.Start())
	p.watchdog = time.AfterFunc(await.Longest, func() {
		p.late.Store(true)
		cmd.Process.Kill()
	})
	return p
}

// line reads a line of the process's output.
func (p *process) line(t *testing.T, what string) string {
	t.Helper()
	line, err := p.stdout.ReadString('\n')
	require.NoError(t, err, "waited for %s; stderr: %s", what, p.errout.String())
	return line
}

// ends waits for the end of the process.
func (p *process) ends(t *testing.T, what string) result {
	t.Helper()
	var out []byte
	if p.stdout != nil {
		out, _ = io.ReadAll(p.stdout) // an error if hangUp closed it
	}
	err := p.Wait()
	p.watchdog.Stop()
	require.False(t, p.late.Load(), "waited %v for %s; stderr: %s", await.Longest, what, p.errout.String())
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return result{p.ProcessState.ExitCode(), string(out), p.errout.String()}
}

// signal sends a signal to the process, which must then end.
func (p *process) signal(t *testing.T, s os.Signal) result {
	t.Helper()
	require.NoError(t, p.Process.Signal(s))
	return p.ends(t, "the command to end after "+s.String())
}

// execute runs a command in a process of its own.
func execute(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	if cmd.Stdin == nil {
		cmd.Stdin = strings.NewReader("")
	}
	return start(t, cmd).ends(t, "the command to end")
}

// TestKill kills a process that rewraps to and fro, at random moments: the file
// always opens with one of the two keys.
func TestKill(t *testing.T) {
	workspace(t)
	plain := random(40_000)
	write(t, "plain", plain)
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	kills := 100
	if testing.Short() {
		kills = 10
	}
	var mine int
	for range kills {
		p := start(t, command(t, "rewraps"))
		p.line(t, "the rewraps to begin")
		time.Sleep(time.Duration(rng.IntN(int(15 * time.Millisecond))))
		p.signal(t, os.Kill)

		first, second := blobseal(args("decrypt", customer, "sealed", "-")...), blobseal(args("decrypt", other, "sealed", "-")...)
		require.True(t, (first.code == 0) != (second.code == 0), "one of them opens it: %s%s", first.errout, second.errout)
		require.Equal(t, string(plain), first.out+second.out)
		if first.code == 0 {
			mine++
		}
	}
	t.Logf("after %d of %d kills the first key opened the file", mine, kills)

	// What was left does not hinder the next one.
	key := customer
	if blobseal(args("verify", key, "sealed")...).code != 0 {
		key = other
	}
	ok(t, args("rewrap", key, "--to-ring", "my.ring", "--to-root-key-file", "root.key", "sealed")...)
	require.Equal(t, string(plain), ok(t, args("decrypt", ring, "sealed", "-")...))
}

// TestRewrapAtOnce has readers and several rewraps at one time.
func TestRewrapAtOnce(t *testing.T) {
	workspace(t)
	write(t, "plain", random(20_000))
	ok(t, args("encrypt", ring, "plain", "sealed")...)
	done := make(chan result)
	const writers, rounds = 3, 10
	for range writers {
		go func() {
			var last result
			for i := range rounds {
				last = blobseal(args("rewrap", ring, "--to-ring", "my.ring", "--to-root-key-file", "root.key", "sealed")...)
				if last.code != 0 {
					break
				}
				_ = i
			}
			done <- last
		}()
	}
	for left := writers; left > 0; {
		require.Equal(t, "sealed: OK, 20000 bytes\n", ok(t, args("verify", ring, "sealed")...))
		select {
		case res := <-done:
			require.Equal(t, 0, res.code, res.errout)
			left--
		default:
		}
	}
}

// TestDiskFull limits the size of files in place of the disk's.
func TestDiskFull(t *testing.T) {
	workspace(t)
	write(t, "plain", random(500_000))
	write(t, "exists", []byte("precious"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	ok(t, args("encrypt", customer, "--context", "k="+strings.Repeat("x", 830), "plain", "tight")...)
	sealed, tight, before := read(t, "sealed"), read(t, "tight"), files(t)
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"encrypt":         {args("encrypt", customer, "plain", "out"), "out: file too large"},
		"encrypt over":    {args("encrypt", customer, "--force", "plain", "exists"), "exists: file too large"},
		"decrypt":         {args("decrypt", customer, "sealed", "out"), "out: file too large"},
		"rewrap":          {args("rewrap", customer, "--to-customer-key-file", "other.key", "sealed"), "sealed: not changed: file too large"},
		"rewrap, growing": {args("rewrap", customer, "--to-ring", "my.ring", "--to-root-key-file", "root.key", "tight"), "tight: not changed: file too large"},
		"keygen":          {args("keygen", "out"), "out: file too large"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := "fsize=1000"
			if name == "keygen" {
				limit = "fsize=10"
			}
			execute(t, command(t, limit, test.args...)).fails(t, 1, test.says)
			require.Equal(t, before, files(t))
			require.Equal(t, "precious", string(read(t, "exists")))
			require.Equal(t, sealed, read(t, "sealed"))
			require.Equal(t, tight, read(t, "tight"))
		})
	}
}

// TestSignals interrupts a command that waits for more input.
func TestSignals(t *testing.T) {
	workspace(t)
	write(t, "plain", random(500_000))
	write(t, "exists", []byte("precious"))
	ok(t, args("encrypt", customer, "plain", "sealed")...)
	sealed := read(t, "sealed")
	before := files(t)
	for name, test := range map[string]struct {
		args   []string
		stdin  []byte
		signal os.Signal
	}{
		"encrypt":      {args("encrypt", customer, "-", "out"), random(300_000), os.Interrupt},
		"encrypt over": {args("encrypt", customer, "--force", "-", "exists"), random(300_000), syscall.SIGTERM},
		"decrypt":      {args("decrypt", customer, "-", "out"), sealed[:300_000], os.Interrupt},
		"verify":       {args("verify", customer, "-"), sealed[:300_000], syscall.SIGHUP},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, command(t, "1", test.args...))
			_, err := p.stdin.Write(test.stdin) // beyond what a pipe holds: most has been read
			require.NoError(t, err)
			if name != "verify" {
				require.Greater(t, len(files(t)), len(before), "a temporary file")
			}
			p.signal(t, test.signal).fails(t, 130, "interrupted")
			require.Equal(t, before, files(t))
			require.Equal(t, "precious", string(read(t, "exists")))
		})
	}
	t.Run("a reader that does not read", func(t *testing.T) {
		p := start(t, command(t, "1", args("decrypt", customer, "sealed", "-")...))
		_, err := io.ReadFull(p.stdout, make([]byte, 100))
		require.NoError(t, err)
		require.NoError(t, p.Process.Signal(os.Interrupt))
		p.Wait() // without reading: what the command had written before must not free it
		p.watchdog.Stop()
		require.False(t, p.late.Load(), "waited %v for the command to end", await.Longest)
		result{code: p.ProcessState.ExitCode(), errout: p.errout.String()}.fails(t, 130, "interrupted")
	})
	t.Run("SIGHUP under nohup", func(t *testing.T) {
		p := start(t, command(t, "nohup", args("verify", customer, "-")...))
		_, err := p.stdin.Write(sealed[:300_000])
		require.NoError(t, err)
		require.NoError(t, p.Process.Signal(syscall.SIGHUP))
		_, err = p.stdin.Write(sealed[300_000:])
		require.NoError(t, err)
		require.NoError(t, p.stdin.Close())
		require.Equal(t, result{out: "-: OK, 500000 bytes\n"}, p.ends(t, "the command to verify the file"))
	})
}

// terminal opens a pseudo-terminal. What a command writes to its tty shows in
// screen.
func terminal(t *testing.T) (tty *os.File, screen *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { tty.Close() })
	return tty, master
}

// show reads the screen until it holds want.
func show(t *testing.T, screen *os.File, want string) string {
	t.Helper()
	type chunk struct {
		text []byte
		err  error
	}
	var text []byte
	for !bytes.Contains(text, []byte(want)) {
		read := make(chan chunk, 1)
		go func() {
			buf := make([]byte, 4096)
			n, err := screen.Read(buf)
			read <- chunk{buf[:n], err}
		}()
		c := await.Value(t, read, fmt.Sprintf("%q on the screen, which shows %q", want, text))
		require.NoError(t, c.err, "%s", text)
		text = append(text, c.text...)
	}
	return string(text)
}

func TestProgress(t *testing.T) {
	workspace(t)
	write(t, "plain", random(4_000_000))
	encrypt := args("encrypt", customer, "--force", "plain", "sealed")

	t.Run("on a terminal", func(t *testing.T) {
		tty, screen := terminal(t)
		var out bytes.Buffer
		c := console.New(strings.NewReader(""), &out, tty)
		c.Patience = 0
		require.Equal(t, 0, runOn(t.Context(), c, encrypt))
		fmt.Fprint(tty, "the end")
		text := show(t, screen, "the end")
		require.Contains(t, text, "plain ")
		require.Contains(t, text, "%")
		require.Contains(t, text, "/s)")
		require.Regexp(t, `\r +\r1 object, 3.8 MiB in [0-9.]+ s, [0-9.]+ \w*B/s\r\nthe end$`, text, "it is taken away")
		require.Empty(t, out.String())
	})
	t.Run("gone before an error", func(t *testing.T) {
		ok(t, encrypt...)
		data := read(t, "sealed")
		data[3_000_000] ^= 1
		write(t, "damaged", data)
		tty, screen := terminal(t)
		c := console.New(strings.NewReader(""), io.Discard, tty)
		c.Patience = 0
		require.Equal(t, message.NotAuthentic, runOn(t.Context(), c, args("verify", customer, "damaged")))
		require.Regexp(t, `\r +\rblobseal: 1 of 1 files`, show(t, screen, "failed verification"))
	})
	t.Run("not for short work", func(t *testing.T) {
		tty, screen := terminal(t)
		c := console.New(strings.NewReader(""), io.Discard, tty)
		require.Equal(t, 0, runOn(t.Context(), c, encrypt))
		fmt.Fprint(tty, "the end")
		require.Regexp(t, `^1 object, 3.8 MiB in [^\r\n]+\r\nthe end$`, show(t, screen, "the end"))
	})
	t.Run("not if the user wants quiet", func(t *testing.T) {
		tty, screen := terminal(t)
		c := console.New(strings.NewReader(""), io.Discard, tty)
		c.Patience = 0
		require.Equal(t, 0, runOn(t.Context(), c, args(encrypt, "-q")))
		fmt.Fprint(tty, "the end")
		require.Equal(t, "the end", show(t, screen, "the end"))
	})
	t.Run("not in a pipe", func(t *testing.T) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		c := console.New(strings.NewReader(""), io.Discard, w)
		c.Patience = 0
		require.Equal(t, 0, runOn(t.Context(), c, encrypt))
		require.NoError(t, w.Close())
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Empty(t, text)
	})
}

func TestDestroyAsks(t *testing.T) {
	workspace(t)
	old := ringKeys(t).Versions[0].ID
	ok(t, args("ring", "rotate", ring)...)
	for _, test := range []struct {
		answer string
		code   int
		says   string
	}{
		{"no\n", 3, "blobseal: not confirmed: nothing was changed"},
		{"\n", 3, "not confirmed"},
		{"\x04", 3, "not confirmed"}, // end of file
		{"yes\n", 0, ""},
	} {
		tty, screen := terminal(t)
		var out bytes.Buffer
		c := console.New(tty, &out, tty)
		code := make(chan int, 1)
		go func() { code <- runOn(t.Context(), c, args("ring", "destroy", ring, old)) }()
		text := show(t, screen, "Type yes to destroy it: ")
		require.Contains(t, text, "Destroy version "+old+" of my.ring?")
		require.Contains(t, text, "Nobody can open")
		_, err := screen.WriteString(test.answer)
		require.NoError(t, err)
		require.Equal(t, test.code, await.Value(t, code, "the command to end"), "%q", test.answer)
		if test.says != "" {
			show(t, screen, test.says)
		}
		require.Equal(t, test.code == 0, ringKeys(t).Versions[0].State == "destroyed")
	}
}
