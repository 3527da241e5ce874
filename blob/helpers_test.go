package blob_test

import (
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
)

type spy = blobtest.Spy

var (
	modes         = blobtest.Modes
	stores        = blobtest.Stores
	newRing       = blobtest.NewRing
	newKMS        = ssetest.NewKMS
	newCustomer   = ssetest.NewCustomer
	newMem        = blobtest.NewMem
	newFile       = blobtest.NewFile
	newBucket     = blobtest.NewBucket
	newBucketWith = blobtest.NewBucketWith
	newSpy        = blobtest.NewSpy
	content       = blobtest.Content
	readAll       = blobtest.ReadAll
	readRange     = blobtest.ReadRange
	with          = blobtest.With
)
