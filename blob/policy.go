package blob

import "github.com/blobseal/blobseal/sse"

// Policy says what may be written to a bucket. It does not bear on reads: what
// was once allowed stays readable. The zero value allows SSE-S3 and SSE-KMS under
// any key, and no customer keys. Nothing allows unencrypted writes.
type Policy struct {
	// Modes are the modes that writes may use. Empty means SSE-S3 and SSE-KMS.
	// SSE-C must be named, or AllowCustomerKeys set.
	Modes []sse.Mode

	// KMSKeys are the key ids under which SSE-KMS writes may be, as the key
	// service resolves them: an alias is none. Empty means any.
	KMSKeys []string

	// AllowCustomerKeys allows writes in SSE-C, whatever Modes says.
	AllowCustomerKeys bool
}
