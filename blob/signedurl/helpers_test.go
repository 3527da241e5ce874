package signedurl_test

import "github.com/blobseal/blobseal/blob/internal/blobtest"

var (
	newRing       = blobtest.NewRing
	newCustomer   = blobtest.NewCustomer
	newMem        = blobtest.NewMem
	newFile       = blobtest.NewFile
	newBucket     = blobtest.NewBucket
	newBucketWith = blobtest.NewBucketWith
)
