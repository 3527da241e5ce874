//go:build noclouds

package kmsurl

import (
	"context"
	"fmt"
)

// Options are empty: this build has no clients of vendors' key services.
type Options struct{}

// Open refuses: this build has no clients of vendors' key services.
func (u *URL) Open(context.Context, *Options) (*Key, error) {
	return nil, fmt.Errorf("%s:// is not in this build, which has no clouds (install blobseal without the tag noclouds)", u.Scheme)
}
