package s3gateway_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/s3gateway"
)

// victim is the prefix of the keys whose requests to the inner store killer counts.
const victim = "victim"

// killer kills its own process at the n-th step of what changes the inner store: in
// the middle of each body, after each change, and, over files, after each attribute.
type killer struct {
	backend.Backend
	left  *countdown
	parts *savedParts // nil unless over files
}

// faults are those of a gateway.
type faults struct {
	KillAt  int  // the step at which the gateway kills its process, if above zero
	InAbort bool // steps count from an abort on

	Keys       bool          // the key service fails as the file "key-service" says
	KeyTimeout time.Duration // see s3gateway.Options
}

// install adds the faults to a gateway that does not serve yet.
func (f faults) install(s setup, g *s3gateway.Gateway, inner backend.Backend) {
	if f.KillAt > 0 {
		f.installKiller(g, inner, s.path("saved"))
	}
}

// installKiller makes the gateway kill its process. dir is on the file system of the
// store and does not exist.
func (f faults) installKiller(g *s3gateway.Gateway, inner backend.Backend, dir string) {
	k := &killer{left: &countdown{left: f.KillAt, waiting: f.InAbort}}
	if files, ok := inner.(*s3gateway.Files); ok {
		k.parts = &savedParts{dir: dir}
		files.WrapAttributes(func(m meta.MetadataStorer) meta.MetadataStorer {
			return &killerOfAttributes{m, k.left, k.parts}
		})
	}
	g.WrapInner(func(b backend.Backend) backend.Backend { k.Backend = b; return k })
}

type countdown struct {
	mu      sync.Mutex
	left    int
	waiting bool // for an abort, from which on steps count
}

// step kills the process if this is the step.
func (c *countdown) step(what string) { c.stepAs(what, func() {}) }

// stepAs calls prepare before it kills the process.
func (c *countdown) stepAs(what string, prepare func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		return
	}
	if c.left--; c.left == 0 {
		prepare()
		fmt.Fprintln(os.Stderr, "killed at:", what)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func isCounted(key *string) bool {
	return strings.HasPrefix(*key, victim) || strings.HasPrefix(*key, "uploads/")
}

func (k *killer) stepAfter(key *string, err error, what string) {
	if isCounted(key) && err == nil {
		k.left.step("after " + what)
	}
}

// body steps in the middle of a body of n bytes.
func (k *killer) body(key *string, r io.Reader, n int64, what string) io.Reader {
	if !isCounted(key) {
		return r
	}
	b := &killerBody{Reader: r, left: n / 2, step: sync.OnceFunc(func() { k.left.step("in the middle of " + what) })}
	if claimed, ok := r.(middlewares.ChecksumReader); ok {
		return &killerChecksumBody{b, claimed}
	}
	return b
}

type killerBody struct {
	io.Reader
	left int64
	step func()
}

func (b *killerBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left <= 0 {
		b.step()
	}
	return n, err
}

type killerChecksumBody struct {
	*killerBody
	claimed middlewares.ChecksumReader
}

func (b *killerChecksumBody) Algorithm() string { return b.claimed.Algorithm() }
func (b *killerChecksumBody) Checksum() string  { return b.claimed.Checksum() }

func (k *killer) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	in.Body = k.body(in.Key, in.Body, *in.ContentLength, "PutObject of "+*in.Key)
	out, err := k.Backend.PutObject(ctx, in)
	k.stepAfter(in.Key, err, "PutObject of "+*in.Key)
	return out, err
}

func (k *killer) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	out, err := k.Backend.CreateMultipartUpload(ctx, in)
	k.stepAfter(in.Key, err, "CreateMultipartUpload")
	return out, err
}

func (k *killer) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	what := fmt.Sprintf("UploadPart %d", *in.PartNumber)
	in.Body = k.body(in.Key, in.Body, *in.ContentLength, what)
	out, err := k.Backend.UploadPart(ctx, in)
	k.stepAfter(in.Key, err, what)
	return out, err
}

// CompleteMultipartUpload has one more step over files: the object is published, but
// the parts are not deleted yet.
func (k *killer) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	out, version, err := k.Backend.CompleteMultipartUpload(ctx, in)
	if err == nil && k.parts != nil && k.parts.from != "" {
		k.left.stepAs("after the object was linked", k.parts.restore)
	}
	k.stepAfter(in.Key, err, "CompleteMultipartUpload")
	return out, version, err
}

func (k *killer) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	k.left.mu.Lock()
	k.left.waiting = false
	k.left.mu.Unlock()
	err := k.Backend.AbortMultipartUpload(ctx, in)
	k.stepAfter(in.Key, err, "AbortMultipartUpload")
	return err
}

func (k *killer) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	out, err := k.Backend.DeleteObject(ctx, in)
	k.stepAfter(in.Key, err, "DeleteObject of "+*in.Key)
	return out, err
}

// savedParts is a copy, by hard links, of the parts of an upload that is being
// completed: those that the engine deletes after it has published the object.
type savedParts struct{ dir, from string }

func (s *savedParts) save() {
	found, err := filepath.Glob(bucket + "/.sgwtmp/multipart/*/*.inprogress")
	if err == nil && len(found) == 1 {
		os.RemoveAll(s.dir)
		if err = exec.Command("cp", "-al", found[0], s.dir).Run(); err == nil {
			s.from = found[0]
		}
	}
	if s.from == "" {
		fmt.Fprintln(os.Stderr, "no parts were saved:", found, err)
	}
}

func (s *savedParts) restore() {
	err := os.MkdirAll(filepath.Dir(s.from), 0o700)
	if err == nil {
		err = os.Rename(s.dir, s.from)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// killerOfAttributes steps after each attribute that is stored.
type killerOfAttributes struct {
	meta.MetadataStorer
	left  *countdown
	parts *savedParts
}

func countsFile(object string) bool {
	return strings.HasPrefix(object, victim) || strings.HasPrefix(object, ".sgwtmp/multipart/")
}

func (k *killerOfAttributes) StoreAttribute(f *os.File, bucket, object, name string, value []byte) error {
	err := k.MetadataStorer.StoreAttribute(f, bucket, object, name, value)
	if err == nil && countsFile(object) {
		if name == "mp-metadata" {
			k.parts.save()
		}
		k.left.step("StoreAttribute " + name)
	}
	return err
}

func (k *killerOfAttributes) RenameObject(bucket, from, to string) error {
	err := k.MetadataStorer.RenameObject(bucket, from, to)
	if err == nil && countsFile(from) {
		k.left.step("RenameObject")
	}
	return err
}
