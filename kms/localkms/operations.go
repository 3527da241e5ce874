package localkms

import (
	"slices"

	"github.com/blobseal/blobseal/kms"
)

// The operations of a [Client] besides [kms.OpGenerateDataKey] and
// [kms.OpDecrypt], for policies, grants and audit records. The names are those of
// AWS KMS.
const (
	// Uses of a key.
	OpEncrypt                         kms.Operation = "Encrypt"
	OpGenerateDataKeyWithoutPlaintext kms.Operation = "GenerateDataKeyWithoutPlaintext"
	OpReEncryptFrom                   kms.Operation = "ReEncryptFrom" // ReEncrypt needs this and the next
	OpReEncryptTo                     kms.Operation = "ReEncryptTo"

	// Views of a key.
	OpDescribeKey      kms.Operation = "DescribeKey"
	OpGetKeyPolicy     kms.Operation = "GetKeyPolicy"
	OpListGrants       kms.Operation = "ListGrants"
	OpListKeyRotations kms.Operation = "ListKeyRotations"

	// Administration of a key.
	OpEnableKey            kms.Operation = "EnableKey"
	OpDisableKey           kms.Operation = "DisableKey"
	OpScheduleKeyDeletion  kms.Operation = "ScheduleKeyDeletion"
	OpCancelKeyDeletion    kms.Operation = "CancelKeyDeletion"
	OpUpdateKeyDescription kms.Operation = "UpdateKeyDescription"
	OpTagResource          kms.Operation = "TagResource"
	OpUntagResource        kms.Operation = "UntagResource"
	OpEnableKeyRotation    kms.Operation = "EnableKeyRotation"
	OpDisableKeyRotation   kms.Operation = "DisableKeyRotation"
	OpRotateKeyOnDemand    kms.Operation = "RotateKeyOnDemand"
	OpPutKeyPolicy         kms.Operation = "PutKeyPolicy"
	OpDeleteKeyPolicy      kms.Operation = "DeleteKeyPolicy"
	OpCreateGrant          kms.Operation = "CreateGrant"
	OpRevokeGrant          kms.Operation = "RevokeGrant"
	OpRetireGrant          kms.Operation = "RetireGrant"
	OpCreateAlias          kms.Operation = "CreateAlias"
	OpUpdateAlias          kms.Operation = "UpdateAlias"
	OpDeleteAlias          kms.Operation = "DeleteAlias"

	// Of an account.
	OpCreateKey   kms.Operation = "CreateKey"
	OpListKeys    kms.Operation = "ListKeys"
	OpListAliases kms.Operation = "ListAliases"
)

// Maintenance of the service itself, for audit records. Policies do not apply.
const (
	OpRotateKey kms.Operation = "RotateKey" // by schedule
	OpDeleteKey kms.Operation = "DeleteKey" // after its deadline
)

// Groups of operations, for policies: action in Action::"Use".
const (
	groupUse        = "Use"
	groupView       = "View"
	groupAdminister = "Administer"
)

// groups tells each operation's group.
var groups = map[kms.Operation]string{
	kms.OpGenerateDataKey: groupUse, kms.OpDecrypt: groupUse, OpEncrypt: groupUse,
	OpGenerateDataKeyWithoutPlaintext: groupUse, OpReEncryptFrom: groupUse, OpReEncryptTo: groupUse,

	OpDescribeKey: groupView, OpGetKeyPolicy: groupView, OpListGrants: groupView, OpListKeyRotations: groupView,
	OpListKeys: groupView, OpListAliases: groupView,

	OpEnableKey: groupAdminister, OpDisableKey: groupAdminister,
	OpScheduleKeyDeletion: groupAdminister, OpCancelKeyDeletion: groupAdminister,
	OpUpdateKeyDescription: groupAdminister, OpTagResource: groupAdminister, OpUntagResource: groupAdminister,
	OpEnableKeyRotation: groupAdminister, OpDisableKeyRotation: groupAdminister, OpRotateKeyOnDemand: groupAdminister,
	OpPutKeyPolicy: groupAdminister, OpDeleteKeyPolicy: groupAdminister,
	OpCreateGrant: groupAdminister, OpRevokeGrant: groupAdminister, OpRetireGrant: groupAdminister,
	OpCreateAlias: groupAdminister, OpUpdateAlias: groupAdminister, OpDeleteAlias: groupAdminister,
	OpCreateKey: groupAdminister,
}

// takesAway are the operations that only take power away. They may use the space
// that the document keeps free for them.
var takesAway = map[kms.Operation]bool{
	OpDisableKey: true, OpScheduleKeyDeletion: true, OpDeleteKeyPolicy: true,
	OpRevokeGrant: true, OpRetireGrant: true,
}

// duringDeletion are the changes of a key that are possible while its deletion is pending.
var duringDeletion = map[kms.Operation]bool{
	OpCancelKeyDeletion: true, OpRevokeGrant: true, OpRetireGrant: true, OpDeleteAlias: true,
}

// grantable are the operations that a grant can give, in the order of the
// document's bits.
var grantable = [...]kms.Operation{
	kms.OpGenerateDataKey, OpGenerateDataKeyWithoutPlaintext, OpEncrypt, kms.OpDecrypt,
	OpReEncryptFrom, OpReEncryptTo, OpDescribeKey, OpRetireGrant,
}

// hasContext reports whether op is one that an encryption context goes with.
func hasContext(op kms.Operation) bool { return groups[op] == groupUse }

// operationSet is a set of grantable operations: bit n is grantable[n].
type operationSet uint16

func (s operationSet) has(op kms.Operation) bool {
	i := slices.Index(grantable[:], op)
	return i >= 0 && s&(1<<i) != 0
}

func (s operationSet) list() []kms.Operation {
	var ops []kms.Operation
	for i, op := range grantable {
		if s&(1<<i) != 0 {
			ops = append(ops, op)
		}
	}
	return ops
}

func newOperationSet(ops []kms.Operation) (s operationSet, err error) {
	for _, op := range ops {
		i := slices.Index(grantable[:], op)
		if i < 0 {
			return 0, invalid("operation %q cannot be granted", shorten(string(op)))
		}
		s |= 1 << i
	}
	return s, nil
}
