package cache

import "time"

// SetNow replaces the cache's clock.
func (c *Client) SetNow(now func() time.Time) { c.now = now }

// Plaintexts returns the cache's own slices of plaintext, not copies.
func (c *Client) Plaintexts() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out [][]byte
	for _, e := range c.entries {
		out = append(out, e.plaintext.Bytes())
	}
	return out
}
