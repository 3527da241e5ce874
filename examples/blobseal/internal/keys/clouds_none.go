//go:build noclouds

package keys

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/examples/blobseal/kmsurl"
	"github.com/blobseal/blobseal/kms"
)

// cloudKey refuses: this build has no clients of vendors' key services.
func cloudKey(_ context.Context, _ *console.Console, u *kmsurl.URL) (kms.Client, string, error) {
	return nil, "", message.Usagef("%s:// is not in this build, which has no clouds (install blobseal without the tag noclouds)", u.Scheme)
}
