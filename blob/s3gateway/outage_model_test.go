package s3gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// tally counts the answers that clients got.
type tally struct {
	mu       sync.Mutex
	ok       int
	failures map[string]int // by S3's code
	wrong    []string
	may      []string // codes that are no wrong answers
	anyCode  bool     // every code of S3's is one
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	total, codes := c.ok, []string{}
	for _, code := range slices.Sorted(maps.Keys(c.failures)) {
		total += c.failures[code]
		codes = append(codes, fmt.Sprintf("%s %d", code, c.failures[code]))
	}
	return fmt.Sprintf("%d operations, %d succeeded, failed: %s, wrong answers: %d", total, c.ok, strings.Join(codes, ", "), len(c.wrong))
}

// answer counts the outcome of an operation. S3 knows the code of each failure, which
// is one of those for a server that has trouble, or one of the codes in may.
func (c *tally) answer(what string, err error, may ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.ok++
		return
	}
	name := code(err)
	var response *awshttp.ResponseError
	var api smithy.APIError
	switch {
	case errors.As(err, &response) && errors.As(err, &api):
		// A response to HEAD has no body, and the SDK makes up the code.
		if name == "UnknownError" || name == "" {
			name = fmt.Sprint("HTTP ", response.HTTPStatusCode())
		}
		if response.HTTPStatusCode() < 500 && !c.anyCode && !slices.Contains(may, name) && !slices.Contains(c.may, name) {
			c.wrong = append(c.wrong, fmt.Sprintf("%s: %v", what, err))
		}
	case errors.Is(err, errBroken):
		name = "broken transfer"
	default:
		c.wrong = append(c.wrong, fmt.Sprintf("%s: no answer of S3's: %v", what, err))
	}
	if c.failures == nil {
		c.failures = map[string]int{}
	}
	c.failures[name]++
}

// add adds the counts of another tally.
func (c *tally) add(other *tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures == nil {
		c.failures = map[string]int{}
	}
	c.ok += other.ok
	for name, n := range other.failures {
		c.failures[name] += n
	}
}

func (c *tally) addLie(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// errBroken is a response whose body does not end as its headers say.
var errBroken = errors.New("the transfer broke off")

// actor is a client with its own keys. It knows the contents that each object may have: the
// earlier one, and those of requests with an unknown outcome. An absent object is nil.
type actor struct {
	t     *testing.T
	c     *s3.Client
	rng   *rand.Rand
	tally *tally
	modes []mode
	name  string
	seed  uint64
	may   map[string][]*content
	bytes func(*content) []byte // the content's, by default
}

func newActor(t *testing.T, c *s3.Client, name string, seed uint64, total *tally, modes []mode) *actor {
	a := &actor{t: t, c: c, rng: rand.New(rand.NewPCG(seed, 1)), tally: total, modes: modes, name: name, may: map[string][]*content{}, bytes: (*content).bytes}
	for _, m := range modes {
		a.may[a.key(m)] = []*content{nil}
	}
	return a
}

// key returns the client's object of a mode.
func (a *actor) key(m mode) string { return a.name + "/" + m.name }

func (a *actor) newContent(size int) *content {
	a.seed++
	return &content{seed: a.seed, size: size}
}

// noteWrite notes that a request has replaced an object, or may have.
func (a *actor) noteWrite(key string, c *content, err error) {
	if err == nil {
		a.may[key] = nil
	}
	a.may[key] = append(a.may[key], c)
}

func (a *actor) put(m mode) error {
	key, c := a.key(m), a.newContent(a.rng.IntN(200_000))
	in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(c.bytes())}
	m.put(in)
	_, err := a.c.PutObject(a.t.Context(), in)
	a.noteWrite(key, c, err)
	a.tally.answer("put "+key, err)
	return err
}

func (a *actor) remove(m mode) {
	key := a.key(m)
	_, err := a.c.DeleteObject(a.t.Context(), &s3.DeleteObjectInput{Bucket: ptr(bucket), Key: &key})
	a.noteWrite(key, nil, err)
	a.tally.answer("delete "+key, err)
}

// copy copies the object onto itself, and so changes its keys only.
func (a *actor) copy(m mode) {
	key := a.key(m)
	var put s3.PutObjectInput
	m.put(&put)
	_, err := a.c.CopyObject(a.t.Context(), &s3.CopyObjectInput{
		Bucket: ptr(bucket), Key: &key, CopySource: ptr(bucket + "/" + key), ServerSideEncryption: put.ServerSideEncryption,
		SSECustomerAlgorithm: put.SSECustomerAlgorithm, SSECustomerKey: put.SSECustomerKey, SSECustomerKeyMD5: put.SSECustomerKeyMD5,
		CopySourceSSECustomerAlgorithm: put.SSECustomerAlgorithm, CopySourceSSECustomerKey: put.SSECustomerKey, CopySourceSSECustomerKeyMD5: put.SSECustomerKeyMD5,
	})
	a.checkAnswer(key, "copy", nil, err, func(c *content) bool { return err == nil })
	a.tally.answer("copy "+key, err, "NoSuchKey")
}

// get reads the object of a mode, or a range of it.
func (a *actor) get(m mode, ranged bool) error { return a.getKey(m, a.key(m), ranged) }

func (a *actor) getKey(m mode, key string, ranged bool) error {
	in := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key}
	m.get(in)
	from, to := 0, 1<<30
	if ranged {
		from = a.rng.IntN(1000)
		to = from + 40_000
		in.Range = ptr(fmt.Sprintf("bytes=%d-%d", from, to-1))
	}
	out, err := a.c.GetObject(a.t.Context(), in)
	var p []byte
	if err == nil {
		p, err = io.ReadAll(out.Body)
		out.Body.Close()
		if err != nil {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
	}
	a.checkAnswer(key, "get", p, err, func(c *content) bool {
		if c == nil {
			return false
		}
		whole := a.bytes(c)
		whole = whole[min(from, len(whole)):min(to, len(whole))]
		return bytes.Equal(p, whole) || err != nil && bytes.HasPrefix(whole, p)
	})
	a.tally.answer("get "+key, err, "NoSuchKey", "InvalidRange")
	return err
}

// checkAnswer checks an answer about an object against what the object may be.
func (a *actor) checkAnswer(key, what string, p []byte, err error, is func(*content) bool) {
	missing := slices.Contains([]string{"NoSuchKey", "NotFound"}, code(err))
	if code(err) == "InvalidRange" || err != nil && !missing && p == nil {
		return // says nothing of the content
	}
	for _, c := range a.may[key] {
		if missing && c == nil || !missing && c != nil && is(c) {
			if err == nil && p != nil || missing {
				a.may[key] = []*content{c}
			}
			return
		}
	}
	a.tally.addLie("%s %s: got %d bytes and error %v, want one of %v", what, key, len(p), err, a.may[key])
}

// head and list know the sizes of plaintext.
func (a *actor) head(m mode) { a.headKey(m, a.key(m)) }

func (a *actor) headKey(m mode, key string) {
	in := &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &key}
	m.head(in)
	out, err := a.c.HeadObject(a.t.Context(), in)
	a.checkAnswer(key, "head", nil, err, func(c *content) bool { return err == nil && int64(c.size) == *out.ContentLength })
	a.tally.answer("head "+key, err, "NotFound")
}

func (a *actor) list() {
	out, err := a.c.ListObjectsV2(a.t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket), Prefix: ptr(a.name + "/")})
	a.tally.answer("list", err)
	if err != nil {
		return
	}
	sizes := map[string]int64{}
	for _, o := range out.Contents {
		sizes[*o.Key] = *o.Size
	}
	for key, may := range a.may {
		size, there := sizes[key]
		if !slices.ContainsFunc(may, func(c *content) bool { return there == (c != nil) && (!there || size == int64(c.size)) }) {
			a.tally.addLie("list: %s has %d bytes (listed: %v), and is one of %v", key, size, there, may)
		}
	}
}

// upload uploads in parts and repeats each request until it succeeds, as clients do.
func (a *actor) upload(m mode) {
	u := newScript(m, a.key(m))
	c := a.newContent(partSize + 1000)
	u.contents = [][]byte{c.bytes()[:partSize], c.bytes()[partSize:]}
	u.plain = true
	again := func(what string, may string, request func() error) bool {
		for range 200 {
			err := request()
			a.tally.answer(what+" "+u.key, err, may)
			if err == nil || code(err) == may {
				return true
			}
		}
		a.tally.addLie("%s %s: fails always", what, u.key)
		return false
	}
	done := again("create", "-", func() error { return u.create(a.t, a.c) }) &&
		again("parts", "-", func() error { return u.parts(a.t, a.c) })
	if !done {
		return
	}
	if a.rng.IntN(4) == 0 {
		again("abort", "NoSuchUpload", func() error { return u.abort(a.t, a.c) })
		return
	}
	tries := 0
	// A server that has completed an upload may not know it any more. The object says
	// then whether this was so.
	if again("complete", "NoSuchUpload", func() error {
		tries++
		err := u.finish(a.t, a.c)
		if code(err) == "NoSuchUpload" && tries == 1 {
			a.tally.addLie("complete %s: NoSuchUpload at once", u.key)
		}
		return err
	}) {
		a.noteWrite(u.key, c, nil)
	}
}

// step does anything. It notes when an answer takes longer than bound.
func (a *actor) step(bound time.Duration) {
	m := a.modes[a.rng.IntN(len(a.modes))]
	start := time.Now()
	what := a.rng.IntN(20)
	switch {
	case what < 5:
		a.put(m)
	case what < 9:
		a.get(m, false)
	case what < 12:
		a.get(m, true)
	case what < 14:
		a.head(m)
	case what < 15:
		a.remove(m)
	case what < 17:
		a.copy(m)
	case what < 19:
		a.list()
	default:
		a.upload(m)
		bound *= 10
	}
	if took := time.Since(start); took > bound {
		a.tally.addLie("an answer took %v", took)
	}
}

// readAll reads everything when all is well again, and returns how many objects there
// are.
func (a *actor) readAll() (objects int) {
	for _, m := range a.modes {
		if a.get(m, false) == nil {
			objects++
		}
		if len(a.may[a.key(m)]) != 1 {
			a.tally.addLie("%s cannot be read when all is well again", a.key(m))
		}
	}
	a.list()
	return objects
}
