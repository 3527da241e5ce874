// Package s3clients tests the gateway of examples/gateway with the clients that
// people have: aws-cli, boto3, the AWS SDK for JavaScript, minio-go, rclone, s3cmd
// and mc, over plain files and over another S3 server. After each client's run, it
// searches everything that the gateway has written for plaintext and customers' keys.
//
//	GOWORK=off go test -v .
//
// prints a table of what each client did, and of what a client cannot do and why. A
// test whose client is missing skips, and says how to get it. With BLOBSEAL_STRESS,
// clients that are commands do over S3 what they otherwise do over files alone.
package s3clients
