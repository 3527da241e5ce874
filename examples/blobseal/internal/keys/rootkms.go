package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/examples/blobseal/kmsurl"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// parseRootURL parses the URL of a root in a key service, without asking the service.
func parseRootURL(flag, text string) (*kmsurl.URL, error) {
	u, err := kmsurl.Parse(flag, text)
	if err != nil {
		return nil, message.Usagef("%v", err)
	}
	return u, nil
}

// openRootKey returns a root that is a key of a key service. It does not ask the service
// yet.
func openRootKey(ctx context.Context, c *console.Console, source RootSource) (tink.AEADWithContext, error) {
	u, err := parseRootURL(source.kmsFlag(), source.KMSKey)
	if err != nil {
		return nil, err
	}
	var client kms.Client
	var keyID string
	if u.Scheme == kmsurl.Local {
		if kms.PrincipalFrom(ctx) == (kms.Principal{}) {
			ctx = AsPrincipal(ctx, "")
		}
		client, keyID, err = localKey(ctx, c, u, source.serviceRoot())
	} else {
		client, keyID, err = vendorKey(ctx, c, u)
	}
	var root tink.AEADWithContext
	if err == nil {
		root, err = keyring.NewKMSRoot(client, keyID, &keyring.KMSRootOptions{Principal: kms.PrincipalFrom(ctx)})
	}
	if err != nil && !message.InWords(err) {
		err = message.Problemf(err, u.String(), "%s", message.Vendor(err))
	}
	return root, err
}

// localKey returns the client and the name of a key of a key service in a directory.
func localKey(ctx context.Context, c *console.Console, u *kmsurl.URL, root RootSource) (kms.Client, string, error) {
	s, err := OpenService(ctx, c, u.Key, root)
	if err != nil {
		return nil, "", err
	}
	c.AtEnd(s.Close)
	keyID := u.Param("key")
	if keyID == "" {
		keyID = localkms.DefaultAlias
	}
	client := &rootKey{client: s.uses, toWords: func(err error) message.Words {
		words := s.Words(keyID, err)
		words.Text = s.Dir + ": " + words.Text
		return words
	}}
	return client, keyID, nil
}

// vendorKey returns the client and the name of a key in a vendor's key service.
func vendorKey(ctx context.Context, c *console.Console, u *kmsurl.URL) (kms.Client, string, error) {
	key, err := u.Open(ctx, &c.Clouds)
	if err != nil {
		return nil, "", err
	}
	c.AtEnd(func() { key.Close() })
	client := &rootKey{client: key.Client, wait: c.RootWait, toWords: func(err error) message.Words {
		text := fmt.Sprintf("%s: %s", u, message.Service(err))
		if key.Hint != "" && errors.Is(err, kms.ErrDenied) {
			text += "; " + key.Hint
		}
		return message.Words{Text: text}
	}}
	return client, key.ID, nil
}

// rootKey is the client of a root. It bounds the wait, and puts errors into words.
type rootKey struct {
	client  kms.Client
	wait    time.Duration // 0 for no limit
	toWords func(error) message.Words
}

// GenerateDataKey implements [kms.Client].
func (k *rootKey) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	bounded, cancel := k.bound(ctx)
	defer cancel()
	key, err := k.client.GenerateDataKey(bounded, keyID, ec)
	return key, k.failed(ctx, err)
}

// Decrypt implements [kms.Client].
func (k *rootKey) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	bounded, cancel := k.bound(ctx)
	defer cancel()
	plaintext, err := k.client.Decrypt(bounded, keyID, ciphertext, ec)
	return plaintext, k.failed(ctx, err)
}

func (k *rootKey) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if k.wait == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, k.wait)
}

func (k *rootKey) failed(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) { // of wait
		err = &message.Refusal{Words: message.Words{Text: fmt.Sprintf("no answer within %v", k.wait)}, Err: kms.ErrUnavailable}
	}
	return &message.Refusal{Words: k.toWords(err), Err: err}
}
