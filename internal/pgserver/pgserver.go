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
	"sync"
	"time"

	"github.com/blobseal/blobseal/internal/freeport"
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
	initdb, err := s.command("initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err != nil {
		return nil, err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgserver: initdb: %w: %s", err, out)
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
	backup, err := s.command("pg_basebackup", "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", s.URL())
	if err != nil {
		return nil, err
	}
	if out, err := backup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgserver: pg_basebackup: %w: %s", err, out)
	}
	return standby, nil
}

// Dir returns the directory of the server, which belongs to PostgreSQL's user.
func (s *Server) Dir() string { return s.dir }

// URL is where clients connect to.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.Port)
}

// command returns a program of PostgreSQL's, as a user who may run it, that ends when this
// process does.
func (s *Server) command(program string, args ...string) (*exec.Cmd, error) {
	attr, err := Attributes()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(s.programs, program), args...)
	cmd.SysProcAttr = attr
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// Start starts the server, and waits until it answers.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := []string{"-D", s.data, "-p", fmt.Sprint(s.Port), "-h", "127.0.0.1", "-k", "", "-c", "max_connections=300", "-c", "shared_buffers=16MB"}
	for _, setting := range s.conf {
		args = append(args, "-c", setting)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd, err := s.command("postgres", args...)
	if err != nil {
		return err
	}
	s.cmd, s.log = cmd, new(bytes.Buffer)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	for {
		ready, err := s.command("pg_isready", "-q", "-d", s.URL())
		if err != nil {
			return err
		}
		if err = ready.Run(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			s.cmd.Process.Kill()
			s.cmd.Wait()
			s.cmd = nil
			return fmt.Errorf("pgserver: server does not answer: %w: %s", err, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
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
