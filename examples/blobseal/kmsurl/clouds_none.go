//go:build noclouds

package kmsurl

import (
	"context"
	"fmt"
)

const hasVendors = false // this build has no vendor's client

// Options are empty.
type Options struct{}

// Open refuses: [Parse] returns no URL of a vendor's.
func (u *URL) Open(context.Context, *Options) (*Key, error) {
	return nil, fmt.Errorf("%s:// is no vendor's key service", u.Scheme)
}
