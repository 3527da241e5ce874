package blob

import "gocloud.dev/blob/driver"

// Driver is what the embedded bucket stands on, for gocloud's conformance suite.
func Driver(b *Bucket) driver.Bucket { return &bucketDriver{b: b} }

// ErrNoSigner is the error of SignedURL without a signer.
var ErrNoSigner = errNoSigner
