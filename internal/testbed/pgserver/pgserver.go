// Package pgserver runs PostgreSQL servers that tests may stop, kill and fail over.
package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// patience is how long a server may take to start or end on a slow machine.
const patience = 2 * time.Minute

// Server is a server on 127.0.0.1 with the superuser postgres, who needs no password.
type Server struct {
	Port int

	dir      string // of the whole cluster; the standby's is in its primary's
	data     string
	programs string
	conf     []string

	mu  sync.Mutex
	cmd *exec.Cmd
	log *bytes.Buffer
}

// Programs returns the directory of the server's programs, or "" if there are none.
func Programs() string {
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.Sort(candidates)
	slices.Reverse(candidates)
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			candidates = append([]string{path}, candidates...)
		}
	}
	for _, path := range candidates {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "initdb")); err == nil {
			return filepath.Dir(path)
		}
	}
	return ""
}

// New makes a server with these settings ("name=value") in a directory of its own, which
// Remove removes. It does not start the server.
func New(conf ...string) (*Server, error) {
	s, err := newServer(conf)
	if err != nil {
		return nil, err
	}
	return s, s.run(filepath.Join(s.programs, "initdb"), "-D", s.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
}

// Copy makes a server with these settings and a copy of this server's data. This server
// must not run. Copy is several times faster than New.
func (s *Server) Copy(conf ...string) (*Server, error) {
	c, err := newServer(conf)
	if err != nil {
		return nil, err
	}
	return c, c.run("cp", "-a", s.data, c.data)
}

// newServer makes a server that has no data yet.
func newServer(conf []string) (*Server, error) {
	programs := Programs()
	if programs == "" {
		return nil, errors.New("pgserver: no PostgreSQL (apt-get install postgresql)")
	}
	port, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "blobseal-postgres-") // a test's own directory is closed to PostgreSQL's user
	if err != nil {
		return nil, err
	}
	s := &Server{Port: port, dir: dir, data: filepath.Join(dir, "data"), programs: programs, conf: conf}
	if err := giveAway(dir); err != nil {
		return nil, err
	}
	return s, nil
}

// Standby makes a standby of a server that runs. Its replication is asynchronous. A
// primary has one standby at most.
func (s *Server) Standby() (*Server, error) {
	port, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	standby := &Server{
		Port: port, dir: s.dir, data: filepath.Join(s.dir, "standby"), programs: s.programs,
		conf: []string{"synchronous_standby_names="},
	}
	return standby, s.run(filepath.Join(s.programs, "pg_basebackup"), "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", s.URL())
}

// Dir returns the directory of the server, which belongs to PostgreSQL's user.
func (s *Server) Dir() string { return s.dir }

// URL is where clients connect to.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.Port)
}

// command returns a command of the server's user, which ends when this process does.
func (s *Server) command(program string, args ...string) (*exec.Cmd, error) {
	attr, err := Attributes()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = attr
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// run runs a command as the server's user.
func (s *Server) run(program string, args ...string) error {
	cmd, err := s.command(program, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgserver: %s: %w: %s", filepath.Base(program), err, out)
	}
	return nil
}

// Start starts the server, and waits until it answers. The server leaves flushing files to
// the system, which lives on when a test kills the server.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := []string{"-D", s.data, "-p", fmt.Sprint(s.Port), "-h", "127.0.0.1", "-k", "", "-c", "max_connections=300", "-c", "shared_buffers=16MB", "-c", "fsync=off"}
	for _, setting := range s.conf {
		args = append(args, "-c", setting)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd, err := s.command(filepath.Join(s.programs, "postgres"), args...)
	if err != nil {
		return err
	}
	s.cmd, s.log = cmd, new(bytes.Buffer)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	for !s.ready() {
		select {
		case <-ctx.Done():
			s.cmd.Process.Kill()
			s.cmd.Wait()
			s.cmd = nil
			return fmt.Errorf("pgserver: server does not answer: %w: %s", ctx.Err(), s.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// ready reports whether the server accepts connections. It reads what pg_ctl reads: line 8
// of the server's lock file.
func (s *Server) ready() bool {
	text, _ := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	isOurs := lines[0] == strconv.Itoa(s.cmd.Process.Pid) // not of a server that crashed
	return isOurs && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
}

// Stop stops the server if it runs: by os.Interrupt in order, by SIGQUIT as a crash would.
func (s *Server) Stop(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	s.cmd.Process.Signal(sig)
	killed := make(chan struct{})
	watchdog := time.AfterFunc(patience, func() {
		close(killed)
		s.cmd.Process.Kill()
	})
	s.cmd.Wait()
	s.cmd = nil
	if !watchdog.Stop() {
		<-killed
		return fmt.Errorf("pgserver: waited %v for the server to end after %v", patience, sig)
	}
	return nil
}

// Remove removes the files of the server and of its standby, which have ended.
func (s *Server) Remove() error { return os.RemoveAll(s.dir) }
