// Package awskms is AWS KMS as a [kms.Client], over the SDK's own client:
//
//	config, err := config.LoadDefaultConfig(ctx)
//	...
//	client, err := awskms.New(kms.NewFromConfig(config), nil)
//	mode, err := sse.NewKMS(client, "alias/photos", nil)
//
// Region, credentials, endpoint, time limits and retries are those of the SDK's
// client. Who asks is whoever its credentials belong to: AWS knows nothing of the
// principal in ctx, which is for blobseal's own audit trail. Where principals have
// permissions of their own, give each a client with its credentials.
//
// # What is bound
//
// The encryption context goes to AWS KMS as its own encryption context: bound to
// the data key, shown by CloudTrail, and at hand in key policies and grants. It
// must be UTF-8; another one is [kms.ErrInvalid], since the wire would make two
// contexts one.
//
// Keys are named as AWS names them: by key ARN, key id, alias or alias ARN. What
// comes back is the key ARN, never an alias, and the ARN is what envelopes store.
// A cipher that was set up with an alias opens the objects of the key that the alias
// means now. Before you move an alias, allow the key that it leaves in
// sse.KMSOptions.Accept, or old objects do not open. An answer by another key than the one that was
// asked for is refused, and so is a data key that is not 256 bits long.
//
// Decrypt always names the key. AWS KMS then refuses a ciphertext of any other,
// also of one in somebody else's account, that the credentials happen to have
// permission for.
//
// # Permissions
//
// Writing and rewrapping need kms:GenerateDataKey on the key, reading and
// rewrapping need kms:Decrypt. A statement of a key policy for a service that
// reads the objects of one bucket, whose mode has bucket keys:
//
//	{
//	  "Effect": "Allow",
//	  "Principal": {"AWS": "arn:aws:iam::111122223333:role/reader"},
//	  "Action": "kms:Decrypt",
//	  "Resource": "*",
//	  "Condition": {"StringEquals": {"kms:EncryptionContext:blobseal:object": "photos"}}
//	}
//
// The permission is that on the key, also where an alias named it. A change of a
// policy or of a key's state takes AWS a while, seconds as a rule, to be seen
// everywhere.
//
// # Errors, retries and time limits
//
// Throttling, answers of 5xx, connections that fail, time limits of the SDK's
// client and answers that make no sense are [kms.ErrUnavailable]. The SDK has then
// tried again by itself already, three times in all by default, so a loop of the
// caller's own multiplies that. A disabled key is [kms.ErrDisabled]; one that is
// pending deletion or import, or whose key store is disconnected,
// [kms.ErrPendingDeletion]; a key that is gone or of another region
// [kms.ErrNotFound]; a refusal by policy, and credentials that AWS does not take,
// [kms.ErrDenied]. What the SDK returned is wrapped beside the kind. What it could
// not even send, for want of credentials or a region say, is passed on without one.
//
// ctx bounds the whole of a call, with all retries. Without a deadline in it the
// limits are the SDK's, and these are long: give it one.
//
// # Cost
//
// A call is one round trip and one billed request, and counts against the
// account's quota for cryptographic operations in the region: one for each object
// that is written or opened. [kms.NewCache] in front makes that one for each
// principal, key and context in five minutes. There is no [kms.Authorizer] here,
// for asking AWS whether it would allow a use costs as much as the use, so with a
// cache a disabled key goes on working for that long.
//
// # Secrets
//
// A data key passes through buffers of the SDK and of TLS, which nobody clears.
// The client's calls are never logged with the body of their responses, whatever
// the SDK's client is told to log.
package awskms
