// Package awskms uses the keys of AWS KMS.
//
//	config, err := config.LoadDefaultConfig(ctx)
//	...
//	client, err := awskms.New(kms.NewFromConfig(config), nil) // kms is the SDK's package
//	cipher, err := sse.NewKMS(client, "alias/photos", nil)
//
// The SDK's client decides on region, credentials, endpoint, time limits and
// retries. AWS sees only its credentials: the principal in ctx is for blobseal's own
// audit trail. If your principals have different permissions in AWS, give each one a
// client with its own credentials.
//
// # Keys
//
// Name a key by its ARN, its id, an alias or an alias ARN. Envelopes store the ARN
// that AWS answers with, never an alias.
//
// Decrypt always names the key, so AWS refuses a ciphertext of any other key, also of
// one in a foreign account that the credentials happen to have access to. A cipher
// with an alias opens the objects of the key that the alias means now. Before you
// move an alias, allow the old key in sse.KMSOptions.Accept, or its objects do not
// open.
//
// # Encryption context
//
// The encryption context becomes AWS's own: AWS binds it, CloudTrail shows it, and
// key policies and grants can test it. It must be UTF-8, or the error is
// [kms.ErrInvalid].
//
// # Permissions
//
// To write, a principal needs kms:GenerateDataKey on the key; to read, kms:Decrypt; to
// rewrap, both. This statement of a key policy lets a role read the objects of one
// bucket that were written with bucket keys:
//
//	{
//	  "Effect": "Allow",
//	  "Principal": {"AWS": "arn:aws:iam::111122223333:role/reader"},
//	  "Action": "kms:Decrypt",
//	  "Resource": "*",
//	  "Condition": {"StringEquals": {"kms:EncryptionContext:blobseal:object": "photos"}}
//	}
//
// AWS checks the permission on the key, also if an alias named it. A change of a
// policy or a key's state takes seconds to reach all of AWS.
//
// # Errors and retries
//
// Throttling, 5xx answers, failed connections and the SDK's own time limits are
// [kms.ErrUnavailable]. The SDK has retried these already, by default three times in
// all, so a loop of your own multiplies that. A key that is pending deletion or
// import, or whose key store is disconnected, is [kms.ErrPendingDeletion]. A key of
// another region is [kms.ErrNotFound]. Credentials that AWS rejects are
// [kms.ErrDenied]. The SDK's error is wrapped. A request that could not be sent, for
// example for lack of credentials, has no kind.
//
// ctx bounds a call with all its retries. The SDK's own limits are long, so pass a
// ctx with a deadline.
//
// # Cost
//
// Each call is a round trip, a billed request, and counts against the account's quota
// in the region. Package kms/cache reduces that to one call for each principal, key and
// context in five minutes. AWS cannot be asked for permission without a billed
// request, so the client is no [kms.Authorizer]: a cache serves a disabled key until its
// results expire.
//
// # Secrets
//
// The SDK and TLS do not erase their buffers, which hold data keys. The client
// never lets the SDK log response bodies, whatever its ClientLogMode is.
package awskms
