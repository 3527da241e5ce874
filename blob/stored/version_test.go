package stored_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/stored"
)

// TestVersionSame has what stores say of one version, and of two.
func TestVersionSame(t *testing.T) {
	exact := time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)
	milli, second := exact.Truncate(time.Millisecond), exact.Truncate(time.Second)
	at := func(t time.Time) stored.Version { return stored.Version{Size: 7, ModTime: t} }
	for name, test := range map[string]struct {
		x, y stored.Version
		same bool
	}{
		"nothing known":                {stored.Version{Size: -1}, at(exact), true},
		"equal":                        {at(exact), at(exact), true},
		"a nanosecond apart":           {at(exact), at(exact.Add(1)), false},
		"milliseconds and seconds":     {at(milli), at(second), true}, // Google: attributes and content
		"milliseconds, rounded up":     {at(milli), at(second.Add(time.Second)), true},
		"nanoseconds and milliseconds": {at(exact), at(milli), true},
		"a second apart":               {at(second), at(second.Add(time.Second)), false},
		"two seconds apart":            {at(milli), at(second.Add(2 * time.Second)), false},
		"another zone":                 {at(exact), at(exact.In(time.FixedZone("x", 3600))), true},
		"sizes":                        {at(exact), stored.Version{Size: 8, ModTime: exact}, false},
		"unknown size":                 {at(exact), stored.Version{Size: -1, ModTime: exact}, true},
		"etags":                        {stored.Version{ETag: "x", Size: 7}, stored.Version{ETag: "y", Size: 7}, false},
		"one etag":                     {stored.Version{ETag: "x", Size: 7}, at(exact), true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.same, test.x.Same(test.y))
			require.Equal(t, test.same, test.y.Same(test.x))
		})
	}
}
