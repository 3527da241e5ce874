package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// fuse is a context that ends when it has been asked for its error a number of times,
// and so at a moment that does not depend on the machine.
type fuse struct {
	context.Context
	left   atomic.Int64
	cancel context.CancelFunc
}

func (f *fuse) Err() error {
	if f.left.Add(-1) == 0 {
		f.cancel()
	}
	return f.Context.Err()
}

// TestInterruptedAtAnyMoment interrupts commands again and again, a little later each
// time. They end as a whole, or say that they were interrupted and leave nothing behind.
func TestInterruptedAtAnyMoment(t *testing.T) {
	album(t, ring, "a", "b")
	write(t, "plain", random(200_000))
	require.NoError(t, os.Mkdir("many", 0o700))
	ok(t, args("encrypt", ring, "plain", "sealed")...)
	for name, test := range map[string][]string{
		"encrypt":       args("encrypt", ring, "--force", "plain", "out"),
		"encrypt many":  args("encrypt", customer, "--force", "plain", "root.key", "-o", "many"),
		"decrypt":       args("decrypt", ring, "--force", "sealed", "out"),
		"verify":        args("verify", ring, "sealed"),
		"rewrap":        args("rewrap", ring, "--to-object", "", "sealed"),
		"service":       args("encrypt", photos, "--force", "plain", "out"),
		"bucket get":    args("bucket", "get", bucketURL, ring, "--force", "a", "out"),
		"bucket check":  args("bucket", "check", bucketURL, ring),
		"bucket rewrap": args("bucket", "rewrap", bucketURL, ring),
		"bucket ls":     args("bucket", "ls", bucketURL),
		"doctor":        args("doctor", ring, bucketURL),
	} {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); n < 200; n++ {
				ctx, cancel := context.WithCancel(t.Context())
				f := &fuse{Context: ctx, cancel: cancel}
				f.left.Store(n)
				var out, errout bytes.Buffer
				code := runOn(f, console.New(strings.NewReader(""), &out, &errout), test)
				interrupted := ctx.Err() != nil
				cancel()
				require.Contains(t, []int{message.Done, message.Interrupted}, code, "%d: %s%s", n, &out, &errout)
				if code == message.Interrupted {
					require.Regexp(t, `\Ablobseal: [^\n]*interrupted[^\n]*\n\z`, errout.String())
				}
				for _, name := range files(t) {
					require.False(t, strings.HasSuffix(name, ".tmp"), "%d: %s is left", n, name)
				}
				if !interrupted {
					require.Zero(t, code, errout.String())
					return
				}
			}
		})
	}
}
