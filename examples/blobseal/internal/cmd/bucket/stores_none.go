//go:build noclouds

package bucket

import (
	"context"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
)

const wantStores = "file:///DIR or mem:// (this build has no clouds)"

// conditions is empty: this build has no stores of clouds.
var conditions map[string]func(as func(any) bool, attrs *gcblob.Attributes) error

type s3Client struct{}

func silenceSDK(*gcblob.Bucket) *s3Client { return nil }

func (b *bucket) checkExclusive(context.Context, bool) error { return nil }

func copyParts(*blob.Options, *s3Client) {}
