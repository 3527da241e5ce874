package s3gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestHistory runs random histories: several clients write, read, list, copy, delete and
// upload in parts, in every mode, through two gateways on one store, while the ring
// rotates, the key of SSE-KMS is disabled for moments, and gateways are killed and
// started again. A [model] knows what each read may find. In the end, two new gateways
// agree about everything, and the store has neither plaintext nor leftovers.
//
// Half of the buckets have versions, and each version is read in the end. There, only
// one client writes a key, and no gateway is killed: when two write a key at once, the
// engine itself may lose a version.
//
// The seed decides what each client does; the order of the clients is the machine's.
// BLOBSEAL_STRESS, such as 1h, is how long to go on.
func TestHistory(t *testing.T) {
	for _, store := range []string{"files", "S3"} {
		t.Run(store, func(t *testing.T) {
			var total counts
			seeds.Run(t, 1, func(t *testing.T, seed uint64) { runHistory(t, seed, store == "S3", &total) })
			t.Logf("%d operations, of which %d were refused and %d ended with a killed gateway", total.all.Load(), total.refusals.Load(), total.cuts.Load())
		})
	}
}

// counts of operations.
type counts struct{ all, refusals, cuts atomic.Int64 }

const (
	historyClients = 4
	historySteps   = 40 // of each client
)

// history is a run of [TestHistory].
type history struct {
	*testing.T
	setup
	*model
	*counts
	pair  [2]*replaceable
	keys  []string
	kmsID string

	mu       sync.Mutex
	uploads  []*s3.AbortMultipartUploadInput // that clients began
	versions map[string]*content             // by key and version id, in a bucket with versions
}

// replaceable is a gateway that is killed and started again.
type replaceable struct {
	mu     sync.Mutex
	server *server
	client *s3.Client
	deaths int
}

// get returns the client, or nil between two gateways, and how many gateways have died.
func (r *replaceable) get() (*s3.Client, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.client, r.deaths
}

func runHistory(t *testing.T, seed uint64, overS3 bool, total *counts) {
	h := &history{T: t, setup: newSetup(t), counts: total, keys: []string{"a", "b", "dir/c", "d"}}
	h.model = newModel(h.keys)
	stored := h.setup
	if overS3 {
		bare := startBare(t)
		stored, h.Inner = bare.setup, bare.url
	}
	for i := range h.pair {
		h.pair[i] = &replaceable{server: h.start(t)}
		h.pair[i].client = h.pair[i].server.client(t)
	}
	c, _ := h.pair[0].get()
	newBucket(t, c)
	if seed%2 == 0 {
		h.versions = map[string]*content{}
		_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
			Bucket: ptr(bucket), VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		})
		require.NoError(t, err)
	}
	stop := h.administer(rand.New(rand.NewPCG(seed, 0)))
	var clients sync.WaitGroup
	for i := range historyClients {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i+1)))
			for range historySteps {
				if t.Failed() {
					return
				}
				target := h.keys[rng.IntN(len(h.keys))]
				if h.versions != nil {
					target = h.keys[i]
				}
				h.step(rng, h.keys[rng.IntN(len(h.keys))], target)
			}
		})
	}
	await.Value(t, waitFor(&clients), "the clients")
	stop()
	for _, r := range h.pair {
		r.server.kill()
	}
	h.audit(h.start(t).client(t), h.start(t).client(t))
	requireNoRecords(t, stored)
	requireNoPlaintext(t, stored)
}

// administer rotates the ring, disables the key for moments and kills gateways, until
// stop is called.
func (h *history) administer(rng *rand.Rand) (stop func()) {
	ring, service, err := open(h.Context(), h.setup)
	require.NoError(h, err)
	client, err := service.Client("", "")
	require.NoError(h, err)
	key, err := client.CreateKey(h.Context(), &localkms.CreateKeyInput{})
	require.NoError(h, err)
	h.kmsID = key.ID
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ctx := context.WithoutCancel(h.Context())
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond):
			}
			var err error
			what := 3
			if h.versions != nil {
				what = 2
			}
			switch rng.IntN(what) {
			case 0:
				_, err = ring.Rotate(ctx)
			case 1:
				if err = client.DisableKey(ctx, key.ID); err == nil {
					time.Sleep(50 * time.Millisecond)
					err = client.EnableKey(ctx, key.ID)
				}
			case 2:
				h.replace(h.pair[rng.IntN(2)])
			}
			if err != nil {
				h.Errorf("the administrator: %v", err)
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
}

// replace kills a gateway and starts another in its place.
func (h *history) replace(r *replaceable) {
	r.mu.Lock()
	r.server.kill()
	r.client = nil
	r.deaths++
	r.mu.Unlock()
	next := h.start(h.T)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server, r.client = next, next.client(h.T)
}

// try sends a request to a gateway chosen at random. It returns the error of S3, if
// the gateway gave one. Any other failure is only allowed of a gateway that was killed.
func (h *history) try(rng *rand.Rand, what string, request func(*s3.Client) error) (known bool, err error) {
	i := rng.IntN(2)
	r := h.pair[i]
	client, deaths := r.get()
	if client == nil {
		r = h.pair[1-i] // only one of them is replaced at a time
		client, deaths = r.get()
	}
	h.all.Add(1)
	if err = request(client); err == nil {
		return true, nil
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.HTTPStatusCode() >= 400 && response.HTTPStatusCode() < 500 {
		h.refusals.Add(1)
		return true, err
	}
	if _, now := r.get(); now == deaths {
		h.Errorf("%s: no gateway was killed, and S3 would not answer: %v", what, err)
	}
	h.cuts.Add(1)
	return false, err
}

// change makes a request that gives a key a content, and tells the model how it ended.
// It reports whether the content is there.
func (h *history) change(rng *rand.Rand, key string, c *content, what string, request func(*s3.Client) error, refusals ...string) bool {
	w := h.startWrite(key, c, what)
	known, err := h.try(rng, what+" "+key, request)
	switch {
	case err == nil:
		h.endWrite(w)
	case known:
		h.refusal(key, w, what, err, append(refusals, "KMS.DisabledException"))
	}
	return err == nil
}

// refusal notes a refusal, which is one of those that may be.
func (h *history) refusal(key string, w *write, what string, err error, may []string) {
	h.withdraw(key, w)
	for _, m := range may {
		if code(err) == m {
			return
		}
	}
	h.Errorf("%s %s: refused: %v", what, key, err)
}

// audit reads everything through two new gateways, which agree, and ends all uploads.
func (h *history) audit(one, two *s3.Client) {
	left, err := two.ListMultipartUploads(h.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket)})
	require.NoError(h, err)
	for _, u := range left.Uploads { // of some no client knows, as their gateways were killed
		h.uploads = append(h.uploads, &s3.AbortMultipartUploadInput{Bucket: ptr(bucket), Key: u.Key, UploadId: u.UploadId})
	}
	for _, u := range h.uploads {
		if _, err := one.AbortMultipartUpload(h.Context(), u); code(err) != "NoSuchUpload" {
			require.NoError(h, err, "abort %s of %s", *u.UploadId, *u.Key)
		}
	}
	left, err = two.ListMultipartUploads(h.Context(), &s3.ListMultipartUploadsInput{Bucket: ptr(bucket)})
	require.NoError(h, err)
	require.Empty(h, left.Uploads)
	for _, key := range h.keys {
		var found [2]*content
		for i, client := range []*s3.Client{one, two} {
			start := h.now()
			if _, p, err := h.get(client, key, nil); err != nil {
				h.checkReadError("get at the end", key, start, err)
			} else {
				found[i] = h.find(h.T, "get at the end", key, start, p, 0, len(p))
			}
		}
		require.Equal(h, found[0], found[1])
	}
	for name, c := range h.versions {
		key, id, _ := strings.Cut(name, "?")
		in := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key, VersionId: &id}
		out, err := one.GetObject(h.Context(), in)
		if code(err) == "InvalidRequest" {
			modes()[3].get(in)
			out, err = one.GetObject(h.Context(), in)
		}
		require.NoError(h, err, "version %s, %v", name, c)
		require.True(h, bytes.Equal(c.bytes(), readAll(h.T, out.Body)), "version %s", name)
	}
}

// requireNoPlaintext looks for the marker in all files of a store.
func requireNoPlaintext(t *testing.T, s setup) {
	files := 0
	for _, dir := range []string{"data", "versions"} {
		err := filepath.WalkDir(s.path(dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			stored, err := os.ReadFile(path)
			if err == nil && bytes.Contains(stored, marker) {
				t.Errorf("%s has plaintext", path)
			}
			files++
			return err
		})
		require.NoError(t, err)
	}
	require.NotZero(t, files)
}
