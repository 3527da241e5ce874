//go:build !noclouds

package bucket

import (
	"errors"
	"fmt"

	google "cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	azure "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	gcblob "gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/gcsblob"   // gs://
	_ "gocloud.dev/blob/s3blob"    // s3://

	"github.com/blobseal/blobseal/blob"
)

// wantStores names the URLs of buckets, for messages.
const wantStores = "file:///DIR, s3://NAME, gs://NAME, azblob://NAME or mem://"

// conditions make a store replace an object only if it is still the one that was read,
// by the scheme of the bucket's URL. In a directory, writers take turns by a lock.
var conditions = map[string]func(as func(any) bool, attrs *gcblob.Attributes) error{
	"s3": blob.IfMatch(func(in *transfermanager.UploadObjectInput, etag string) { in.IfMatch = &etag }),
	"azblob": blob.IfMatch(func(in *azblob.UploadStreamOptions, etag string) {
		match := azcore.ETag(etag)
		in.AccessConditions = &azblob.AccessConditions{ModifiedAccessConditions: &azure.ModifiedAccessConditions{IfMatch: &match}}
	}),
	"gs": ifGeneration,
}

// ifGeneration is the condition of Google's store, which counts an object's versions.
func ifGeneration(as func(any) bool, attrs *gcblob.Attributes) error {
	var read google.ObjectAttrs
	var object **google.ObjectHandle
	if !attrs.As(&read) || !as(&object) {
		return errors.New("the bucket's driver is not that of Google's store")
	}
	if read.Generation == 0 {
		return fmt.Errorf("%s: the store does not say which generation the object is", read.Name)
	}
	*object = (*object).If(google.Conditions{GenerationMatch: read.Generation})
	return nil
}
