package blob_test

import "github.com/blobseal/blobseal/blob/internal/blobtest"

type spy = blobtest.Spy

var (
	modes         = blobtest.Modes
	stores        = blobtest.Stores
	newRing       = blobtest.NewRing
	newKMS        = blobtest.NewKMS
	newCustomer   = blobtest.NewCustomer
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
