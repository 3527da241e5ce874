package keyringtest

import "time"

// WithPatience returns c with less time for watches, for stores that are known
// to let it pass.
func (c Capabilities) WithPatience(d time.Duration) Capabilities {
	c.patience = d
	return c
}
