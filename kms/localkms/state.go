package localkms

// State tells what a key may be used for.
type State string

// The states of a key.
const (
	Enabled         State = "enabled"          // usable
	Disabled        State = "disabled"         // kms.ErrDisabled until it is enabled again
	PendingDeletion State = "pending deletion" // kms.ErrPendingDeletion until it is deleted, or the deletion cancelled
)

// stateCodes are the states by their number in a document.
var stateCodes = []State{1: Enabled, 2: Disabled, 3: PendingDeletion}
