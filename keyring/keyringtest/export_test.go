package keyringtest

import "time"

// WithPatience returns c with less time for watches, for stores that are known to exceed it.
func (c Capabilities) WithPatience(d time.Duration) Capabilities {
	c.patience = d
	return c
}
