package main

import (
	"errors"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// service keeps files of several tenants in one bucket, each tenant's under a key of its
// own. A file's path is /TENANT/NAME.
type service struct {
	bucket string
	client *awss3.Client
	keys   kms.Client
}

// forTenant returns the client as a tenant's request sees it.
func (s *service) forTenant(tenant string) (*awss3.Client, error) {
	cipher, err := sse.NewKMS(s.keys, "alias/"+tenant, nil)
	if err != nil {
		return nil, err
	}
	return s.client.With(awss3.Request{Cipher: cipher, Context: kms.Context{"tenant": tenant}}), nil
}

// ServeHTTP serves PUT, and GET with ranges. A real service takes the tenant from its
// authentication.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tenant, key := r.PathValue("tenant"), r.PathValue("tenant")+"/"+r.PathValue("name")
	client, err := s.forTenant(tenant)
	if err == nil && r.Method == http.MethodPut {
		_, err = client.PutObject(r.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: r.Body})
	} else if err == nil {
		var file *awss3.Reader
		if file, err = client.Open(r.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: &key}); err == nil {
			http.ServeContent(w, r, key, *file.Output().LastModified, file) // which serves ranges
		}
	}
	switch {
	case errors.As(err, new(*types.NoSuchKey)):
		http.Error(w, "no such file", http.StatusNotFound)
	case errors.Is(err, kms.ErrDisabled), errors.Is(err, kms.ErrDenied), errors.Is(err, sse.ErrKey):
		http.Error(w, err.Error(), http.StatusForbidden)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
