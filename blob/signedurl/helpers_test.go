package signedurl_test

import (
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
)

var (
	newRing       = blobtest.NewRing
	newCustomer   = ssetest.NewCustomer
	newMem        = blobtest.NewMem
	newFile       = blobtest.NewFile
	newBucket     = blobtest.NewBucket
	newBucketWith = blobtest.NewBucketWith
)
