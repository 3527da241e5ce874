package keys

import (
	"cmp"
	"context"
	"slices"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// Keys returns keys that seal under a key of the service, by default its default key.
// They open objects under that key only.
func (s *Service) Keys(key string, bucketKey bool) (*Keys, error) {
	return s.keys(key, &sse.KMSOptions{BucketKey: bucketKey})
}

func (s *Service) keys(key string, opts *sse.KMSOptions) (*Keys, error) {
	client := s.uses
	if opts.BucketKey { // otherwise each file gets its own data key
		client = s.cached
	}
	cipher, err := sse.NewKMS(client, cmp.Or(key, localkms.DefaultAlias), opts)
	if err != nil {
		return nil, s.About(key, err)
	}
	return &Keys{Cipher: cipher, Service: s, ServiceKey: key}, nil
}

// openKeys returns keys that open objects under the keys of source only, or under any
// key of the service.
func (s *Service) openKeys(ctx context.Context, source Source) (*Keys, error) {
	var accepted []string
	for _, key := range source.KMSKeys {
		arn, err := s.Resolve(ctx, key)
		if err != nil {
			return nil, s.About(key, err)
		}
		accepted = append(accepted, arn)
	}
	accept := func(keyID string) bool { return source.AnyKey || slices.Contains(accepted, keyID) }
	k, err := s.keys(source.sealingKey(), &sse.KMSOptions{BucketKey: source.BucketKey, Accept: accept})
	if err != nil {
		return nil, err
	}
	k.Cipher = opener{k.Cipher, accept, source.KMSKeys}
	k.Accepted = accepted
	return k, nil
}

// opener opens objects under accepted keys only.
type opener struct {
	sse.Cipher
	accept func(keyID string) bool
	keys   []string // the accepted keys, as the user wrote them
}

func (o opener) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	if env.Mode() == sse.ModeKMS && !o.accept(env.KeyID()) {
		return nil, &message.KeyNotAcceptedError{KeyID: env.KeyID(), Accepted: o.keys}
	}
	return o.Cipher.Decrypt(ctx, obj, env)
}
