package blob

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// ByPrefix returns a cipher that uses another cipher for each prefix of keys, such as
// one for each tenant:
//
//	cipher, err := blob.ByPrefix(map[string]sse.Cipher{"red/": red, "blue/": blue})
//
// An object opens only with the cipher of its key's prefix, and a copy is sealed for
// the prefix of its new key. If the key of one cipher is destroyed, the objects under
// its prefix are unreadable, and no others. A key under no prefix is
// [sse.ErrInvalid].
//
// Jobs that seal objects have one target: run them for each prefix, with the prefix
// in jobs.Filter. jobs.Retire trusts one ring, and so refuses to retire a version
// while the bucket has objects of another. ByPrefix returns ErrInvalid unless all
// ciphers have one mode and no prefix begins with another.
func ByPrefix(ciphers map[string]sse.Cipher) (sse.Cipher, error) {
	p := &byPrefix{ciphers: maps.Clone(ciphers)}
	last := ""
	for i, prefix := range slices.Sorted(maps.Keys(ciphers)) {
		cipher := ciphers[prefix]
		switch {
		case isNil(cipher):
			return nil, fmt.Errorf("%w: ByPrefix: no cipher for %q", sse.ErrInvalid, prefix)
		case i == 0:
			p.mode = cipher.Mode()
		case cipher.Mode() != p.mode:
			return nil, fmt.Errorf("%w: ByPrefix: ciphers of %v and %v", sse.ErrInvalid, p.mode, cipher.Mode())
		case strings.HasPrefix(prefix, last):
			return nil, fmt.Errorf("%w: ByPrefix: %q begins with %q", sse.ErrInvalid, prefix, last)
		}
		last = prefix
	}
	if len(ciphers) == 0 {
		return nil, fmt.Errorf("%w: ByPrefix: no cipher", sse.ErrInvalid)
	}
	return p, nil
}

type byPrefix struct {
	mode    sse.Mode
	ciphers map[string]sse.Cipher
}

// cipherOf returns the cipher of an object's key.
func (p *byPrefix) cipherOf(obj sse.Object) (sse.Cipher, error) {
	for prefix, cipher := range p.ciphers {
		if strings.HasPrefix(obj.Key, prefix) {
			return cipher, nil
		}
	}
	return nil, fmt.Errorf("%w: %q has none of the prefixes that have ciphers (add its prefix to ByPrefix; for a job, set Filter.Prefix)",
		sse.ErrInvalid, obj.Key)
}

// Mode implements [sse.Encrypter].
func (p *byPrefix) Mode() sse.Mode { return p.mode }

// Encrypt implements [sse.Encrypter].
func (p *byPrefix) Encrypt(ctx context.Context, obj sse.Object) (*sse.Encryption, error) {
	cipher, err := p.cipherOf(obj)
	if err != nil {
		return nil, err
	}
	return cipher.Encrypt(ctx, obj)
}

// Decrypt implements [sse.Decrypter].
func (p *byPrefix) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	cipher, err := p.cipherOf(obj)
	if err != nil {
		return nil, err
	}
	return cipher.Decrypt(ctx, obj, env)
}

// Rewrap implements [sse.Cipher].
func (p *byPrefix) Rewrap(ctx context.Context, obj sse.Object, d *sse.Decryption) (*sse.Envelope, error) {
	cipher, err := p.cipherOf(obj)
	if err != nil {
		return nil, err
	}
	return cipher.Rewrap(ctx, obj, d)
}
