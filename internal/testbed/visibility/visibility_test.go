package visibility_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/visibility"
)

func at(second float64) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(second * float64(time.Second)))
}

// change is a change that took from a to b; b is zero if nobody knows whether it happened.
func change(serves bool, a, b float64) visibility.Change {
	c := visibility.Change{Key: "k", Serves: serves, Began: at(a)}
	if b != 0 {
		c.Acked = at(b)
	}
	return c
}

func use(served bool, a, b float64) visibility.Use {
	return visibility.Use{Process: "p", Key: "k", Served: served, Began: at(a), Ended: at(b)}
}

func TestCheck(t *testing.T) {
	const bound = time.Second
	for name, c := range map[string]struct {
		changes        []visibility.Change
		use            visibility.Use
		served, refuse bool // the check finds something
	}{
		"nothing changed":              {nil, use(true, 1, 2), false, false},
		"served within the bound":      {[]visibility.Change{change(false, 1, 2)}, use(true, 3, 4), false, false},
		"served after the bound":       {[]visibility.Change{change(false, 1, 2)}, use(true, 3.1, 4), true, false},
		"refused after the bound":      {[]visibility.Change{change(false, 1, 2)}, use(false, 3.1, 4), false, false},
		"disabling is not known":       {[]visibility.Change{change(false, 1, 0)}, use(true, 9, 9), false, false},
		"enabled since":                {[]visibility.Change{change(false, 1, 2), change(true, 5, 6)}, use(true, 9, 9), false, false},
		"perhaps enabled since":        {[]visibility.Change{change(false, 1, 2), change(true, 5, 0)}, use(true, 9, 9), false, false},
		"enabled meanwhile":            {[]visibility.Change{change(false, 1, 2), change(true, 1.5, 3)}, use(true, 9, 9), false, false},
		"enabled before":               {[]visibility.Change{change(true, 0, 1), change(false, 1, 2)}, use(true, 9, 9), true, false},
		"enabled after the use":        {[]visibility.Change{change(false, 1, 2), change(true, 9.5, 10)}, use(true, 9, 9.1), true, false},
		"refused after an enabling":    {[]visibility.Change{change(false, 1, 2), change(true, 3, 4)}, use(false, 5.1, 6), false, true},
		"refused soon after it":        {[]visibility.Change{change(false, 1, 2), change(true, 3, 4)}, use(false, 4.9, 6), false, false},
		"disabled again":               {[]visibility.Change{change(false, 1, 2), change(true, 3, 4), change(false, 4, 0)}, use(false, 9, 9), false, false},
		"another key":                  {[]visibility.Change{{Key: "other", Began: at(1), Acked: at(2)}}, use(true, 9, 9), false, false},
		"disabled twice, enabled once": {[]visibility.Change{change(false, 1, 2), change(true, 2, 3), change(false, 3, 4)}, use(true, 9, 9), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			var h visibility.History
			for _, one := range c.changes {
				h.Change(one)
			}
			h.Use(c.use)
			require.Equal(t, c.served, h.CheckServed(bound) != nil)
			require.Equal(t, c.refuse, h.CheckRefused(bound) != nil)
			require.Equal(t, 1, h.Len())
		})
	}
}
