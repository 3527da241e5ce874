package cache_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// The wrappers that people write.
type (
	embedding  struct{ kms.Client }
	byPointer  struct{ *embedding }
	unwrapping struct{ kms.Client }
	private    struct{ inner }
	inner      interface{ kms.Client }
)

// asked is an Authorizer.
type asked struct{ *kmstest.Fake }

func (asked) Authorize(context.Context, kms.Operation, string, kms.Context) error { return nil }

func (u unwrapping) Unwrap() kms.Client { return u.Client }

// TestCacheWarnsOfHiddenAuthorizer: New logs once if its client is a wrapper that
// embeds an Authorizer, and is silent about all others.
func TestCacheWarnsOfHiddenAuthorizer(t *testing.T) {
	fake := asked{kmstest.NewFake("key")}
	plain := embedding{kmstest.NewFake("key")}
	for name, test := range map[string]struct {
		client kms.Client
		warns  bool
	}{
		"an Authorizer":                {fake, false},
		"unwrapped":                    {unwrapping{fake}, false},
		"embedded":                     {embedding{fake}, true},
		"embedded by pointer":          {byPointer{&embedding{fake}}, true},
		"embedded in an unexported":    {private{fake}, true},
		"embedded twice":               {embedding{embedding{fake}}, true},
		"unwrapped, then embedded":     {unwrapping{embedding{fake}}, true},
		"embedded, then unwrapped":     {embedding{unwrapping{fake}}, true},
		"no Authorizer":                {plain, false},
		"no Authorizer, but unwrapped": {unwrapping{plain}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			old := slog.Default()
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			defer slog.SetDefault(old)
			cache.New(test.client, nil)
			want := 0
			if test.warns {
				want = 1
			}
			require.Equal(t, want, strings.Count(log.String(), "hides an Authorizer"), log.String())
		})
	}
}
