module github.com/blobseal/blobseal/internal/bench

go 1.26.0

require (
	filippo.io/age v1.3.2
	github.com/blobseal/blobseal v0.0.0
	github.com/minio/sio v0.4.1
	github.com/secure-io/sio-go v0.3.1
	github.com/tink-crypto/tink-go/v2 v2.9.0
	golang.org/x/crypto v0.58.0
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/gofrs/flock v0.13.2 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/blobseal/blobseal => ../../
