package localkms

import (
	"slices"

	"github.com/blobseal/blobseal/kms"
)

// The operations that a grant can give, besides [kms.OpGenerateDataKey] and
// [kms.OpDecrypt]. Operations have the names of AWS KMS in policies and audit records.
const (
	OpEncrypt                         kms.Operation = "Encrypt"
	OpGenerateDataKeyWithoutPlaintext kms.Operation = "GenerateDataKeyWithoutPlaintext"
	OpReEncryptFrom                   kms.Operation = "ReEncryptFrom" // ReEncrypt needs this and the next
	OpReEncryptTo                     kms.Operation = "ReEncryptTo"
	OpDescribeKey                     kms.Operation = "DescribeKey"
	OpRetireGrant                     kms.Operation = "RetireGrant"
)

// The operations, besides [OpRetireGrant], whose [kms.ErrNotFound] can mean that an alias
// or a grant is missing and not the key of the [kms.KeyError].
const (
	OpUpdateAlias kms.Operation = "UpdateAlias"
	OpRevokeGrant kms.Operation = "RevokeGrant"
)

const (
	// Views of a key.
	opGetKeyPolicy     kms.Operation = "GetKeyPolicy"
	opListGrants       kms.Operation = "ListGrants"
	opListKeyRotations kms.Operation = "ListKeyRotations"

	// Administration of a key.
	opEnableKey            kms.Operation = "EnableKey"
	opDisableKey           kms.Operation = "DisableKey"
	opScheduleKeyDeletion  kms.Operation = "ScheduleKeyDeletion"
	opCancelKeyDeletion    kms.Operation = "CancelKeyDeletion"
	opUpdateKeyDescription kms.Operation = "UpdateKeyDescription"
	opTagResource          kms.Operation = "TagResource"
	opUntagResource        kms.Operation = "UntagResource"
	opEnableKeyRotation    kms.Operation = "EnableKeyRotation"
	opDisableKeyRotation   kms.Operation = "DisableKeyRotation"
	opRotateKeyOnDemand    kms.Operation = "RotateKeyOnDemand"
	opPutKeyPolicy         kms.Operation = "PutKeyPolicy"
	opDeleteKeyPolicy      kms.Operation = "DeleteKeyPolicy"
	opCreateGrant          kms.Operation = "CreateGrant"
	opCreateAlias          kms.Operation = "CreateAlias"
	opDeleteAlias          kms.Operation = "DeleteAlias"

	// Of an account.
	opCreateKey   kms.Operation = "CreateKey"
	opListKeys    kms.Operation = "ListKeys"
	opListAliases kms.Operation = "ListAliases"

	// Maintenance of the service itself. Policies do not apply.
	opRotateKey kms.Operation = "RotateKey" // by schedule
	opDeleteKey kms.Operation = "DeleteKey" // after its deadline
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

	OpDescribeKey: groupView, opGetKeyPolicy: groupView, opListGrants: groupView, opListKeyRotations: groupView,
	opListKeys: groupView, opListAliases: groupView,

	opEnableKey: groupAdminister, opDisableKey: groupAdminister,
	opScheduleKeyDeletion: groupAdminister, opCancelKeyDeletion: groupAdminister,
	opUpdateKeyDescription: groupAdminister, opTagResource: groupAdminister, opUntagResource: groupAdminister,
	opEnableKeyRotation: groupAdminister, opDisableKeyRotation: groupAdminister, opRotateKeyOnDemand: groupAdminister,
	opPutKeyPolicy: groupAdminister, opDeleteKeyPolicy: groupAdminister,
	opCreateGrant: groupAdminister, OpRevokeGrant: groupAdminister, OpRetireGrant: groupAdminister,
	opCreateAlias: groupAdminister, OpUpdateAlias: groupAdminister, opDeleteAlias: groupAdminister,
	opCreateKey: groupAdminister,
}

// takesAway are the operations that only take power away. They may use the space
// that the document keeps free for them.
var takesAway = map[kms.Operation]bool{
	opDisableKey: true, opScheduleKeyDeletion: true, opDeleteKeyPolicy: true,
	OpRevokeGrant: true, OpRetireGrant: true,
}

// duringDeletion are the changes of a key that are possible while its deletion is pending.
var duringDeletion = map[kms.Operation]bool{
	opCancelKeyDeletion: true, OpRevokeGrant: true, OpRetireGrant: true, opDeleteAlias: true,
}

// grantable are the operations that a grant can give, in the order of the
// document's bits.
var grantable = [...]kms.Operation{
	kms.OpGenerateDataKey, OpGenerateDataKeyWithoutPlaintext, OpEncrypt, kms.OpDecrypt,
	OpReEncryptFrom, OpReEncryptTo, OpDescribeKey, OpRetireGrant,
}

// takesContext reports whether op is one that an encryption context goes with.
func takesContext(op kms.Operation) bool { return groups[op] == groupUse }

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
