// Package bloburl opens encrypted buckets by URL, as Go CDK opens others.
//
// Importing it registers blobseal+file, blobseal+mem, blobseal+s3, blobseal+gs and
// blobseal+azblob with [gcblob.DefaultURLMux]. It links none of their drivers: import
// those that you use.
//
//	import (
//		_ "github.com/blobseal/blobseal/blob/bloburl"
//		gcblob "gocloud.dev/blob"
//		_ "gocloud.dev/blob/s3blob"
//	)
//
//	bucket, err := gcblob.OpenBucket(ctx, "blobseal+s3://photos?region=eu-west-1&ring=/etc/photos.ring&root_key_file=/etc/root.key")
//
// What follows "blobseal+" is the URL of the store, with its own parameters. These are
// the parameters of this package. What a URL leaves out comes from an environment
// variable, such as BLOBSEAL_ROOT_KEY_FILE:
//
//   - name: the name that objects are bound to. By default the bucket in the URL, or the
//     last name in the path of a directory, or "mem". Never change it.
//   - ring: the file of a key ring, for SSE-S3.
//   - root_key_file, passphrase_file, root_kms_key: the ring's root. The last is the URL
//     of a key of a key service. The passphrase itself may be in BLOBSEAL_PASSPHRASE.
//   - kms_key: the URL of a key of a key service, for SSE-KMS. [RegisterKeyService] adds
//     services; package bloburl/localkms adds localkms.
//   - customer_key_file: the file of a customer key, for SSE-C.
//   - mode: SSE-S3, SSE-KMS or SSE-C, where the URL names keys for several modes. Writes
//     use this mode, and reads all of them.
//   - envelope_size, allow_plain: see [blob.Options].
//
// Keys in the URL hide all keys in the environment, and its root hides all roots there.
// Key files hold 32 bytes, raw or in hex or base64. A URL must not hold a secret, since
// URLs are logged: one that does is refused.
//
// The bucket refreshes and rotates its ring in the background until it is closed. Closing
// the bucket closes the store's bucket, too. Go CDK's prefix parameter gives a part of the
// bucket; its objects are bound to their whole keys.
//
// For other options of package blob, or a cipher of your own, register an [URLOpener]
// under a scheme of your own.
package bloburl
