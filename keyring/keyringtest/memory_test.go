package keyringtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/blobseal/blobseal/keyring"
)

// errNone stands for a nil error where the zero value means the right one.
var errNone = errors.New("none")

// memory is a store whose zero value keeps the contract. Each field breaks it.
type memory struct {
	absent, unreadable, conflict, ended              error
	clobbers, ignoresVersion, upserts, changesAnyway bool
	forgetful                                        bool
	loadVersion                                      string
	name                                             func(data []byte, n int) string
	restless, aliasesInput, aliasesOutput            bool
	transform                                        func([]byte) []byte
	torn, stale, deaf, late, cached, volatile        bool

	silent, numb, selfish, lingers, unbreakable, watchless bool
	watchEnd, watchBreak                                   error

	shared *document // of all handles
	once   sync.Once

	cache        []byte // of a cached handle
	cacheVersion string
}

type document struct {
	mu            sync.Mutex
	data, earlier []byte
	version       string
	swaps, loads  int
	broken        bool
	changed       chan struct{} // closed by the next write; nil if nobody waits
	cut           chan struct{} // closed when the watches are to break; nil if there are none
	writer        *memory       // the handle that wrote last
}

func (m *memory) document() *document {
	m.once.Do(func() {
		if m.shared == nil {
			m.shared = new(document)
		}
	})
	return m.shared
}

func (m *memory) another() keyring.Store {
	d := m.document()
	return m.with(d)
}

func (m *memory) reopen() keyring.Store {
	if m.volatile {
		return m.with(new(document))
	}
	return m.another()
}

func (m *memory) with(d *document) *memory {
	return &memory{
		absent: m.absent, unreadable: m.unreadable, conflict: m.conflict, ended: m.ended,
		clobbers: m.clobbers, ignoresVersion: m.ignoresVersion, upserts: m.upserts, changesAnyway: m.changesAnyway,
		forgetful: m.forgetful, loadVersion: m.loadVersion, name: m.name,
		restless: m.restless, aliasesInput: m.aliasesInput, aliasesOutput: m.aliasesOutput, transform: m.transform,
		torn: m.torn, stale: m.stale, deaf: m.deaf, late: m.late, cached: m.cached, volatile: m.volatile,
		silent: m.silent, numb: m.numb, selfish: m.selfish, lingers: m.lingers, unbreakable: m.unbreakable, watchless: m.watchless,
		watchEnd: m.watchEnd, watchBreak: m.watchBreak,
		shared: d,
	}
}

func (m *memory) break_() {
	d := m.document()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = true
}

func (m *memory) end(ctx context.Context) error {
	if err := ctx.Err(); err != nil && !m.deaf {
		if m.ended != nil {
			return m.ended
		}
		return err
	}
	return nil
}

func (m *memory) readError() error {
	switch m.unreadable {
	case nil:
		return errors.New("i/o error")
	case errNone:
		return nil
	}
	return m.unreadable
}

func (m *memory) Load(ctx context.Context) ([]byte, string, error) {
	if err := m.end(ctx); err != nil {
		return nil, "", err
	}
	d := m.document()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loads++
	switch {
	case d.broken:
		return nil, "", m.readError()
	case d.version == "" && d.swaps == 0 && m.absent != nil:
		return nil, "", m.absent
	case d.swaps == 0:
		return nil, "", keyring.ErrNotExist
	case m.cached && m.cache != nil:
		return bytes.Clone(m.cache), m.cacheVersion, nil
	case m.torn && d.loads%3 == 0:
		return bytes.Clone(d.data[:len(d.data)/2]), d.version, nil
	case m.stale && d.earlier != nil:
		return bytes.Clone(d.earlier), d.version, nil
	}
	version := d.version
	if m.loadVersion != "" {
		version = m.loadVersion
	}
	if m.restless {
		version = fmt.Sprint(version, ".", d.loads)
	}
	if m.cached {
		m.cache, m.cacheVersion = bytes.Clone(d.data), version
	}
	if m.aliasesOutput {
		return d.data, version, nil
	}
	return bytes.Clone(d.data), version, nil
}

func (m *memory) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := m.end(ctx); err != nil && !m.late {
		return "", err
	}
	d := m.document()
	if m.forgetful { // does not hold the lock between comparison and write
		d.mu.Lock()
		same := version == d.version
		d.mu.Unlock()
		if !same {
			return "", keyring.ErrConflict
		}
		pause()
		d.mu.Lock()
		defer d.mu.Unlock()
		return m.write(d, data), m.end(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		if m.unreadable == nil {
			return "", errors.New("i/o error")
		}
		return m.write(d, data), nil
	}
	same := version == d.version
	if m.restless {
		same = version == "" && d.version == "" || d.version != "" && strings.HasPrefix(version, d.version)
	}
	switch {
	case m.ignoresVersion, m.clobbers && version == "", m.upserts && d.swaps == 0:
	case !same:
		if m.changesAnyway {
			m.write(d, data)
		}
		switch m.conflict {
		case nil:
			return "", keyring.ErrConflict
		case errNone:
			return d.version, nil
		}
		return "", m.conflict
	}
	v := m.write(d, data)
	if m.cached {
		m.cache, m.cacheVersion = bytes.Clone(data), v
	}
	return v, m.end(ctx)
}

func (m *memory) write(d *document, data []byte) string {
	if m.transform != nil {
		data = m.transform(data)
	}
	d.earlier = d.data
	d.data = data
	if !m.aliasesInput {
		d.data = bytes.Clone(data)
	}
	d.swaps++
	d.writer = m
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
	d.version = fmt.Sprint("v", d.swaps)
	if m.name != nil {
		d.version = m.name(data, d.swaps)
	}
	return d.version
}

// pause lets other goroutines run between a comparison and the following write.
func pause() { time.Sleep(time.Millisecond) }

func (m *memory) breakWatch() {
	d := m.document()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut != nil && !m.unbreakable {
		close(d.cut)
		d.cut = nil
	}
}

func (m *memory) Watch(ctx context.Context, changed func()) error {
	if m.watchless {
		return errors.ErrUnsupported
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d := m.document()
	for first := true; ; first = false {
		d.mu.Lock()
		if d.changed == nil {
			d.changed = make(chan struct{})
		}
		if d.cut == nil {
			d.cut = make(chan struct{})
		}
		next, cut, mine := d.changed, d.cut, d.writer == m
		d.mu.Unlock()
		if first && !m.silent || !first && !m.numb && (mine || !m.selfish) {
			changed()
		}
		select {
		case <-next:
		case <-cut:
			if m.watchBreak == errNone {
				return nil
			}
			return errors.New("connection reset")
		case <-ctx.Done():
			if m.lingers {
				go func() {
					<-next
					changed()
				}()
			}
			if m.watchEnd == errNone {
				return nil
			}
			return ctx.Err()
		}
	}
}
