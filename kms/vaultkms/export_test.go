package vaultkms

import "time"

// SetClock has c take the time from now.
func (c *Client) SetClock(now func() time.Time) { c.now = now }
